"""The order of a run's stages, and what each one is made of. Knows nothing of training."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base import model_names as models
from pipeline.base.errors import ConfigError
from pipeline.pairing.stage import PairStage
from pipeline.publishing.embed_stage import EmbedStage
from pipeline.publishing.findings import makes_data, steps
from pipeline.publishing.publish import Published, publish, reasons
from pipeline.recipe import naming
from pipeline.recipe.recipe import Recipe
from pipeline.rewriting.lineage import Gathered
from pipeline.rewriting.steps import DESCRIBED, Rewriting
from pipeline.rewriting.steps import TABLES as REWRITTEN
from pipeline.running.executor import Executor, StageResult
from pipeline.running.resume import Resume, current_record, explain
from pipeline.running.stage import Source, Stage
from pipeline.running.store import Run, Survey
from pipeline.sampling import continuation as continue_
from pipeline.sampling.config import GivenOptions, OpenAIOptions, PluggedOptions, Sample, VllmOptions
from pipeline.sampling.continuation import ContinueStage
from pipeline.sampling.stage import SampleStage, slug
from pipeline.scoring import stage as score
from pipeline.sources.config import PdsSource
from pipeline.sources.given_stage import GivenStage
from pipeline.sources.imagine.config import ImagineSource
from pipeline.sources.imagine.instruct import InstructStage
from pipeline.sources.imagine.rank import RankStage
from pipeline.sources.imagine.stage import ImagineStage, TextSource
from pipeline.sources.stage import BuiltSource, SourceStage

if TYPE_CHECKING:
    from pipeline.publishing.findings import Findings

#: What ``--stages`` may name, in order.
GROUPS = ("imagine", "source", "sample", "rewrite", "score", "pair", "publish", "train", "evaluate")
#: What comes before a source of imagined images.
IMAGINED = ("texts", "imagine", "rank", "instruct")


@dataclass(frozen=True)
class Held:
    """A held-out evaluation: which prompts, and how long an answer may be. ``most`` is how many prompts there are at
    most, each with an image; None if nobody knows."""

    build: Callable[[Mapping[str, Any]], Iterator[dict[str, Any]]]
    config: Mapping[str, Any]
    max_tokens: int
    most: int | None = None


@dataclass(frozen=True)
class Outlook:
    """What would become of a stage: ``done`` of ``shards`` hold (None: not known before its source has run)."""

    stage: str
    shards: int | None
    done: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    held: Held | None = None

    def generation(self) -> list[Source | Stage]:
        """From the source to pairs, and what publishing them needs besides. The evaluation of the base model stands
        right behind its sampling, and a model that also continues or judges is sampled last: they share an engine, and
        starting one takes longer than either."""
        r = self.recipe
        rewriting = self.rewriting()
        first = rewriting.first() if rewriting else SourceStage(r.source, r.seed, r.shard_size)
        stages: list[Source | Stage] = [*self._imagine_stages(), first]
        specs = r.sample.each()
        names = self._tables(specs)
        pending = self.held is not None
        order = sorted(zip(names, specs, strict=True), key=lambda entry: self._turn(entry[1], specs))
        for name, spec in order:
            stages.append(self._candidates(spec, name, first.name))
            if pending and self._is_base(spec):
                stages += self.before()
                pending = False
        if pending:
            stages += self.before()
        sampled = [spec for _, spec in order]
        if (continued := self._continues()) is not None and (rule := r.sample.continuation) is not None:
            stages.append(ContinueStage(continued, rule, r.seed, tuple(names), self._is_base(continued)))
            names.append(continue_.NAME)
            sampled.append(continued)
        if len(names) > 1:
            stages.append(Gathered(tuple(names), DESCRIBED if rewriting else "sample"))
        if rewriting is not None:
            stages += rewriting.stages()
            sampled += [rewriting.base] if rewriting.spec.questions is not None else []
        stages += score.stages(r.score, sampled, r.seed, r.pair.deciding_scores)
        embed = [EmbedStage(r.publish.similar)] if r.publish.similar is not None else []
        return [*stages, PairStage(r.pair, r.seed), *embed]

    def names(self) -> frozenset[str]:
        """The stages of the recipe, and those that go on from its pairs."""
        after = ({"train"} if self.recipe.train is not None else set()) | ({"eval-after"} if self.held else set())
        return frozenset({*(stage.name for stage in self.generation()), "publish", *after})

    def rewriting(self) -> Rewriting | None:
        """What becomes of the sampled texts; None where nothing does."""
        r = self.recipe
        if r.rewrite is None:
            return None
        return Rewriting(r.rewrite, r.source, r.seed, r.shard_size, self.base(), r.sample.each())

    def before(self) -> list[Source | Stage]:
        assert self.held is not None
        source = BuiltSource("eval-source", self.held.build, self.held.config, self.recipe.shard_size)
        return [source, self.answers("eval-before")]

    def answers(self, name: str, model: Path | None = None) -> SampleStage:
        """Greedy answers to the held-out prompts, by the model to be trained or by the one in the folder ``model``."""
        assert self.held is not None
        return SampleStage(self.greedy(self.held.max_tokens, model), self.recipe.seed, name=name, reads="eval-source")

    def greedy(self, max_tokens: int, model: Path | None = None) -> Sample:
        """How the model to be trained is measured, or the one in the folder ``model``: with the engine that it is
        sampled with, where that can open a folder."""
        base = self.base()
        update: dict[str, Any] = {"n": 1, "temperature": 0.0, "top_p": 1.0, "max_tokens": max_tokens}
        if model is not None:
            elsewhere = isinstance(base.engine, PluggedOptions) and not base.engine.gpus
            here = elsewhere or isinstance(base.engine, OpenAIOptions)
            engine = VllmOptions(dtype=self.recipe.dtype) if here else base.engine
            update |= {"model": str(model), "revision": None, "engine": engine}
        return base.model_copy(update=update)

    def base(self) -> Sample:
        """How the model that is to be trained is asked: ``train.model``, or the first that is sampled."""
        return self._like((self.recipe.train or {}).get("model"))

    def outlook(self, run: Run, wanted: Container[str] = GROUPS) -> list[Outlook]:
        """What would run of the stages among ``wanted``, and why; stages that hold have no reasons."""
        survey = Survey(run)
        stale: set[str] = set()
        outlooks: list[Outlook] = []
        for stage in self.chosen(wanted):
            why = explain(run, stage, survey, [name for name in stage.inputs if name in stale])
            # A source decides about its shards itself, whatever it reads.
            source = None if isinstance(stage, Source) else stage.inputs[0]
            countable = not (stale & {"source", source}) and source is not None
            shards = len(run.shards(source)) if countable and source is not None else None
            now = current_record(run, stage, survey)
            done = [s for s in run.shards(stage.name) if not source or survey.is_current(now, s, stage.inputs)]
            if why:
                stale.add(stage.name)
            outlooks.append(Outlook(stage.name, shards, len(done), tuple(why)))
        return [*outlooks, self._publishing(run, bool(stale))] if "publish" in wanted else outlooks

    def chosen(self, wanted: Container[str]) -> list[Source | Stage]:
        """The stages from the source to pairs that are among ``wanted``."""
        rewriting = self.rewriting()
        names = rewriting.names() if rewriting else ()
        return [stage for stage in self.generation() if group(stage.name, names) in wanted]

    def _publishing(self, run: Run, stale: bool) -> Outlook:
        """Publishing is done as a whole, or not."""
        if not stale:
            why = reasons(run, self.recipe.publish)
        else:
            why = ["stages before it run again"] if run.record("publish") is not None else ["never ran"]
        return Outlook("publish", 1, int(not why), tuple(why))

    def _candidates(self, spec: Sample, name: str, prompts: str) -> Stage:
        if isinstance(spec.engine, GivenOptions):
            assert isinstance(self.recipe.source, PdsSource)  # or the recipe would not have been accepted
            return GivenStage(self.recipe.source, name)
        return SampleStage(spec, self.recipe.seed, name=name, reads=prompts, on_policy=self._is_base(spec))

    def _continues(self) -> Sample | None:
        """How the model is asked that goes on from the beginnings of answers."""
        rule = self.recipe.sample.continuation
        return None if rule is None else self._like(rule.model) if rule.model else self.base()

    def _answers(self) -> Sample | None:
        """How the model is asked that answers questions about what was described."""
        rule = self.recipe.rewrite
        return self.base() if rule is not None and rule.questions is not None else None

    def _like(self, model: str | None) -> Sample:
        """How a model is asked, without noise: as it is sampled, or else as the first that is sampled, which it is if
        None is named."""
        specs = self.recipe.sample.each()
        sampled = [spec for spec in specs if not isinstance(spec.engine, GivenOptions)]
        sampled = sampled or [specs[0].model_copy(update={"engine": VllmOptions(dtype=self.recipe.dtype)})]
        wanted = sampled[0].model if model is None else model
        same = [spec for spec in sampled if spec.model == wanted]
        like = next((spec for spec in same if spec.noise is None), [*same, sampled[0]][0])
        return like.model_copy(update={"model": wanted, "noise": None})

    def _tables(self, specs: Sequence[Sample]) -> list[str]:
        """The table of each sampled model.

        Raises:
            ConfigError: two would be called the same.
        """
        continued = [continue_.NAME] if self.recipe.sample.continuation else []
        rewritten = sorted(REWRITTEN) if self.recipe.rewrite is not None else []
        if len(specs) == 1 and not continued:
            return [DESCRIBED if rewritten else "sample"]
        names = [f"sample-{slug(spec)}" for spec in specs]
        for name, count in Counter(names + continued + rewritten).items():
            if count > 1:
                raise ConfigError(f"sample.models: two entries would be written to {name}", "give a model another name")
        return names

    def _turn(self, spec: Sample, specs: Sequence[Sample]) -> tuple[bool, int]:
        """When a model is sampled: entries of one model after each other, and last the one that is needed next."""
        model, after = (spec.model, spec.revision), self._continues() or self._answers()
        last = score.asks(self.recipe.score, spec, specs) if after is None else (after.model, after.revision) == model
        return last, [(other.model, other.revision) for other in specs].index(model)

    def _imagine_stages(self) -> list[Source | Stage]:
        """From texts to questions about images made from them."""
        r = self.recipe
        if not isinstance(r.source, ImagineSource):
            return []
        texts = TextSource(r.source.texts, r.seed, r.shard_size)
        return [
            texts,
            ImagineStage(r.source, r.seed),
            RankStage(r.source.rank),
            InstructStage(r.source.instruct, r.seed),
        ]

    def _is_base(self, spec: Sample) -> bool:
        return spec.model == self.base().model


def group(stage: str, rewriting: Container[str] = ()) -> str:
    """The name by which ``--stages`` knows a stage. ``rewriting`` are the names of those that ``rewrite`` means.

    >>> group("sample-llava"), group("eval-before"), group("rank"), group("ask-judge"), group("pair"), group("embed")
    ('sample', 'evaluate', 'imagine', 'score', 'pair', 'publish')
    """
    if stage in rewriting:
        return "rewrite"
    if stage in IMAGINED:
        return "imagine"
    others = {"eval": "evaluate", "ask": "score", "prompts": "source", "embed": "publish"}
    return others.get(first := stage.split("-", 1)[0], first)


def stage_groups(names: str | None) -> frozenset[str]:
    """The stages that ``--stages`` names, all without it.

    Raises:
        ConfigError: there is no such stage.
    """
    wanted = frozenset(GROUPS if names is None else filter(None, (name.strip() for name in names.split(","))))
    unknown = sorted(wanted - set(GROUPS))
    if unknown or not wanted:
        raise ConfigError(f"--stages: no stage {', '.join(unknown) or 'named'}", f"use some of {', '.join(GROUPS)}")
    return wanted


def run_stage(executor: Executor, stage: Source | Stage, resume: Resume) -> StageResult:
    if isinstance(stage, Source):
        return executor.write(stage, resume)
    return executor.run(stage, resume)


def generate(plan: Plan, run: Run, executor: Executor, resume: Resume, stages: Iterable[str] = GROUPS) -> None:
    """Run the stages from the source to pairs that are among ``stages``."""
    wanted = {stage.name for stage in plan.chosen(set(stages))}
    for stage in plan.generation():
        if stage.name in wanted:
            run_stage(executor, stage, resume)
        if isinstance(stage, SourceStage):
            naming.check(run, stage.name, plan.recipe)  # before anything is sampled


def publish_run(
    plan: Plan, run: Run, command: Sequence[str], findings: Callable[[], Findings] | None = None
) -> tuple[Published, float]:
    """Publish the pairs of a run; also the seconds that it took. ``findings`` collects what the run shows; asked only
    if there is something to publish."""

    # Where the run lies says nothing about the data, and would make equal datasets differ.
    recipe = plan.recipe.model_dump(mode="json", exclude={"output_dir"})
    made_by = [asdict(replace(step, seconds=0.0)) for name, step in steps(run).items() if makes_data(name)]

    @cache
    def beside() -> dict[str, bytes]:
        from pipeline.publishing.card_pictures import files_beside
        from pipeline.publishing.collect import collect

        return files_beside(run, findings() if findings else collect(run), recipe)

    def card(rows: str) -> str:
        from pipeline.publishing import card

        return card.render(run, recipe, " ".join(command), findings() if findings else None, rows, beside())

    about = models.digest(json.dumps([recipe, list(command), made_by], sort_keys=True, default=str))
    started = time.monotonic()
    return publish(run, plan.recipe.publish, card, about, beside), time.monotonic() - started
