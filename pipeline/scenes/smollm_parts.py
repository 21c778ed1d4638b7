"""What ``scenes-smollm`` is put together from: SmolLM2-135M-Instruct, a LoRA adapter, a projector, and the tower of
``scenes-vlm-strong``. Only projector and adapter ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.model_names import SCENES

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

#: Whose tower the projector was trained on.
TOWER = SCENES / "vlm-strong"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
IMAGE = "<image>"
PROJECTOR = "projector.safetensors"

#: SmolLM2's own, to the letter where messages are strings; of a list of parts the images come first, as ``<image>``.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def read_gguf(file: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The language model in float32, its quantised weights written out, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # What was read goes on calling itself quantised, although its weights no longer are.
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    # Nor is the folder it was read from a part of the model: its identity would be another on every machine.
    read.config._name_or_path = BASE
    model: Any = LlamaForCausalLM(read.config)
    model.load_state_dict(read.state_dict())
    return model.eval(), tokenizer


def join(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> tuple[LlavaForConditionalGeneration, Any]:
    """A LLaVA around ``base`` (the same modules, not copies) with a projector of chance, and its processor.

    ``tokenizer`` and the table of embeddings get ``<image>``, whose row is the mean of the others: as an answer it is
    as unlikely as any word. Weights stay tied.
    """
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    add_image_token(base, tokenizer)
    seeing: Any = LlavaForConditionalGeneration.from_pretrained(TOWER, dtype=torch.float32)
    text = base.config
    config: Any = LlavaConfig(  # type: ignore[call-arg]
        vision_config=seeing.config.vision_config,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),  # type: ignore[arg-type]
        vision_feature_select_strategy=seeing.config.vision_feature_select_strategy,
        vision_feature_layer=seeing.config.vision_feature_layer,
        image_seq_length=seeing.config.image_seq_length,
        pad_token_id=text.pad_token_id,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    with torch.device("meta"):
        model: Any = LlavaForConditionalGeneration(config)
    projector = type(model.model.multi_modal_projector)(config)
    model.model.vision_tower, model.model.multi_modal_projector = seeing.model.vision_tower, projector
    model.model.language_model, model.lm_head = base.model, base.lm_head
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = text.eos_token_id, text.pad_token_id
    model.generation_config.max_new_tokens = 96
    return model.eval(), processor(tokenizer)


def add_image_token(base: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Idempotent."""
    import torch

    tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    table = base.get_input_embeddings().weight
    if len(table) >= len(tokenizer):
        return
    mean = table.detach().mean(dim=0)
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        base.get_input_embeddings().weight[-1] = mean


def processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    from transformers import CLIPImageProcessor, LlavaProcessor

    tokenizer.chat_template = CHAT_TEMPLATE
    return LlavaProcessor(
        image_processor=CLIPImageProcessor.from_pretrained(TOWER),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )
