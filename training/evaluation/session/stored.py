"""Results on disk: ``results.json`` for readers, and ``tallies.json``, which a comparison of two models needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.files import write_text
from training.errors import DataError
from training.evaluation import benchmark_files
from training.evaluation.result import Provenance, result
from training.evaluation.tally import Linear, Tally

RESULTS, TALLIES = "results.json", "tallies.json"
#: Raised when the layout of either file changes.
VERSION = 1


def save(
    folder: Path,
    model: str,
    tallies: Mapping[str, Tally],
    provenance: Mapping[str, Provenance],
    made_with: Mapping[str, str],
    pooled: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write both files, both by suite, and return what ``results.json`` holds. ``pooled``: by suite, further metrics of
    which no value of an image is known: ``{"value", "interval", "stderr"}`` each."""
    suites = {name: result(tally, provenance[name]) for name, tally in tallies.items()}
    for name, metrics in (pooled or {}).items():
        suites[name]["metrics"].update(metrics)
    content = {"version": VERSION, "model": model, "suites": suites, "made_with": dict(made_with)}
    write_text(folder / TALLIES, json.dumps({name: as_json(tally) for name, tally in tallies.items()}) + "\n")
    write_text(folder / RESULTS, json.dumps(content, indent=2) + "\n")
    return content


def read(place: Path) -> tuple[dict[str, Any], dict[str, Tally]]:
    """The results in a folder, or in the folder of a ``results.json``, and the tallies that they were computed from.

    Raises:
        DataError: a file is missing, malformed or of another version.
    """
    folder = place.parent if place.name == RESULTS else place
    if not (folder / RESULTS).is_file():
        raise DataError(f"{place} holds no {RESULTS}; give the output folder of python -m training.evaluate MODEL")
    content = benchmark_files.whole(folder / RESULTS)
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise DataError(f"{folder / RESULTS} is of another version; evaluate the model again")
    stored = benchmark_files.whole(folder / TALLIES)
    try:
        tallies = {name: of_json(stored[name]) for name in content["suites"]}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / TALLIES} is malformed ({error}); evaluate the model again") from error
    try:
        for name in tallies:
            provenance(content, name)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder / RESULTS}, suite {name}: is malformed ({error}); evaluate the model again"
        ) from error
    return content, tallies


def provenance(results: Mapping[str, Any], suite: str) -> Provenance:
    return Provenance(**results["suites"][suite]["provenance"])


def as_json(tally: Tally) -> dict[str, Any]:
    return {
        "images": list(tally.images),
        "sums": {name: of.tolist() for name, of in tally.sums.items()},
        "linear": {name: asdict(linear) for name, linear in tally.linear.items()},
        "counts": dict(tally.counts),
        "failed": None if tally.failed is None else list(tally.failed),
    }


def of_json(stored: Mapping[str, Any]) -> Tally:
    """The inverse of ``as_json``; files of before have no ``failed``."""
    failed = stored.get("failed")
    return Tally(
        tuple(stored["images"]),
        {name: np.array(of, float).reshape(-1, 2) for name, of in stored["sums"].items()},
        {name: Linear(**linear) for name, linear in stored["linear"].items()},
        stored["counts"],
        None if failed is None else tuple(failed),
    )
