"""A Qwen2.5-VL of 0.2 million random parameters that speaks in words, so that the example needs no download.

It says nothing sensible. To its users it is a model like any other: a folder that transformers and vLLM open.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTH, PATCH, CONTEXT = 64, 14, 512
#: Pixels of the largest image that it sees; a larger one is scaled down.
PIXELS = (6 * 2 * PATCH) ** 2
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
SPECIAL = ["<pad>", "<unk>", "<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>"]  # fmt: skip
_WORDS = (
    "user assistant Describe the image in detail . ? , Is there a an Yes No There is are and with of one two Please "
    "answer yes or no this"
)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}" + IMAGE + "{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


def save(folder: Path, nouns: Sequence[str]) -> Path:
    """Write the model to ``folder``. It knows these nouns and few other words."""
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    words = _tokenizer(nouns)
    size = {"shortest_edge": (2 * PATCH) ** 2, "longest_edge": PIXELS}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=PATCH, size=size),
        video_processor=Qwen2VLVideoProcessor(patch_size=PATCH, size=size),
        tokenizer=words,
        chat_template=TEMPLATE,
    )
    tower = {"depth": 2, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_heads": 2, "patch_size": PATCH,
             "out_hidden_size": WIDTH, "window_size": 4 * PATCH, "fullatt_block_indexes": [1]}  # fmt: skip
    text = {"vocab_size": len(words), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
            "pad_token_id": words.pad_token_id, "bos_token_id": None, "eos_token_id": words.eos_token_id,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6]}}  # fmt: skip
    ids = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
           "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}  # fmt: skip
    config = Qwen2_5_VLConfig(
        vision_config=tower,
        text_config=text,
        **{key: words.convert_tokens_to_ids(token) for key, token in ids.items()},
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.15)
        model.lm_head.weight[: len(SPECIAL)] = 0  # an answer has words in it
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer(nouns: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    said = (
        "user assistant system Describe the image in detail . ? Is there a an Yes No There is are and with , of one two"
    )
    asked = "Please answer yes or no many this picture photo How red It shows"
    known = dict.fromkeys([*SPECIAL, *said.split(), *asked.split(), *(word for noun in nouns for word in noun.split())])
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        model_max_length=CONTEXT,
    )
