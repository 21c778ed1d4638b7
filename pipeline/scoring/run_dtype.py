"""One dtype for all that a run computes with models: sampling, scores, training and both evaluations.

A group that says its own keeps it, and then the plan and the card say that they differ. What is left at ``auto`` here
is float32: recipes of runs without GPUs, and their fingerprints, are what they were before there was a choice.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pipeline.base import files
from pipeline.base.config import Frozen, flatten
from pipeline.base.hardware import Auto, Dtype
from pipeline.sampling.config import Sample, VllmOptions
from pipeline.scoring.config import Asked, Clip, Likelihood, RewardModel

Group = TypeVar("Group", bound=Frozen)
#: A model and its revision.
Named = tuple[str, str | None]


def with_dtype(group: Group, dtype: Dtype | Auto, sampled: Collection[Named] = ()) -> Group:
    """``group`` with ``dtype`` in all places where it is left at ``auto``. ``sampled`` are models whose engine those
    that are asked take over.

    >>> with_dtype(Sample(model="m"), "bfloat16").engine.dtype
    'bfloat16'
    """
    if dtype == "auto":
        return group
    update: dict[str, Any] = {}
    if isinstance(group, VllmOptions | RewardModel | Likelihood | Clip) and group.dtype == "auto":
        update["dtype"] = dtype
    if isinstance(group, Asked) and group.model and group.engine is None:
        update |= {} if (group.model, group.revision) in sampled else {"engine": VllmOptions(dtype=dtype)}
    if isinstance(group, Sample) and group.models:
        update["models"] = tuple(_entry(entry, dtype) for entry in group.models)
    for name in type(group).model_fields:
        value = getattr(group, name)
        if isinstance(value, Frozen) and (filled := with_dtype(value, dtype, sampled)) is not value:
            update[name] = filled
    return group.model_copy(update=update) if update else group


def _entry(entry: Mapping[str, Any], dtype: Dtype) -> dict[str, Any]:
    """One of ``sample.models``; an engine of its own says its own dtype."""
    engine = entry.get("engine")
    if isinstance(engine, Mapping) and engine.get("kind", "vllm") == "vllm" and engine.get("dtype", "auto") == "auto":
        return {**entry, "engine": {**engine, "dtype": dtype}}
    return dict(entry)


def begun_in(run: Path, recipe: str) -> Dtype | None:
    """The dtype of the run in a folder, as its file ``recipe`` says; None if nothing has been made there."""
    try:
        options = json.loads(files.read_text(run / recipe) or "{}")
        made = any(name.startswith("data-") for name in files.names(run / "source"))
    except (OSError, ValueError):
        return None
    dtype = options.get("dtype") if made else None
    return dtype if dtype in get_args(Dtype) else "float32" if dtype == "auto" else None


def dtypes(recipe: Mapping[str, Any]) -> dict[str, str]:
    """What each part of a recipe (as plain data) computes in, by its key; of parts that ask no model here, nothing.

    >>> dtypes({"dtype": "auto", "sample": {"engine": {"kind": "vllm", "dtype": "float16"}}, "train": {}})
    {'sample.engine': 'float16', 'train': 'float32'}
    """
    run = _plain(recipe.get("dtype"))
    scorers = (recipe.get("score") or {}).get("scorers", ())
    parts: dict[str, str] = {}
    for key, value in flatten({"sample": recipe.get("sample") or {}, "score": recipe.get("score") or {}}).items():
        place, _, name = key.rpartition(".")
        scores = place.startswith("score.") and place.split(".")[1] not in scorers
        if name == "dtype" and not scores:
            parts[place] = _plain(value)
    for number, entry in enumerate((recipe.get("sample") or {}).get("models") or ()):
        engine = entry.get("engine") or {}
        if "dtype" in engine:
            parts[f"sample.models[{number}].engine"] = _plain(engine["dtype"])
    if recipe.get("train") is not None:
        own = recipe["train"].get("dtype", "auto")
        parts["train"] = run if own == "auto" else own
    return parts


def sentence(recipe: Mapping[str, Any]) -> str | None:
    """What a recipe's models compute in, for people; None where none does here.

    >>> sentence({"dtype": "bfloat16", "sample": {"engine": {"dtype": "bfloat16"}}, "train": {}})
    'All models compute in bfloat16.'
    >>> sentence({"sample": {"engine": {"dtype": "float16"}}, "train": {"dtype": "float32"}})
    'Models compute in different precision: sample.engine in float16, train in float32.'
    """
    parts = dtypes(recipe)
    if len(set(parts.values())) > 1:
        each = ", ".join(f"{key} in {dtype}" for key, dtype in parts.items())
        return f"Models compute in different precision: {each}."
    return f"All models compute in {next(iter(parts.values()))}." if parts else None


def _plain(dtype: Any) -> str:
    return "float32" if dtype in (None, "auto") else str(dtype)
