"""How well a model tells chosen from rejected by its log-probs, shown no image, another pair's, and the pair's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.base import files
from pipeline.blindness.measure_blindness import BlindAccuracy, measure_by_values
from training.evaluation.probes import TRUE
from training.evaluation.probing.probing import probe
from training.evaluation.probing.request import ProbeRequest
from training.formats.unseen_pairs import UnseenPairs

#: Conditions of a probe, in the order in which they are shown.
SHOWN: Mapping[str, str] = {"none": "no image", "swapped": "another pair's image", TRUE: "the pair's own image"}


def read_by_model(request: ProbeRequest, pairs: UnseenPairs, visible: bool = True) -> dict[str, BlindAccuracy]:
    """By what the model was shown. ``request`` says which model and which of the ``pairs``, and where its log-probs
    are kept: the same again is read, not computed.

    A reader has two numbers of each pair: how much likelier the chosen text is, all of it and per token. Which of the
    two counts, and whether the likelier text is the better one, is learned from other pairs.

    Raises:
        TrainingError, EngineError, ValueError: as ``training.evaluation.probing.probing.probe``.
    """
    probe(request, visible)
    tables = {shown: files.read_table(request.output / f"{shown}.arrow") for shown in SHOWN}
    # Only pairs that could be read under every condition.
    everywhere = sorted(set.intersection(*(set(table["row"].to_pylist()) for table in tables.values())))
    texts = pairs.at(everywhere)
    return {shown: measure_by_values(texts, _gaps(table, everywhere)) for shown, table in tables.items()}


def _gaps(table: pa.Table, rows: list[int]) -> Any:
    """[rows, 2]: log p(chosen) - log p(rejected) in nats, summed over tokens and per token."""
    at = {row: place for place, row in enumerate(table["row"].to_pylist())}
    places = [at[row] for row in rows]
    chosen, rejected = (table[side].to_numpy()[places] for side in ("chosen", "rejected"))
    tokens = [table[f"{side}_tokens"].to_numpy()[places] for side in ("chosen", "rejected")]
    return np.stack([chosen - rejected, chosen / tokens[0] - rejected / tokens[1]], axis=1)
