"""What a candidate is worth."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.base.config import Count, Fraction, Frozen
from pipeline.base.errors import PipelineError
from pipeline.sampling.config import Engine, GivenEngine, OpenAIEngine, Sample, Temperature, VllmEngine
from pipeline.scoring.plugged import Plugged, plugged
from reward.asking.claims import MIN_MASS, TRUE_OF
from reward.asking.judge import CRITERIA

#: Our scorers by their names in a recipe: formulas, models in the worker's process, models that are asked.
BUILT_IN = ("objects", "facts", "correctness", "given", "clip", "reward_model", "likelihood", "judge", "claims")


class Clip(Frozen):
    """``model`` is a built-in name, an open_clip folder or ``hf-hub:`` name, a transformers CLIPModel (folder or hub
    id, such as PickScore), or an open_clip architecture, which then needs ``pretrained``. ``processor`` is for a
    transformers model that comes without one: where it is."""

    model: str = "scenes-clip"
    pretrained: str | None = None
    processor: str | None = None
    batch_size: Count = 64
    workers: Count = 1


class Objects(Frozen):
    """``vocabulary`` is ``scenes``, ``coco``, or a JSON file ``{"surface form": "object"}`` with every plural and
    synonym. Left out, it is ``coco`` for a source of that kind, and ``scenes`` for every other.

    ``detections`` is a JSON file of what a detector found in the images, for prompts without object facts (``always``:
    for all). ``threshold`` is the lowest score that counts as found; ``classes`` are what the detector can find, where
    the file does not tell.
    """

    vocabulary: str | None = None
    detections: Path | None = None
    threshold: Fraction = 0.5
    classes: tuple[str, ...] | None = None
    always: bool = False


class Facts(Frozen):
    """``vocabulary`` as in ``objects``; texts are then read as general English about those objects. ``complete``: where
    facts have regions and no objects, what none of these names is not there."""

    vocabulary: str | None = None
    complete: bool = True


class RewardModel(Frozen):
    """``model`` is a built-in name, a folder or a hub id. ``base`` is for a LoRA adapter: the model it belongs to, if
    not the one that it names. ``backend: auto`` takes vLLM where there is a GPU and vLLM supports the model, else
    transformers."""

    model: str
    revision: str | None = None
    base: str | None = None
    batch_size: Count = 8
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    backend: Literal["auto", "transformers", "vllm"] = "auto"
    workers: Count = 1


class Likelihood(Frozen):
    """``model`` is a built-in name, a folder or a hub id; left out, it is the model that is to be trained."""

    model: str | None = None
    revision: str | None = None
    batch_size: Count = 8
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    workers: Count = 1


class Asked(Frozen):
    """A model that is asked about candidates. Without ``engine``, a model that is also sampled is asked through the
    same one (and read its images alike), any other through vLLM with its defaults."""

    model: str
    revision: str | None = None
    chat_template: Path | None = None
    system_prompt: str | None = None
    temperature: Temperature = 0.0
    max_tokens: Count = 256
    max_image_pixels: Count | None = None
    engine: Engine | None = None

    @field_validator("engine")
    @classmethod
    def _asks(cls, value: Engine | None) -> Engine | None:
        if isinstance(value, GivenEngine):
            raise ValueError("engine.kind=given asks nobody; use vllm, openai or scripted")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Asked:
        if self.chat_template is not None and isinstance(self.engine, OpenAIEngine):
            raise ValueError("chat_template is the server's affair with kind=openai; start it with the template")
        return self

    def spec(self, sampled: Sequence[Sample] = ()) -> Sample:
        """The model as one to be sampled, one answer at a time."""
        same = [one for one in sampled if (one.model, one.revision) == (self.model, self.revision)]
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
            engine=self.engine or (like.engine if like else VllmEngine()),
        )


class Judge(Asked):
    """``criteria`` are names of the built-in ones (faithfulness, helpfulness, coherence), or ``{name: question}``.

    ``pairwise`` compares pairs in both orders, all of a prompt's or ``pairs_per_prompt`` of them. ``blind``: the judge
    does not see the images. ``facts``: it reads what is known of them.
    """

    mode: Literal["pointwise", "pairwise"] = "pointwise"
    criteria: tuple[str, ...] | dict[str, str] = tuple(CRITERIA)
    pairs_per_prompt: Count | None = None
    blind: bool = False
    facts: bool = False

    @field_validator("criteria")
    @classmethod
    def _known(cls, value: tuple[str, ...] | dict[str, str]) -> tuple[str, ...] | dict[str, str]:
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
        own = self.criteria
        return tuple(own.items()) if isinstance(own, dict) else tuple((name, CRITERIA[name]) for name in own)


class Claims(Asked):
    """``splitter: rules`` makes claims of sentences, or with a ``vocabulary`` (as in ``objects``) of the
    objects that are mentioned; ``model`` has the model itself write them.

    ``template`` is the question about a claim. ``template_many`` is for claims that count from two to ten things.
    ``max_tokens`` is for the list of claims that a model writes. ``min_mass`` is the least P(yes) + P(no) with which an
    answer counts; with less it is unreadable.
    """

    splitter: Literal["rules", "model"] = "rules"
    vocabulary: str | None = None
    template: str = TRUE_OF
    template_many: str | None = None
    max_tokens: Count = 512
    min_mass: Fraction = MIN_MASS

    @model_validator(mode="after")
    def _templates(self) -> Claims:
        for key, known in (("template", {"claim"}), ("template_many", {"claim", "number", "noun"})):
            text = getattr(self, key)
            if text is not None:
                _check_template(key, text, known)
        if self.splitter == "model" and self.vocabulary is not None:
            raise ValueError("vocabulary has no meaning with splitter=model; remove one of the two")
        return self


def _check_template(key: str, text: str, known: set[str]) -> None:
    names = ", ".join(f"{{{name}}}" for name in sorted(known))
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"{key}={text!r} is no template ({error}); double braces that mean themselves") from None
    if not found or found - known:
        raise ValueError(f"{key}={text!r} must hold {names} and nothing else in braces")


class Score(Frozen):
    """``scorers`` names those that are used, in the order of their scores; a group holds the options of each.

    Others than ours are named by a dotted path or an entry point (docs/extending.md), and ``options`` holds theirs, by
    that name.
    """

    scorers: tuple[str, ...] = ("objects", "correctness")
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    objects: Objects = Objects()
    facts: Facts = Facts()
    clip: Clip = Clip()
    reward_model: RewardModel | None = None
    likelihood: Likelihood = Likelihood()
    judge: Judge | None = None
    claims: Claims | None = None

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
        if own := sorted(set(self.options) & set(BUILT_IN)):
            raise ValueError(f"options.{own[0]}: the options of {own[0]} are in the group {own[0]}; write them there")
        try:
            names = self.names
        except PipelineError as error:
            raise ValueError(f"scorers: {error.message}; {error.remedy}") from error
        if len(set(names)) != len(names):
            raise ValueError(f"scorers: two are called {max(names, key=names.count)}; remove one")
        return self

    def plugged(self, scorer: str) -> Plugged:
        """One of ``scorers`` that is not ours."""
        return plugged(scorer, self.options.get(scorer, {}), BUILT_IN)

    def name_of(self, scorer: str) -> str:
        """What one of ``scorers`` calls its scores."""
        return scorer if scorer in BUILT_IN else self.plugged(scorer).name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(self.name_of, self.scorers))
