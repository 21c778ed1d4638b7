"""What vLLM is started with, as far as it follows from the card, the data and the recipe. Nothing here imports vLLM."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError

#: Settings of vLLM that have an option of ours, under the same name.
OURS = frozenset(
    {"model", "revision", "dtype", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization",
     "tensor_parallel_size", "load_format", "trust_remote_code"}
)  # fmt: skip
#: Settings of vLLM that the engine needs as it sets them.
FIXED = frozenset({"disable_log_stats", "generation_config", "runner", "skip_tokenizer_init"})
#: Mappings of which the engine has entries of its own; those of the user go first.
MERGED = ("limit_mm_per_prompt", "mm_processor_kwargs")
#: Settings of vLLM that say where and how fast it works, not what comes out of it but for ties in the last bit.
NEUTRAL_ARGS = frozenset(
    {"limit_mm_per_prompt", "enable_prefix_caching", "enable_chunked_prefill", "enforce_eager", "block_size",
     "kv_cache_memory_bytes", "num_gpu_blocks_override", "cpu_offload_gb", "compilation_config",
     "cudagraph_capture_sizes", "max_cudagraph_capture_size", "mm_processor_cache_gb", "mm_processor_cache_type",
     "mm_encoder_tp_mode", "skip_mm_profiling", "pipeline_parallel_size", "data_parallel_size",
     "distributed_executor_backend", "disable_custom_all_reduce", "max_parallel_loading_workers",
     "safetensors_load_strategy", "download_dir",
     "scheduling_policy", "async_scheduling", "attention_backend", "mm_encoder_attn_backend", "renderer_num_workers",
     "log_level"}
)  # fmt: skip

#: GiB of a card (or of the share of it that an engine has), sequences and tokens in one step. From 70 GiB these are
#: what vLLM's own ``LLM`` takes; its ``AsyncLLM`` would take 128 and 2,048 everywhere, three images a step.
_BY_MEMORY = ((70.0, 1024, 16_384), (30.0, 256, 8_192), (0.0, 128, 4_096))
#: vLLM's own measurements: on these, larger steps are slower whatever their memory.
_SMALL_STEPS = "a100"


def card_limits(memory: float, name: str = "") -> tuple[int, int]:
    """``max_num_seqs`` and ``max_num_batched_tokens`` for ``memory`` GiB of a card called ``name``.

    >>> card_limits(79.6, "NVIDIA H100 80GB HBM3"), card_limits(79.6, "NVIDIA A100-SXM4-80GB"), card_limits(20.0)
    ((1024, 16384), (256, 8192), (128, 4096))
    """
    rows = _BY_MEMORY[1:] if _SMALL_STEPS in name.lower() else _BY_MEMORY
    return next((seqs, tokens) for least, seqs, tokens in rows if memory >= least)


def most_pixels(unit: int, smallest: int, most: int) -> int:
    """As many pixels as Qwen's processors make at most of an image of ``most`` pixels, of whatever shape: they round
    both sides to multiples of ``unit``, and scale up what has fewer than ``smallest``.

    >>> most_pixels(28, 3136, 1_000_000)
    1187760
    """
    widest = 200  # times as wide as high; anything beyond is refused
    largest = unit * unit
    for rows in range(1, math.isqrt(most) // unit + 2):
        # Of the heights that become so many rows, the one that leaves the most width.
        height = min(max((most / widest) ** 0.5, (rows - 0.5) * unit), (rows + 0.5) * unit)
        columns = math.floor(min(most / height, height * widest) / unit + 0.5)
        largest = max(largest, rows * columns * unit * unit)
    scaled_up = max(
        math.ceil(math.sqrt(smallest / shape) / unit) * math.ceil(math.sqrt(smallest * shape) / unit) * unit * unit
        for shape in range(1, widest + 1)
    )
    return max(largest, scaled_up)


def processor_limits(processor: Any, most: int) -> dict[str, Any]:
    """``mm_processor_kwargs`` that tell an image processor of Qwen's that no image has more than ``most`` pixels: vLLM
    makes room for the largest one that there may be. Nothing for other processors, and where it changes nothing.

    They change no image that has at most ``most`` pixels.
    """
    if not type(processor).__name__.startswith("Qwen2VLImageProcessor"):
        return {}
    shortest, longest = processor.size["shortest_edge"], processor.size["longest_edge"]
    bound = most_pixels(processor.patch_size * processor.merge_size, shortest, most)
    return {"images_kwargs": {"size": {"shortest_edge": shortest, "longest_edge": bound}}} if bound < longest else {}


def check(args: Mapping[str, Any]) -> None:
    """
    Raises:
        ConfigError: one of ``engine_args`` is nothing that vLLM knows, or has a place of its own.
    """
    names = engine_arg_names()
    for name in args:
        if name in OURS:
            raise ConfigError(f"engine_args has {name!r}, which is an option of its own", f"write it as engine.{name}")
        if name in FIXED:
            raise ConfigError(f"engine_args has {name!r}, which the engine sets itself", "remove it")
        if name in MERGED and not isinstance(args[name], Mapping):
            raise ConfigError(f"engine_args.{name} is {args[name]!r:.80}", "write a mapping, such as {image: 4}")
        if names and name not in names:
            raise ConfigError(f"engine_args: vLLM has no argument {name!r}", _suggest(name, names - OURS - FIXED))


def _suggest(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), names, 1, 0.6)
    return f"did you mean {close[0]!r}?" if close else "see vLLM's EngineArgs for what there is"


@functools.cache
def engine_arg_names() -> frozenset[str]:
    """The fields of vLLM's ``EngineArgs``, read from its source: importing it takes half a minute. Empty where there is
    no vLLM."""
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        return frozenset()
    source = Path(found.origin).parent / "engine" / "arg_utils.py"
    if not source.is_file():
        return frozenset()
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == "EngineArgs":
            names = (field.target for field in node.body if isinstance(field, ast.AnnAssign))
            return frozenset(name.id for name in names if isinstance(name, ast.Name))
    return frozenset()
