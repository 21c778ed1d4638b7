"""The order of a run's stages, and what each one is made of. Knows nothing of training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Recipe
from pipeline.executor import Executor, StageResult
from pipeline.resume import Resume, explain
from pipeline.stages import Stage
from pipeline.stages.pair import PairStage
from pipeline.stages.publish import Published, publish
from pipeline.stages.sample import SampleStage
from pipeline.stages.score import ScoreStage
from pipeline.stages.source import BuiltSource, SourceStage
from pipeline.store import Run

Source = SourceStage | BuiltSource


@dataclass(frozen=True)
class Held:
    """A held-out evaluation: which prompts, and how long an answer may be."""

    build: Callable[[Mapping[str, Any]], Iterator[dict[str, Any]]]
    config: Mapping[str, Any]
    max_tokens: int


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    held: Held | None = None

    def generation(self) -> list[Source | Stage]:
        """From the source to pairs. The evaluation of the base model stands right behind sampling: they share an
        engine, and starting one takes longer than either."""
        r = self.recipe
        source = SourceStage(r.source, r.seed, r.shard_size)
        before: list[Source | Stage] = [self.held_source(), self.answers("eval-before")] if self.held else []
        return [source, SampleStage(r.sample, r.seed), *before, ScoreStage(r.score), PairStage(r.pair)]

    def held_source(self) -> BuiltSource:
        assert self.held is not None
        return BuiltSource("eval-source", self.held.build, self.held.config, self.recipe.shard_size)

    def answers(self, name: str, model: Path | None = None) -> SampleStage:
        """Greedy answers to the held-out prompts, by the recipe's model or by the one in the folder ``model``."""
        assert self.held is not None
        update: dict[str, Any] = {"n": 1, "temperature": 0.0, "top_p": 1.0, "max_tokens": self.held.max_tokens}
        if model is not None:
            update |= {"model": str(model), "revision": None}
        spec = self.recipe.sample.model_copy(update=update)
        return SampleStage(spec, self.recipe.seed, name=name, reads="eval-source")

    def preflight(self) -> None:
        """Find out what is wrong before hours have passed: models, vocabularies and files that are not there."""
        for stage in self.generation():
            stage.options()

    def explain(self, run: Run) -> dict[str, list[str]]:
        """Stage -> why it would run; stages that hold are left out."""
        stale: dict[str, list[str]] = {}
        for stage in self.generation():
            reasons = explain(run, stage, [name for name in stage.inputs if name in stale])
            if reasons:
                stale[stage.name] = reasons
        return stale


def run_stage(executor: Executor, run: Run, stage: Source | Stage, resume: Resume) -> StageResult:
    if isinstance(stage, SourceStage | BuiltSource):
        return executor.write(stage, lambda: stage.shards(run), resume)
    return executor.run(stage, resume)


def generate(
    plan: Plan, executor: Executor, run: Run, resume: Resume, command: Sequence[str]
) -> tuple[Published, float]:
    """Run every stage up to the published dataset; also the seconds that publishing took."""
    for stage in plan.generation():
        run_stage(executor, run, stage, resume)

    def card() -> str:
        from pipeline import card

        # Where the run lies says nothing about the data, and would make equal datasets differ.
        recipe = plan.recipe.model_dump(mode="json", exclude={"output_dir"})
        return card.render(run.path, recipe, " ".join(command))

    started = time.monotonic()
    return publish(run, plan.recipe.publish, card), time.monotonic() - started
