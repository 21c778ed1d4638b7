"""Other people's code in a recipe: by a dotted path, ``mylab.brevity:Brevity``, or by the name of an entry point.

A package offers a name for its code in its own ``pyproject.toml``::

    [project.entry-points."vlm_preference.scorers"]
    brevity = "mylab.brevity:Brevity"

What is found is a frozen dataclass; its fields are its options, and a recipe gives them by name. Its module is imported
where the recipe is read, so what is heavy is imported where it is used.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import pkgutil
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.base.errors import ConfigError

GROUP = "vlm_preference"


def offered(kind: str) -> dict[str, EntryPoint]:
    """The entry points of the installed packages, by name. ``kind`` is ``scorers``, ``policies``, ..."""
    return {point.name: point for point in entry_points(group=f"{GROUP}.{kind}")}


def find(kind: str, name: str, built_in: Collection[str] = ()) -> Any:
    """The object that ``name`` stands for, which is none of ours.

    Raises:
        ConfigError: nobody has it, or it cannot be imported.
    """
    if ":" in name:
        return _at(name)
    points = offered(kind)
    if name in points:
        return _at(points[name].value)
    known = sorted({*built_in, *points})
    remedy = f"use one of {', '.join(known)}, or a path such as mylab.module:Name"
    raise ConfigError(f"{name!r} is none of the {kind}", _meant(name, known) or remedy)


def make(found: Any, options: Mapping[str, Any], name: str) -> Any:
    """An instance of the dataclass ``found`` with these options.

    Raises:
        ConfigError: it is no frozen dataclass, or an option is unknown, missing or of another type.
    """
    if not (isinstance(found, type) and dataclasses.is_dataclass(found) and found.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise ConfigError(f"{name} is no frozen dataclass", "put @dataclass(frozen=True) above the class")
    fields = [field.name for field in dataclasses.fields(found) if field.init]
    for key in options:
        if key not in fields:
            remedy = _meant(key, fields) or (f"it has {', '.join(fields)}" if fields else "it has none")
            raise ConfigError(f"{name} has no option {key!r}", remedy)
    try:
        return TypeAdapter(found).validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{name}: option {key}: {first['msg']}", "correct it in the recipe") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {error}", "correct its options in the recipe") from error


def identity(made: Any, name: str) -> str:
    """What a fingerprint says of it: where it is from, its own ``version`` and its options.

    Raises:
        ConfigError: it has no version.
    """
    version = getattr(made, "version", None)
    if not isinstance(version, str | int) or not str(version):
        raise ConfigError(
            f"{name} has no version", 'give the class version: ClassVar[str] = "1", and raise it with the code'
        )
    return f"{name}@{version} {json.dumps(dataclasses.asdict(made), sort_keys=True, default=str)}"


def _at(path: str) -> Any:
    place, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise ConfigError(f"{path} imports {error.name}, which is not installed", "install it") from error
        raise ConfigError(f"{path}: there is no module {error.name}", _meant_module(error.name)) from error
    except Exception as error:  # whatever the module does when it is imported
        raise ConfigError(
            f"{path} cannot be imported: {type(error).__name__}: {error}", "correct the module"
        ) from error
    found: Any = module
    for part in attribute.split("."):
        names = [one for one in vars(found) if not one.startswith("_")]
        if not hasattr(found, part):
            raise ConfigError(f"{path}: {place} has no {part!r}", _meant(part, names) or f"it has {', '.join(names)}")
        found = getattr(found, part)
    return found


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


def _meant_module(name: str) -> str:
    parent, _, leaf = name.rpartition(".")
    try:
        places = importlib.import_module(parent).__path__ if parent else None
    except Exception:
        places = None
    known = [module.name for module in pkgutil.iter_modules(places)]
    close = difflib.get_close_matches(leaf, known, n=1)
    if close:
        return f"did you mean {f'{parent}.' if parent else ''}{close[0]}?"
    return "install it, or run the command in the folder that it lies in"
