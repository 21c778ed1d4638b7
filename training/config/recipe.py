"""Everything that a recipe can say, training and evaluation included."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipeline.base.config import ReadAs
from pipeline.recipe.recipe import Recipe
from training.config import TrainOptions
from training.config.evaluation import EvaluateConfig


class WholeRecipe(Recipe):
    """A whole run: images and prompts, answers, scores, pairs, a published dataset, training, evaluation."""

    train: Annotated[dict[str, Any] | None, ReadAs(TrainOptions)] = Field(
        None, description="training on the pairs; null: none"
    )
    evaluate: Annotated[dict[str, Any] | None, ReadAs(EvaluateConfig)] = Field(
        None, description="measuring on held-out prompts; null: none"
    )
