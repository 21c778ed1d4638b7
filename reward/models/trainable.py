"""The reward model that training starts from, and the folder it ends in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from pipeline.base.export import save_model
from reward.models.conversation_reader import Reader
from reward.models.network import LinearHead, RewardNetwork, open_backbone, width
from reward.models.reward_checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, HEAD_FILE

#: Parts of module names that belong to the eyes, in the families of docs/models.md.
_EYES = frozenset({"vision_tower", "visual", "vision_model", "multi_modal_projector", "connector", "merger"})


def check_out(out: Path, model: str, tuning: Literal["lora", "full"]) -> None:
    """What lies in ``out`` may be written over by a reward model of its kind alone: beside an adapter of before a whole
    model would never be read, and an adapter beside a model becomes part of that.

    Raises:
        ValueError: something else lies there.
    """
    adapter, whole, head = ((out / name).exists() for name in (ADAPTER_CONFIG, "config.json", HEAD_FILE))
    if tuning == "full":
        other = "an adapter" if adapter else "a model that is no reward model" if whole and not head else None
    else:
        other = "a whole model" if whole else None
    if out.resolve() == Path(model).resolve():
        other = "the model that is trained"
    if other is not None:
        raise ValueError(f"out={str(out)!r} holds {other}; name another folder, or move it away")


def open_trainable(model: str, blind: bool, rank: int | None) -> tuple[RewardNetwork, Reader]:
    """A network whose every reward is 0, in evaluation mode, and its reader.

    ``rank``: of the LoRA adapter on the language model's linear layers, scaled by 2; None lets every weight move.
    """
    # LoRA's frozen weights may be bfloat16; a weight that moves would lose small updates.
    small = torch.cuda.is_available() and rank is not None
    whole, reader = open_backbone(model, not blind, torch.bfloat16 if small else torch.float32, {})
    size = width(whole)
    if rank is not None:
        names = [
            name
            for name, module in whole.named_modules()
            if isinstance(module, torch.nn.Linear) and not _EYES & set(name.split(".")) and "lm_head" not in name
        ]
        whole = get_peft_model(whole, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names))
    else:
        for name, parameter in whole.named_parameters():
            parameter.requires_grad_("lm_head" not in name)
    # Evaluation mode: dropout would make a pair's two rewards differ by chance.
    return RewardNetwork(whole, LinearHead(size)).eval(), reader


def save(network: RewardNetwork, reader: Reader, out: Path, base_name: str, blind: bool, half: bool) -> None:
    """Write a folder that ``read_checkpoint`` knows. ``base_name`` is what an adapter calls its model; ``half`` writes
    it in float16."""
    out.mkdir(parents=True, exist_ok=True)
    save_model(network.whole, out)
    (out / "README.md").unlink(missing_ok=True)  # peft's form, with nothing filled in
    if isinstance(network.whole, PeftModel):
        config = json.loads((out / ADAPTER_CONFIG).read_text())
        config |= {"base_model_name_or_path": base_name, "target_modules": sorted(config["target_modules"])}
        (out / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        if half:
            weights = {name: tensor.half() for name, tensor in load_file(out / ADAPTER_WEIGHTS).items()}
            save_file(weights, out / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    else:
        reader.processor.save_pretrained(out)
    head = {name: tensor.detach().cpu().contiguous() for name, tensor in network.head.state_dict().items()}
    # One entry: safetensors writes several in an order that changes from run to run.
    save_file(head, out / HEAD_FILE, metadata={"blind": str(blind).lower()})
