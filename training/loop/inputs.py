"""What a run reads: the pairs, held-out pairs, and rows for the SFT stream, each tokenised once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from pipeline.base import files
from pipeline.base.progress import ProgressBar
from training import formats
from training.config import TrainConfig
from training.data.dataset import prepare
from training.data.pairs import PairDataset
from training.formats.plugged import schema_of
from training.loss import sft

_Prepare = Callable[..., PairDataset]


@dataclass(frozen=True, slots=True)
class Inputs:
    """``held_out`` and ``sft`` are None where the configuration names none."""

    train: PairDataset
    held_out: PairDataset | None = None
    sft: PairDataset | None = None

    @property
    def all(self) -> Mapping[str, PairDataset]:
        """Those that there are, by the key of the configuration that names them."""
        by_key = {"dataset": self.train, "eval_dataset": self.held_out, "sft.dataset": self.sft}
        return {key: dataset for key, dataset in by_key.items() if dataset is not None}


def read(
    config: TrainConfig,
    processor: Any,
    positions: int | None,
    visible: bool = True,
    choose: Callable[[datasets.Dataset], datasets.Dataset] = lambda rows: rows,
) -> Inputs:
    """Open and tokenise all datasets of a run; held-out pairs are prepared as those that are trained on, all of them.
    ``choose`` takes some rows of each.

    Raises:
        DataError: a dataset or a row of it cannot be used.
    """

    def tokenise(title: str, rows: datasets.Dataset, how: _Prepare, config: TrainConfig = config) -> PairDataset:
        chosen = choose(rows)
        with ProgressBar(title, len(chosen), unit="row", visible=visible) as bar:
            return how(chosen, processor, config, positions, bar.advance)

    kind, root = schema_of(config), config.image_root
    open_rows = partial(formats.open, allowed_roots=config.allowed_roots, allow_http=config.allow_http)
    train = tokenise("tokenise", open_rows(config.dataset, kind, config.dataset_split, root), prepare)
    held_out = stream = None
    if config.eval_dataset is not None:
        rows = open_rows(config.eval_dataset, kind, config.eval_split, root)
        held_out = tokenise("tokenise held-out", rows, prepare, config.model_copy(update={"limit": None, "draw": None}))
    if config.sft is not None:
        stream = tokenise("tokenise SFT", open_rows(config.sft.dataset, rejected=False), sft.prepare)
    return Inputs(train, held_out, stream)


def say_skipped(inputs: Inputs, output_dir: Path) -> None:
    """Write rows that are not read, with their reasons, to ``skipped.jsonl``, and say how many they are."""
    path = output_dir / "skipped.jsonl"
    path.unlink(missing_ok=True)
    lines = [
        json.dumps({"dataset": key, "row": skipped.name, "reason": skipped.reason}) + "\n"
        for key, dataset in inputs.all.items()
        for skipped in dataset.skipped
    ]
    if lines:
        files.write_text(path, "".join(lines))
        rows = len(lines) + sum(len(dataset.pairs) for dataset in inputs.all.values())
        print(f"{len(lines)} of {rows} rows skipped; {path} names each", file=sys.stderr, flush=True)
