"""The shapes that docs/gpu.md has a table of, as their published configurations say; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Shape(NamedTuple):
    """``config`` makes the transformers configuration, ``image`` is how many tokens a usual image has."""

    config: Callable[[], Any]
    image: int


def _llava() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    tower = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    text = LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=32064,
    )
    return LlavaConfig(vision_config=tower, text_config=text)


def _qwen(tower_feed_forward: int, **text: int) -> Any:
    from transformers import Qwen2_5_VLConfig

    tower = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": tower_feed_forward,
        "num_heads": 16,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "out_hidden_size": text["hidden_size"],
    }
    return Qwen2_5_VLConfig(vision_config=tower, text_config={"vocab_size": 152064, **text}, tie_word_embeddings=False)


def _qwen_7b() -> Any:
    return _qwen(
        3420,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    )


def _qwen_72b() -> Any:
    return _qwen(
        3456,
        hidden_size=8192,
        intermediate_size=29568,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    )


#: LLaVA-1.5 makes 576 tokens of any image, Qwen2.5-VL 34 x 46 of one of 1280 x 960 pixels.
SHAPES: Mapping[str, Shape] = {
    "LLaVA-1.5-7B": Shape(_llava, 576),
    "Qwen2.5-VL-7B": Shape(_qwen_7b, 1564),
    "Qwen2.5-VL-72B": Shape(_qwen_72b, 1564),
}
