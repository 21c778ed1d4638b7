"""What is asked in an evaluation, as typed, frozen data. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EvaluateConfig(BaseModel):
    """The ``evaluate`` section of a recipe.

    ``seed`` names a stream of scenes of its own, so that no evaluated scene is one a recipe with an ordinary seed
    trains on. Decoding is greedy; ``max_tokens`` bounds an answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["scenes"] = "scenes"
    scenes: int = Field(500, ge=1, description="held-out scenes; each is described once and asked about")
    seed: int = Field(900_001, description="stream the held-out scenes are drawn from")
    max_tokens: int = Field(128, ge=1, description="an answer is cut after so many tokens; cut answers are counted")
    per_image: int = Field(3, ge=1, description="POPE questions per image, split and answer (yes and no)")
    parser: Literal["official", "lmms_eval", "vlmevalkit"] = Field("official", description="how yes or no is read")
    describe: str = Field("Describe the image.", min_length=1, description="the prompt that CHAIR is measured on")
