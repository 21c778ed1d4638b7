"""The stages of a recipe with ``rewrite``: how they are called, what they read, and in which order they run.

``sample`` and ``source``, which scoring and pairing read, are then made of what was sampled, what was made from it, and
what was asked about it::

    prompts -> sample-described -> detect -> sample-corrected -> sample-injected -> sample-restyled -> sample-rewritten
    detect -> questions -> sample-asked -> sample-answered
    prompts + questions = source,  sample-rewritten + sample-answered = sample

Without questions, ``source`` are the prompts, and ``sample`` stands for ``sample-rewritten``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.base.tables import CANDIDATES, PROMPTS
from pipeline.rewriting import correct_stage as correct
from pipeline.rewriting import detect_stage as detect
from pipeline.rewriting import inject_stage as inject
from pipeline.rewriting import questions_stage as questions
from pipeline.rewriting import restyle_stage as restyle
from pipeline.rewriting.config import Rewrite
from pipeline.rewriting.correct_stage import CorrectStage
from pipeline.rewriting.inject_stage import CooccurrenceStage, InjectStage
from pipeline.rewriting.lineage import Gathered
from pipeline.rewriting.questions_stage import AnswerStage, QuestionSource
from pipeline.rewriting.restyle_stage import RestyleStage
from pipeline.running.stage import Source, Stage
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage
from pipeline.sources.kinds import Source as SourceSpec
from pipeline.sources.stack import StackStage
from pipeline.sources.stage import SourceStage

PROMPTS_TABLE = "prompts"
DESCRIBED = "sample-described"
REWRITTEN = "sample-rewritten"
#: What no table of a sampled model may be called.
TABLES = frozenset({DESCRIBED, correct.NAME, inject.NAME, restyle.NAME, REWRITTEN, questions.ASKED, questions.ANSWERED})


@dataclass(frozen=True)
class Prompts(SourceStage):
    """The prompts of a recipe, where ``source`` has questions beside them."""

    name = PROMPTS_TABLE


@dataclass(frozen=True)
class Rewriting:
    """``base`` is the model that is to be trained, as it is asked; ``sampled`` are all models that are."""

    spec: Rewrite
    source: SourceSpec
    seed: int
    shard_size: int
    base: Sample
    sampled: Sequence[Sample]

    @property
    def prompts(self) -> str:
        """The table that descriptions answer."""
        return PROMPTS_TABLE if self.spec.questions is not None else "source"

    @property
    def words(self) -> str:
        """The vocabulary; a recipe has filled it in."""
        return self.spec.vocabulary or "scenes"

    def first(self) -> SourceStage:
        kind = Prompts if self.spec.questions is not None else SourceStage
        return kind(self.source, self.seed, self.shard_size)

    def stages(self) -> list[Source | Stage]:
        """From ``sample-described`` to ``sample`` and ``source``.

        Raises:
            ConfigError: a vocabulary cannot be used.
        """
        spec, seed, words = self.spec, self.seed, self.words
        steps: list[Source | Stage] = []
        complete = spec.detect.complete
        steps += detect.stages(spec.detect, words, self.prompts, DESCRIBED, self.sampled, seed)
        if spec.inject is not None or spec.questions is not None:
            steps.append(CooccurrenceStage(words, self.prompts))
        parts = [DESCRIBED]
        if spec.correct is not None:
            sample = spec.correct.spec(self.sampled) if spec.correct.by == "model" else None
            steps.append(CorrectStage(spec.correct, words, seed, self.prompts, DESCRIBED, sample, complete))
            parts.append(correct.NAME)
        if spec.inject is not None:
            corrected = spec.correct is not None
            steps.append(InjectStage(spec.inject, words, seed, self.prompts, DESCRIBED, corrected, complete))
            parts.append(inject.NAME)
        if spec.restyle is not None:
            sample = spec.restyle.spec(self.sampled) if spec.restyle.by == "model" else None
            steps.append(RestyleStage(spec.restyle, words, seed, self.prompts, tuple(parts), sample))
            parts.append(restyle.NAME)
        if spec.questions is None:
            return [*steps, Gathered(tuple(parts))]
        return [*steps, Gathered(tuple(parts), REWRITTEN), *self._questions()]

    def names(self) -> frozenset[str]:
        """Of the stages that ``--stages rewrite`` means."""
        return frozenset(stage.name for stage in self.stages())

    def _questions(self) -> list[Source | Stage]:
        spec, seed = self.spec.questions, self.seed
        assert spec is not None
        limits = (self.source.max_image_bytes, self.source.max_image_pixels)
        words, complete = self.words, self.spec.detect.complete
        source = QuestionSource(spec, words, seed, self.shard_size, self.prompts, DESCRIBED, *limits, complete)
        update: dict[str, Any] = {"n": 1, "temperature": spec.temperature, "max_tokens": spec.max_tokens, "top_p": 1.0}
        sample = self.base.model_copy(update=update)
        return [
            source,
            SampleStage(sample, seed, questions.ASKED, questions.NAME, on_policy=True),
            AnswerStage(spec, seed),
            StackStage("source", self.prompts, questions.NAME, PROMPTS),
            StackStage("sample", REWRITTEN, questions.ANSWERED, CANDIDATES),
        ]
