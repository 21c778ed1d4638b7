"""Every score of the two texts of a pair: a struct for each side, with a field for each score of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.columns import Ints, Scored
from pipeline.running.store import Run


def score_names(run: Run) -> list[str]:
    """The scores of a run, whichever prompts have them, by name."""
    names: set[str] = set()
    for shard in run.shards("score"):
        names.update(pc.unique(columns.items(run.read("score", shard)["scores"], "name")).drop_null().to_pylist())
    return sorted(names)


def side_scores(names: Sequence[str], scored: Scored, places: Mapping[str, Ints]) -> dict[str, Any]:
    """``chosen_scores`` and ``rejected_scores`` of the rows of ``scored``; none where ``names`` is empty.

    ``places`` has for each side the index of its text among the row's candidates. A score that a row does not have is
    null, as one that the scorer left null.
    """
    sides: dict[str, list[Any]] = {side: [] for side in places}
    rows = len(next(iter(places.values())))
    for name in names:
        at = np.flatnonzero(columns.bools(pc.equal(scored.name, name)))
        begins = np.full(rows, -1)
        begins[scored.row[at]] = scored.begins[at]
        for side, place in places.items():
            sides[side].append(scored.values.take(pa.array(begins + place, pa.int64(), mask=begins < 0)))
    return {f"{side}_scores": pa.StructArray.from_arrays(values, names) for side, values in sides.items() if names}
