"""Log-probs of pairs under one model and one condition: computed by the trainer's own code, or read from a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from pipeline.base import files
from pipeline.base.errors import PipelineError
from training.config import TrainConfig
from training.data.pairs import PairDataset
from training.data.schedule import passes
from training.evaluation.probes import PairLogps
from training.forward.policy import Policy, pair_logps

#: ``row`` is the number of the row in the dataset, ``image`` names the pair's own images, whatever was shown;
#: log-probs in nats, summed over the answer's tokens.
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int64()),
        ("image", pa.string()),
        ("chosen", pa.float64()),
        ("rejected", pa.float64()),
        ("chosen_tokens", pa.int64()),
        ("rejected_tokens", pa.int64()),
    ]
)
_KEY, _ABOUT = b"key", b"about"


@dataclass(frozen=True, slots=True)
class Owner:
    """What stays of a pair whatever is shown beside it: its id and images, and its row in the dataset."""

    id: str
    image: str
    row: int


@dataclass(frozen=True, slots=True)
class ConditionLogps:
    """``about``: how the model reads images (``image_preprocessing``), and how many rows were ``skipped``."""

    pairs: tuple[PairLogps, ...]
    about: Mapping[str, Any]


def compute(
    policy: Policy,
    dataset: PairDataset,
    owners: Mapping[int, Owner],
    config: TrainConfig,
    advance: Callable[[int], None] = lambda pairs: None,
) -> list[dict[str, Any]]:
    """Rows of ``SCHEMA`` for the pairs of ``dataset`` that have an owner (by their row in ``dataset.rows``)."""
    wanted = [index for index, pair in enumerate(dataset.pairs) if pair.row in owners]
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for part, _ in passes(dataset, wanted, config):
            logps = pair_logps(policy, dataset, part, config)
            for place, index in enumerate(part):
                pair = dataset.pairs[index]
                owner = owners[pair.row]
                rows.append(
                    {
                        "id": owner.id,
                        "row": owner.row,
                        "image": owner.image,
                        "chosen": logps["chosen"][place].item(),
                        "rejected": logps["rejected"][place].item(),
                        "chosen_tokens": len(pair.chosen_ids),
                        "rejected_tokens": len(pair.rejected_ids),
                    }
                )
            advance(len(part))
    return sorted(rows, key=lambda row: row["row"])


def write(path: Path, rows: list[dict[str, Any]], key: str, about: Mapping[str, Any]) -> None:
    """A whole file or none; ``key`` is everything that the values depend on."""
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    files.write_table(path, table.replace_schema_metadata({_KEY: key.encode(), _ABOUT: json.dumps(about).encode()}))


def read(path: Path, key: str) -> ConditionLogps | None:
    """What was stored under ``key``; None where there is no such file, or it holds something else.

    Raises:
        ValueError: a log-prob is not finite.
    """
    if not path.is_file():
        return None
    try:
        table = files.read_table(path)
    except PipelineError:  # damaged: it is computed again
        return None
    metadata = table.schema.metadata or {}
    if metadata.get(_KEY) != key.encode():
        return None
    rows = table.drop_columns(["row"]).to_pylist()
    return ConditionLogps(tuple(PairLogps(**row) for row in rows), json.loads(metadata[_ABOUT]))
