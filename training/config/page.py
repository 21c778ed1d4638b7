"""The page of all options, as Markdown, from their JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from training.config.json_schema import Node, recipe_schema, trainer_schema

_BEFORE = """# Every option

Written by `python -m training.config` from the fields of the code: change it there.

A recipe is a YAML file for `python -m pipeline.run FILE`; its groups are the headings below. Any key can be set on the
command line: `sample.n=4`, `train=null`, `pair.weights.clip.cosine=2`. A dot reaches into a group, what is behind `=`
is read as YAML, and the last one counts. Misspelt keys, values of another type and rules between keys are reported all
at once, before anything runs.

An editor that knows JSON Schema completes and checks a recipe with this line at its top (a path to the file in this
repository); names that installed packages offer are unknown to it:

```yaml
# yaml-language-server: $schema=../vlm-preference/pipeline/recipe.schema.json
```

The default of a group is what the defaults of its keys make. An option with † changes how a step runs and not what
comes out of it: with another value, what is finished stays finished. All others are part of the fingerprint of their
stage, or of the trained model's.
"""
_TRAINER = """
## A file for `python -m training.run`

It trains on any dataset of pairs. The keys of [`train`](#train) are at the top of the file, and these:

"""
#: Bounds that are no news to anybody.
_LARGE = 2**31 - 1
Places = dict[tuple[str, ...], list[str]]


def page() -> str:
    """Every group of a recipe as a table, in the order of the recipe, with links between them."""
    schema = recipe_schema()
    groups: Mapping[str, Node] = schema["$defs"]
    places: Places = {}
    order: list[str] = []
    _find(schema, groups, "", places, order)
    # A group of several places is at the one that is the least deep.
    places = {names: sorted(there, key=lambda place: place.count(".")) for names, there in places.items()}
    places = dict(sorted(places.items(), key=lambda item: order.index(item[1][0])))
    links = {names: anchor(_title(there[0])) for names, there in places.items()}
    parts = [_BEFORE, "\n## The recipe\n\n", _table(schema, links)]
    for names, there in places.items():
        level = "#" * min(3, 2 + there[0].count("."))
        parts.append(f"\n{level} {_title(there[0])}\n\n")
        if len(there) > 1:
            parts.append(f"Also {', '.join(f'`{place}`' for place in there[1:])}.\n\n")
        if len(names) == 1:
            parts += _group(groups[names[0]], links, ())
        else:
            parts += _kinds(there[0], [groups[name] for name in names], f"{level}#", links)
    trainer, options = trainer_schema(), groups["TrainOptions"]["properties"]
    same = [key for key, node in trainer["properties"].items() if node == options.get(key)]
    return "".join([*parts, _TRAINER, _table(trainer, links, same)])


def anchor(title: str) -> str:
    """What GitHub makes of a heading.

    >>> anchor("`sample.engine`, kind `vllm`")
    'sampleengine-kind-vllm'
    """
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _find(group: Node, groups: Mapping[str, Node], prefix: str, places: Places, order: list[str]) -> None:
    """Where in a recipe groups lie: those of one key, by their names -> the keys; and all keys in ``order``."""
    for key, node in group["properties"].items():
        of_names = "additionalProperties" in node
        place = f"{prefix}{key}.NAME" if of_names else f"{prefix}{key}"
        order.append(place)
        names = tuple(_references(node["additionalProperties"] if of_names else node))
        if names in places:
            places[names] += [place] if place not in places[names] else []
        elif names:
            places[names] = [place]
            for name in names:
                _find(groups[name], groups, f"{place}.", places, order)


def _references(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "$ref" in node:
            yield node["$ref"].rpartition("/")[2]
        for member in node.get("anyOf", ()):
            yield from _references(member)


def _title(place: str, kind: str = "") -> str:
    return f"`{place}`{f', kind {kind}' if kind else ''}"


def _group(group: Node, links: Mapping[tuple[str, ...], str], without: Collection[str]) -> list[str]:
    about = [f"{group['description']}\n"] if "description" in group else []
    table = _table(group, links, without)
    return [*about, *(["\n", table] if table else [])]


def _kinds(place: str, kinds: Sequence[Node], level: str, links: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """What all kinds take once, then each with what is its own."""
    first = kinds[0]["properties"]
    common = [key for key in first if all(kind["properties"].get(key) == first[key] for kind in kinds)]
    yield "By its `kind`:\n\n"
    for kind in kinds:
        node = kind["properties"]["kind"]
        name = _kind(node)
        usual = " (the default)" if "default" in node else ""
        yield f"- [{name}](#{anchor(_title(place, name))}): {node['description']}{usual}\n"
    if common:
        yield f"\nWhatever the kind:\n\n{_table({**kinds[0], 'required': []}, links, set(first) - set(common))}"
    for kind in kinds:
        yield f"\n{level} {_title(place, _kind(kind['properties']['kind']))}\n\n"
        yield from _group(kind, links, ("kind", *common))


def _kind(node: Node) -> str:
    return ", ".join(f"`{value}`" for value in node.get("enum") or node.get("examples") or [node["const"]])


def _table(group: Node, links: Mapping[tuple[str, ...], str], without: Collection[str] = ()) -> str:
    rows = [_row(key, node, group, links) for key, node in group["properties"].items() if key not in without]
    return "".join(["| key | value | default | what it is |\n|---|---|---|---|\n", *rows]) if rows else ""


def _row(key: str, node: Node, group: Node, links: Mapping[tuple[str, ...], str]) -> str:
    mark = " †" if node.get("changes_result") is False else ""
    cells = [f"`{key}`{mark}", _value(node, links), _default(key, node, group), node["description"]]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _default(key: str, node: Node, group: Node) -> str:
    if key in group.get("required", ()):
        return "required"
    # Without one, the description says which, or the group has those of its keys.
    return f"`{json.dumps(node['default'], ensure_ascii=False)}`" if "default" in node else ""


def _value(node: Node, links: Mapping[tuple[str, ...], str]) -> str:
    if names := tuple(_references(node)):
        nothing = " or null" if {"type": "null"} in node.get("anyOf", ()) else ""
        return f"[group](#{links[names]}){nothing}"
    if "anyOf" in node:
        return " or ".join(_value(member, links) for member in node["anyOf"])
    if "enum" in node or "const" in node:
        return ", ".join(f"`{json.dumps(value)}`".replace('"', "") for value in node.get("enum", [node.get("const")]))
    match node.get("type"):
        case "array":
            inner = node.get("prefixItems")
            items = [_value(item, links) for item in inner] if inner else [_value(node.get("items", {}), links)]
            return f"[{', '.join(items)}]" if inner else f"list of {items[0]}"
        case "object":
            of = node.get("additionalProperties")
            if names := tuple(_references(of)):
                return f"name: [group](#{links[names]})"
            return f"name: {_value(of, links)}" if isinstance(of, dict) else "group"
        case "integer" | "number" as kind:
            return ("whole number" if kind == "integer" else "number") + _bounds(node)
        case "boolean":
            return "`true`, `false`"
        case "null":
            return "null"
        case _:
            if node.get("pattern") == ":":
                return "a path such as [`mylab.module:Name`](extending.md)"
            return "path" if node.get("format") == "path" else "text"


def _bounds(node: Node) -> str:
    """
    >>> _bounds({"minimum": 0, "exclusiveMaximum": 1})
    ', ≥ 0, < 1'
    """
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {node[key]}" for key, sign in signs.items() if key in node and node[key] < _LARGE]
    bounds += [f"a multiple of {node['multipleOf']}"] if "multipleOf" in node else []
    return "".join(f", {bound}" for bound in bounds)
