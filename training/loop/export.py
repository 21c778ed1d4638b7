"""The trained model as a folder that transformers and vLLM load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base import files
from pipeline.base.export import save_for_vllm
from pipeline.base.progress import tell
from training.config import TrainConfig
from training.forward.model import DTYPES, load_model, prepare_tuning, trainable
from training.loop.merge import merge

#: What became of the adapters' update in the weights of ``model/``.
MERGED = "merged.json"


def export(model: nn.Module, processor: Any, config: TrainConfig, trained: Mapping[str, Tensor] | None = None) -> None:
    """Write ``model/`` (adapters merged in) and, with LoRA, ``adapter/`` and ``merged.json`` (``merge.Merged``, and the
    ``dtype`` of the training).

    ``trained`` are the whole tensors that moved; given, the starting model is read again and they are put into it:
    ``model`` may be split over workers, or hold 4-bit weights, which adapters are not merged into (the result would be
    neither the 4-bit model plus adapters nor the full one). Without it merging changes ``model``.
    """
    final: Any = model if trained is None else rebuild(config, trained)
    if config.tuning == "lora":
        adapter = config.output_dir / "adapter"
        partial = adapter.with_name(adapter.name + files.PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        final.save_pretrained(partial)
        # PEFT's form with nothing filled in, but for the starting model's place on this machine.
        (partial / "README.md").unlink(missing_ok=True)
        files.sync_tree(partial)
        files.replace_folder(partial, adapter)
        final, merged = merge(final)
        tell(str(merged))
        about = {**asdict(merged), "dtype": config.precision}
        files.write_text(config.output_dir / MERGED, json.dumps(about, indent=2) + "\n")
    # Full tuning has float32 weights whatever the dtype: what it changed is as small beside them.
    save_for_vllm(final, processor, config.output_dir / "model", DTYPES[config.precision], unbiased=True)


def rebuild(config: TrainConfig, trained: Mapping[str, Tensor]) -> nn.Module:
    """The starting model on the CPU, prepared as for training but never quantised, with the tensors that moved."""
    plain = config.model_copy(update={"quantization": None})
    model = prepare_tuning(load_model(plain)[0], plain)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(trained[name])
    return model
