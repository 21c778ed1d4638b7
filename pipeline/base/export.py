"""Write a model folder that both transformers 5.19 and vLLM 0.32 read.

transformers 5.19 writes the CLIP or SigLIP tower of LLaVA and Gemma 3 as ``vision_tower.*``; vLLM 0.32 reads
``vision_tower.vision_model.*``, the older name. transformers accepts the older name when it loads, so that one is
written (checked by test: same logits after reading the folder back).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pipeline.base import files

WRAPPING_TYPES = frozenset({"gemma3", "llava", "llava_next", "llava_next_video", "llava_onevision", "vipllava"})
#: Towers that vLLM wraps in ``vision_model``; Pixtral's it does not.
WRAPPED_TOWERS = frozenset({"clip_vision_model", "siglip_vision_model"})
_TOWER = "vision_tower."
_WRAPPED = "vision_tower.vision_model."


def vllm_key(key: str) -> str:
    """The name under which vLLM 0.32 looks for a tower weight; idempotent, other names are kept.

    >>> vllm_key("vision_tower.pre_layrnorm.bias")
    'vision_tower.vision_model.pre_layrnorm.bias'
    """
    prefix, tower, rest = key.partition(_TOWER)
    renames = tower and prefix in ("", "model.") and not key.startswith(prefix + _WRAPPED)
    return prefix + _WRAPPED + rest if renames else key


def round_unbiased(values: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    """Float32 values in a narrower dtype: each is one of its two neighbours there, the nearer one more often, so that
    the mean is kept. Values of the dtype stay as they are. Drawn by ``name``: the same values give the same result.

    >>> halfway = torch.full((10_000,), 1 + 2**-9)  # a quarter of the way from 1 to bfloat16's next number
    >>> rounded = round_unbiased(halfway, torch.bfloat16, "weight").float()
    >>> sorted(set(rounded.tolist())), halfway.bfloat16().float().mean().item()
    ([1.0, 1.0078125], 1.0)
    >>> abs(rounded.mean().item() - halfway[0].item()) < 1e-4
    True
    """
    if dtype != torch.bfloat16 or values.dtype != torch.float32:
        return values.to(dtype)
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big"))
    # bfloat16 is the upper half of float32's bits: what is added to the lower half carries over as often as it should.
    noise = torch.randint(0, 1 << 16, values.shape, generator=generator, dtype=torch.int32).to(values.device)
    bits = values.contiguous().view(torch.int32)
    rounded = ((bits + noise) & ~0xFFFF).view(torch.float32)
    return torch.where(values.isfinite() & rounded.isfinite(), rounded, values).to(dtype)


def save_for_vllm(
    model: Any, processor: Any, folder: str | Path, dtype: torch.dtype | None = None, unbiased: bool = False
) -> Path:
    """Save config, weights (safetensors, cast to ``dtype`` if given), processor, tokenizer and chat template.

    Weights are rounded to the nearest, or with ``unbiased`` by ``round_unbiased``, which keeps small updates.

    Atomic: everything is written to ``folder.partial``, which is then renamed; an existing ``folder`` is replaced.
    The model itself is left as it is. Returns ``folder``.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + files.PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_model(model, partial)
    processor.save_pretrained(partial)
    _rewrite_weights(partial, rename=_needs_rename(model.config), dtype=dtype, unbiased=unbiased)
    if dtype is not None:
        _set_dtype(partial / "config.json", dtype)
    files.sync_tree(partial)
    files.replace_folder(partial, folder)
    return folder


def save_model(model: Any, folder: Path) -> None:
    """``model.save_pretrained(folder)``, whatever the model's generation config says.

    transformers reads a ``generation_config.json`` that names a temperature without sampling, as LLaVA-1.5's and many
    others do, with a warning, and refuses to write it, which would lose a training at its end. Here it is written as it
    was read.
    """
    with _without_generation_config(model) as generation:
        model.save_pretrained(folder)
    path = folder / "generation_config.json"
    if path.exists():  # of a model that generates
        generation.to_json_file(path, keys_to_pop=["compile_config"])


@contextmanager
def _without_generation_config(model: Any) -> Iterator[Any]:
    """The model has an empty one meanwhile; gives its own, None if it has none."""
    own = getattr(model, "generation_config", None)
    if own is None:
        yield None
        return
    model.generation_config = type(own)()
    try:
        yield own
    finally:
        model.generation_config = own


def _needs_rename(config: Any) -> bool:
    vision = getattr(config, "vision_config", None)
    return config.model_type in WRAPPING_TYPES and getattr(vision, "model_type", None) in WRAPPED_TOWERS


def _rewrite_weights(folder: Path, rename: bool, dtype: torch.dtype | None, unbiased: bool) -> None:
    """Rename and cast shard by shard, so at most one shard is held in memory, and bring the index in line."""
    from safetensors.torch import load_file, save_file

    if not rename and dtype is None:
        return
    names: dict[str, str] = {}
    total = 0
    for shard in sorted(folder.glob("*.safetensors")):
        tensors = {
            (vllm_key(key) if rename else key): _cast(value, dtype, key if unbiased else "")
            for key, value in load_file(shard).items()
        }
        # load_file maps the shard into memory: never write into the file that is being read.
        rewritten = shard.with_suffix(".rewritten")
        save_file(tensors, rewritten, metadata={"format": "pt"})
        os.replace(rewritten, shard)
        names.update(dict.fromkeys(tensors, shard.name))
        total += sum(value.numel() * value.element_size() for value in tensors.values())
    index = folder / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text())
        content["weight_map"] = dict(sorted(names.items()))
        content["metadata"]["total_size"] = total
        index.write_text(json.dumps(content, indent=2) + "\n")


def _cast(value: torch.Tensor, dtype: torch.dtype | None, drawn_by: str) -> torch.Tensor:
    if dtype is None or not value.is_floating_point():
        return value
    return round_unbiased(value, dtype, drawn_by) if drawn_by else value.to(dtype)


def _set_dtype(path: Path, dtype: torch.dtype) -> None:
    """State the stored dtype in the config, including nested ones that state their own."""
    name = str(dtype).removeprefix("torch.")
    config = json.loads(path.read_text())
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        if part is config or "dtype" in part:
            part["dtype"] = name
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
