"""The parts of a vision-language model, under whatever names transformers has for them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn

#: What the text model is called inside the backbone.
LANGUAGE = ("language_model", "text_model")


@dataclass(frozen=True, slots=True)
class Parts:
    """``whole`` is the transformers model: a backbone (``.model``) with vision tower, projector and text model, and a
    language-model head (``.lm_head``). A part that a model does not have is None."""

    whole: Any

    @classmethod
    def of(cls, model: nn.Module) -> Parts:
        """Those of the model inside a ``PeftModel``, adapters in place; of any other model its own."""
        get_base_model = getattr(model, "get_base_model", None)
        return cls(get_base_model() if get_base_model is not None else model)

    @property
    def name(self) -> str:
        """The class of the model, for messages."""
        return type(self.whole).__name__

    @property
    def config(self) -> Any:
        return self.whole.config

    @property
    def text_config(self) -> Any:
        return self.whole.config.get_text_config()

    @property
    def backbone(self) -> Any:
        return getattr(self.whole, "model", None)

    @property
    def language(self) -> Any:
        """The text model: a part of the backbone, or the backbone itself where its decoder layers are its own (the
        first Idefics)."""
        parts = (getattr(self.backbone, name, None) for name in LANGUAGE)
        inside: Any = next((part for part in parts if part is not None), None)
        return self.backbone if inside is None and hasattr(self.backbone, "layers") else inside

    @property
    def why_not_trained(self) -> str | None:
        """Why the parts do not make a model whose log-probs can be computed, or None if they do: the backbone is
        called with images, the head with what it gives."""
        if self.backbone is None or self.head is None:
            return f"{self.name} is not built of a `model` and an `lm_head`"
        if not any("image" in name or "pixel" in name for name in inspect.signature(self.backbone.forward).parameters):
            return f"the `model` of {self.name} reads no images"
        if any(getattr(config, "is_encoder_decoder", False) for config in (self.config, self.text_config)):
            return f"{self.name} reads prompts by an encoder and answers by a decoder"
        return None

    @property
    def head(self) -> Any:
        return getattr(self.whole, "lm_head", None)

    @property
    def layers(self) -> list[nn.Module]:
        """The text model's decoder layers, first to last; empty where they are not found."""
        return list(getattr(self.language, "layers", None) or ())

    def accepts(self, argument: str) -> bool:
        """Whether the model's own ``forward`` names this argument."""
        return argument in inspect.signature(self.whole.forward).parameters
