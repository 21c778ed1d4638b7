"""Images of the passes to come, read in threads while a pass runs: the same pixels, sooner."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import torch
from torch import Tensor

from training.config import Branch, Corruption
from training.data.pairs import PairDataset
from training.data.schedule import Pass
from training.forward.batch import views
from training.forward.views import ImageView, Pixels, by_original, read_views

_Read = dict[str, Mapping[str, Tensor]]


class ReadAhead:
    """Reads the images of a pass and of the next one in ``threads``; with 0 each pass reads its own.

    State: what is being read or has been and is shown in this pass or the next, by name. With ``pin`` it lies in memory
    from which a GPU copies while it computes.
    """

    def __init__(self, threads: int = 0, pin: bool = False) -> None:
        self._pin = pin
        self._pool = ThreadPoolExecutor(threads, "images", _one_thread_each) if threads else None
        self._reading: dict[str, Future[_Read]] = {}

    def over(
        self,
        dataset: PairDataset,
        share: Sequence[Pass],
        branches: Sequence[Branch],
        known: Mapping[str, object] | None = None,
        then: Callable[[], Sequence[Pass]] = tuple,
    ) -> Iterator[Pass]:
        """The passes of ``share``, the images of each being read when it is given out, and those of the next, which
        after the last is the first of ``then``. Images that ``known`` names are not read."""
        ahead = self._pool is not None and _in_any_thread(dataset.corruption)
        coming = [*share, *then()[:1]] if ahead else []
        for number, this in enumerate(share):
            if ahead:
                indices = [index for each in coming[number : number + 2] for index in each.indices]
                self._expect(dataset, views(dataset, indices, branches), known or {})
            yield this

    def read(self, dataset: PairDataset, wanted: Mapping[str, ImageView]) -> dict[str, Pixels]:
        """As ``read_views``, from the threads where they have begun."""
        begun = {key: self._reading[key] for key in wanted if key in self._reading}
        rest = read_views(dataset, {key: view for key, view in wanted.items() if key not in begun})
        return {**{key: future.result()[key] for key, future in begun.items()}, **rest}

    def close(self) -> None:
        """End the threads."""
        self._reading.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _expect(self, dataset: PairDataset, wanted: Mapping[str, ImageView], known: Mapping[str, object]) -> None:
        assert self._pool is not None
        for key in self._reading.keys() - wanted.keys():
            del self._reading[key]  # which ends by itself: it may read another image that is still wanted
        new = {key: view for key, view in wanted.items() if key not in self._reading and key not in known}
        for names in by_original(new):
            future = self._pool.submit(self._read, dataset, {key: new[key] for key in names})
            self._reading |= dict.fromkeys(names, future)

    def _read(self, dataset: PairDataset, wanted: Mapping[str, ImageView]) -> _Read:
        pixels = read_views(dataset, wanted)
        if not self._pin:
            return pixels
        return {key: {name: value.pin_memory() for name, value in of.items()} for key, of in pixels.items()}


def _in_any_thread(corruption: Corruption) -> bool:
    """Code that is not ours, and a model that it opens once, are called in the trainer's own thread."""
    return corruption.slot.open() is None and corruption.kind != "clip_mask"


def _one_thread_each() -> None:
    """A thread of the pool must not split an operator over threads of its own beside the trainer's."""
    torch.get_num_threads()  # what torch sets when it is first asked in a thread
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).omp_set_num_threads(1)
