"""What every part of a training configuration is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number; write one")
    return value


# YAML's yes and true would be 1.
_Number = BeforeValidator(_no_truth)

Real = Annotated[float, Field(allow_inf_nan=False), _Number]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), _Number]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), _Number]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), _Number]
#: Below 1: how much of a running mean stays.
Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), _Number]
Count = Annotated[int, Field(ge=1, le=2**31 - 1), _Number]
#: What every generator of random numbers takes.
Seed = Annotated[int, Field(ge=0, lt=2**32), _Number]
Name = Annotated[str, Field(min_length=1)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
