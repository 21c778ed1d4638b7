"""Read a recipe: a built-in name or a YAML file, with overrides; every problem of it at once."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from pipeline.base import yaml_file as read
from pipeline.base.errors import ConfigError
from pipeline.recipe.recipe import Recipe
from pipeline.sampling.config import Engine, Noise, Sample
from pipeline.sources.imagine.config import Generator, Instruct
from pipeline.sources.kinds import Source

#: The keys whose groups are told apart by ``kind``.
_UNIONS = ("source", "engine", "noise", "generator", "instruct")
RECIPES = Path(__file__).parents[1] / "recipes"


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a built-in recipe or a YAML file and apply overrides such as ``sample.n=4`` (values are read as YAML).

    Raises:
        ConfigError: listing every problem found.
    """
    path = _find(str(name_or_path))
    try:
        values = read.file(path)
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}", "check the path") from error
    except read.BadYaml as error:
        raise ConfigError(f"{path} is not valid YAML: {error}", "correct the line it names") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no keys", "write one `key: value` per line; see pipeline/recipes/")
    values.setdefault("name", path.stem)
    problems: list[str] = []
    for override in overrides:
        try:
            values = _override(values, override)
        except ConfigError as error:
            problems.append(error.message)
    return make_recipe(values, problems)


def make_recipe(values: Mapping[str, Any], problems: Sequence[str] = ()) -> Recipe:
    """Check a plain mapping and freeze it; ``problems`` found earlier are reported along."""
    found = [*problems, *_unknown_keys(Recipe, values), *read.secrets(values)]
    try:
        recipe = Recipe.model_validate(dict(values))
    except ValidationError as error:
        found += [_explain(item) for item in error.errors() if item["type"] != "extra_forbidden"]
        raise _config_error(found) from error
    if found:
        raise _config_error(found)
    return recipe


def built_in() -> list[str]:
    """The names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def _config_error(problems: Sequence[str]) -> ConfigError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = read.listed(list(dict.fromkeys(problems)))
    return ConfigError(f"the recipe has {count}:\n" + "\n".join(f"  - {line}" for line in lines))


def _find(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    shipped = RECIPES / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ConfigError(f"no recipe file {name!r}", f"check the path, or name one of {', '.join(built_in())}")
    close = difflib.get_close_matches(name, built_in(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(f"no recipe {name!r}", f"{hint}Built in: {', '.join(built_in())}; or give a YAML file")


def _override(values: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"override {read.shown(override)} is not of the form KEY=VALUE, for instance sample.n=4")
    try:
        value = read.text(text)
    except read.BadYaml as error:
        said = read.shown(text, key.strip())
        raise ConfigError(f"{read.name(key)}: the value {said} is not valid YAML ({error}); quote it") from error
    return _with(values, key.strip().split("."), value, key)


def _with(values: dict[str, Any], parts: Sequence[str], value: Any, key: str) -> dict[str, Any]:
    if len(parts) == 1:
        return {**values, parts[0]: value}
    if parts[0] == "weights":  # score names hold dots themselves: pair.weights.objects.recall=2
        return {**values, "weights": {**(values.get("weights") or {}), ".".join(parts[1:]): value}}
    if parts[0] == "vetoes" and len(parts) > 2:  # pair.vetoes.objects.hallucinated.above=0
        vetoes, name = values.get("vetoes") or {}, ".".join(parts[1:-1])
        return {**values, "vetoes": {**vetoes, name: {**(vetoes.get(name) or {}), parts[-1]: value}}}
    inner = values.get(parts[0])
    if inner is not None and not isinstance(inner, dict):
        at = read.name(parts[0])
        said = read.shown(inner, parts[0])
        raise ConfigError(f"{read.name(key)}: {at} is {said}, not a group; write {at}=... instead")
    return {**values, parts[0]: _with(inner or {}, parts[1:], value, key)}


def _groups(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The configuration groups behind a field's annotation: one, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return tuple(group for arg in get_args(annotation) for group in _groups(arg))
    return ()


def _unknown_keys(model: type[BaseModel], values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in values.items():
        if key in fields:
            if isinstance(value, Mapping) and (group := _member(_groups(fields[key].annotation), value)):
                yield from _unknown_keys(group, value, f"{prefix}{key}.")
            if model is Sample and key == "models" and isinstance(value, list | tuple):
                # Each entry has the keys of the group that holds the list.
                for i, entry in enumerate(one for one in value if isinstance(one, Mapping)):
                    yield from _unknown_keys(Sample, entry, f"{prefix}models[{i}].")
            continue
        named = read.name(key)
        close = difflib.get_close_matches(named, fields, n=1)
        remedy = f"did you mean {prefix}{close[0]}?" if close else f"known keys: {', '.join(fields)}"
        yield f"{prefix}{named}: unknown key (value {read.shown(value, named)}); {remedy}"


def _tags(union: Any) -> Iterator[str]:
    """The values of ``kind`` that tell the members of a union apart."""
    for member in get_args(get_args(union)[0]):
        yield from (mark.tag for mark in get_args(member) if isinstance(mark, Tag))


def _member(groups: Sequence[type[BaseModel]], values: Mapping[str, Any]) -> type[BaseModel] | None:
    """Which group of a union ``values`` is meant for; the first one where ``kind`` is left out."""
    kind = values.get("kind")
    if len(groups) < 2 or kind is None:
        return groups[0] if groups else None
    return next((group for group in groups if kind in get_args(group.model_fields["kind"].annotation)), None)


def _explain(item: Any) -> str:
    """One line for one pydantic error: key, what is wrong, value."""
    tags = {tag for union in (Source, Engine, Noise, Generator, Instruct) for tag in _tags(union)}
    loc = [read.name(part) for part in item["loc"]]
    # pydantic adds the union's tag to the path ("source.scenes.scenes"); nobody writes it in a recipe.
    parts = [part for i, part in enumerate(loc) if not (part in tags and i and loc[i - 1] in _UNIONS)]
    key = ".".join(parts)
    if item["type"] == "missing":
        return f"{key}: missing; add it to the recipe or {key}=... to the command line"
    if item["type"] == "union_tag_invalid":
        kinds = item["ctx"]["expected_tags"].replace("'", "")
        return f"{key}.kind: unknown (value {read.shown(item['ctx']['tag'])}); use one of {kinds}"
    if item["type"] == "value_error":  # a rule between keys names them itself
        message = item["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    return f"{key}: {read.expected(item)} (value {read.shown(item['input'], key)})"
