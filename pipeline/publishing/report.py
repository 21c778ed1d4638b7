"""A run as one HTML file to send to a colleague: result, plots, pairs with their images; it loads nothing from outside.

Shows the findings of the run's tables (``pipeline.publishing.findings``); besides them, where they exist:

- ``summary.json``: ``{"before": {metric: value}, "after": {metric: value}}`` with the metrics of
  ``training.evaluation.summarise``; other names work too, the first is the baseline;
- ``train/metrics.jsonl``: one JSON object a line, with ``step`` and TRL's names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.base import files, secrets
from pipeline.base import model_names as models
from pipeline.base.marks import FILE as MARKS
from pipeline.blindness import in_words
from pipeline.publishing import blindness_gate
from pipeline.publishing import style_gate as consistency
from pipeline.publishing.card import model_rows, outcome_rows, plain, style_masked, style_rows
from pipeline.publishing.collect import collect
from pipeline.publishing.evaluation_rows import (
    Comparison,
    evaluation_rows,
    headline,
    json_or_none,
    number,
    p_text,
    percent,
)
from pipeline.publishing.findings import STEPS, Findings, steps
from pipeline.publishing.hallucinated import Truth, by_vocabulary, of_run, saved_recipe
from pipeline.publishing.page_images import data_uri, gallery
from pipeline.publishing.word_diff import pieces
from pipeline.running import prompt_rows
from pipeline.running.joined import Example
from pipeline.running.prompt_rows import PromptRow
from pipeline.running.store import Record, Run, as_run
from reward.answers.match_answer import right
from reward.text.object_vocabulary import Vocabulary

#: Metrics in the picture of before and after; the table has all.
_BARS = 12
TEMPLATES = Path(__file__).parent / "templates"
#: Steps whose shards are those of the texts.
IMAGINED = STEPS[: STEPS.index("source")]


#: Panel title -> series name -> column of ``metrics.jsonl``.
_PANELS: Mapping[str, Mapping[str, str]] = {
    "loss": {"loss": "loss"},
    "rewards": {"chosen": "rewards/chosen", "rejected": "rewards/rejected"},
    "reward margin": {"margin": "rewards/margins"},
    "reward accuracy": {"accuracy": "rewards/accuracies"},
    "image margin": {"image margin": "rewards/image_margins"},
    "learning rate": {"learning rate": "learning_rate"},
}


def write(
    run: Run | Path,
    recipe: Mapping[str, Any] | None = None,
    command: str | None = None,
    vocabulary: Vocabulary | None = None,
    findings: Findings | None = None,
) -> Path:
    """Write ``report.html`` of a run and return its path.

    ``recipe`` (plain data) defaults to the run's ``recipe.yaml``, else to the options the stages have recorded.
    Without ``command`` the report points to the dataset's card. Hallucinated words are marked by what the run itself
    went by (``pipeline.publishing.hallucinated``), or by its facts and ``vocabulary``. ``findings`` are those of the
    run if they are known already.

    Raises:
        InputError: the run has no source table.
    """
    run = as_run(run)
    run_dir, findings = run.path, findings or collect(run)
    made_from = key(run, recipe, command)
    records = steps(run)
    truth = by_vocabulary(vocabulary) if vocabulary is not None else of_run(run, recipe)
    recipe = secrets.options(recipe if recipe is not None else saved_recipe(run_dir) or _recorded_recipe(records))
    evaluated = evaluation_rows(run_dir)
    rows = evaluated.rows
    rows_of = prompt_rows.by_shard(run, findings.examples)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True)
    environment.filters.update(percent=percent, number=number, p_text=p_text)
    page = environment.get_template("report.html.j2").render(
        name=recipe.get("name") or run_dir.resolve().name,
        findings=findings,
        similar=published.extras.get("similar") if (published := run.record("publish")) is not None else None,
        recipe=yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True, width=100),
        command=secrets.text(command) if command else None,
        headline=headline(rows, findings),
        labels=evaluated.labels,
        rows=rows,
        counts=evaluated.counts,
        made_from=made_from,
        plots=_plots(findings, rows, evaluated.labels, run),
        evaluates=bool(recipe.get("evaluate")),
        trains=bool(recipe.get("train")),
        legend=truth.legend,
        marking=bool(truth.finders),
        cards=[_card(example, rows_of[example.shard][example.id], truth) for example in findings.examples],
        stages=[_timing(run, record) for record in records.values()],
        outcomes=outcome_rows(findings),
        style=style_rows(findings.style),
        masked=style_masked(findings.style),
        blindness=in_words.section(findings.blindness),
        models=model_rows(findings),
        gallery=gallery(run),
        secrets=secrets,
    )
    path = run_dir / "report.html"
    files.write_text(path, page)
    return path


def key(run: Run, recipe: Mapping[str, Any] | None, command: str | None) -> str:
    """What a report says that it was made from: the summary (with the seconds of every stage: if they are the same,
    nothing was done since), the recipe, the command and the marks of pairs, if there are any."""
    content = [files.read_text(run.path / "summary.json"), recipe, command]
    if (marked := files.read_text(run.path / MARKS)) is not None:
        content.append(marked)
    return models.digest(json.dumps(content, default=str, sort_keys=True))


def holds(run: Run, recipe: Mapping[str, Any], command: str) -> bool:
    """Whether the run's report is the one that would be written now. One of a million prompts takes time."""
    page = files.read_text(run.path / "report.html") or ""
    return f'<meta name="made-from" content="{key(run, recipe, command)}">' in page[:2000]


def style(run: Run) -> dict[str, dict[str, Any]]:
    """The entry of ``summary.json`` on the style of the pairs: kind of prompt -> measure -> value. Empty where it has
    not been measured."""
    return consistency.summary(run)


def blindness(run: Run) -> dict[str, Any] | None:
    """The entry of ``summary.json`` on how well the pairs are told without their images; None where nobody has
    looked."""
    measured = blindness_gate.read(run)
    return measured.as_json() if measured is not None else None


def _plots(findings: Findings, rows: Sequence[Comparison], names: Sequence[str], run: Run) -> dict[str, Markup]:
    from pipeline.publishing import plots  # matplotlib takes a second to import

    made: dict[str, str] = {"outcomes": plots.outcomes(outcome_rows(findings))}
    both = [row for row in rows if row.metric.plotted and row.delta is not None][:_BARS]
    if both:
        before = [_bar(row.before, row.before_ci) for row in both]
        after = [_bar(row.after, row.after_ci) for row in both]
        made["comparison"] = plots.before_after(
            [row.metric.short for row in both], before, after, (names[0], names[-1])
        )
    steps, panels = _training(run.path) if run.has("train") else ([], {})
    if panels:
        made["training"] = plots.curves(steps, panels)
    spreads = {
        name: (spread.chosen, spread.rejected)
        for name, spread in findings.scores.items()
        if len({*spread.chosen.values.tolist(), *spread.rejected.values.tolist()}) > 1
    }
    if spreads:
        made["scores"] = plots.svg(plots.histograms(spreads))
    if findings.pairs:
        words = findings.lengths
        made["lengths"] = plots.svg(plots.lengths(words.chosen, words.rejected, words.difference))
    if findings.logp_gaps:
        made["style"] = plots.logp_gaps(findings.logp_gaps)
    return {name: Markup(svg) for name, svg in made.items()}


def _training(run_dir: Path) -> tuple[list[float], dict[str, dict[str, list[float]]]]:
    path = run_dir / "train" / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [row for row in map(json_or_none, lines) if isinstance(row, dict) and "step" in row]
    columns = {column for row in rows for column in row}
    panels = {
        title: {
            name: [float(row[column]) if row.get(column) is not None else math.nan for row in rows]
            for name, column in series.items()
            if column in columns
        }
        for title, series in _PANELS.items()
    }
    return [float(row["step"]) for row in rows], {title: series for title, series in panels.items() if series}


def _card(example: Example, row: PromptRow, truth: Truth) -> dict[str, Any]:
    # By the text: equal ones have the same marks.
    marks = dict(zip((candidate["text"] for candidate in row.candidates), truth.marks(row), strict=True))
    facts = example.facts or {}
    names = [
        f"{thing['name']} × {thing['count']}" if (thing["count"] or 0) > 1 else thing["name"]
        for thing in facts.get("objects") or ()
    ]
    alt = f"In the picture: {', '.join(names)}." if names else f"Picture for the prompt: {example.prompt}"
    return {
        "id": example.id,
        "source": example.source,
        "images": [(*data_uri(image), alt) for image in row.pictures()],
        "prompt": example.prompt,
        "answer": " / ".join(right(facts)),
        "objects": ", ".join(names),
        "policy": example.policy,
        "margin": example.margin,
        "sides": [
            {
                "kind": kind,
                "parts": pieces(candidate["text"], marks=marks[candidate["text"]]),
                "model": candidate["model"],
                "seed": candidate["seed"],
                "temperature": candidate["temperature"],
                "origin": candidate["origin"],
            }
            for kind, candidate in (("chosen", example.chosen), ("rejected", example.rejected))
        ],
        "scores": [(name, *both) for name, both in example.scores.items() if both != (None, None)],
    }


def _timing(run: Run, record: Record) -> dict[str, Any]:
    done = len(run.shards(record.stage))
    first = "eval-source" if record.stage.startswith("eval-") else "texts" if record.stage in IMAGINED else "source"
    # How many files the rows of a finished stage lie in depends on what the run was before.
    unfinished = f"{done} of {len(run.shards(first))} shards" if done else "not finished"
    return {
        "stage": record.stage,
        "rows": record.rows,
        "failed": record.failed,
        "seconds": record.seconds,
        "rate": record.rows / record.seconds if record.seconds else None,
        "state": "finished" if record.finished else unfinished,
        # The same rows may lie in other shards.
        "fingerprint": record.made if record.stage == "publish" else record.fingerprint,
    }


def _recorded_recipe(records: Mapping[str, Record]) -> dict[str, Any]:
    return {step: dict(record.options) for step, record in records.items()}


def _bar(value: float | None, interval: tuple[float, float] | None) -> tuple[float, float, float]:
    height = value or 0.0
    return (height, *(interval or (height, height)))
