"""Load the model and choose which of its parameters move."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from training.config import TrainConfig
from training.errors import DataError, ModelError

if TYPE_CHECKING:
    from training.data import PairDataset

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_DROPOUT_FIELDS = ("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "layerdrop")
_TOWERS = ("vision_tower", "visual", "vision_model")
_PROJECTORS = ("multi_modal_projector", "connector", "mlp1")


def load_model(config: TrainConfig) -> tuple[nn.Module, Any]:
    """The model in training dtype on the CPU, and its processor. Weights are read from safetensors only.

    Full tuning keeps float32 weights whatever ``dtype`` says (the forward runs under autocast): a bfloat16 weight
    swallows an update of relative size 1e-3. With LoRA the frozen weights take ``dtype`` and the adapters are float32.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    hub = {"revision": config.model_revision} if config.model_revision else {}
    dtype = torch.float32 if config.tuning == "full" else DTYPES[config.dtype]
    try:
        processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            config.model, trust_remote_code=config.trust_remote_code, **hub
        )
        model = AutoModelForImageTextToText.from_pretrained(
            config.model, dtype=dtype, use_safetensors=True, trust_remote_code=config.trust_remote_code, **hub
        )
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, ... for the same causes
        raise ModelError(
            f"model {config.model}: cannot be loaded ({type(error).__name__}: {error}); give a folder or hub id of a "
            "vision-language model with safetensors weights and a processor"
        ) from error
    if getattr(processor, "chat_template", None) is None:
        raise ModelError(f"model {config.model}: its processor has no chat template; add chat_template.jinja")
    if not hasattr(processor, "image_processor"):
        raise ModelError(f"model {config.model}: its processor reads no images; give a vision-language model")
    return model, processor


def positions(model: nn.Module) -> int | None:
    """How many positions the language model has; None if it does not say."""
    config: Any = model.config
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def prepare_tuning(model: nn.Module, config: TrainConfig) -> nn.Module:
    """Freeze, add adapters, switch dropout off; returns the model to train (a ``PeftModel`` with LoRA).

    The model is put into train mode only because gradient checkpointing asks for it; without dropout the two modes
    compute the same.
    """
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore[operator]
    if config.tuning == "lora":
        model = _add_lora(model, config)
    else:
        model.requires_grad_(True)
        if config.freeze_vision:
            _part(model, _TOWERS, "freeze_vision=false").requires_grad_(False)
        if config.freeze_projector:
            _part(model, _PROJECTORS, "freeze_projector=false").requires_grad_(False)
    disable_dropout(model)
    return model.train()


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0, in place: policy and reference must differ by their weights alone."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for field in _DROPOUT_FIELDS:
            if isinstance(getattr(module, field, None), float):
                setattr(module, field, 0.0)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that move, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformers model inside a ``PeftModel``, adapters in place; any other model unchanged."""
    get_base_model = getattr(model, "get_base_model", None)
    return get_base_model() if get_base_model is not None else model


def accepts(model: nn.Module, argument: str) -> bool:
    """Whether the model's own ``forward`` names this argument."""
    return argument in inspect.signature(unwrapped(model).forward).parameters


def part_of(name: str) -> str:
    """``vision``, ``projector`` or ``language``: which part of the model a parameter belongs to."""
    words = name.split(".")
    if any(tower in words for tower in _TOWERS):
        return "vision"
    return "projector" if any(projector in words for projector in _PROJECTORS) else "language"


@torch.no_grad()
def check_features(model: nn.Module, dataset: PairDataset, device: torch.device) -> None:
    """Run the tower on one pair for every shape of image there is: features must equal placeholders.

    Raises ``DataError`` naming the row: a model that silently trains on half an image is worse than none.
    """
    from training.batch import collate, stack_images

    base: Any = model
    token = getattr(base.config, "image_token_id", None)
    if token is None or not hasattr(base, "get_image_features"):
        return
    base.to(device)
    seen: set[Any] = set()
    for index, pair in enumerate(dataset.pairs):
        placeholders = pair.prompt.ids.count(token)
        shape = (placeholders, len(pair.prompt.images), pair.prompt.grids)
        if not pair.prompt.images or shape in seen:
            continue
        seen.add(shape)
        batch = collate(dataset, [index], ("chosen",))
        distinct = [batch.images[i] for i in batch.group_images[0]]
        inputs = {key: value.to(device) for key, value in stack_images([i for i in distinct if i]).items()}
        found = base.get_image_features(**inputs).pooler_output
        features = sum(part.numel() // part.shape[-1] for part in ([found] if isinstance(found, Tensor) else found))
        if features != placeholders:
            raise DataError(
                f"{pair.name}: {placeholders} image placeholders in the prompt, {features} features from the vision "
                "tower; the processor does not belong to this model (check patch_size, image size and template)"
            )


def _part(model: nn.Module, names: tuple[str, ...], remedy: str) -> nn.Module:
    backbone = getattr(model, "model", model)
    for name in names:
        if isinstance(part := getattr(backbone, name, None), nn.Module):
            return part
    raise ModelError(f"{type(model).__name__} has none of {', '.join(names)} to freeze; set {remedy}")


def _add_lora(model: nn.Module, config: TrainConfig) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    language = getattr(getattr(model, "model", model), "language_model", None)
    if language is None:
        raise ModelError(f"{type(model).__name__} has no language_model to put adapters on; use tuning=full")
    wanted = config.lora.target_modules
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and ".language_model." in f".{name}."
        and (wanted == "all-linear" or name.rpartition(".")[2] in wanted)
    ]
    if not names:
        raise ModelError(f"lora.target_modules={list(wanted)} match no linear layer; use all-linear")
    # Full names, because peft's own "all-linear" would also take the vision tower and the projector.
    lora = LoraConfig(r=config.lora.r, lora_alpha=config.lora.alpha, lora_dropout=0.0, target_modules=names)  # type: ignore[arg-type]
    return get_peft_model(model, lora)
