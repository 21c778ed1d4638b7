"""What ``benchmarks/gpu.py`` trains: models of the real shapes with random weights, and pairs that are made.

Nothing is downloaded: tokenizers are those of ``tests/kit/tiny_models.py``, one token a character.
"""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import torch

#: The language model's positions, and what the tokenizers take.
CONTEXT = 4096
FAMILIES = ("llava", "qwen")


def build(family: str, device: torch.device, tiny: bool) -> tuple[Any, Any, tuple[int, int]]:
    """Model in bfloat16 on the device, its processor, width and height of the pictures.

    ``llava`` is LLaVA-1.5-7B, ``qwen`` Qwen2.5-VL-7B; ``tiny`` models have the same kinds of layers, for a CPU.
    """
    import tiny_models as kit

    kit.CONTEXT = CONTEXT
    torch.manual_seed(0)
    cls, config, processor, picture = (_llava if family == "llava" else _qwen)(kit, tiny)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = cls(config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():  # logits as peaked as a trained model's: the likeliest one near 17
        width = config.get_text_config().hidden_size
        model.lm_head.weight.normal_(0, 4.2 / width**0.5)
    return model.to(device, torch.bfloat16).eval(), processor, picture


def _llava(kit: Any, tiny: bool) -> tuple[Any, Any, Any, tuple[int, int]]:
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    words = kit.tokenizer(["<image>"], bos="<s>", eos="</s>", adds_bos=True)
    vision = CLIPVisionConfig(
        hidden_size=64 if tiny else 1024,
        intermediate_size=128 if tiny else 4096,
        num_hidden_layers=3 if tiny else 24,
        num_attention_heads=2 if tiny else 16,
        image_size=336,
        patch_size=14,
        projection_dim=64,
    )
    text = LlamaConfig(
        hidden_size=128 if tiny else 4096,
        intermediate_size=256 if tiny else 11008,
        num_hidden_layers=3 if tiny else 32,
        num_attention_heads=4 if tiny else 32,
        num_key_value_heads=4 if tiny else 32,
        vocab_size=512 if tiny else 32064,
        max_position_embeddings=CONTEXT,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=576,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=kit.turns("USER: ", " ", "ASSISTANT:", "<image>\n"),
    )
    return LlavaForConditionalGeneration, config, processor, (640, 480)


def _qwen(kit: Any, tiny: bool) -> tuple[Any, Any, Any, tuple[int, int]]:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    words = kit.tokenizer(kit._QWEN_TOKENS, eos="<|im_end|>")
    vision = {
        "depth": 2 if tiny else 32,
        "hidden_size": 64 if tiny else 1280,
        "intermediate_size": 128 if tiny else 3420,
        "num_heads": 2 if tiny else 16,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1] if tiny else [7, 15, 23, 31],
        "out_hidden_size": 128 if tiny else 3584,
    }
    rope = {
        "rope_type": "default",
        "mrope_section": [4, 6, 6] if tiny else [16, 24, 24],
        "rope_theta": 1e6,
    }
    text = {
        "hidden_size": 128 if tiny else 3584,
        "intermediate_size": 256 if tiny else 18944,
        "num_hidden_layers": 3 if tiny else 28,
        "num_attention_heads": 4 if tiny else 28,
        "num_key_value_heads": 2 if tiny else 4,
        "vocab_size": 512 if tiny else 152064,
        "max_position_embeddings": 32768,
        "pad_token_id": words.pad_token_id,
        "eos_token_id": words.eos_token_id,
        "bos_token_id": None,
        "rope_parameters": rope,
    }
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=False, **kit._qwen_ids(words))
    size = {"shortest_edge": 3136, "longest_edge": 12845056}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=14, size=size),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(patch_size=14, size=size),
        chat_template=kit.chatml(kit._QWEN_IMAGE),
    )
    return Qwen2_5_VLForConditionalGeneration, config, processor, (280, 224) if tiny else (1280, 960)


def save_pairs(folder: Path, count: int, picture: tuple[int, int], characters: int) -> Path:
    """A dataset of pairs, half of them descriptions of so many characters (a token each), half yes or no."""
    import datasets
    import numpy as np
    from PIL import Image

    rng, rows = random.Random(0), []

    def text(length: int) -> str:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=length))

    def turn(role: str, content: str) -> list[dict[str, str]]:
        return [{"role": role, "content": content}]

    width, height = picture
    for index in range(count):
        small = np.random.default_rng(index).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize(picture, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        chosen, rejected = ("y", "n") if index % 2 else (text(characters), text(characters))
        rows.append(
            {
                "id": str(index),
                "images": [{"bytes": file.getvalue(), "path": None}],
                "prompt": turn("user", text(40)),
                "chosen": turn("assistant", chosen),
                "rejected": turn("assistant", rejected),
            }
        )
    message = datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")})
    features = datasets.Features(
        id=datasets.Value("string"),
        images=datasets.List(datasets.Image(decode=False)),
        prompt=message,
        chosen=message,
        rejected=message,
    )
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(folder / "pairs"))
    return folder / "pairs"
