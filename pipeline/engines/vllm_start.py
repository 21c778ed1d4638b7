"""What starts vLLM, whatever it is started for: its environment, its limits, its turn on a card, and why it failed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.base.errors import EngineError
from pipeline.engines import engine_args, vllm_failure
from pipeline.engines.printed import printed

#: Set before vLLM is imported, where the user has not.
ENV = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # The engine core in this process: one process fewer to lose, and seeds are then reproducible (vLLM's own advice).
    # AsyncLLM has its core in a process of its own whatever this says.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
#: Bytes of the cache on CPU.
CPU_CACHE = 2**30
#: Sequences of one step on CPU, and tokens where chunked prefill is off; vLLM then wants at least a whole prompt in it.
_CPU_SEQS, _CPU_BATCHED_TOKENS = 256, 32_768
#: Prompts have nothing else in them. A model that also sees videos would be started with room for the longest, which
#: for Qwen2.5-VL takes more memory and time than all images together.
IMAGES_ONLY = {"video": 0, "audio": 0}


def runs_on_cpu() -> bool:
    """Import vLLM, with its environment set first; whether it will run on the CPU.

    Raises:
        EngineError: vLLM is not installed.
    """
    for key, value in ENV.items():
        os.environ.setdefault(key, value)
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(
            f"vLLM cannot be imported: {error}", "install the extra: pip install -e '.[cpu]' or '.[gpu]' in the clone"
        ) from error
    return bool(current_platform.is_cpu())


@contextlib.contextmanager
def opened(model: str) -> Iterator[None]:
    """Around what starts vLLM.

    Raises:
        EngineError: it raised something. Says vLLM's own reason, whichever of its processes gave it.
    """
    failed: Exception | None = None
    with printed() as said:
        try:
            yield
        except Exception as error:  # vLLM raises OSError, ValueError, RuntimeError, pydantic's and huggingface_hub's
            failed = error
    if failed is not None:
        why = vllm_failure.reason(failed, said.text())
        raise EngineError(f"vLLM cannot open {model!r}: {why}", vllm_failure.remedy(model, why)) from failed


@contextlib.contextmanager
def turn_on_card(gpus: float | None) -> Iterator[None]:
    """Engines that share a card start one after the other: each measures how much of its memory is free."""
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if gpus is None or gpus >= 1 or not card:
        yield
        return
    with open(Path(tempfile.gettempdir()) / f"vlm-preference-card-{card}-{os.getuid()}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed, or the process is gone
        yield


def step_limits(on_cpu: bool, seqs: int | None, tokens: int | None, gpus: float | None) -> dict[str, int]:
    """How many sequences and tokens one step of the engine has at most, where nobody says so."""
    if on_cpu:
        usual = _CPU_SEQS, _CPU_BATCHED_TOKENS
    else:
        from vllm.platforms import current_platform

        memory = current_platform.get_device_total_memory() / 2**30
        usual = engine_args.card_limits(memory * (gpus or 1), current_platform.get_device_name())
    seqs = seqs or usual[0]
    return {"max_num_seqs": seqs, "max_num_batched_tokens": tokens or max(usual[1], seqs)}


def processor_limits(model: str, revision: str | None, most_pixels: int | None) -> dict[str, Any]:
    """``engine_args.processor_limits`` of a model's processor."""
    if most_pixels is None:
        return {}
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(model, revision=revision)
    except Exception:  # there is none, or vLLM will say what is wrong with it
        return {}
    return engine_args.processor_limits(processor, most_pixels)


def cpu_options() -> dict[str, Any]:
    return {
        "enforce_eager": True,
        # Per-request seeds fail with chunked prefill on CPU ("CPU Generator does not use offset").
        "enable_chunked_prefill": False,
        # The least there is. With vLLM's 128, most prompts have no whole block for their n answers to share: a quarter
        # slower on short ones.
        "block_size": 32,
        # Instead of nine tenths of the machine; VLLM_CPU_KVCACHE_SPACE goes before it.
        "kv_cache_memory_bytes": CPU_CACHE,
    }
