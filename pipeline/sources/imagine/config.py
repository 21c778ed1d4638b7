"""Prompts about images that do not exist yet: from which texts they are made, which of them are kept, what is asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from pipeline.base.config import (
    NEUTRAL,
    Count,
    Fraction,
    Frozen,
    NonNegative,
    NotNegative,
    Real,
    Whole,
    Workers,
    by_kind,
)
from pipeline.sampling.config import Engine, Sample, Temperature, VllmOptions
from pipeline.scoring.config import Clip
from pipeline.sources.config import DESCRIBE, Common, Location

#: Pixels; what latent diffusion models of every family take.
Side = Annotated[Count, Field(ge=8, multiple_of=8)]


class Texts(Frozen):
    """What the images are to show: texts of a file, or descriptions of the built-in world."""

    path: Location | None = Field(
        None, description='.txt with a text on each line, or .jsonl of {"text": ...}; may be a glob'
    )
    scenes: Count | None = Field(None, description="descriptions of the built-in world, in place of path")
    seed: Whole = Field(0, description="added to the run's, so that two sets of scenes can differ")

    @model_validator(mode="after")
    def _one(self) -> Texts:
        if (self.path is None) == (self.scenes is None):
            raise ValueError("texts needs either path or scenes, such as {scenes: 256}")
        return self


class DiffusersGenerator(Frozen):
    """Any text-to-image pipeline of the library diffusers."""

    kind: Literal["diffusers"] = Field(description="a pipeline of the library diffusers")
    model: str = Field(description="folder or hub id with safetensors")
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    steps: Count = Field(28, description="denoising steps")
    size: tuple[Side, Side] | None = Field(None, description="width and height in pixels; default: the model's own")
    negative_prompt: str = Field("", description="what the images are not to show")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="of the weights; auto: float16 on a GPU, float32 elsewhere"
    )
    batch_size: Count = Field(4, description="images that are made at a time", json_schema_extra=NEUTRAL)
    workers: Workers = Field(
        "auto",
        description="processes, a GPU each where there are GPUs; auto: as many as there are GPUs, and one without",
        json_schema_extra=NEUTRAL,
    )

    @property
    def name(self) -> str:
        return self.model


class SceneGenerator(Frozen):
    """Draws descriptions of the built-in world, with faults at known rates."""

    kind: Literal["scenes"] = Field("scenes", description="the built-in world")
    drop: Fraction = Field(0.15, description="probability that an object is left out")
    swap: Fraction = Field(0.15, description="probability that an object is exchanged for another one")
    add: Fraction = Field(0.15, description="probability that an image gets one object too many")

    @property
    def name(self) -> str:
        return "scenes"

    @model_validator(mode="after")
    def _at_most_one_fault(self) -> SceneGenerator:
        if self.drop + self.swap > 1:
            raise ValueError(f"drop={self.drop} and swap={self.swap} are more than 1 together; lower one")
        return self


class Rank(Clip):
    """Which images of one text are kept."""

    scorer: Literal["clip"] = Field("clip", description="what ranks the images")
    threshold: Real | None = Field(None, description="least raw score of an image that is kept; for clip, the cosine")
    keep: Count = Field(1, description="images of a text that are kept, the best ones")


class _Instruct(Frozen):
    keep_leading: bool = Field(
        False, description="keep questions that take the scene for granted (pipeline.sources.imagine.leading)"
    )


class Templates(_Instruct):
    """Fixed prompts."""

    kind: Literal["templates"] = Field("templates", description="fixed prompts")
    templates: Annotated[tuple[str, ...], Field(min_length=1)] = Field(DESCRIBE, description="the prompts")
    per_image: Count = Field(1, description="prompts about an image, drawn without repetition")


class Written(_Instruct):
    """Questions that a model writes."""

    kind: Literal["model"] = Field(description="questions that a model writes")
    model: str = Field(description="folder, built-in name or hub id")
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    shows: Literal["text", "image", "both"] = Field("both", description="what the model sees")
    instruction: str | None = Field(
        None, description="may have {text}, what the image was made from, and {count}; default: a built-in one"
    )
    per_image: Count = Field(1, description="questions about an image")
    keep_statements: bool = Field(
        False, description="keep what asks nothing about an image (pipeline.sources.imagine.asks)"
    )
    temperature: Temperature = Field(0.7, description="0 is greedy")
    max_tokens: Count = Field(256, description="of all questions about an image")
    engine: Engine = Field(VllmOptions(), description="through what the model is asked")

    @model_validator(mode="after")
    def _a_model_and_its_instruction(self) -> Written:
        if self.engine.kind == "given":
            raise ValueError("engine.kind=given has no model that could write; name vllm or openai")
        try:
            (self.instruction or "").format(text="", count=1)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"instruction may hold {{text}} and {{count}} and no other braces ({error}); double others"
            ) from error
        return self

    def result_options(self) -> dict[str, Any]:
        """``keep_statements`` came later than stages that have run, and counts where it is set."""
        options = super().result_options()
        return options if self.keep_statements else {k: v for k, v in options.items() if k != "keep_statements"}

    def ask(self) -> Sample:
        """How the model is asked. Equal to a model that is sampled, if its keys are, so that they share workers."""
        return Sample(
            model=self.model,
            revision=self.revision,
            n=1,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            engine=self.engine,
        )


class SceneQuestions(_Instruct):
    """A description and yes/no questions with exact answers, from what was drawn."""

    kind: Literal["scenes"] = Field(description="from what was drawn in the built-in world")
    questions_per_scene: NotNegative = Field(3, description="yes/no questions about each image, at most")
    prompts: tuple[str, ...] = Field((), description="ask for a description; default: built-in ones, one an image")


Generator = Annotated[
    Annotated[SceneGenerator, Tag("scenes")] | Annotated[DiffusersGenerator, Tag("diffusers")], by_kind("scenes")
]
Instruct = Annotated[
    Annotated[Templates, Tag("templates")]
    | Annotated[Written, Tag("model")]
    | Annotated[SceneQuestions, Tag("scenes")],
    by_kind("templates"),
]


class ImagineSource(Common):
    """Prompts about images that are made from text."""

    kind: Literal["imagine"] = Field(description="images made from text")
    texts: Texts = Field(description="what the images are to show")
    generator: Generator = Field(SceneGenerator(), description="what makes the images")
    images_per_prompt: Count = Field(4, description="images of each text")
    guidance_scales: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = Field(
        (5.0, 7.0, 9.0, 11.0), description="of the images of a text in turn, from the beginning again at the end"
    )
    rank: Rank = Field(Rank(), description="which images are kept")
    instruct: Instruct = Field(Templates(), description="what is asked about the images")

    @property
    def origin(self) -> str:
        """What a prompt's ``source`` says."""
        return f"imagine:{self.generator.name}"

    @model_validator(mode="after")
    def _consistent(self) -> ImagineSource:
        if self.rank.keep > self.images_per_prompt:
            raise ValueError(
                f"rank.keep={self.rank.keep} is more than images_per_prompt={self.images_per_prompt}; lower it"
            )
        if isinstance(self.instruct, SceneQuestions) and not isinstance(self.generator, SceneGenerator):
            raise ValueError("instruct.kind=scenes needs generator.kind=scenes: nobody else knows what was drawn")
        return self
