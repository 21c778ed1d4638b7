"""What is asked in an evaluation, as typed, frozen data. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.base.config import Count, Frozen, Name, Whole
from reward.text.yes_no import Parser


class EvaluateConfig(Frozen):
    """CHAIR, POPE and SHR of the model before and after training, on held-out prompts that are answered greedily."""

    kind: Literal["scenes"] = Field("scenes", description="the built-in world")
    scenes: Count = Field(500, description="held-out scenes; each is described once and asked about")
    seed: Whole = Field(
        900_001,
        description="stream that the held-out scenes are drawn from; no recipe with an ordinary seed trains on them",
    )
    max_tokens: Count = Field(128, description="an answer is cut after so many tokens; cut answers are counted")
    per_image: Count = Field(3, description="POPE questions per image, split and answer (yes and no)")
    parser: Parser = Field("official", description="how yes or no is read")
    describe: Name = Field("Describe the image.", description="the prompt that CHAIR is measured on")
