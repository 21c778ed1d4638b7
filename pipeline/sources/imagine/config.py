"""Prompts about images that do not exist yet: from which texts they are made, which of them are kept, what is asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from pipeline.base.config import Count, Fraction, Frozen, by_kind
from pipeline.sampling.config import Engine, Sample, Temperature, VllmEngine
from pipeline.scoring.config import Clip
from pipeline.sources.config import DESCRIBE, Common, Location

Guidance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
#: Pixels; what latent diffusion models of every family take.
Side = Annotated[int, Field(ge=8, multiple_of=8)]


class Texts(Frozen):
    """What the images are to show: ``scenes`` descriptions of the built-in world, or a file.

    ``path`` is a .txt with a text on each line, or a .jsonl of ``{"text": ...}``; it may be a glob. ``seed`` is added
    to the run's, so that two sets of scenes can differ.
    """

    path: Location | None = None
    scenes: Count | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _one(self) -> Texts:
        if (self.path is None) == (self.scenes is None):
            raise ValueError("texts needs either path or scenes, such as {scenes: 256}")
        return self


class DiffusersGenerator(Frozen):
    """Any text-to-image pipeline of the library diffusers: a folder or a hub id with safetensors.

    ``size`` is [width, height]; without it, the model's own. ``dtype: auto`` is float16 on a GPU, float32 elsewhere.
    """

    kind: Literal["diffusers"]
    model: str
    revision: str | None = None
    steps: Count = 28
    size: tuple[Side, Side] | None = None
    negative_prompt: str = ""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    batch_size: Count = 4
    workers: Count = 1

    @property
    def name(self) -> str:
        return self.model


class SceneGenerator(Frozen):
    """Draws descriptions of the built-in world, with faults at known rates: each object is left out with probability
    ``drop``, else exchanged for another one with probability ``swap``; each image gets one object too many with
    probability ``add``."""

    kind: Literal["scenes"] = "scenes"
    drop: Fraction = 0.15
    swap: Fraction = 0.15
    add: Fraction = 0.15

    @property
    def name(self) -> str:
        return "scenes"

    @model_validator(mode="after")
    def _at_most_one_fault(self) -> SceneGenerator:
        if self.drop + self.swap > 1:
            raise ValueError(f"drop={self.drop} and swap={self.swap} are more than 1 together; lower one")
        return self


class Rank(Clip):
    """Of the images of one text, the ``keep`` best are kept, if they score at least ``threshold`` (a raw value of the
    scorer; the cosine for ``clip``)."""

    scorer: Literal["clip"] = "clip"
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    keep: Count = 1


class _Instruct(Frozen):
    """``keep_leading`` keeps questions that take the scene for granted (``pipeline.sources.imagine.leading``)."""

    keep_leading: bool = False


class Templates(_Instruct):
    """``per_image`` of the ``templates``, drawn without repetition."""

    kind: Literal["templates"] = "templates"
    templates: Annotated[tuple[str, ...], Field(min_length=1)] = DESCRIBE
    per_image: Count = 1


class Written(_Instruct):
    """``per_image`` questions that a model writes. It sees what ``shows`` names: the text, the image, or both.

    ``instruction`` may hold ``{text}`` (what the image was made from) and ``{count}``; without it, one is built in.
    """

    kind: Literal["model"]
    model: str
    revision: str | None = None
    shows: Literal["text", "image", "both"] = "both"
    instruction: str | None = None
    per_image: Count = 1
    temperature: Temperature = 0.7
    max_tokens: Count = 256
    engine: Engine = VllmEngine()

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
    """One description and up to ``questions_per_scene`` yes/no questions with exact answers, from what was drawn."""

    kind: Literal["scenes"]
    questions_per_scene: Annotated[int, Field(ge=0)] = 3
    prompts: tuple[str, ...] = ()


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
    """Images from text. Image i of a text is made with ``guidance_scales[i]``, which begin again at their end."""

    kind: Literal["imagine"]
    texts: Texts
    generator: Generator = SceneGenerator()
    images_per_prompt: Count = 4
    guidance_scales: Annotated[tuple[Guidance, ...], Field(min_length=1)] = (5.0, 7.0, 9.0, 11.0)
    rank: Rank = Rank()
    instruct: Instruct = Templates()

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
