"""A look at what a recipe would give: the first prompts, all the way to pairs, in a folder that is thrown away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.base.sweep import temporary_folder
from pipeline.recipe import naming
from pipeline.recipe.plan import Plan, run_stage
from pipeline.running.executor import Executor
from pipeline.running.stage import Source, Stage
from pipeline.running.store import Run
from pipeline.sources.imagine.stage import TextSource
from pipeline.sources.stage import SourceStage


@dataclass(frozen=True)
class First(SourceStage):
    """The first ``count`` prompts of a source, in one shard."""

    count: int = 1
    name: str = "source"

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        kept, missing = [], self.count
        for _, table in super().shards(run):
            kept.append(table.slice(0, missing))
            missing -= kept[-1].num_rows
            if not missing:
                break
        yield 0, pa.concat_tables(kept)


@dataclass(frozen=True)
class FirstTexts(TextSource):
    """The first ``count`` texts, in one shard: no image is made that would not be shown."""

    count: int = 1

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        _, table = next(super().shards(run))
        yield 0, table.slice(0, self.count)


def show(plan: Plan, count: int) -> None:
    """Print the pairs of ``count`` prompts, or why there are none."""
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
        for row in _rows(run):
            _print(console, row)


def _first(stage: Source | Stage, count: int) -> Source | Stage:
    if isinstance(stage, SourceStage):
        return First(stage.spec, stage.seed, stage.shard_size, count=count, name=stage.name)
    if isinstance(stage, TextSource):
        return FirstTexts(stage.spec, stage.seed, stage.shard_size, count=count)
    return stage


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    """One per row of the pairs table, with the prompt's text and all texts and scores behind it."""
    prompts = {row["id"]: row for row in run.table("source").drop(["images"]).to_pylist()}
    samples = {row["id"]: row["candidates"] or [] for row in run.table("sample").to_pylist()}
    scores = {row["id"]: row["scores"] or [] for row in run.table("score").to_pylist()}
    for pair in run.table("pair").to_pylist():
        row_id = pair["id"]
        yield {**pair, "prompt": prompts[row_id]["prompt"], "candidates": samples[row_id], "scores": scores[row_id]}


def _print(console: Any, row: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.panel import Panel

    question = escape(" / ".join(message["content"] for message in row["prompt"]))
    lines = [f"[bold]{question}[/]"]
    for side, colour in (("chosen", "green"), ("rejected", "red")):
        at = row[side]
        if at is not None:
            values = ", ".join(
                f"{s['name']} {s['values'][at]:.3g}" for s in row["scores"] if s["values"][at] is not None
            )
            lines.append(f"[{colour}]{side}[/]  {escape(row['candidates'][at]['text'])}\n  [dim]{values}[/]")
    if row["chosen"] is None:
        why = row["error"] if row["reason"] == "failed" else f"of {len(row['candidates'])} answers"
        lines.append(f"[yellow]no pair: {row['reason']}[/] {escape(why or '')}")
        lines += [f"  [dim]{escape(candidate['text'])}[/]" for candidate in row["candidates"]]
    console.print(Panel("\n".join(lines), title=row["id"], title_align="left"))
