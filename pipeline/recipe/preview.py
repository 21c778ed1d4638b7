"""A look at what a recipe would give: the first prompts, all the way to pairs, in a folder that is thrown away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.base.sweep import temporary_folder
from pipeline.pairing.config import Pair
from pipeline.pairing.kept_out import Bar, bars_of_row
from pipeline.recipe import naming
from pipeline.recipe.plan import Plan, run_stage
from pipeline.running.executor import Executor
from pipeline.running.stage import Source, Stage
from pipeline.running.store import Run
from pipeline.sources.imagine.stage import TextSource
from pipeline.sources.stage import SourceStage


@dataclass(frozen=True)
class First(SourceStage):
    """``count`` prompts of a source, in one shard: evenly out of its first shards, for neighbours are about one
    image."""

    count: int = 1
    name: str = "source"

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        tables, rows = [], 0
        for _, table in super().shards(run):
            tables.append(table)
            rows += table.num_rows
            if rows >= self.count:
                break
        count = min(self.count, rows)
        yield 0, pa.concat_tables(tables).take(pa.array([place * rows // count for place in range(count)]))


@dataclass(frozen=True)
class FirstTexts(TextSource):
    """The first ``count`` texts, in one shard: no image is made that would not be shown."""

    count: int = 1

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        _, table = next(super().shards(run))
        yield 0, table.slice(0, self.count)


def show(plan: Plan, count: int) -> None:
    """Print the pairs of ``count`` prompts, or why there are none, and of every other answer what kept it out."""
    from rich.console import Console

    with temporary_folder("preview") as folder:
        run = Run(Path(folder))
        stages = [_first(stage, count) for stage in plan.generation() if not stage.name.startswith("eval-")]
        with Executor(run, max_failure_rate=1.0) as executor:
            for stage in stages:
                run_stage(executor, stage, "never")
                if isinstance(stage, SourceStage):
                    naming.check(run, stage.name, plan.recipe)
        console = Console()
        for prompt in _prompts(run):
            _print(console, prompt, plan.recipe.pair)


def _first(stage: Source | Stage, count: int) -> Source | Stage:
    if isinstance(stage, SourceStage):
        return First(stage.spec, stage.seed, stage.shard_size, count=count, name=stage.name)
    if isinstance(stage, TextSource):
        return FirstTexts(stage.spec, stage.seed, stage.shard_size, count=count)
    return stage


@dataclass(frozen=True)
class _Prompt:
    """A prompt with its rows of the other tables; ``pairs`` are several, or one that says why there is none."""

    id: str
    messages: list[dict[str, str]]
    candidates: list[dict[str, Any]]
    score: dict[str, Any]
    pairs: list[dict[str, Any]]


def _prompts(run: Run) -> Iterator[_Prompt]:
    samples = {row["id"]: row["candidates"] or [] for row in run.table("sample").to_pylist()}
    scores = {row["id"]: row for row in run.table("score").to_pylist()}
    pairs: dict[str, list[dict[str, Any]]] = {}
    for pair in run.table("pair").to_pylist():
        pairs.setdefault(pair["id"], []).append(pair)
    for row in run.table("source").drop(["images"]).to_pylist():
        if (row_id := row["id"]) in pairs:
            yield _Prompt(row_id, row["prompt"], samples[row_id], scores[row_id], pairs[row_id])


def _print(console: Any, prompt: _Prompt, rule: Pair) -> None:
    """The pairs first, then every other answer with what kept it out of one."""
    from rich.markup import escape
    from rich.panel import Panel

    lines = [f"[bold]{escape(' / '.join(message['content'] for message in prompt.messages))}[/]"]
    paired = set()
    for pair in prompt.pairs:
        for side, colour in (("chosen", "green"), ("rejected", "red")):
            if (at := pair[side]) is not None:
                paired.add(at)
                lines.append(
                    f"[{colour}]{side}[/]  {escape(prompt.candidates[at]['text'])}\n  [dim]{_values(prompt, at)}[/]"
                )
        if pair["chosen"] is None:
            why = pair["error"] if pair["reason"] == "failed" else f"of {len(prompt.candidates)} answers"
            lines.append(f"[yellow]no pair: {pair['reason']}[/] {escape(why or '')}")
    question = "\n".join(message["content"] for message in prompt.messages if message["role"] == "user")
    for at, bars in enumerate(bars_of_row(prompt.candidates, prompt.score, rule, question)):
        if at not in paired:
            lines.append(f"[dim]answer  {escape(prompt.candidates[at]['text'])}\n  {_values(prompt, at)}[/]")
        lines += [f"  [magenta]{escape(_bar_text(bar))}[/]" for bar in bars]
    console.print(Panel("\n".join(lines), title=prompt.id, title_align="left"))


def _values(prompt: _Prompt, at: int) -> str:
    """The scores of an answer; ``?`` is one that nobody could tell."""
    values = ((score["name"], score["values"][at]) for score in prompt.score["scores"] or [])
    return ", ".join(f"{name} {'?' if value is None else format(value, '.3g')}" for name, value in values)


def _bar_text(bar: Bar) -> str:
    """
    >>> _bar_text(Bar("gate", "refusal", "it declines to answer"))
    'kept out by gate refusal: it declines to answer'
    >>> _bar_text(Bar("veto", "clip.cosine", "0.1 is below 0.2", "chosen"))
    'not as chosen by veto clip.cosine: 0.1 is below 0.2'
    """
    where = "kept out" if bar.side == "both" else f"not as {bar.side}"
    return f"{where} by {bar.kind} {bar.name}: {bar.reason}"
