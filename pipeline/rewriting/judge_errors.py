"""What a judge's errors do: ``python -m pipeline.rewriting.judge_errors RUN`` prints it as a Markdown table.

RUN is a run in the built-in world; its own sampled descriptions are judged. A scripted judge is asked as a model would
be, by the stages of a run: it knows the truth, says the opposite of a known share of the sentences, and cannot be read
in a known share of its answers. The stages are to report just that; and what was found is corrected and scored.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from pipeline.base.command import command
from pipeline.base.tables import CANDIDATES, OK, PROMPTS
from pipeline.engines.protocol import Request
from pipeline.engines.scripted import ScriptedEngine
from pipeline.rewriting.checked import Rates, exact, interval, rates
from pipeline.rewriting.config import Correct, Detect
from pipeline.rewriting.correct_stage import CorrectStage
from pipeline.rewriting.detect_stage import stages
from pipeline.rewriting.detection_accuracy import Described, descriptions
from pipeline.rewriting.verify import pairs, scores_agree
from pipeline.scenes.scene_words import scenes
from reward.text.fact_findings import by_facts, hallucinations
from reward.text.sentences import split
from reward.text.types import Edit, Facts, Finding, Lineage, Says

#: Shares of the sentences on which the judge errs.
ERRORS = (0.0, 0.05, 0.1, 0.2, 0.4)
#: What an answer is that cannot be read.
_MUMBLED = "I think that most of it is right."
_TABLES = ("source", "sample")


@dataclass(frozen=True)
class ScriptedJudge:
    """Judges descriptions, which go by the ids of their rows. Which sentences it errs on, and which answers cannot be
    read, follows from a hash: at a higher rate it errs on the same ones and more.

    What it flags by error is called an object that is not there.
    """

    described: Mapping[str, Described]
    error: float = 0.0
    unreadable: float = 0.0
    seed: int = 0

    def answer(self, request: Request, index: int) -> str:
        """As ``pipeline.rewriting.sentence_judge.DETECT`` wants it."""
        row = request.id.partition("#")[0]
        if self._happens(row, self.unreadable):
            return _MUMBLED
        text, facts = self.described[row]
        findings = by_facts(text, facts, scenes())
        lines: list[dict[str, Any]] = []
        for number, true in exact(text, facts, scenes()).items():
            errs = true != "unclear" and self._happens(f"{row}:{number}", self.error)
            lines += _lines(number, true, errs, [finding for finding in findings if finding.sentence == number])
        return "\n".join(map(json.dumps, lines))

    def _happens(self, what: str, share: float) -> bool:
        drawn = hashlib.blake2b(f"{self.seed}:{what}".encode(), digest_size=6).digest()
        return int.from_bytes(drawn, "big") < share * 2**48


@dataclass(frozen=True)
class Judged:
    """What the stages made of a judge. ``detected`` are the extras of ``detect``, ``found`` the rates that they give.

    ``corrected`` is how many texts were corrected by rules, ``wrong`` how many of them have something wrong left.
    ``changed`` of the ``sound`` words that stand in sentences in which nothing is wrong were changed or taken out.
    ``refused`` of the ``paired`` pairs of a text and its correction did not score better.
    """

    detected: Mapping[str, int]
    found: Rates
    corrected: int
    wrong: int
    sound: int
    changed: int
    paired: int
    refused: int


def measure_judge(described: Iterable[Described], error: float, unreadable: float = 0.0, seed: int = 0) -> Judged:
    """Detection by a judge that errs on these shares of sentences and answers, and what follows from it.

    Raises:
        ValueError: there is no text.
    """
    texts = {f"text-{number:06d}": text for number, text in enumerate(described)}
    if not texts:
        raise ValueError("there is no description to judge; give some")
    engine = ScriptedEngine(answer=ScriptedJudge(texts, error, unreadable, seed).answer)
    spec = Detect.model_validate(
        {"by": "judge", "model": "scripted", "blind": True, "max_tokens": 10_000, "engine": {"kind": "scripted"}}
    )
    tables = _tables(texts)
    for stage in stages(spec, "scenes", *_TABLES, sampled=(), seed=seed):
        tables[stage.name] = stage.process(engine, {name: tables[name] for name in stage.inputs})
    extras = stage.extras(tables[stage.name])
    measured = rates(extras)
    assert measured is not None
    fix = CorrectStage(Correct(), "scenes", seed, *_TABLES)
    made = fix.process(None, {name: tables[name] for name in fix.inputs}).to_pylist()
    fixed = {row["id"]: candidate for row in made for candidate in row["candidates"] or ()}
    sound, changed = zip(*(_words(*texts[row], fixed.get(row)) for row in texts), strict=True)
    return Judged(
        detected=extras,
        found=measured,
        corrected=len(fixed),
        wrong=sum(_wrong(candidate["text"], texts[row][1]) > 0 for row, candidate in fixed.items()),
        sound=sum(sound),
        changed=sum(changed),
        paired=len(fixed),
        refused=sum(not _better(*texts[row], candidate) for row, candidate in fixed.items()),
    )


def expected_rates(outcome: Judged, error: float) -> tuple[float | None, float]:
    """Precision and recall of a judge that errs on this share of the sentences, whatever is true of them.

    A share 1 - error of the wrong sentences is flagged, and a share error of the right ones.
    """
    counts = outcome.detected
    wrong, right = (
        counts.get(right, 0) + counts.get(other, 0)
        for right, other in (("true_positives", "false_negatives"), ("false_positives", "true_negatives"))
    )
    flagged = wrong * (1 - error) + right * error
    return (wrong * (1 - error) / flagged if flagged else None), 1 - error


def table(measured: Mapping[float, Judged]) -> str:
    """Markdown, a line for each error that was set; in brackets what is to be expected, or the 95 % interval."""
    head = (
        *("error set", "error reported", "precision", "recall", "unreadable"),
        *("corrected, still wrong", "sound words changed", "pairs refused"),
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for error, outcome in measured.items():
        precision, recall = expected_rates(outcome, error)
        low, high = (
            interval(outcome.found.error or 0.0, outcome.found.sentences) if outcome.found.sentences else (0.0, 1.0)
        )
        cells = (
            _percent(error),
            f"{_percent(outcome.found.error)} ({_percent(low)} to {_percent(high)})",
            f"{_percent(outcome.found.precision)} ({_percent(precision)})",
            f"{_percent(outcome.found.recall)} ({_percent(recall)})",
            _percent(outcome.found.unreadable),
            _of(outcome.wrong, outcome.corrected),
            _of(outcome.changed, outcome.sound),
            _of(outcome.refused, outcome.paired),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    run: Annotated[Path, typer.Argument(help="The directory of a run in the built-in world.")],
    texts: Annotated[int, typer.Option(help="How many descriptions are judged.")] = 2000,
    stage: Annotated[str, typer.Option(help="The stage that sampled them.")] = "sample",
    unreadable: Annotated[float, typer.Option(help="Share of answers that cannot be read.")] = 0.02,
    seed: Annotated[int, typer.Option(help="Another one errs on other sentences.")] = 0,
) -> None:
    """Print what a judge's errors do to a run's own descriptions."""
    described = list(itertools.islice(descriptions(run, stage), texts))
    print(table({error: measure_judge(described, error, unreadable, seed) for error in ERRORS}))


def _lines(number: int, true: Says, errs: bool, findings: Sequence[Finding]) -> Iterator[dict[str, Any]]:
    """What is said of a sentence."""
    if true == "unclear" or (true == "hallucination") == errs:
        yield _line(number, "unclear" if true == "unclear" else "correct")
    elif errs:
        finding = next(finding for finding in findings if finding.kind == "object")
        yield _line(number, "hallucination", "object", finding.words)
    for finding in hallucinations(findings) if true == "hallucination" and not errs else ():
        # An article that is a wrong number stands at many places: the words are those of the whole phrase.
        phrase = next(
            (o for o in findings if o.kind == "object" and o.start <= finding.start and finding.end <= o.end), finding
        )
        yield _line(number, "hallucination", finding.kind, phrase.words)


def _line(number: int, verdict: Says, kind: str | None = None, words: str | None = None) -> dict[str, Any]:
    return {"sentence": number + 1, "verdict": verdict, "kind": kind, "words": words, "reason": "scripted"}


def _tables(described: Mapping[str, Described]) -> dict[str, pa.Table]:
    prompt = [{"role": "user", "content": "Describe the image."}]
    prompts = [
        {"id": row, "images": [], "prompt": prompt, "facts": facts, "source": "judged", **OK}
        for row, (_, facts) in described.items()
    ]
    sampled = {"origin": "sampled", "finish_reason": "stop"}
    texts = [{"id": row, "candidates": [{"text": text, **sampled}], **OK} for row, (text, _) in described.items()]
    made = (pa.Table.from_pylist(prompts, schema=PROMPTS), pa.Table.from_pylist(texts, schema=CANDIDATES))
    return dict(zip(_TABLES, made, strict=True))


def _words(text: str, facts: Facts, fixed: Mapping[str, Any] | None) -> tuple[int, int]:
    """Words in sentences in which nothing is wrong, and how many of them were changed."""
    true = exact(text, facts, scenes())
    sound = [sentence for number, sentence in enumerate(split(text)) if true[number] == "correct"]
    edits = [Edit(**edit) for edit in (fixed["edits"] or ())] if fixed is not None else []
    changed = (
        len(text[max(sentence.start, edit.start) : min(sentence.end, edit.end)].split())
        for sentence in sound
        for edit in edits
    )
    return sum(len(sentence.text.split()) for sentence in sound), sum(changed)


def _better(text: str, facts: Facts, fixed: Mapping[str, Any]) -> bool:
    """Whether the pair that exists by lineage has scores that agree, fewer wrong claims being better."""
    texts = (text, fixed["text"])
    ((better, worse),) = pairs([Lineage("sampled"), Lineage("corrected", 0)])
    return scores_agree(*(-float(_wrong(texts[text], facts)) for text in (better, worse)))


def _wrong(text: str, facts: Facts) -> int:
    return len(hallucinations(by_facts(text, facts, scenes())))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _of(part: int, whole: int) -> str:
    """
    >>> _of(3, 1200)
    '3 of 1,200 (0.2 %)'
    """
    return f"{part:,} of {whole:,} ({_percent(part / whole if whole else None)})"


app = command(main)

if __name__ == "__main__":
    app()
