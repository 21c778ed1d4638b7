"""Train the built-in open_clip model: a small CLIP of the same world, for CLIPScore.

Beside the usual contrast among a batch, every image also meets its own description with one object exchanged; otherwise
a CLIP of a small world learns to tell scenes apart and never looks at whether each named thing is there. The exchange
stays within the scene's theme, as far as the theme goes: an object of another theme is found out without any image.
The image tower starts as the VLM's, which knows what each patch shows. From nothing, 450 steps stayed near chance.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.base.progress import ProgressBar
from pipeline.scenes import grammar, raster
from pipeline.scenes.models_build import untrained_vlm
from pipeline.scenes.models_build.curriculum import TRAIN_SEED
from pipeline.scenes.vocabulary import OBJECTS, THEMES
from pipeline.scenes.world import SIZE, scene

if TYPE_CHECKING:
    import torch

CONTEXT = 56
WIDTH, LAYERS = 128, 3
STEPS, BATCH, RATE = 900, 128, 1e-3


def config(vocabulary: int) -> dict[str, Any]:
    """open_clip's own model config."""
    return {
        "embed_dim": WIDTH,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": SIZE,
            "patch_size": untrained_vlm.PATCH,
            "width": WIDTH,
            "layers": LAYERS,
            "head_width": 32,
            "mlp_ratio": 3.0,
            "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": ".",
            "width": WIDTH,
            "heads": WIDTH // 32,
            "layers": LAYERS,
            "mlp_ratio": 3.0,
            "pool_type": "eos",
            "eos_id": 2,
        },
    }


def tokenizer() -> Any:
    """The VLM's word list; every text gets ``<s>`` and ``</s>``, which open_clip pools at."""
    from tokenizers.processors import TemplateProcessing

    words = untrained_vlm.tokenizer()
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", words.bos_token_id), ("</s>", words.eos_token_id)]
    )
    words.chat_template = None
    return words


def batch(words: Any, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels float32 [B, 3, 96, 96] and token ids [2B, context]: B descriptions, then the same with an exchange."""
    import torch

    rng = random.Random(f"clip:{index}")
    pictures, true, exchanged = [], [], []
    for i in range(BATCH):
        shown = scene(TRAIN_SEED + 1, index * BATCH + i)
        items = grammar.reading_order(shown)
        # Parts of a description must fit too, or a missing object would weigh as much as a wrong one.
        items = sorted(rng.sample(items, rng.randint(1, len(items))), key=items.index)
        wrong = rng.randrange(len(items))
        theme = [name for name in THEMES[shown.theme] if name not in shown.names]
        pool = theme or [name for name in OBJECTS if name not in shown.names]
        other = [*items[:wrong], replace(items[wrong], name=rng.choice(pool)), *items[wrong + 1 :]]
        words_seed = rng.random()
        true.append(grammar.describe(items, random.Random(words_seed)))
        exchanged.append(grammar.describe(other, random.Random(words_seed)))
        pictures.append(raster.pixels(shown))
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    ids = words(true + exchanged, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt")
    return pixels, ids.input_ids


def copy_tower(vlm: Path, visual: Any) -> None:
    """Set the weights of open_clip's image tower to those of the VLM's in ``vlm``; same patches, width and heads."""
    import torch
    from transformers import LlavaForConditionalGeneration

    tower = LlavaForConditionalGeneration.from_pretrained(vlm, dtype=torch.float32).model.vision_tower
    weights = {k.removeprefix("vision_model."): v for k, v in tower.state_dict().items()}
    mapped = {
        "class_embedding": weights["embeddings.class_embedding"],
        "conv1.weight": weights["embeddings.patch_embedding.weight"],
        "positional_embedding": weights["embeddings.position_embedding.weight"],
    }
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    names["self_attn.out_proj"] = "attn.out_proj"
    for kind in ("weight", "bias"):
        mapped[f"ln_pre.{kind}"] = weights[f"pre_layrnorm.{kind}"]
        for i in range(LAYERS):
            theirs, ours = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
            mapped |= {f"{ours}.{to}.{kind}": weights[f"{theirs}.{name}.{kind}"] for name, to in names.items()}
            parts = [weights[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            mapped[f"{ours}.attn.in_proj_{kind}"] = torch.cat(parts)
    missing, unexpected = visual.load_state_dict(mapped, strict=False)
    assert not unexpected and set(missing) == {"ln_post.weight", "ln_post.bias", "proj"}, (missing, unexpected)


def build(folder: Path, vlm: Path, work: Path, seed: int) -> None:
    """Write ``open_clip_config.json``, ``open_clip_model.safetensors`` and the tokenizer to ``folder``."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from torch.nn.functional import cross_entropy, logsigmoid
    from torch.utils.data import DataLoader

    words = tokenizer()
    settings = config(len(words))
    torch.manual_seed(seed)
    net = open_clip.CLIP(**settings)
    copy_tower(vlm, net.visual)
    optimiser = torch.optim.AdamW(net.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / 50) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / STEPS)))
    )
    work.mkdir(parents=True, exist_ok=True)
    file, start = work / "clip.pt", 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        start = state["step"]
    steps: Any = range(start, STEPS)  # torch takes any sequence, and says so nowhere in its types
    loader: Any = DataLoader(steps, batch_size=None, num_workers=1, prefetch_factor=8, collate_fn=partial(batch, words))
    with ProgressBar("clip", STEPS, start) as bar:
        for step, (pixels, ids) in enumerate(loader, start):
            image, text = net.encode_image(pixels, normalize=True), net.encode_text(ids, normalize=True)
            scale = net.logit_scale.exp().clamp(max=100)
            logits = scale * image @ text.T
            rows = torch.arange(BATCH)
            true, other = logits[rows, rows], logits[rows, rows + BATCH]
            loss = (
                cross_entropy(logits, rows) + cross_entropy(logits[:, :BATCH].T, rows) - logsigmoid(true - other).mean()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            bar.advance()
            if step % 50 == 49:
                right = (true > other).float().mean().item()
                bar.note(f"loss {loss.item():.3f}  exchanges seen {right:.3f}")
            if step % 100 == 99:
                state = {
                    "net": net.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                }
                torch.save({**state, "step": step + 1}, file.with_suffix(".tmp"))
                file.with_suffix(".tmp").rename(file)
    partial_folder = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    norm = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (partial_folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": settings, "preprocess_cfg": norm}, indent=2) + "\n"
    )
    # Every weight in half precision: the file is committed. open_clip casts to the model's own dtype when it loads.
    weights = {k: v.half().contiguous() for k, v in net.state_dict().items()}
    save_file(weights, partial_folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    words.save_pretrained(partial_folder)
    shutil.rmtree(folder, ignore_errors=True)
    partial_folder.rename(folder)
