"""A recipe: a whole run as typed, frozen data.

Every error names the key, the value and the remedy, and all errors are reported at once. Imports no torch, Ray or vLLM.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Count, Fraction, Frozen
from pipeline.config.sample import Sample
from pipeline.config.score import Pair, Score
from pipeline.config.source import Source
from pipeline.files import locate


class Publish(Frozen):
    """``images: embed`` copies the files of images that the prompts only name into the pairs, so that the dataset can
    be moved; ``reference`` leaves their paths. Images that the prompts hold are always in the pairs."""

    rows_per_shard: Count = 10_000
    images: Literal["reference", "embed"] = "reference"
    images_in_candidates: bool = False


class Recipe(Frozen):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: int = 0
    output_dir: str = "runs"  # a folder or a URL
    max_failure_rate: Fraction = 0.01
    shard_size: Count = 128
    shard_retries: Annotated[int, Field(ge=0)] = 2
    source: Source
    sample: Sample
    score: Score = Score()
    pair: Pair
    publish: Publish = Publish()
    # Checked by `training.config` and `training.evaluation`, which this package does not import.
    train: dict[str, Any] | None = None
    evaluate: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _scores_exist(self) -> Recipe:
        unknown = sorted(name for name in self.pair.weights if name.split(".")[0] not in self.score.scorers)
        if unknown:
            have = ", ".join(self.score.scorers)
            raise ValueError(f"pair.weights: no scorer gives {', '.join(unknown)}; score.scorers has {have}")
        return self

    @property
    def run_dir(self) -> Path:
        return locate(self.output_dir) / self.name
