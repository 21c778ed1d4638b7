"""A YAML file as a group of options: read, overridden from the command line, checked; every problem of it at once."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo

from pipeline.base import plugins
from pipeline.base import yaml_file as read
from pipeline.base.config import PLUGGED, SAME_KEYS, ReadAs
from pipeline.base.errors import ConfigError
from pipeline.base.other_names import our_name

Group = TypeVar("Group", bound=BaseModel)


def load(
    group: type[Group],
    path: Path,
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    what: str = "the configuration",
) -> Group:
    """Read a file and apply overrides such as ``sample.n=4``; a dot reaches into a group, values are read as YAML.

    ``defaults`` are values of keys that the file leaves out; ``what`` is what errors call the file.

    Raises:
        ConfigError: listing every problem found.
    """
    try:
        values = read.file(path)
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}", "check the path") from error
    except read.BadYaml as error:
        raise ConfigError(f"{path} is not valid YAML: {error}", "correct the line it names") from error
    if not isinstance(values, dict | None):
        what_it_is = "text" if isinstance(values, str) else type(values).__name__
        raise ConfigError(f"{path} holds a {what_it_is}", "write one `key: value` per line")
    return overridden(group, {**(defaults or {}), **(values or {})}, overrides, what)


def overridden(
    group: type[Group], values: Mapping[str, Any], overrides: Sequence[str], what: str = "the configuration"
) -> Group:
    """A plain mapping with overrides as those of ``load``, checked and frozen.

    Raises:
        ConfigError: listing every problem found.
    """
    problems: list[str] = []
    changed = dict(values)
    for override in overrides:
        try:
            changed = _override(group, changed, override)
        except ConfigError as error:
            problems.append(error.message)
    return make(group, changed, problems, what)


def make(
    group: type[Group], values: Mapping[str, Any], problems: Sequence[str] = (), what: str = "the configuration"
) -> Group:
    """Check a plain mapping and freeze it; ``problems`` found earlier are reported along.

    Raises:
        ConfigError: listing every problem found.
    """
    lines = [*problems, *_unknown_keys(group, values), *read.secret_keys(values)]
    try:
        made = group.model_validate(dict(values))
    except ValidationError as error:
        lines += _problems(group, [item for item in error.errors() if item["type"] != "extra_forbidden"])
        raise _config_error(lines, what) from error
    if lines:
        raise _config_error(lines, what)
    return made


def groups(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """The groups that a field may hold, by their ``kind``; the only one of a field without kinds by ``""``."""
    marked = [mark.group for mark in field.metadata if isinstance(mark, ReadAs)]
    return dict(_groups(marked[0] if marked else field.annotation))


def _groups(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
        return
    inner = get_args(annotation)
    tags = [mark.tag for mark in inner if isinstance(mark, Tag)] if get_origin(annotation) is Annotated else []
    if get_origin(annotation) not in (dict, list, tuple):
        for part in inner:
            yield from ((tags[0] if tags else tag, group) for tag, group in _groups(part))


def _config_error(problems: Sequence[str], what: str) -> ConfigError:
    different = list(dict.fromkeys(problems))
    lines = read.bullets(different)
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError("\n".join([f"{what} has {len(different)} problems:", *(f"  - {line}" for line in lines)]))


def _override(group: type[BaseModel], values: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override {read.excerpt(override)} is not of the form KEY=VALUE, for instance seed=1")
    try:
        value = read.text(text)
    except read.BadYaml as error:
        shown = read.excerpt(text, key.strip())
        raise ConfigError(f"{read.name(key)}: the value {shown} is not valid YAML ({error}); quote it") from error
    return _replace(group, values, parts, value, key)


def _replace(
    group: type[BaseModel] | None, values: dict[str, Any], parts: Sequence[str], value: Any, key: str
) -> dict[str, Any]:
    if len(parts) == 1:
        return {**values, parts[0]: value}
    inner = values.get(parts[0])
    if inner is not None and not isinstance(inner, dict):
        at = read.name(key.strip().removesuffix(f".{'.'.join(parts[1:])}"))
        shown = read.excerpt(inner, parts[0])
        raise ConfigError(f"{read.name(key)}: {at} is {shown}, not a group; write {at}=... instead")
    field = _fields(group).get(parts[0]) if group is not None else None
    rest = _names(field, parts[1:]) if field is not None else parts[1:]
    below = _member(groups(field), inner or {}) if field is not None else None
    return {**values, parts[0]: _replace(below, inner or {}, rest, value, key)}


def _names(field: FieldInfo, parts: Sequence[str]) -> Sequence[str]:
    """The rest of a key where names with dots stand: pair.weights.objects.recall=2, pair.vetoes.clip.cosine.below=0."""
    if get_origin(field.annotation) is not dict or (of := get_args(field.annotation)[1]) is Any:
        return parts
    a_group = get_origin(of) is dict or (isinstance(of, type) and issubclass(of, BaseModel))
    if not a_group:
        return [".".join(parts)]
    return parts if len(parts) < 2 else [".".join(parts[:-1]), parts[-1]]


def _fields(group: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in group.model_fields.items()}


def _member(members: Mapping[str, type[BaseModel]], values: Mapping[str, Any]) -> type[BaseModel] | None:
    """Which of the groups of a field ``values`` is meant for; the first one where ``kind`` is left out."""
    if len(members) > 1 and "kind" in values:
        return members.get(str(values["kind"]))
    return next(iter(members.values()), None)


def _unknown_keys(group: type[BaseModel], values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    fields = _fields(group)
    for key, value in values.items():
        if key in fields:
            if isinstance(value, Mapping) and (below := _member(groups(fields[key]), value)):
                yield from _unknown_keys(below, value, f"{prefix}{key}.")
            if SAME_KEYS in fields[key].metadata and isinstance(value, list | tuple):
                for i, entry in enumerate(value):
                    if isinstance(entry, Mapping):
                        yield from _unknown_keys(group, entry, f"{prefix}{key}[{i}].")
            continue
        named = read.name(key)
        elsewhere = getattr(group, "elsewhere", {}).get(key)
        ours = our_name(named, fields)
        keys = [ours] if ours else _inside(group, named) or difflib.get_close_matches(named, fields, n=1)
        meant = " or ".join(f"{prefix}{name}" for name in keys)
        remedy = elsewhere or (f"did you mean {meant}?" if meant else f"known keys: {', '.join(fields)}")
        yield f"{prefix}{named}: unknown key (value {read.excerpt(value, named)}); {remedy}"


def _inside(group: type[BaseModel], name: str) -> list[str]:
    """The keys of the groups inside that are called so, here or by another tool; those that lie least deep."""
    for level in _levels(group):
        keys = [f"{prefix}{key}" for prefix, at in level if (key := name if name in at else our_name(name, at))]
        if keys:
            return list(dict.fromkeys(keys))[:3]
    return []


@cache
def _levels(group: type[BaseModel]) -> list[list[tuple[str, dict[str, FieldInfo]]]]:
    """The fields of the groups inside, each with where it lies, level by level; once, however many keys are unknown."""
    level, levels = [("", group)], []
    while level := [
        (f"{prefix}{key}.", member)
        for prefix, outer in level
        for key, field in _fields(outer).items()
        for member in groups(field).values()
    ]:
        levels.append([(prefix, _fields(member)) for prefix, member in level])
    return levels


def _problems(group: type[BaseModel], items: Sequence[Any]) -> Iterator[str]:
    """A line for each of pydantic's errors, and one for all that a value of several types could be and is not."""
    tried: dict[str, list[tuple[int, str]]] = {}
    for item in items:
        keys, alternative = _keys(group, item["loc"])
        line = _problem(".".join(keys), item)
        if alternative is None:
            yield line
        else:
            tried.setdefault(alternative, []).append((len(keys), line))
    for errors in tried.values():
        # The type that the value nearly has is the one with an error inside of it.
        depth = max(depth for depth, _ in errors)
        first, *others = [line for at, line in errors if at == depth]
        yield "; or ".join([first, *(line.partition(": ")[2] for line in others)])


def _problem(key: str, item: Any) -> str:
    """Key, what is wrong, value."""
    if item["type"] == "missing":
        return f"{key}: missing; add it to the file, or {key}=... to the command line"
    if item["type"] == "union_tag_invalid":
        kind, kinds = item["ctx"]["tag"], item["ctx"]["expected_tags"].replace("'", "").split(", ")
        remedy = f"use one of {', '.join(kinds)}"
        if PLUGGED in kinds:  # entry points are called as the key is: sources, engines
            offered = plugins.offers(f"{key.rpartition('.')[2]}s")
            remedy = plugins.remedy(kind, [*(name for name in kinds if name != PLUGGED), *offered])
        return f"{key}.kind: unknown (value {read.excerpt(kind)}); {remedy}"
    if item["type"] == "value_error":  # a rule between keys names them itself
        message = item["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    return f"{key}: {read.expectation(item)} (value {read.excerpt(item['input'], key)})"


def _keys(group: type[BaseModel] | None, loc: Sequence[Any]) -> tuple[list[str], str | None]:
    """``loc`` as it is written in a file, without what pydantic calls the members of a union; and the key whose value
    may be of several types, if it leads through one."""
    keys: list[str] = []
    members: Mapping[str, type[BaseModel]] = {}
    several, alternative = False, None
    for part in loc:
        if part in members and (len(members) > 1 or part):
            group, members = members[part], {}
            continue
        if several and isinstance(part, str):
            several, alternative = False, ".".join(keys)
            continue
        keys.append(read.name(part))
        field = _fields(group).get(part) if group is not None else None
        members = groups(field) if field is not None else {}
        several = field is not None and not members and _alternatives(field.annotation) > 1
        group = next(iter(members.values()), None)
    return keys, alternative


def _alternatives(annotation: Any) -> int:
    union = get_origin(annotation) in (Union, types.UnionType)
    return sum(part is not types.NoneType for part in get_args(annotation)) if union else 1
