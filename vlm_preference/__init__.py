"""The commands as functions, for notebooks and scripts: ``import vlm_preference as vp``.

A run, a training and an evaluation are processes of their own, as on the command line: they share no memory with a
notebook, can be interrupted, and continue when they are called again. docs/python.md shows all of it.

Nobody here imports this package.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from training.config.recipe import WholeRecipe

#: Options of ``training.evaluate`` that may be there several times.
_REPEATED = frozenset({"engine", "judge_engine", "option"})

__all__ = ["evaluate", "load_recipe", "pairs", "run", "summary", "train"]


def load_recipe(recipe: str | Path | Mapping[str, Any], *overrides: str) -> WholeRecipe:
    """A built-in recipe by its name, a YAML file or a mapping of groups, with changes such as ``"sample.n=4"``.

    Raises:
        ConfigError: listing every problem of it.
    """
    from pipeline.recipe import load
    from training.config.recipe import WholeRecipe

    if not isinstance(recipe, Mapping):
        return load.load_recipe(recipe, overrides, WholeRecipe)
    with tempfile.TemporaryDirectory() as folder:
        return load.load_recipe(_write(Path(folder, "recipe.yaml"), recipe), overrides, WholeRecipe)


def run(
    recipe: str | Path | Mapping[str, Any] | WholeRecipe,
    *overrides: str,
    stages: str | Sequence[str] | None = None,
    resume: Literal["never", "if-possible", "always"] = "if-possible",
    quiet: bool = False,
) -> Path:
    """Do what a recipe says, or only ``stages`` of it such as ``["score", "pair"]`` or ``"score,pair"``; returns the
    run's folder. With ``quiet`` only warnings, errors and the result are printed.

    Raises:
        ConfigError: listing every problem of the recipe.
        PipelineError: the run ended early; its own message stands above.
    """
    if isinstance(recipe, str | Path | Mapping):
        recipe = load_recipe(recipe, *overrides)
    elif overrides:
        raise TypeError("overrides are for load_recipe: a recipe that is loaded stays as it is")
    flags = {"stages": stages if isinstance(stages, str | None) else ",".join(stages), "resume": resume, "quiet": quiet}
    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder, f"{recipe.name}.yaml"), recipe.model_dump(mode="json"))
        _call("pipeline.run", path, flags)
    return recipe.run_dir


def pairs(run: str | Path) -> Iterator[dict[str, Any]]:
    """The published pairs of a run's folder, or of its dataset's: ``images`` (PIL), ``prompt``, ``chosen``,
    ``rejected`` and where they come from.

    Raises:
        InputError: nothing is published there.
    """
    from pipeline.base.errors import InputError

    folder = Path(run)
    dataset = folder / "dataset" if (folder / "dataset").is_dir() else folder
    if not (dataset / "dataset_dict.json").is_file():
        raise InputError(f"{folder} has no published dataset", "run its stage publish first")
    from datasets import load_from_disk

    yield from load_from_disk(str(dataset))["pairs"]


def summary(run: str | Path) -> dict[str, Any]:
    """What came out of a run: its stages with seconds and counts, the number of pairs, the evaluation.

    Raises:
        InputError: the run is not finished.
    """
    from pipeline.base.errors import InputError

    try:
        content: dict[str, Any] = json.loads(Path(run, "summary.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{run} has no summary.json ({error.strerror})", "finish the run first") from error
    return content


def train(run: str | Path, model: str, output_dir: str | Path, quiet: bool = False, **options: Any) -> Path:
    """Train ``model`` on the pairs of a run's folder, or on any dataset that docs/datasets.md names; ``options`` are
    those of ``train`` in a recipe. Returns the folder of the trained model. ``quiet`` as in ``run``.

    Raises:
        PipelineError: the training ended early; its own message stands above.
    """
    from pipeline.base.files import absolute

    dataset = Path(run) / "dataset"
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    values = {"model": str(model), "dataset": absolute(dataset if dataset.is_dir() else Path(run)), **options}
    _call("training.run", _write(folder / "config.yaml", {**values, "output_dir": absolute(folder)}), {"quiet": quiet})
    return folder / "model"


def evaluate(model: str | Path, output: str | Path, **options: Any) -> dict[str, Any]:
    """Ask a model the questions of benchmarks; ``options`` are those of ``training.evaluate``, such as
    ``data="scenes"``, ``suite="pope,chair"`` (or a list of them) or ``quiet=True``. Returns what
    ``OUTPUT/results.json`` says.

    Raises:
        TypeError: a list for an option that takes one value.
        PipelineError: the evaluation ended early; its own message stands above.
    """
    if isinstance(suites := options.get("suite"), list | tuple):
        options["suite"] = ",".join(suites)
    for name, value in options.items():
        if isinstance(value, list | tuple) and name not in _REPEATED:  # the command would take the last alone
            raise TypeError(f"{name}={value!r}: give one value; lists are for suite, {', '.join(sorted(_REPEATED))}")
    _call("training.evaluate", model, {**options, "output": output})
    results: dict[str, Any] = json.loads(Path(output, "results.json").read_text(encoding="utf-8"))
    return results


def _write(path: Path, values: Mapping[str, Any]) -> Path:
    import yaml

    from pipeline.base.errors import ConfigError

    try:
        text = yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True)
    except yaml.representer.RepresenterError as error:
        raise ConfigError(
            f"{error.args[-1]!r:.80} is no value of an option", "give a text, a number or a list"
        ) from error
    path.write_text(text, encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    """As YAML has it: paths as texts, NumPy's numbers as Python's, any mapping as a dictionary.

    >>> _plain({"source": {"path": Path("a.jsonl"), "prompts": ("Why?",)}})
    {'source': {'path': 'a.jsonl', 'prompts': ['Why?']}}
    """
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value


def _call(module: str, argument: object, options: Mapping[str, Any]) -> None:
    from pipeline.base.ending import run_child
    from pipeline.base.errors import PipelineError

    if code := run_child([sys.executable, "-m", module, str(argument), *_flags(options)]):
        raise PipelineError(f"{module} ended with status {code}", "its own message stands above")


def _flags(options: Mapping[str, Any]) -> list[str]:
    """Options as a command line takes them.

    >>> _flags({"max_tokens": 8, "engine": ["kind=scripted"], "debug": True, "seed": None})
    ['--max-tokens', '8', '--engine', 'kind=scripted', '--debug']
    """
    flags: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            flags.append(flag)
        elif value is not None and value is not False:
            values = value if isinstance(value, list | tuple) else [value]
            flags += [text for each in values for text in (flag, str(each))]
    return flags
