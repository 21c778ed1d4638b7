"""What a candidate is worth."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.base.config import NEUTRAL, Count, Fraction, Frozen, Place, Share, Workers, name_or_path
from pipeline.base.errors import PipelineError
from pipeline.sampling.config import Engine, GivenOptions, OpenAIOptions, Sample, Temperature, VllmOptions
from pipeline.scoring.plugged import OURS, Plugged, ours, plug_in
from reward.asking.claims import MIN_MASS, TRUE_OF
from reward.asking.judge import CRITERIA

#: Our scorers whose options are a group of their own.
GROUPS = ("objects", "facts", "clip", "reward_model", "likelihood", "judge", "claims")
BUILT_IN = (*GROUPS, *OURS)


_DTYPE = "of the weights; auto: the recipe's"
_WORKERS = "processes, a GPU each where there are GPUs; auto: as many as there are GPUs, and one without"
_CLIP_DTYPE = (
    "that the model computes in; auto: the recipe's, and where that is auto, bfloat16 on a GPU and float32 elsewhere"
)
#: Options of models that score in a worker.
_Dtype = Annotated[Literal["auto", "float32", "bfloat16", "float16"], Field(description=_DTYPE)]
_Workers = Annotated[Workers, Field(description=_WORKERS, json_schema_extra=NEUTRAL)]
_Gpus = Annotated[
    Share,
    Field(description="of a GPU that a process takes; 0.25: four share one", json_schema_extra=NEUTRAL),
]
_SHARE = "images and prompt run once for all answers, where the model can; changes a value's last digits alone"
_Share = Annotated[bool, Field(description=_SHARE, json_schema_extra=NEUTRAL)]
_Batch = Annotated[Count, Field(description="texts in one forward pass", json_schema_extra=NEUTRAL)]


class Clip(Frozen):
    """How like image and text are to a CLIP model."""

    model: str = Field(
        "scenes-clip",
        description="built-in name, open_clip folder or hf-hub: name, transformers CLIPModel (folder or hub id, such "
        "as PickScore), or an open_clip architecture, which then needs pretrained",
    )
    pretrained: str | None = Field(None, description="weights of an open_clip architecture, such as openai")
    processor: str | None = Field(None, description="processor of a transformers model that comes without one")
    batch_size: _Batch = 64
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description=_CLIP_DTYPE)
    workers: _Workers = "auto"
    gpus: _Gpus = 1.0


class Objects(Frozen):
    """Objects that a text names, against facts or against what a detector found."""

    vocabulary: str | None = Field(
        None,
        description='words for objects: scenes, coco, or a JSON file {"surface form": "object"} with every plural and '
        "synonym; default: coco for a source of that kind, scenes for every other",
    )
    detections: Place | None = Field(
        None, description="JSON file of what a detector found in the images, for prompts without object facts"
    )
    threshold: Fraction = Field(0.5, description="lowest score of a detection that counts as found")
    classes: tuple[str, ...] | None = Field(None, description="what the detector can find, where the file does not say")
    always: bool = Field(False, description="detections in place of object facts, too")


class Facts(Frozen):
    """Objects, colours, numbers and places that a text states, against facts."""

    vocabulary: str | None = Field(
        None, description="as in objects; with another than scenes, texts are read as general English"
    )
    complete: bool = Field(
        True, description="where facts have regions and no objects: what no region names is not there"
    )


class RewardModel(Frozen):
    """The reward of a model that reads image, prompt and answer."""

    model: str = Field(description="folder, built-in name or hub id")
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    base: str | None = Field(None, description="model of a LoRA adapter; default: the one that the adapter names")
    batch_size: _Batch = 8
    dtype: _Dtype = "auto"
    share_prompt: _Share = True
    backend: Literal["auto", "transformers", "vllm"] = Field(
        "auto", description="auto: vLLM where there is a GPU and vLLM supports the model, else transformers"
    )
    workers: _Workers = "auto"
    gpus: _Gpus = 1.0


class Likelihood(Frozen):
    """How likely a text is to a model, in nats per token."""

    model: str | None = Field(
        None, description="folder, built-in name or hub id; default: the model that is to be trained"
    )
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    batch_size: _Batch = 8
    dtype: _Dtype = "auto"
    share_prompt: _Share = True
    workers: _Workers = "auto"
    gpus: _Gpus = 1.0


class Asked(Frozen):
    """A model that is asked about candidates."""

    model: str = Field(description="folder, built-in name or hub id")
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    chat_template: Path | None = Field(None, description="Jinja file; default: that of a sampled model, or its own")
    system_prompt: str | None = Field(None, description="message before every question")
    temperature: Temperature = Field(0.0, description="0 is greedy")
    max_tokens: Count = Field(256, description="an answer is cut after so many tokens")
    max_image_pixels: Count | None = Field(
        None, description="pixels; larger images are scaled down for the model; default: as a sampled model"
    )
    engine: Engine | None = Field(
        None, description="through what the model is asked; default: as it is sampled, else vLLM with its defaults"
    )

    @field_validator("engine")
    @classmethod
    def _asks(cls, value: Engine | None) -> Engine | None:
        if isinstance(value, GivenOptions):
            raise ValueError("engine.kind=given asks nobody; use vllm, openai or scripted")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Asked:
        if self.chat_template is not None and isinstance(self.engine, OpenAIOptions):
            raise ValueError("chat_template is the server's affair with kind=openai; start it with the template")
        return self

    def spec(self, sampled: Sequence[Sample] = ()) -> Sample:
        """The model as one to be sampled, one answer at a time."""
        same = [spec for spec in sampled if (spec.model, spec.revision) == (self.model, self.revision)]
        like = same[0] if same and self.engine is None else None
        return Sample(
            model=self.model,
            revision=self.revision,
            chat_template=self.chat_template or (like.chat_template if like else None),
            system_prompt=self.system_prompt,
            n=1,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            max_image_pixels=self.max_image_pixels or (like.max_image_pixels if like else None),
            engine=self.engine or (like.engine if like else VllmOptions()),
        )


class Judge(Asked):
    """A model that grades or compares candidates."""

    mode: Literal["pointwise", "pairwise"] = Field(
        "pointwise", description="pointwise grades each text; pairwise compares two, in both orders"
    )
    criteria: tuple[str, ...] | dict[str, str] = Field(
        tuple(CRITERIA),
        description="names of built-in criteria (faithfulness, helpfulness, coherence), or {name: question}",
    )
    pairs_per_prompt: Count | None = Field(None, description="pairs that are compared, with pairwise; default: all")
    blind: bool = Field(False, description="the judge does not see the images")
    facts: bool = Field(False, description="the judge reads the facts of the images")

    @field_validator("criteria")
    @classmethod
    def _check_criteria(cls, value: tuple[str, ...] | dict[str, str]) -> tuple[str, ...] | dict[str, str]:
        if not value:
            raise ValueError(f"criteria is empty; name some of {', '.join(CRITERIA)}, or write name: question")
        for name in value:
            if not isinstance(value, dict) and name not in CRITERIA:
                raise ValueError(
                    f"{name!r} is none of {', '.join(CRITERIA)}; write {name}: question for one of your own"
                )
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "wins":
                raise ValueError(f"a criterion cannot be called {name!r}; use a-z, 0-9 and _, and not wins")
        return value

    @model_validator(mode="after")
    def _pairs(self) -> Judge:
        if self.pairs_per_prompt is not None and self.mode != "pairwise":
            raise ValueError("pairs_per_prompt has no meaning with mode=pointwise; set mode=pairwise or remove it")
        return self

    @property
    def questions(self) -> tuple[tuple[str, str], ...]:
        """Name and question of each criterion."""
        criteria = self.criteria
        named = criteria if isinstance(criteria, dict) else {name: CRITERIA[name] for name in criteria}
        return tuple(named.items())


class Claims(Asked):
    """A text is split into claims, and a model answers each of them with yes or no."""

    splitter: Literal["rules", "model"] = Field(
        "rules", description="who makes the claims: rules, of sentences or of the objects of a vocabulary, or the model"
    )
    vocabulary: str | None = Field(
        None, description="as in objects: claims by rules are about the objects that a text names"
    )
    template: str = Field(TRUE_OF, description="question about a claim, with {claim}")
    template_many: str | None = Field(
        None, description="question about claims that count from two to ten things, with {claim}, {number} or {noun}"
    )
    max_tokens: Count = Field(512, description="of the list of claims that a model writes")
    min_mass: Fraction = Field(
        MIN_MASS, description="least P(yes) + P(no) with which an answer counts; with less it is unreadable"
    )

    @model_validator(mode="after")
    def _templates(self) -> Claims:
        for key, fields in (("template", {"claim"}), ("template_many", {"claim", "number", "noun"})):
            text = getattr(self, key)
            if text is not None:
                _check_template(key, text, fields)
        if self.splitter == "model" and self.vocabulary is not None:
            raise ValueError("vocabulary has no meaning with splitter=model; remove one of the two")
        return self


def _check_template(key: str, text: str, fields: set[str]) -> None:
    names = ", ".join(f"{{{name}}}" for name in sorted(fields))
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"{key}={text!r} is no template ({error}); double braces that mean themselves") from None
    if not used or used - fields:
        raise ValueError(f"{key}={text!r} must hold {names} and nothing else in braces")


class Score(Frozen):
    """What a candidate is worth. Scores are stored raw."""

    scorers: tuple[Annotated[str, name_or_path(BUILT_IN)], ...] = Field(
        ("objects", "correctness"),
        description="scorers that are used, in the order of their scores; others than ours by a dotted path or an "
        "entry point (docs/extending.md)",
    )
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options of scorers that have no group here, by their names in scorers"
    )
    objects: Objects = Field(Objects(), description="objects that a text names")
    facts: Facts = Field(Facts(), description="objects, colours, numbers and places")
    clip: Clip = Field(Clip(), description="similarity of image and text")
    reward_model: RewardModel | None = Field(None, description="reward of a model")
    likelihood: Likelihood = Field(Likelihood(), description="log-prob per token under a model")
    judge: Judge | None = Field(None, description="a model that grades or compares")
    claims: Claims | None = Field(None, description="a model that checks claim by claim")

    @model_validator(mode="after")
    def _some(self) -> Score:
        if not self.scorers:
            raise ValueError("scorers is empty; name at least one, such as objects, correctness or clip")
        if len(set(self.scorers)) != len(self.scorers):
            raise ValueError(f"scorers={list(self.scorers)} names one twice; remove it")
        for name in ("reward_model", "judge", "claims"):
            if name in self.scorers and getattr(self, name) is None:
                raise ValueError(f"{name} is among scorers and has no group; add {name}: {{model: ...}}")
        if idle := sorted(set(self.options) - set(self.scorers)):
            raise ValueError(f"options.{idle[0]} is of no scorer; add {idle[0]} to scorers, or remove it")
        if group := next(iter(sorted(set(self.options) & set(GROUPS))), None):
            raise ValueError(f"options.{group}: the options of {group} are in the group {group}; write them there")
        try:
            for name in OURS.keys() & self.options.keys():
                ours(name, self.options[name])
            names = self.names
        except PipelineError as error:
            raise ValueError(f"scorers: {error.message}; {error.remedy}") from error
        if len(set(names)) != len(names):
            raise ValueError(f"scorers: two are called {max(names, key=names.count)}; remove one")
        return self

    def plug_in(self, scorer: str) -> Plugged:
        """One of ``scorers`` that is not ours."""
        return plug_in(scorer, self.options.get(scorer, {}), BUILT_IN)

    def name_of(self, scorer: str) -> str:
        """What one of ``scorers`` calls its scores."""
        return scorer if scorer in BUILT_IN else self.plug_in(scorer).name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(self.name_of, self.scorers))
