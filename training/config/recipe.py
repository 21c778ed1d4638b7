"""Everything that a recipe can say, training and evaluation included."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

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

    @model_validator(mode="after")
    def _similar_images_exist(self) -> WholeRecipe:
        options = TrainOptions.model_validate(self.train or {})
        if self.train is not None and self.publish.similar is None and options.needs_similar:
            raise ValueError(
                f"train.objective={options.objective} compares with similar images, and nothing looks for them; add "
                "publish.similar: {model: scenes-clip}, or another CLIP model"
            )
        return self
