"""Load the model and choose which of its parameters move."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from reward.forward.parts import LANGUAGE, Parts
from training.config import TrainConfig
from training.errors import ModelError
from training.forward.saved_model import PROJECTORS, TOWERS, part_of, quantised, with_adapter

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: What modules call the probability of what they drop, ``drop_prob`` that of a whole layer (stochastic depth).
_DROPOUT_FIELDS = ("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "layerdrop", "drop_prob")


def load_model(config: TrainConfig) -> tuple[nn.Module, Any]:
    """The model in training dtype on the CPU, and its processor (``load_processor``, ``load_weights``)."""
    processor = load_processor(config)
    return load_weights(config), processor


def load_processor(config: TrainConfig) -> Any:
    """What turns texts and images into the model's inputs.

    Raises:
        ModelError: it cannot be loaded, has no chat template, or reads no images.
    """
    from transformers import AutoProcessor

    if config.quantization is not None:
        _four_bits(config)  # what it lacks shows now
    try:
        processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            config.model, trust_remote_code=config.trust_remote_code, **_hub(config)
        )
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, ... for the same causes
        raise _not_loaded(config, error) from error
    if getattr(processor, "chat_template", None) is None:
        raise ModelError(f"model {config.model}: its processor has no chat template; add chat_template.jinja")
    if not hasattr(processor, "image_processor"):
        raise ModelError(f"model {config.model}: its processor reads no images; give a vision-language model")
    return processor


def load_weights(config: TrainConfig) -> nn.Module:
    """The model in training dtype on the CPU. Weights are read from safetensors only.

    Full tuning keeps float32 weights whatever ``dtype`` says (the forward runs under autocast): a bfloat16 weight
    swallows an update of relative size 1e-3. With LoRA the frozen weights take ``dtype`` and the adapters are float32.
    With ``quantization`` the language model's linear layers are read in 4 bits, onto the GPU.

    Raises:
        ModelError: it cannot be loaded, is stored quantised, or brings an adapter of its own.
    """
    from transformers import AutoModelForImageTextToText

    if getattr(read_config(config), "quantization_config", None):
        raise quantised(config.model)
    bits = _four_bits(config) if config.quantization is not None else {}
    trusted = {"trust_remote_code": config.trust_remote_code, **_hub(config)}
    try:
        model: nn.Module = AutoModelForImageTextToText.from_pretrained(
            config.model, dtype=_weights_dtype(config), use_safetensors=True, **trusted, **bits
        )
    except Exception as error:
        raise _not_loaded(config, error) from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise with_adapter(config.model)
    return model


def load_outline(config: TrainConfig) -> nn.Module:
    """The model of ``load_weights`` without weights: every parameter and buffer is on the device ``meta``."""
    from transformers import AutoModelForImageTextToText

    read = read_config(config)
    try:
        with torch.device("meta"):
            model: nn.Module = AutoModelForImageTextToText.from_config(
                read, dtype=_weights_dtype(config), trust_remote_code=config.trust_remote_code
            )
    except Exception as error:
        raise _not_loaded(config, error) from error
    return model.eval()


def _weights_dtype(config: TrainConfig) -> torch.dtype:
    return torch.float32 if config.tuning == "full" else DTYPES[config.precision]


def read_positions(config: TrainConfig) -> int | None:
    """``positions`` of the model, without its weights."""
    return getattr(read_config(config).get_text_config(), "max_position_embeddings", None)


def read_config(config: TrainConfig) -> Any:
    """The model's own configuration, that of transformers.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(config.model, trust_remote_code=config.trust_remote_code, **_hub(config))
    except Exception as error:
        raise _not_loaded(config, error) from error


def _hub(config: TrainConfig) -> dict[str, str]:
    return {"revision": config.model_revision} if config.model_revision else {}


def _not_loaded(config: TrainConfig, error: Exception) -> ModelError:
    if isinstance(error, ImportError) and "num2words" in str(error):
        return ModelError(
            f"model {config.model}: its processor (SmolVLM's) needs num2words; pip install -e '.[smolvlm]' in the clone"
        )
    return ModelError(
        f"model {config.model}: cannot be loaded ({type(error).__name__}: {error}); give a folder or hub id of a "
        "vision-language model with safetensors weights and a processor"
    )


def positions(model: nn.Module) -> int | None:
    """How many positions the language model has; None if it does not say."""
    config: Any = model.config
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def prepare_tuning(model: nn.Module, config: TrainConfig) -> nn.Module:
    """Freeze, add adapters, switch dropout off; returns the model to train (a ``PeftModel`` with LoRA).

    The model is put into train mode only because gradient checkpointing asks for it; without dropout, and with the
    statistics of its norms held, the two modes compute the same.

    Raises:
        ModelError: it is not built of parts that can be trained, or has none of those that the configuration names.
    """
    check_parts(model)
    if config.gradient_checkpointing is True:
        set_checkpointing(model)
    if config.tuning == "lora":
        model = _add_lora(model, config)
    else:
        model.requires_grad_(True)
        if config.freeze_vision:
            _freeze(model, "vision", TOWERS)
        if config.freeze_projector:
            _freeze(model, "projector", PROJECTORS)
    disable_dropout(model)
    model.train()
    hold_statistics(model)
    return model


def set_checkpointing(model: nn.Module) -> None:
    """Let the backward pass compute activations again. Also of a model that has been prepared, or trained a while."""
    Parts.of(model).whole.gradient_checkpointing_enable(
        gradient_checkpointing_kwargs={"use_reentrant": False, "preserve_rng_state": False}
    )


def check_parts(model: nn.Module) -> None:
    """Raise ``ModelError`` unless the model has the parts that training calls."""
    if (reason := Parts.of(model).why_not_trained) is not None:
        raise ModelError(f"{reason}, which training needs; train one of the families of docs/models.md")


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0, in place: policy and reference must differ by their weights alone."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for field in _DROPOUT_FIELDS:
            if isinstance(getattr(module, field, None), float):
                setattr(module, field, 0.0)


def hold_statistics(model: nn.Module) -> None:
    """Let batch norms, such as those of FastVLM's tower, go on with the statistics that they have learnt.

    In train mode they take those of the pass: a pair's log-probs would depend on what else is in it, and a frozen tower
    would be changed by every pass, the reference's too.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that move, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _four_bits(config: TrainConfig) -> dict[str, Any]:
    """What ``from_pretrained`` takes to read the language model in NF4 with double quantisation (QLoRA, arXiv
    2305.14314); tower, projector and head stay as they are."""
    if not torch.cuda.is_available():
        raise ModelError("quantization=nf4 needs an NVIDIA GPU and there is none; set quantization=null")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "quantization=nf4 needs bitsandbytes, which is not installed; pip install -e '.[qlora]' in the clone, or "
            "set quantization=null"
        )
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[config.precision],
        # Matched against whole names and their ends, so a part's name covers everything in it.
        llm_int8_skip_modules=[*(f".*{name}" for name in (*TOWERS, *PROJECTORS)), "lm_head"],
    )
    return {"quantization_config": quantization, "device_map": {"": torch.cuda.current_device()}}


def _freeze(model: nn.Module, part: str, names: tuple[str, ...]) -> None:
    members = [parameter for name, parameter in model.named_parameters() if part_of(name) == part]
    if not members:
        raise ModelError(f"{type(model).__name__} has none of {', '.join(names)} to freeze; set freeze_{part}=false")
    for parameter in members:
        parameter.requires_grad_(False)


def _add_lora(model: nn.Module, config: TrainConfig) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    from training.forward.adapters import AddedLinear

    language = Parts.of(model).language
    if not isinstance(language, nn.Module):
        raise ModelError(f"{type(model).__name__} has no {' or '.join(LANGUAGE)} to put adapters on; use tuning=full")
    wanted, inside = config.lora.target_modules, set(language.modules())
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module in inside
        and part_of(name) == "language"
        and name.split(".")[-1] != "lm_head"
        and (wanted == "all-linear" or name.rpartition(".")[2] in wanted)
    ]
    if not names:
        raise ModelError(f"lora.target_modules={list(wanted)} match no linear layer; use all-linear")
    # Full names, because peft's own "all-linear" would also take the vision tower and the projector.
    lora = LoraConfig(r=config.lora.r, lora_alpha=config.lora.alpha, lora_dropout=0.0, target_modules=names)  # type: ignore[arg-type]
    if config.fused_adapters and config.quantization is None:
        lora._register_custom_module({nn.Linear: AddedLinear})
    return get_peft_model(model, lora)
