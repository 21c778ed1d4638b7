"""Which benchmarks there are, each opened only when it is named: ours, one a file, and those of other packages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pipeline.base import plugins
from pipeline.base.errors import ConfigError
from training.evaluation.benchmark import Benchmark

KIND = "benchmarks"
#: What a suite is called that lmms-eval has asked: this and the task's name.
OF_LMMS_EVAL = "lmms_eval:"
_HERE = "training.evaluation.benchmarks"
BENCHMARKS: Mapping[str, str] = {
    "pope": f"{_HERE}.pope:Pope",
    "chair": f"{_HERE}.chair:Chair",
    "amber_generative": f"{_HERE}.amber:AmberGenerative",
    "amber_discriminative": f"{_HERE}.amber:AmberDiscriminative",
    "shr": f"{_HERE}.shr:Shr",
    "object_halbench": f"{_HERE}.object_halbench:ObjectHalbench",
    "mmhal": f"{_HERE}.mmhal:Mmhal",
    "mme": f"{_HERE}.mme:Mme",
    "scienceqa": f"{_HERE}.scienceqa:Scienceqa",
    "seed": f"{_HERE}.seed:Seed",
    "mmmu": f"{_HERE}.mmmu:Mmmu",
    "mmbench": f"{_HERE}.mmbench:Mmbench",
    "mmvet": f"{_HERE}.mmvet:Mmvet",
}


class Together(NamedTuple):
    """Benchmarks that go by one name; together they have metrics more, of which ``headline`` are shown."""

    parts: tuple[str, ...]
    headline: tuple[str, ...]


TOGETHER: Mapping[str, Together] = {"amber": Together(("amber_generative", "amber_discriminative"), ("amber_score",))}


def names(text: str) -> list[str]:
    """The benchmarks that a comma-separated list names, each once.

    >>> names("pope, amber")
    ['pope', 'amber_generative', 'amber_discriminative']

    Raises:
        ConfigError: none is named.
    """
    named = filter(None, (part.strip() for part in text.split(",")))
    parts = dict.fromkeys(part for name in named for part in (TOGETHER[name].parts if name in TOGETHER else (name,)))
    if not parts:
        raise ConfigError(f"--suite names none; use some of {', '.join(BENCHMARKS)}")
    return list(parts)


def find(name: str) -> type[Benchmark]:
    """One of ours, or what a dotted path such as ``mylab.colours:Colours`` or an entry point's name stands for.

    Raises:
        ConfigError: there is no such benchmark, or it is none.
    """
    if name.startswith(OF_LMMS_EVAL):
        task = name.removeprefix(OF_LMMS_EVAL)
        remedy = f"give it to python -m training.evaluation.lmms_eval MODEL --tasks {task} (docs/evaluation.md)"
        raise ConfigError(f"{name} is a task of lmms-eval, which asks in a process of its own", remedy)
    kind = plugins.find(KIND, BENCHMARKS.get(name, name), [*BENCHMARKS, *TOGETHER])
    if not (isinstance(kind, type) and issubclass(kind, Benchmark)):
        raise ConfigError(f"{name} is no benchmark; let the class inherit training.evaluation.benchmark.Benchmark")
    if kind.open is Benchmark.open:  # a missing one would else be missed when all answers are there
        for method in ("questions", "score"):
            if getattr(kind, method) is getattr(Benchmark, method):
                raise ConfigError(f"{name} has no method {method}", "see docs/extending.md")
    return kind


def make(
    names: Iterable[str],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    shared: Mapping[str, Any] | None = None,
) -> list[Benchmark]:
    """The benchmarks ``names`` with their options.

    Args:
        options: by the name that ``names`` has of a benchmark, or its own.
        shared: options by name, for every benchmark that has them and is given none of its own.

    Raises:
        ConfigError: there is no such benchmark, two are called the same, an option is unknown, of another type, or of a
            benchmark that is not among them, ``limit`` is not even one image, or there is no version.
    """
    left = dict(options or {})
    made: list[Benchmark] = []
    for name in names:
        kind = find(name)
        suite = _name(kind, name)
        if suite in [benchmark.name for benchmark in made]:
            raise ConfigError(f"two suites are called {suite}; ask them in two calls")
        option_names = options_of(kind)
        given = {key: value for key, value in (shared or {}).items() if key in option_names}
        made.append(plugins.make(kind, {**given, **left.pop(suite, {}), **left.pop(name, {})}, name))
        plugins.identity(made[-1], name)  # it has a version
        limit = getattr(made[-1], "limit", None) if "limit" in option_names else None
        if isinstance(limit, int) and limit < 1:
            raise ConfigError(f"{suite}.limit is {limit}; give 1 or more images, or null for all of them")
    for name in left:
        parts = " and ".join(TOGETHER[name].parts) if name in TOGETHER else ""
        what = f"it stands for {parts}; name the one that is meant" if parts else "it is not asked; name it in --suite"
        raise ConfigError(f"options of {name}: {what}")
    return made


def options_of(kind: type[Benchmark]) -> list[str]:
    """The names of the options of a benchmark."""
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def identity(benchmark: Benchmark) -> str | None:
    """Where other people's benchmark is from, its version and its options; None for ours, of which results tell by
    name."""
    kind = type(benchmark)
    path = f"{kind.__module__}:{kind.__qualname__}"
    return None if path in BENCHMARKS.values() else plugins.identity(benchmark, path)


def _name(kind: type[Benchmark], reference: str) -> str:
    name = getattr(kind, "name", None)
    ours = reference in BENCHMARKS
    if not isinstance(name, str) or not name.isidentifier() or (not ours and (name in BENCHMARKS or name in TOGETHER)):
        raise ConfigError(
            f'{reference} cannot be called {name!r}; give the class name: ClassVar[str] = "...", which none of ours has'
        )
    return name
