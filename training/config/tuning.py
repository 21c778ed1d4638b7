"""Which parameters move."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from pipeline.base.config import Count, Frozen, Name, Positive, Real


class Lora(Frozen):
    """Low-rank adapters on linear layers of the language model only."""

    r: Count = Field(64, description="rank")
    alpha: Positive = Field(128.0, description="scale; alpha / r is the factor of the adapter")
    dropout: Real = Field(0.0, description="must be 0: the implicit reward compares policy and reference without noise")
    target_modules: Literal["all-linear"] | tuple[Name, ...] = Field(
        "all-linear", description='or a list of layer names, such as ["q_proj", "v_proj"]'
    )

    @field_validator("dropout")
    @classmethod
    def _no_dropout(cls, value: float) -> float:
        if value != 0:
            raise ValueError(
                f"must be 0: the implicit reward compares policy and reference without dropout noise (value {value:g})"
            )
        return value

    @field_validator("target_modules")
    @classmethod
    def _some(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError('names no layer, so nothing would move; use all-linear, or for instance ["q_proj"]')
        return value
