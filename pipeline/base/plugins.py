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
import inspect
import json
import pkgutil
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.base.errors import ConfigError

GROUP = "vlm_preference"


def offers(kind: str) -> dict[str, EntryPoint]:
    """The entry points of the installed packages, by name. ``kind`` is ``scorers``, ``policies``, ..."""
    return {point.name: point for point in entry_points(group=f"{GROUP}.{kind}")}


def names_one(kind: str, name: str, built_in: Collection[str]) -> bool:
    """Whether ``name`` is meant for other people's code: a path, or what a package offers. Our own names are ours."""
    return name not in built_in and (":" in name or name in offers(kind))


def plug(
    kind: str,
    name: str,
    options: Mapping[str, Any],
    method: str,
    built_in: Iterable[str] = (),
    taken: Iterable[str] = (),
) -> Any:
    """What ``name`` stands for, with its options; the same object for the same ones. ``method`` is what it must have,
    as in ``score(rows)``; ``taken`` are the keys that stand beside its options in a recipe.

    Raises:
        ConfigError: there is no such thing, an option is wrong, or it has no version or no such method.
    """
    text = json.dumps(options, sort_keys=True, default=str)
    return _plug(kind, name, text, method, tuple(built_in), tuple(taken))


@lru_cache
def _plug(kind: str, name: str, options: str, method: str, built_in: tuple[str, ...], taken: tuple[str, ...]) -> Any:
    plug_in = make(find(kind, name, built_in), json.loads(options), name, taken)
    attribute, _, given = method.rstrip(")").partition("(")
    called = getattr(plug_in, attribute, None)
    if not callable(called):
        raise ConfigError(f"{name} has no method {method}", "see docs/extending.md")
    try:
        inspect.signature(called).bind(*filter(None, given.split(", ")))
    except TypeError as error:
        has = ", ".join(inspect.signature(called).parameters)
        raise ConfigError(f"{name} has {attribute}({has})", f"make it {method}") from error
    identity(plug_in, name)  # it has a version
    return plug_in


def find(kind: str, name: str, built_in: Collection[str] = ()) -> Any:
    """The object that ``name`` stands for, which is none of ours.

    Raises:
        ConfigError: nobody has it, or it cannot be imported.
    """
    if ":" in name:
        return _at(name)
    points = offers(kind)
    if name in points:
        return _at(points[name].value)
    raise ConfigError(f"{name!r} is none of the {kind}", remedy(name, sorted({*built_in, *points})))


def remedy(name: str, names: Collection[str]) -> str:
    """What to write where ``name`` is none of the ``known`` ones and no path.

    >>> remedy("jsnol", ["jsonl"]), remedy("mylab.archive.Archive", ["jsonl"])
    ('did you mean jsonl?', 'did you mean mylab.archive:Archive?')
    """
    module, _, attribute = name.rpartition(".")
    path = f"{module}:{attribute}" if module and attribute else ""
    others = f"use one of {', '.join(names)}, or a path such as mylab.module:Name"
    return _suggestion(name, names) or (f"did you mean {path}?" if path else others)


def make(plugin: Any, options: Mapping[str, Any], name: str, taken: Collection[str] = ()) -> Any:
    """An instance of the dataclass ``found`` with these options, none of which may be called as one of ``taken``.

    Raises:
        ConfigError: it is no frozen dataclass, or an option is unknown, missing or of another type.
    """
    if not (isinstance(plugin, type) and dataclasses.is_dataclass(plugin) and plugin.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise ConfigError(f"{name} is no frozen dataclass", "put @dataclass(frozen=True) above the class")
    fields = [field.name for field in dataclasses.fields(plugin) if field.init]
    if clash := sorted({*fields} & {*taken}):
        raise ConfigError(f"{name} has an option {clash[0]}, which stands for something else here", "call it otherwise")
    for key in options:
        if key not in fields:
            there = f"it has {', '.join(fields)}" if fields else "it has none"
            raise ConfigError(f"{name} has no option {key!r}", _suggestion(key, [*fields, *taken]) or there)
    try:
        made = TypeAdapter(plugin).validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        at = f"option {key}: " if (key := ".".join(map(str, first["loc"]))) else ""
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{name}: {at}{message}", "correct it in the recipe") from error
    except Exception as error:  # whatever the class does when it is made
        raise ConfigError(f"{name}: {type(error).__name__}: {error}", "correct its options in the recipe") from error
    for key, names in _unknown(options, made):
        raise ConfigError(f"{name} has no option {key!r}", _suggestion(key, names) or f"there are {', '.join(names)}")
    return made


def identity(plug_in: Any, name: str) -> str:
    """What a fingerprint says of it: where it is from, its own ``version`` and its options, but for those that change
    nothing (``field(compare=False)``).

    Raises:
        ConfigError: it has no version.
    """
    version = getattr(plug_in, "version", None)
    if not isinstance(version, str | int) or not str(version):
        raise ConfigError(
            f"{name} has no version", 'give the class version: ClassVar[str] = "1", and raise it with the code'
        )
    told = {field.name for field in dataclasses.fields(plug_in) if field.compare}
    options = {key: value for key, value in dataclasses.asdict(plug_in).items() if key in told}
    return f"{name}@{version} {json.dumps(options, sort_keys=True, default=str)}"


def failure(plug_in: Any, error: Exception) -> str:
    """What other people's code has raised, and where: ``ZeroDivisionError: division by zero (mylab.grey, line 12)``."""
    home = type(plug_in).__module__
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_globals.get("__name__") == home]
    return f"{type(error).__name__}: {' '.join(str(error).split())}" + (f" ({home}, line {lines[-1]})" if lines else "")


def _at(path: str) -> Any:
    place, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise ConfigError(f"{path} imports {error.name}, which is not installed", "install it") from error
        raise ConfigError(f"{path}: there is no module {error.name}", _suggested_module(error.name)) from error
    except Exception as error:  # whatever the module does when it is imported
        raise ConfigError(
            f"{path} cannot be imported: {type(error).__name__}: {error}", "correct the module"
        ) from error
    target: Any = module
    for part in attribute.split("."):
        names = [name for name in dir(target) if not name.startswith("_")]
        if not hasattr(target, part):
            raise ConfigError(
                f"{path}: {place} has no {part!r}", _suggestion(part, names) or f"it has {', '.join(names)}"
            )
        target = getattr(target, part)
    return target


def _unknown(options: Any, made: Any, at: str = "") -> Iterator[tuple[str, list[str]]]:
    """Keys that a group inside the options does not have, which pydantic drops in silence, and those it has."""
    if isinstance(options, Mapping) and dataclasses.is_dataclass(made):
        fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
        yield from ((f"{at}{key}", [f"{at}{name}" for name in fields]) for key in options if key not in fields)
    elif isinstance(options, Mapping) and isinstance(made, Mapping):
        fields = {str(key): value for key, value in made.items()}
    else:
        inner = zip(options, made, strict=False) if isinstance(options, list) and isinstance(made, list | tuple) else ()
        for value, other in inner:
            yield from _unknown(value, other, at)
        return
    for key, value in options.items():
        if str(key) in fields:
            yield from _unknown(value, fields[str(key)], f"{at}{key}.")


def _suggestion(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}?" if close else ""


def _suggested_module(name: str) -> str:
    parent, _, leaf = name.rpartition(".")
    try:
        places = importlib.import_module(parent).__path__ if parent else None
    except Exception:
        places = None
    leaves = [module.name for module in pkgutil.iter_modules(places)]
    close = difflib.get_close_matches(leaf, leaves, n=1)
    if close and parent:
        return f"did you mean {parent}.{close[0]}?"
    # A package of one's own is more often out of sight than misspelt.
    place = "install it, or run the command in the folder that it lies in"
    return f"did you mean {close[0]}? If not, {place}" if close else place
