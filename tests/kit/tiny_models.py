"""Tiny random models of the main VLM families: the real transformers classes, processors and chat-template forms.

A builder returns ``(model, processor)`` with some 10^5 parameters and a tokenizer made here, so nothing is downloaded.
Special tokens, their places in the prompt and the begin-of-text token are those of the family's released checkpoints;
sizes are as small as vLLM's CPU attention takes (heads of 32). Images are cut into squares of ``SIDE`` pixels, patches
are ``PATCH`` pixels wide: a square is 16 patches.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engines.protocol import Request, Response, Sampling

SIDE = 32
PATCH = 8
WIDTH = 64
#: Tokens of a square, and what is left of them where a family merges 2x2 patches.
PATCHES = (SIDE // PATCH) ** 2
MERGED = PATCHES // 4
#: As many tokens as a prompt of two images and its answer need in the hungriest family.
CONTEXT = 512


@dataclass(frozen=True)
class Family:
    """``tokens`` are the image tokens of a prompt with ``image(2, 1)``, and of one with ``image(1, 1)`` after it."""

    name: str
    released: str
    architecture: str
    build: Callable[[], tuple[Any, Any]]
    tokens: tuple[int, int]


def save(family: Family, folder: Path) -> Path:
    """Write the family's tiny model where vLLM and transformers both read it, the way the product exports models."""
    from pipeline.base.export import save_for_vllm

    return save_for_vllm(*family.build(), folder)


def ask_vllm(folder: Path, questions: Sequence[tuple[Sequence[Request], Sampling]]) -> list[list[Response]]:
    """What the engine answers to each batch. To be called in a process of its own, after ``hasten_vllm``: the end of
    one engine takes vLLM's process groups with it, and so any other engine of the process."""
    from pipeline.engines.vllm import OpenVllm

    engine = OpenVllm(str(folder))()
    try:
        return [list(engine.generate(requests, sampling)) for requests, sampling in questions]
    finally:
        engine.close()


def hasten_vllm() -> None:
    """Skip what costs vLLM minutes where its caches are empty, as on a new machine; the answers are the same."""
    os.environ["TORCH_COMPILE_DISABLE"] = "1"  # the sampler, 17 s
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"  # or it warns that the classes below were known already
    from vllm import ModelRegistry

    # A class that was never seen is inspected by another Python, 20 s each, unless it is registered as a class.
    for architecture in (family.architecture for family in FAMILIES):
        ModelRegistry.register_model(architecture, ModelRegistry.models[architecture].load_model_cls())


def image(columns: int, rows: int, seed: int = 0) -> bytes:
    """A PNG of noise, ``columns`` by ``rows`` squares."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (rows * SIDE, columns * SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def llava() -> tuple[Any, Any]:
    from transformers import CLIPImageProcessor, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    words = tokenizer(["<image>"], bos="<s>", eos="</s>", adds_bos=True)
    config = LlavaConfig(text_config=LlamaConfig(**text_sizes(words)), **_llava_config(words))
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=square()),
        chat_template=turns("USER: ", " ", "ASSISTANT:", "<image>\n"),
        **_llava_processor(words),
    )
    return random(LlavaForConditionalGeneration, config), processor


def llava_next() -> tuple[Any, Any]:
    from transformers import (
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
        MistralConfig,
    )

    words = tokenizer(["<image>"], bos="<s>", eos="</s>", adds_bos=True)
    text = MistralConfig(**text_sizes(words), sliding_window=None)
    config = LlavaNextConfig(text_config=text, image_grid_pinpoints=grids(), **_llava_config(words))
    images = LlavaNextImageProcessor(size={"shortest_edge": SIDE}, crop_size=square(), image_grid_pinpoints=grids())
    processor = LlavaNextProcessor(
        image_processor=images,
        chat_template=turns("[INST] ", " [/INST]", "", "<image>\n"),
        **_llava_processor(words),
    )
    return random(LlavaNextForConditionalGeneration, config), processor


def llava_onevision() -> tuple[Any, Any]:
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        Qwen2Config,
    )

    words = tokenizer(["<image>", "<video>", "<|im_start|>"], eos="<|im_end|>")
    config = LlavaOnevisionConfig(
        vision_config=siglip_tower(),
        text_config=Qwen2Config(**text_sizes(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grids(),
    )
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=square(), image_grid_pinpoints=grids()),
        tokenizer=words,
        video_processor=LlavaOnevisionVideoProcessor(size=square()),
        num_image_tokens=PATCHES,
        vision_feature_select_strategy="full",
        chat_template=chatml("<image>\n"),
    )
    return random(LlavaOnevisionForConditionalGeneration, config), processor


def qwen2_vl() -> tuple[Any, Any]:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

    words = tokenizer(_QWEN_TOKENS, eos="<|im_end|>")
    tower = {"depth": 2, "embed_dim": WIDTH, "hidden_size": WIDTH, "num_heads": 2, "patch_size": PATCH, "mlp_ratio": 2}
    config = Qwen2VLConfig(
        vision_config=tower,
        text_config={**text_sizes(words), "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6]}},
        **_qwen_ids(words),
    )
    processor = Qwen2VLProcessor(**_qwen_processors(words), chat_template=chatml(_QWEN_IMAGE))
    return random(Qwen2VLForConditionalGeneration, config), processor


def qwen2_5_vl() -> tuple[Any, Any]:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

    words = tokenizer(_QWEN_TOKENS, eos="<|im_end|>")
    config = Qwen2_5_VLConfig(
        vision_config={**_QWEN_TOWER, "window_size": 2 * SIDE, "fullatt_block_indexes": [1]},
        text_config={**text_sizes(words), "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6]}},
        **_qwen_ids(words),
    )
    processor = Qwen2_5_VLProcessor(**_qwen_processors(words), chat_template=chatml(_QWEN_IMAGE))
    return random(Qwen2_5_VLForConditionalGeneration, config), processor


def qwen3_vl() -> tuple[Any, Any]:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor, Qwen3VLVideoProcessor

    words = tokenizer(_QWEN_TOKENS, eos="<|im_end|>")
    rope = {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        vision_config={**_QWEN_TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        text_config={**text_sizes(words), "head_dim": 32, "rope_parameters": rope},
        **_qwen_ids(words),
    )
    parts = _qwen_processors(words)
    parts["video_processor"] = Qwen3VLVideoProcessor(patch_size=PATCH, size=parts["image_processor"].size)
    processor = Qwen3VLProcessor(**parts, chat_template=chatml(_QWEN_IMAGE))
    return random(Qwen3VLForConditionalGeneration, config), processor


def idefics3() -> tuple[Any, Any]:
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
        LlamaConfig,
    )

    words = tokenizer(_IDEFICS_TOKENS, bos="<|begin_of_text|>", eos="<|end_of_text|>", adds_bos=True)
    config = Idefics3Config(text_config=LlamaConfig(**text_sizes(words)), **_idefics_config(words))
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessor(**_IDEFICS_SIZES),
        tokenizer=words,
        image_seq_len=MERGED,
        # Idefics3 writes the begin-of-text token into the prompt although its tokenizer adds one as well.
        chat_template="<|begin_of_text|>" + turns("User:", "<end_of_utterance>\n", "Assistant:", "<image>"),
    )
    return random(Idefics3ForConditionalGeneration, config), processor


def smolvlm() -> tuple[Any, Any]:
    from transformers import SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    words = tokenizer(_IDEFICS_TOKENS, bos="<|im_start|>", eos="<end_of_utterance>")
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(**_IDEFICS_SIZES),
        tokenizer=words,
        video_processor=SmolVLMVideoProcessor(**_IDEFICS_SIZES),
        image_seq_len=MERGED,
        chat_template="<|im_start|>" + turns("User:", "<end_of_utterance>\n", "Assistant:", "<image>"),
    )
    return smolvlm_model(words), processor


def smolvlm_model(words: Any) -> Any:
    from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration

    config = SmolVLMConfig(text_config=LlamaConfig(**text_sizes(words)), **_idefics_config(words))
    return random(SmolVLMForConditionalGeneration, config)


def internvl() -> tuple[Any, Any]:
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        Qwen2Config,
    )

    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(["<|im_start|>"], eos="<|im_end|>", named=named)
    config = InternVLConfig(
        vision_config={**_TOWER, "num_hidden_layers": 2, "image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]},
        text_config=Qwen2Config(**text_sizes(words)),
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=MERGED,
        tie_word_embeddings=False,
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=square(), crop_to_patches=True, min_patches=1, max_patches=4),
        tokenizer=words,
        video_processor=InternVLVideoProcessor(size=square()),
        image_seq_length=MERGED,
        chat_template=chatml("<IMG_CONTEXT>\n"),
    )
    return random(InternVLForConditionalGeneration, config), processor


def gemma3() -> tuple[Any, Any]:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor

    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    words = tokenizer(["<start_of_turn>"], bos="<bos>", eos="<end_of_turn>", adds_bos=True, named=named)
    config = Gemma3Config(
        vision_config=siglip_tower(),
        text_config={**text_sizes(words), "head_dim": 32, "sliding_window": CONTEXT, "query_pre_attn_scalar": 32},
        mm_tokens_per_image=MERGED,
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size=square()),
        tokenizer=words,
        image_seq_length=MERGED,
        # As Idefics3: the template writes the token that the tokenizer adds as well.
        chat_template="{{ bos_token }}"
        + turns("<start_of_turn>user\n", "<end_of_turn>\n", "<start_of_turn>model\n", "<start_of_image>"),
    )
    # Its embeddings are tied and scaled up: wider ones would repeat the prompt's last token for ever.
    return random(Gemma3ForConditionalGeneration, config, spread=0.1), processor


#: Image tokens, with 16 patches to a square. LLaVA-1.5 crops to one square: 16 an image. LLaVA-NeXT and OneVision show
#: the whole image (16) and its squares with a newline after each of the 4 rows: wide 16 + 2*16 + 4, square 16 + 16 + 4;
#: OneVision shows each of several images whole only, with one newline: 2 * 17.
#: The others merge 2x2 patches, 4 tokens to a square. Qwen keeps the image's size: wide 8, square 4. Idefics3,
#: SmolVLM and InternVL add a thumbnail where there are several squares: wide 4 + 2*4; Idefics3 scales the longer edge
#: up to two squares first, so its square image is 4 + 4*4. Gemma 3 squeezes any image into one square.
FAMILIES = (
    Family("LLaVA-1.5", "llava-hf/llava-1.5-7b-hf", "LlavaForConditionalGeneration", llava, (16, 32)),
    Family(
        "LLaVA-NeXT", "llava-hf/llava-v1.6-mistral-7b-hf", "LlavaNextForConditionalGeneration", llava_next, (52, 88)
    ),
    Family(
        "LLaVA-OneVision",
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        "LlavaOnevisionForConditionalGeneration",
        llava_onevision,
        (52, 34),
    ),
    Family("Qwen2.5-VL", "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2_5_VLForConditionalGeneration", qwen2_5_vl, (8, 12)),
    Family("Qwen3-VL", "Qwen/Qwen3-VL-4B-Instruct", "Qwen3VLForConditionalGeneration", qwen3_vl, (8, 12)),
    Family(
        "Idefics3, SmolVLM", "HuggingFaceM4/Idefics3-8B-Llama3", "Idefics3ForConditionalGeneration", idefics3, (12, 32)
    ),
    Family("SmolVLM2", "HuggingFaceTB/SmolVLM2-2.2B-Instruct", "SmolVLMForConditionalGeneration", smolvlm, (12, 32)),
    Family("InternVL (hf)", "OpenGVLab/InternVL3-1B-hf", "InternVLForConditionalGeneration", internvl, (12, 16)),
    Family("Gemma 3", "google/gemma-3-4b-it", "Gemma3ForConditionalGeneration", gemma3, (4, 8)),
)


def tokenizer(
    special: list[str],
    eos: str,
    bos: str | None = None,
    adds_bos: bool = False,
    named: dict[str, str] | None = None,
) -> Any:
    """One token per ASCII character and one per special token, so that any answer decodes and can be compared.

    ``named`` become attributes of the tokenizer; ``adds_bos`` puts ``bos`` before every text, as Llama's and Gemma's
    tokenizers do. Two, three and four newlines are one token each, as in Gemma's vocabulary, where vLLM looks for them.
    """
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    named = named or {}
    specials = ["<pad>", *filter(None, [bos]), eos, *special, *named.values()]
    merges = [("\n", "\n"), ("\n\n", "\n"), ("\n\n", "\n\n")]
    characters = ["\n", *map(chr, range(ord(" "), ord("~") + 1)), *map("".join, merges)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*specials, *characters]))}
    inner = Tokenizer(models.BPE(vocabulary, merges=merges))
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens(specials)
    if adds_bos:
        first = (bos, vocabulary[str(bos)])
        inner.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[first])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token=bos,
        eos_token=eos,
        extra_special_tokens=named,
        model_max_length=CONTEXT,
    )


def random(cls: Any, config: Any, spread: float = 0.15) -> Any:
    """The model, with matrices wide enough that the next token is clear-cut and depends on the image."""
    import torch

    torch.manual_seed(0)
    model = cls(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, spread)
    return model.eval()


def text_sizes(words: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }


def clip_tower() -> Any:
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(**_TOWER, num_hidden_layers=3, projection_dim=WIDTH)


def siglip_tower() -> Any:
    from transformers import SiglipVisionConfig

    return SiglipVisionConfig(**_TOWER, num_hidden_layers=2, vision_use_head=False)


def square() -> dict[str, int]:
    return {"height": SIDE, "width": SIDE}


def grids() -> list[list[int]]:
    """Height and width that an image may be cut into squares of."""
    return [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]


def chatml(image: str) -> str:
    return turns("<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n", image)


def turns(user: str, end: str, assistant: str, image: str) -> str:
    """A chat template: every message between its role's opening and ``end``, every image as ``image``."""
    start = "{% if message['role'] == 'user' %}" + _literal(user) + "{% else %}" + _literal(assistant) + "{% endif %}"
    part = "{% if part['type'] == 'image' %}" + _literal(image) + "{% else %}{{ part['text'] }}{% endif %}"
    return (
        "{% for message in messages %}"
        + start
        + "{% for part in message['content'] %}"
        + part
        + "{% endfor %}"
        + _literal(end)
        + "{% endfor %}{% if add_generation_prompt %}"
        + _literal(assistant)
        + "{% endif %}"
    )


def _literal(text: str) -> str:
    return "{{ " + repr(text) + " }}"


_TOWER = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
_QWEN_TOWER = {
    "depth": 2,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_heads": 2,
    "patch_size": PATCH,
    "out_hidden_size": WIDTH,
}
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN_TOKENS = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
_IDEFICS_TOKENS = [
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
]
_IDEFICS_SIZES = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}


def _llava_config(words: Any) -> dict[str, Any]:
    image = words.convert_tokens_to_ids("<image>")
    return {"vision_config": clip_tower(), "image_token_index": image, "image_seq_length": PATCHES}


def _llava_processor(words: Any) -> dict[str, Any]:
    strategy = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return {"tokenizer": words, "patch_size": PATCH, **strategy}


def _idefics_config(words: Any) -> dict[str, Any]:
    return {
        "vision_config": {**_TOWER, "num_hidden_layers": 2},
        "image_token_id": words.convert_tokens_to_ids("<image>"),
        "pad_token_id": words.pad_token_id,
        "scale_factor": 2,
    }


def _qwen_ids(words: Any) -> dict[str, int]:
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return {key: words.convert_tokens_to_ids(token) for key, token in names.items()}


def _qwen_processors(words: Any) -> dict[str, Any]:
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    size = {"shortest_edge": (2 * PATCH) ** 2, "longest_edge": (4 * SIDE) ** 2}
    return {
        "image_processor": Qwen2VLImageProcessor(patch_size=PATCH, size=size),
        "tokenizer": words,
        "video_processor": Qwen2VLVideoProcessor(patch_size=PATCH, size=size),
    }
