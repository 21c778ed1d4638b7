"""Everything that a recipe can say, training and evaluation included."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipeline.base.config import ReadAs
from pipeline.recipe.recipe import Recipe
from training.config import TrainOptions
from training.config.evaluation import Evaluation


class WholeRecipe(Recipe):
    """A whole run: images and prompts, answers, scores, pairs, a published dataset, training, evaluation."""

    train: Annotated[dict[str, Any] | None, ReadAs(TrainOptions)] = Field(
        None, description="training on the pairs; null: none"
    )
    evaluate: Annotated[dict[str, Any] | None, ReadAs(Evaluation)] = Field(
        None, description="the model is measured, before and after training; null: not"
    )
