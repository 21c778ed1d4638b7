"""How many pairs go through a forward pass, and whether activations are kept or computed again: chosen by the GPU's
memory, and lowered where that was too much. Neither changes a result but for rounding, as gradients are sums.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from pipeline.base import files
from pipeline.base.progress import tell
from reward.forward.parts import Parts
from training.config import TrainConfig, TrainOptions
from training.config.options import PASS_PAIRS
from training.data.pairs import PairDataset
from training.data.schedule import weight
from training.errors import MemoryFullError, ModelError
from training.forward.batch import answer, branch_groups, has
from training.forward.model import set_checkpointing
from training.loop.worker import Worker
from training.sizing.architecture import Architecture, read_architecture
from training.sizing.train_memory import Pass, pass_memory, pass_of

T = TypeVar("T")

#: Says how the last session ran.
FILE = "run.json"
#: What the memory is tried for, the most first. Beyond it a pass is no faster.
SIZES = (16, 8, 4, 2, 1)
#: Of the free memory, for what is foreseen; the rest is for what is not.
_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Room:
    """What decides how many pairs fit: ``free`` bytes of the GPU beside weights, gradients and optimiser, the model's
    ``shape`` (None: not one that ``training.sizing`` has a formula of), the largest ``pair`` on its own, and the
    largest by its weight, ``unit``, of which a pass holds ``pass_pairs``."""

    free: int
    shape: Architecture | None
    pair: Pass
    unit: Pass

    def fits(self, pairs: int, options: TrainOptions) -> bool:
        """Whether a pass of so many pairs is foreseen to fit; without a formula that is tried with few of them, and
        nothing kept."""
        if self.shape is None:
            return options.gradient_checkpointing is True and pairs <= PASS_PAIRS
        run = _largest(self.pair, Pass(*(pairs * number for number in astuple(self.unit))))
        return pass_memory(self.shape, options, run).passing <= _SHARE * self.free


def choose(config: TrainConfig, room: Room, world: int = 1) -> TrainConfig:
    """``micro_batch_size`` and ``gradient_checkpointing`` as they will be, where they are ``auto``.

    Activations are kept where a pass of four pairs fits so, or of ``micro_batch_size``: on an H100 four pairs without
    checkpointing take 0.9 s, with it 1.5 s, and two pairs without it 1.6 s (docs/gpu.md).
    """
    most = -(-config.batch_size // world)
    sizes = [size for size in SIZES if size <= most] or [1]
    wanted = min(PASS_PAIRS, most) if config.micro_batch_size == "auto" else config.micro_batch_size
    again = config.gradient_checkpointing
    if again == "auto":
        again = not room.fits(wanted, config.model_copy(update={"gradient_checkpointing": False, "workers": world}))
    pairs = config.micro_batch_size
    if pairs == "auto":
        options = config.model_copy(update={"gradient_checkpointing": again, "workers": world})
        pairs = next((size for size in sizes if room.fits(size, options)), 1)
    return config.model_copy(update={"micro_batch_size": pairs, "gradient_checkpointing": again})


def settle(config: TrainConfig, model: nn.Module, dataset: PairDataset, worker: Worker) -> TrainConfig:
    """``choose`` for this run's model and pairs, alike on all workers, which all call it; without a GPU as it is.

    ``model`` is ready to be trained and lies on the CPU, or in part on the GPU already (4 bits).
    """
    if worker.device.type != "cuda":
        return config
    room = room_of(min(worker.gather([_free(model, config, worker)])), model, dataset, config)
    chosen = choose(config, room, worker.world)
    if chosen.gradient_checkpointing is True:
        set_checkpointing(model)
    return chosen


def room_of(free: int, model: nn.Module, dataset: PairDataset, config: TrainConfig) -> Room:
    """That of the model's pairs, with so many bytes ``free``."""
    pair = unit = Pass(0, 0, 0)
    for index, tokens in enumerate(dataset.pairs):
        groups = [
            (len(getattr(tokens, prompt).ids), [len(answer(tokens, branch)) for branch in members])
            for prompt, members in branch_groups(
                [branch for branch in config.branches if has(tokens, branch)], config.share_prefix
            )
            if getattr(tokens, prompt) is not None
        ]
        alone, heavy = pass_of(groups, config.share_prefix), weight(dataset, index, config)
        pair = _largest(pair, alone)
        unit = _largest(unit, Pass(*(math.ceil(number / heavy) for number in astuple(alone))))
    whole = Parts.of(model)
    try:
        return Room(free, read_architecture(whole.config, whole.name), pair, unit)
    except ModelError:
        return Room(free, None, pair, unit)


def _largest(first: Pass, other: Pass) -> Pass:
    """The larger of each number."""
    return Pass(*map(max, astuple(first), astuple(other)))


def _free(model: nn.Module, config: TrainConfig, worker: Worker) -> int:
    """Bytes of this worker's GPU that weights, gradients and AdamW's moments will leave."""
    free, _ = torch.cuda.mem_get_info(worker.device)
    held = 0
    for parameter in model.parameters():
        size = parameter.numel() * parameter.element_size()
        held += size if parameter.device.type != "cuda" else 0  # on the CPU, or still to come from the first worker
        held += 3 * size if parameter.requires_grad else 0
    return int(free - (held / worker.world if config.sharding == "fsdp" else held))


class Passes:
    """How work is cut into passes. State: ``config``, whose ``micro_batch_size`` is halved when memory runs out."""

    def __init__(self, config: TrainConfig, chosen: TrainConfig, model: nn.Module, worker: Worker) -> None:
        """``chosen`` is ``settle(config, ...)``."""
        self.config = chosen
        self._model, self._worker = model, worker
        self._may_recompute = config.gradient_checkpointing == "auto"
        self._lowered: list[dict[str, Any]] = []
        self._record()

    def run(self, work: Callable[[TrainConfig], T], what: str, undo: Callable[[], None] = lambda: None) -> T:
        """What ``work`` returns; where memory runs out on any worker, ``undo`` and all of it again in smaller passes.

        Every worker calls it, and ``work`` does not wait for the others. In fsdp's passes it does: there a worker that
        is out of memory ends the run.

        Raises:
            MemoryFullError: a single pair does not fit.
        """
        while True:
            result, full = _attempt(work, self.config)
            if full is not None and self.config.sharding == "fsdp" and self._worker.world > 1:
                raise _too_large(what, full, self.config)
            if not self._anywhere(full is not None):
                return result[0]
            _release()
            undo()
            self._lower(what, full or "on another worker")

    def _anywhere(self, full: bool) -> bool:
        if self._worker.world == 1:
            return full
        # After ``_release`` a scalar has room again.
        if full:
            _release()
        return bool(self._worker.sum(torch.tensor(float(full), device=self._worker.device)).item())

    def _lower(self, what: str, why: str) -> None:
        before = self.config
        if before.gradient_checkpointing is not True and self._may_recompute:
            set_checkpointing(self._model)
            self.config = before.model_copy(update={"gradient_checkpointing": True})
            change = "activations computed again in the backward pass"
        elif before.pass_pairs > 1:
            self.config = before.model_copy(update={"micro_batch_size": before.pass_pairs // 2})
            change = f"{self.config.pass_pairs} instead of {before.pass_pairs} pairs a pass"
        else:
            raise _too_large(what, why, before)
        self._lowered.append({"at": what, "change": change, "why": why})
        self._record()
        if self._worker.main:
            tell(f"out of memory in {what}: done again with {change} ({why})")

    def _record(self) -> None:
        """How this session runs, beside its results, which do not depend on it."""
        if not self._worker.main:
            return
        config, device = self.config, self._worker.device
        about = {
            "dtype": config.precision,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "workers": self._worker.world,
            "micro_batch_size": config.pass_pairs,
            "gradient_checkpointing": config.gradient_checkpointing is True,
            "lowered": self._lowered,
        }
        files.write_text(config.output_dir / FILE, json.dumps(about, indent=2) + "\n")


def _attempt(work: Callable[[TrainConfig], T], config: TrainConfig) -> tuple[list[T], str | None]:
    """The result of ``work``, alone in a list, or the first line of what was said of memory."""
    try:
        return [work(config)], None
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return [], (str(error).splitlines() or [type(error).__name__])[0][:200]


def is_out_of_memory(error: BaseException) -> bool:
    """Also of libraries that say so in errors of their own."""
    return isinstance(error, torch.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)


def _release() -> None:
    """Give back what the failed passes held: their frames are gone with the exception."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _too_large(what: str, why: str, config: TrainConfig) -> MemoryFullError:
    if config.pass_pairs > 1:
        return MemoryFullError(
            f"out of memory in {what} with {config.pass_pairs} pairs a pass ({why}), and with sharding=fsdp the others "
            f"wait for this worker; set micro_batch_size={config.pass_pairs // 2}: the run goes on from its last "
            "checkpoint"
        )
    remedies = [
        *(["gradient_checkpointing=true"] if config.gradient_checkpointing is not True else []),
        *(["dtype=bfloat16"] if config.precision == "float32" else []),
        *(["sharding=fsdp with more workers"] if config.sharding == "ddp" else ["more workers"]),
        "quantization=nf4" if config.tuning == "lora" else "tuning=lora",
        "max_length with too_long=skip",
    ]
    return MemoryFullError(f"out of memory in {what} with one pair a pass ({why}); set {', or '.join(remedies)}")
