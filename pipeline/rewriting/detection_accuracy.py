"""How exact detection by facts is: ``python -m pipeline.rewriting.detection_accuracy RUN`` prints it as JSON.

RUN is a run in the built-in world; its own sampled descriptions are looked at, and what ``detect.by_facts`` finds in
them is held against what ``oracle.faults`` does.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.base.command import command
from pipeline.scenes.oracle import faults
from pipeline.scenes.scene_words import scenes
from reward.text.fact_findings import by_facts, hallucinations
from reward.text.sentences import split
from reward.text.types import KINDS, Sentence

#: (text, facts)
Described = tuple[str, Mapping[str, Any]]


def measure(described: Iterable[Described]) -> dict[str, Any]:
    """Precision and recall over all texts. A fault is found if a finding of its kind begins where it does; a sentence
    is, if both see a fault in it. None where there was nothing to count.

    Returns ``{"texts", "sentences", "faults", "words": {kind or "all": {"precision", "recall"}}, "whole_sentences":
    {"precision", "recall"}, "missed": [...], "made_up": [...]}``, the last two with a few examples.
    """
    right: Counter[str] = Counter()
    detected: Counter[str] = Counter()
    true: Counter[str] = Counter()
    texts = sentences = 0
    missed: list[str] = []
    made_up: list[str] = []
    for text, facts in described:
        reported = {(finding.kind or "", finding.start) for finding in hallucinations(by_facts(text, facts, scenes()))}
        exact = {(fault.kind, fault.start) for fault in faults(text, facts)}
        spans = split(text)
        texts, sentences = texts + 1, sentences + len(spans)
        for counter, some in ((detected, reported), (true, exact), (right, reported & exact)):
            counter.update(kind for kind, _ in some)
            counter["all"] += len(some)
        flagged, wrong = (_sentences(spans, [at for _, at in some]) for some in (reported, exact))
        for counter, numbers in ((detected, flagged), (true, wrong), (right, flagged & wrong)):
            counter["sentence"] += len(numbers)
        missed += [f"{kind} at {start}: {text}" for kind, start in sorted(exact - reported)]
        made_up += [f"{kind} at {start}: {text}" for kind, start in sorted(reported - exact)]
    rates = {
        name: {"precision": _share(right[name], detected[name]), "recall": _share(right[name], true[name])}
        for name in ("all", *KINDS, "sentence")
    }
    return {
        "texts": texts,
        "sentences": sentences,
        "faults": {name: true[name] for name in ("all", *KINDS)},
        "whole_sentences": rates.pop("sentence"),
        "words": rates,
        "missed": missed[:10],
        "made_up": made_up[:10],
    }


def descriptions(path: Path, stage: str) -> Iterator[Described]:
    """The sampled answers to prompts without a right answer, of a run in the built-in world, in order.

    Raises:
        InputError: the run has no such stage.
    """
    from pipeline.base.errors import InputError
    from pipeline.running.store import Run

    run = Run(path)
    if not run.shards(stage):
        raise InputError(f"{path} has no {stage}/data-*.arrow", "give a run that has sampled, or another --stage")
    for shard in run.shards(stage):
        source = run.read("source", shard).select(["id", "facts"]).to_pylist()
        facts = {row["id"]: row["facts"] or {} for row in source}
        for row in run.read(stage, shard).to_pylist():
            truth = facts.get(row["id"]) or {}
            if row["status"] != "ok" or truth.get("answer") is not None or not truth.get("objects"):
                continue
            for candidate in row["candidates"]:
                if candidate["origin"] == "sampled" and candidate["text"].strip():
                    yield candidate["text"], truth


def main(
    run: Annotated[Path, typer.Argument(help="The directory of a run in the built-in world.")],
    texts: Annotated[int, typer.Option(help="How many descriptions are looked at.")] = 2000,
    stage: Annotated[str, typer.Option(help="The stage that sampled them.")] = "sample",
) -> None:
    """Print precision and recall of detection by facts on a run's own descriptions."""
    print(json.dumps(measure(itertools.islice(descriptions(run, stage), texts)), indent=2))


def _sentences(spans: Sequence[Sentence], places: Iterable[int]) -> set[int]:
    """The sentences in which one of the characters is."""
    return {number for at in places for number, span in enumerate(spans) if span.start <= at < span.end}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


app = command(main)

if __name__ == "__main__":
    app()
