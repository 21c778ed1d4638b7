"""What is asked in an evaluation, as typed, frozen data. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from pipeline.base.config import Count, Frozen, Name, Place, Whole, by_kind
from pipeline.scoring.config import Asked
from reward.text.yes_no import Parser


class EvaluateConfig(Frozen):
    """CHAIR, POPE and SHR over held-out scenes that are answered greedily."""

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


class SuiteJudge(Asked):
    """Who judges the answers of suites that need it."""

    max_tokens: Count = Field(1024, description="a judgement is cut after so many tokens")
    judgements: Place | None = Field(
        None, description="file of what model has said already, as --judgements of training.evaluate; asks nobody"
    )


class BenchmarkEvaluation(Frozen):
    """Benchmarks from their own files, asked greedily as `python -m training.evaluate` asks them, without the sampled
    model's system prompt."""

    kind: Literal["benchmarks"] = Field(description="the files of published benchmarks, or of one's own")
    suites: tuple[Name, ...] = Field(min_length=1, description="as --suite of training.evaluate, such as [pope, chair]")
    data: Place = Field(description="folder of the benchmarks' files, as --data (docs/evaluation.md)")
    images: Place | None = Field(None, description="where their images lie, as --images; default: beside the files")
    ids: Place | None = Field(
        None, description="file of the images that are asked about, as --ids; default: those that limit draws"
    )
    limit: Count | None = Field(
        None, description="about so many images of each suite, drawn; default: 500 for chair, all for every other"
    )
    seed: Whole = Field(0, description="of the draw of images")
    max_tokens: Count = Field(512, description="an answer is cut after so many tokens; cut answers are counted")
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options of suites, by their names in suites"
    )
    judge: SuiteJudge | None = Field(None, description="who judges the answers of suites that need it")


Evaluation = Annotated[
    Annotated[EvaluateConfig, Tag("scenes")] | Annotated[BenchmarkEvaluation, Tag("benchmarks")], by_kind("scenes")
]
