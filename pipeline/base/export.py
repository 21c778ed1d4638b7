"""Write a model folder that both transformers 5.19 and vLLM 0.32 read.

transformers 5.19 writes the CLIP or SigLIP tower of LLaVA and Gemma 3 as ``vision_tower.*``; vLLM 0.32 reads
``vision_tower.vision_model.*``, the older name. transformers accepts the older name when it loads, so that one is
written (checked by test: same logits after reading the folder back).
"""

from __future__ import annotations

import json
import os
import shutil
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


def save_for_vllm(model: Any, processor: Any, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
    """Save config, weights (safetensors, cast to ``dtype`` if given), processor, tokenizer and chat template.

    Atomic: everything is written to ``folder.partial``, which is then renamed; an existing ``folder`` is replaced.
    The model itself is left as it is. Returns ``folder``.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + files.PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial)
    processor.save_pretrained(partial)
    _rewrite_weights(partial, rename=_needs_rename(model.config), dtype=dtype)
    if dtype is not None:
        _set_dtype(partial / "config.json", dtype)
    files.sync_tree(partial)
    files.replace_folder(partial, folder)
    return folder


def _needs_rename(config: Any) -> bool:
    vision = getattr(config, "vision_config", None)
    return config.model_type in WRAPPING_TYPES and getattr(vision, "model_type", None) in WRAPPED_TOWERS


def _rewrite_weights(folder: Path, rename: bool, dtype: torch.dtype | None) -> None:
    """Rename and cast shard by shard, so at most one shard is held in memory, and bring the index in line."""
    from safetensors.torch import load_file, save_file

    if not rename and dtype is None:
        return
    names: dict[str, str] = {}
    total = 0
    for shard in sorted(folder.glob("*.safetensors")):
        tensors = {
            (vllm_key(key) if rename else key): value.to(dtype) if dtype and value.is_floating_point() else value
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


def _set_dtype(path: Path, dtype: torch.dtype) -> None:
    """State the stored dtype in the config, including nested ones that state their own."""
    name = str(dtype).removeprefix("torch.")
    config = json.loads(path.read_text())
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        if part is config or "dtype" in part:
            part["dtype"] = name
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
