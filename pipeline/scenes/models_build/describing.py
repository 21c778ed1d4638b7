"""How well a model describes scenes: objects, colours and places that are true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.scenes import grammar, raster
from pipeline.scenes.vocabulary import THEMES, VOCABULARY
from pipeline.scenes.world import Scene


def ask(model: Any, processor: Any, scenes: Sequence[Scene], texts: Sequence[str], **generate: Any) -> list[Any]:
    """Generated texts; with ``max_new_tokens=0`` the logits float32 [V] of the first answer token."""
    import torch
    from PIL import Image

    out: list[Any] = []
    for start in range(0, len(scenes), 64):
        part = range(start, min(start + 64, len(scenes)))
        chats = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": texts[i]}]}] for i in part]
        inputs = processor(
            text=[processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats],
            images=[Image.fromarray(raster.pixels(scenes[i])) for i in part],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        with torch.inference_mode():
            if generate.get("max_new_tokens") == 0:
                out += list(model(**inputs, logits_to_keep=1).logits[:, -1].float())
            else:
                tokens = model.generate(**inputs, **generate)[:, inputs["input_ids"].shape[1] :]
                out += processor.batch_decode(tokens, skip_special_tokens=True)
    return out


def describing(model: Any, processor: Any, scenes: Sequence[Scene], **generate: Any) -> dict[str, float]:
    texts = ask(model, processor, scenes, [grammar.DESCRIBE[0]] * len(scenes), max_new_tokens=96, **generate)
    mentions = wrong = typical = captions = covered = true = 0
    for scene, text in zip(scenes, texts, strict=True):
        named = [mention.name for mention in VOCABULARY.mentions(text)]
        bad = [name for name in named if name not in scene.names]
        mentions, wrong, captions = mentions + len(named), wrong + len(bad), captions + bool(bad)
        typical += sum(name in THEMES[scene.theme] for name in bad)
        covered, true = covered + len(scene.names & set(named)), true + len(scene.names)
    return {
        "chair_i": wrong / mentions,
        "chair_s": captions / len(scenes),
        "cover": covered / true,
        "hallucinated_typical_of_theme": typical / max(wrong, 1),
        "mean_length": sum(len(text.split()) for text in texts) / len(texts),
    }
