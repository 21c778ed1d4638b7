"""How many pairs go through a forward pass, and whether activations are kept or computed again: chosen by the GPU's
memory, and lowered where that was too much. Neither changes a result but for rounding, as gradients are sums.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from pipeline.base import files
from pipeline.base.progress import tell
from reward.forward.parts import Parts
from training.config import TrainConfig
from training.config.options import PASS_PAIRS
from training.data.pairs import PairDataset
from training.data.schedule import pass_tokens
from training.errors import MemoryFullError
from training.forward.model import set_checkpointing
from training.loop.worker import Worker

T = TypeVar("T")

#: Says how the last session ran.
FILE = "run.json"
#: What the memory is tried for, the most first. Beyond it a pass is no faster.
SIZES = (16, 8, 4, 2, 1)
#: Bytes of activations per token, decoder layer and unit of its width that LoRA keeps in bfloat16: docs/gpu.md's 22.0,
#: 30 and 42 GiB with 1, 2 and 4 pairs are 78 each for LLaVA-1.5-7B (32 layers, 4096 wide, pairs of 700 tokens).
_KEPT = 80
#: With checkpointing a layer keeps its input; one layer at a time keeps all.
_INPUT = 2
#: Bytes per response token and word of the vocabulary: logits, their softmax and its gradient in float32.
_LOGITS = 12
#: Of the free memory, for what is foreseen; the rest is for what is not.
_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Room:
    """What decides how many pairs fit: ``free`` bytes of the GPU beside weights, gradients and optimiser, ``layers``
    and ``width`` of the language model, ``words`` of its vocabulary, ``tokens`` and ``answer_tokens`` of the longest
    pair."""

    free: int
    layers: int
    width: int
    words: int
    tokens: int
    answer_tokens: int

    def fits(self, pairs: int, config: TrainConfig, checkpointing: bool) -> bool:
        """Whether a pass of so many pairs is foreseen to fit."""
        wide = 1 if config.precision == "bfloat16" else 2
        kept = _INPUT * self.layers + _KEPT if checkpointing else _KEPT * self.layers
        logits = pairs * self.answer_tokens
        logits = logits if config.head_chunk is None else min(config.head_chunk, logits)
        need = wide * pairs * self.tokens * self.width * kept + logits * self.words * _LOGITS
        return need <= _SHARE * self.free


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
        again = not room.fits(wanted, config, checkpointing=False)
    pairs = config.micro_batch_size
    if pairs == "auto":
        pairs = next((size for size in sizes if room.fits(size, config, again)), 1)
    return config.model_copy(update={"micro_batch_size": pairs, "gradient_checkpointing": again})


def settle(config: TrainConfig, model: nn.Module, dataset: PairDataset, worker: Worker) -> TrainConfig:
    """``choose`` for this run's model and pairs, alike on all workers, which all call it; without a GPU as it is.

    ``model`` is ready to be trained and lies on the CPU, or in part on the GPU already (4 bits).
    """
    if worker.device.type != "cuda":
        return config
    parts = Parts.of(model)
    text = parts.text_config
    room = Room(
        free=min(worker.gather([_free(model, config, worker)])),
        layers=len(parts.layers) or text.num_hidden_layers,
        width=text.hidden_size,
        words=text.vocab_size,
        tokens=max(pass_tokens(dataset, index, config) for index in range(len(dataset.pairs))),
        answer_tokens=max(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in dataset.pairs),
    )
    chosen = choose(config, room, worker.world)
    if chosen.gradient_checkpointing is True:
        set_checkpointing(model)
    return chosen


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
