"""Read a training configuration: a YAML file with overrides, or a mapping; every problem of it at once."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pipeline.base import yaml_file as read
from training.config import TrainConfig
from training.errors import ConfigError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply ``key=value`` overrides; a dot reaches into a group (``lora.r=8``).

    Values are read as YAML, so ``max_steps=null`` and ``corruption.keep_area=[0.01,0.1]`` work.
    Raises ``ConfigError`` listing every problem found.
    """
    source = Path(path)
    try:
        values = read.file(source)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {source}: {error.strerror}; check the path") from error
    except read.BadYaml as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source} holds a {type(values).__name__}; write one `key: value` per line")
    for override in overrides:
        values = _override(values, override)
    return make_config(values)


def make_config(values: Mapping[str, Any]) -> TrainConfig:
    """Check a plain mapping and freeze it; raises ``ConfigError`` listing every problem found."""
    problems = [*_unknown_keys(TrainConfig, values), *read.secrets(values)]
    try:
        config = TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        problems += [_explain(item) for item in error.errors() if item["type"] != "extra_forbidden"]
        raise _config_error(problems) from error
    if problems:
        raise _config_error(problems)
    return config


def _config_error(problems: Sequence[str]) -> ConfigError:
    lines = read.listed(list(dict.fromkeys(problems)))
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError("\n".join(["the configuration is wrong:", *(f"  - {line}" for line in lines)]))


def _override(values: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        said = read.shown(override)
        raise ConfigError(f"override {said} is not of the form KEY=VALUE, for instance learning_rate=5e-6")
    try:
        value = read.text(text)
    except read.BadYaml as error:
        said = read.shown(text, key.strip())
        raise ConfigError(f"{read.name(key)}: the value {said} is not valid YAML ({error}); quote it") from error
    return _with(values, parts, value, key)


def _with(values: dict[str, Any], parts: Sequence[str], value: Any, key: str) -> dict[str, Any]:
    if len(parts) == 1:
        return {**values, parts[0]: value}
    inner = values.get(parts[0])
    if inner is not None and not isinstance(inner, dict):
        at = read.name(parts[0])
        said = read.shown(inner, parts[0])
        raise ConfigError(f"{read.name(key)}: {at} is {said}, not a group; write {at}=... instead")
    return {**values, parts[0]: _with(inner or {}, parts[1:], value, key)}


def _group(annotation: Any) -> type[BaseModel] | None:
    """The configuration group behind a field's annotation, if it is one (also within ``X | None``)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for arg in get_args(annotation) if (found := _group(arg)) is not None), None)
    return None


def _unknown_keys(model: type[BaseModel], values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    fields = model.model_fields
    for key, value in values.items():
        if key in fields:
            group = _group(fields[key].annotation)
            if group is not None and isinstance(value, Mapping):
                yield from _unknown_keys(group, value, f"{prefix}{key}.")
            continue
        named = read.name(key)
        close = difflib.get_close_matches(named, fields, n=1)
        remedy = f"did you mean {prefix}{close[0]}?" if close else f"known keys: {', '.join(fields)}"
        yield f"{prefix}{named}: unknown key (value {read.shown(value, named)}); {remedy}"


def _explain(item: Any) -> str:
    """One line for one pydantic error: key, what is wrong, value."""
    key = ".".join(read.name(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"{key}: missing; add `{key}: ...` to the file or {key}=... to the command line"
    if not key:  # a rule between keys names them itself
        return str(item["msg"]).removeprefix("Value error, ")
    return f"{key}: {read.expected(item)} (value {read.shown(item['input'], key)})"
