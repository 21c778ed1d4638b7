"""The built-in VLM's parts: tokenizer, processor and a small LLaVA of stock ``transformers`` classes, untrained."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pipeline.scenes import grammar
from pipeline.scenes.world import SIZE

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

PATCH = 16
#: Patches per side; a cell of the scene is exactly 2 x 2 patches.
SIDE = SIZE // PATCH
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>", "<image>")

#: The assistant's turn ends with ``</s>`` in the template itself: TRL's vision path appends no end-of-text token.
CHAT_TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<assistant>' }}{% else %}{{ '<user>' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word form; decoding gives back the text exactly, spaces and punctuation included."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces: list[str] = []
    for text in grammar.words():
        pieces += [piece for piece, _ in split.pre_tokenize_str(text)]
    pieces += [
        split.pre_tokenize_str(" " + word)[0][0] for text in grammar.words() for word in re.findall(r"\w+", text)
    ]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = split
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>", "user_token": "<user>", "assistant_token": "<assistant>"},
        model_max_length=512,
        chat_template=CHAT_TEMPLATE,
    )


def processor() -> LlavaProcessor:
    from transformers import CLIPImageProcessor, LlavaProcessor

    images = CLIPImageProcessor(
        size={"height": SIZE, "width": SIZE},
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )


def vlm(words: PreTrainedTokenizerFast, width: int = 128, layers: int = 4) -> LlavaForConditionalGeneration:
    """About 1.6 M parameters. As in LLaVA-1.5, the features are those of the tower's last layer but one."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    heads = width // 32
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    config: Any = LlavaConfig(  # type: ignore[call-arg]
        vision_config=vision,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),  # type: ignore[arg-type]
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_seq_length=SIDE * SIDE,
        pad_token_id=words.pad_token_id,
    )
    return LlavaForConditionalGeneration(config)
