"""What a run reads: the pairs, held-out pairs, and rows for the SFT stream, each tokenised once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from pipeline.base import files
from pipeline.base.progress import ProgressBar
from pipeline.base.sweep import sweep_shared
from training import formats
from training.config import TrainConfig
from training.data import prepared
from training.data.dataset import prepare
from training.data.pairs import Pair, PairDataset, Skipped
from training.data.prepared import Keep, Prepared
from training.errors import DataError, PluginError
from training.formats.plugged import schema_of
from training.loop.reference import folder_of
from training.loop.spread import by_first
from training.loop.worker import Worker
from training.loss import sft

_Prepare = Callable[..., PairDataset]
#: How files of pairs that have been tokenised end, and how many of them stay beside a dataset.
_PAIRS, _NEWEST = ".pairs", 4


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
    worker: Worker | None = None,
) -> Inputs:
    """Open and tokenise all datasets of a run; held-out pairs are prepared as those that are trained on, all of them.
    ``choose`` takes some rows of each.

    With ``keep_prepared`` and a ``worker``, which all of them call this with, the first one tokenises what has not been
    yet, beside the dataset, and all read that.

    Raises:
        DataError, PluginError: a dataset or a row of it cannot be used; names both.
    """

    def tokenise(
        title: str, name: str, rows: datasets.Dataset, how: _Prepare, config: TrainConfig = config
    ) -> PairDataset:
        keep: Keep = prepared.in_memory
        if worker is not None and config.keep_prepared:
            keep = _by_first_in(folder_of(config, name), worker)
        chosen = choose(rows)
        with ProgressBar(title, len(chosen), unit="row", visible=visible) as bar:
            try:
                return how(chosen, processor, config, positions, bar.advance, keep)
            except (DataError, PluginError) as error:
                # It names a row, of which each of the datasets has one.
                raise type(error)(f"dataset {name}: {error}") from error

    kind, root = schema_of(config), config.image_root
    open_rows = partial(formats.open, allowed_roots=config.allowed_roots, allow_http=config.allow_http)
    rows = open_rows(config.dataset, kind, config.dataset_split, root)
    train = tokenise("tokenise", config.dataset, rows, prepare)
    held_out = stream = None
    if config.eval_dataset is not None:
        rows = open_rows(config.eval_dataset, kind, config.eval_split, root)
        everyone = config.model_copy(update={"limit": None, "draw": None})
        held_out = tokenise("tokenise held-out", config.eval_dataset, rows, prepare, everyone)
    if config.sft is not None:
        stream = tokenise(
            "tokenise SFT", config.sft.dataset, open_rows(config.sft.dataset, rejected=False), sft.prepare
        )
    return Inputs(train, held_out, stream)


def _by_first_in(folder: Path, worker: Worker) -> Keep:
    """What keeps pairs in files of ``folder``, written by the first worker."""

    def keep(key: Callable[[], str | None], make: Callable[[], Iterator[Pair | Skipped]]) -> Prepared:
        def write() -> Path | None:
            name = key()
            path = None if name is None else folder / f"{name}{_PAIRS}"
            if path is not None and not path.exists():
                sweep_shared(folder)
                prepared.store(path, make())
                _forget_old(folder)
            return path

        path = by_first(write, worker)
        return prepared.in_memory(key, make) if path is None else prepared.load(path)

    return keep


def _forget_old(folder: Path) -> None:
    """Of datasets and options that have changed since; who reads one goes on."""
    with suppress(OSError):
        for path in sorted(folder.glob(f"*{_PAIRS}"), key=lambda path: path.stat().st_mtime)[:-_NEWEST]:
            path.unlink()


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
