"""Benchmarks as the evaluation of a run: its model before and after training, and how far the two differ.

In ``evaluate/before`` and ``evaluate/after`` of the run is what ``python -m training.evaluate`` writes, in ``evaluate``
what its ``--compare`` does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from pipeline.base.errors import ConfigError, UserError
from pipeline.base.files import is_local, remove, remove_tree
from pipeline.recipe.plan import Plan
from pipeline.recipe.preflight import raised, reach
from pipeline.running.store import Run
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage, worker
from pipeline.scoring.run_dtype import with_dtype
from pipeline.sources.stage import BuiltSource
from training.config.evaluation import BenchmarkEvaluation
from training.errors import DataError
from training.evaluation import benchmarks
from training.evaluation.session import markdown, session, stored
from training.evaluation.session.generate import SHARD_SIZE, row_of
from training.evaluation.session.option_names import as_keys
from training.evaluation.session.versus import COMPARISON, versus
from training.evaluation.suite import Suite, load

FOLDER = "evaluate"
Side = Literal["before", "after"]


@dataclass(frozen=True)
class BenchmarksOfRun:
    """The suites of a recipe, and their results in its run."""

    plan: Plan
    config: BenchmarkEvaluation

    @cached_property
    def suites(self) -> tuple[Suite, ...]:
        """With everything that they need read.

        Raises:
            PipelineError: a suite, a file, an image or a judge is missing, or an option is wrong.
        """
        output = self.plan.recipe.output_dir
        if not is_local(Run(self.plan.recipe.run_dir).path):
            raise ConfigError(
                f"output_dir={output} is remote; benchmarks need a local folder",
                "set evaluate=null here, and give the model to python -m training.evaluate",
            )
        return tuple(self._load(self._names))

    def problems(self, run: Run, servers: bool) -> list[UserError]:
        """What keeps the suites from being asked: of each suite, and of the models where answers are missing.
        ``servers`` must answer, too."""
        if whole := raised([lambda: self.suites]):
            return [*whole, *raised([partial(self._load, [name]) for name in self._names])]
        if not self.unmeasured(run, "before", None) and _results(run.path / FOLDER / "after"):
            return []
        judge = self._judge.spec if self._judge is not None else None
        specs = [spec for spec in (self._spec(None), judge) if spec is not None]
        return raised([partial(_reach, spec, servers) for spec in specs])

    def unmeasured(self, run: Run, side: Side, model: Path | None) -> dict[str, str]:
        """The suites that would be asked, each with the reason."""
        results = _results(run.path / FOLDER / side)
        build = session.identity(self._spec(model))
        reasons = {}
        for suite in self.suites:
            old = stored.provenance(results, suite.name) if suite.name in results.get("suites", {}) else None
            if old is None:
                reasons[suite.name] = "never ran"
            elif old.model_revision != build:
                reasons[suite.name] = "the model is another one"
            elif old.data_revision.partition(":")[0] != suite.files or old.suite != f"{suite.name}@{suite.version}":
                reasons[suite.name] = "its files or its metrics are other ones"
            elif old.decoding.get("max_tokens") != self.config.max_tokens:
                reasons[suite.name] = f"max_tokens: {old.decoding.get('max_tokens')} -> {self.config.max_tokens}"
        return reasons

    def measure(
        self,
        run: Run,
        side: Side,
        model: Path | None = None,
        again: bool = False,
        changing: Callable[[], object] = lambda: None,
    ) -> None:
        """Ask the model that is to be trained, or the one in the folder ``model``. What is answered already is not
        asked again, unless ``again``. ``changing`` is called before results change.

        Raises:
            PipelineError: the model cannot be opened, or too many answers failed. The same call goes on.
        """
        place = run.path / FOLDER / side
        if again or self.unmeasured(run, side, model):
            changing()
        if again:
            remove_tree(place)
        remove(run.path / FOLDER / COMPARISON)  # of other answers
        with as_keys():
            session.evaluate(self.suites, self._spec(model), place, self._judge, 0, self.plan.recipe.max_failure_rate)

    def sampling(self) -> SampleStage:
        """How the model before training is asked."""
        return SampleStage(self._spec(None), 0, name="benchmarks", reads="benchmark-prompts")

    def source(self, most: int) -> BuiltSource:
        """At most so many of the prompts, spread over all suites."""
        prompts = session.prompts_of(self.suites)
        chosen = list(prompts.values())[:: -(-len(prompts) // most) or 1]

        def build(_: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
            return map(row_of, chosen)

        return BuiltSource(self.sampling().reads, build, {}, SHARD_SIZE)

    def results(self, run: Run, trained: Path | None) -> list[dict[str, Any]]:
        """A row for each metric that results show and either side has: ``suite``, its ``title``, ``metric``, ``better``
        (lower, higher or None), ``unit`` (None: a share), ``before`` and ``after`` with ``_ci``, ``difference`` with
        its ``_ci`` and ``p_value`` (paired, by image). None where something has not been measured, or cannot be
        compared, which is said: the numbers of each side stand all the same."""
        folder = run.path / FOLDER
        before = self._of_recipe(_read(folder / "before", self._spec(None)))
        after = self._of_recipe(_read(folder / "after", self._spec(trained))) if trained is not None else {}
        differences: Mapping[str, Any] = {}
        if before and after:
            try:
                versus(folder / "before", folder / "after", folder)
                differences = json.loads((folder / COMPARISON).read_text(encoding="utf-8"))["suites"]
            except DataError as error:
                print(f"warning: before and after are not compared: {error}", file=sys.stderr, flush=True)
        rows = []
        for suite, metrics in (before or after).items():
            for name in markdown.headline(suite, metrics):
                sides = {"before": metrics.get(name), "after": after.get(suite, {}).get(name)}
                if all(metric is None or metric["value"] is None for metric in sides.values()):
                    continue  # such as what sums up questions that were not asked
                row: dict[str, Any] = {"suite": suite, "title": markdown.title(suite), "metric": name}
                row["better"] = markdown.better(suite, name)
                row["unit"] = markdown.units(suite).get(name)
                for side, metric in sides.items():
                    row |= {side: metric and metric["value"], f"{side}_ci": metric and metric["interval"]}
                paired = differences.get(suite, {}).get(name, {})
                row |= {"difference": paired.get("difference"), "difference_ci": paired.get("interval")}
                rows.append({**row, "p_value": paired.get("p_value")})
        return rows

    def _of_recipe(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Without suites that were asked for another recipe, whose results are still there."""
        names = {benchmarks.find(name).name for name in self._names}
        names |= {name for name, together in benchmarks.TOGETHER.items() if names.issuperset(together.parts)}
        return {name: of_suite for name, of_suite in metrics.items() if name in names}

    @property
    def _names(self) -> Sequence[str]:
        return benchmarks.names(",".join(self.config.suites))

    def _load(self, names: Sequence[str]) -> list[Suite]:
        config = self.config
        options = {key: given for key, given in config.options.items() if names == self._names or key in names}
        with as_keys():
            session.require_judge(names, self._judge)
            return load(names, config.data, config.images, config.limit, config.seed, options, ids=config.ids)

    def _spec(self, model: Path | None) -> Sample:
        # A benchmark's numbers are compared with other people's, who ask without it.
        return self.plan.greedy(self.config.max_tokens, model).model_copy(update={"system_prompt": None})

    @cached_property
    def _judge(self) -> session.Judge | None:
        judge = self.config.judge
        if judge is None:
            return None
        if judge.judgements is not None:
            return session.Judge(judge.model, judge.revision or "build unknown", file=judge.judgements)
        spec = with_dtype(judge.spec(), self.plan.recipe.dtype)
        return session.Judge(judge.model, session.identity(spec), spec)


def _reach(spec: Sample, servers: bool) -> None:
    reach(worker(spec).open, servers)


def _read(folder: Path, spec: Sample) -> dict[str, Any]:
    """The metrics of each suite, if they are of this model."""
    content = _results(folder)
    build = session.identity(spec)
    if any(stored.provenance(content, name).model_revision != build for name in content.get("suites", ())):
        return {}
    return {name: suite["metrics"] for name, suite in content.get("suites", {}).items()}


def _results(folder: Path) -> Mapping[str, Any]:
    """What ``results.json`` holds; empty if there is none."""
    try:
        content, _ = stored.read(folder)
    except DataError:
        return {}
    return content
