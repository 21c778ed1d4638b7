"""What in a text is not true of its image, by what the run itself went by: its vocabulary and facts, the detections of
a file, what was found before texts were rewritten, the verdicts on claims. One rule for the report and for browsing.

What a run went by is told by its scores' versions: a vocabulary that was changed since then marks nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import ValidationError

from pipeline.base import columns, files
from pipeline.base.errors import ConfigError
from pipeline.base.images import image_files, pixels
from pipeline.publishing.word_diff import Mark
from pipeline.rewriting.by_claims import by_claims
from pipeline.running.prompt_rows import DETECT, PromptRow
from pipeline.running.store import Run
from pipeline.scoring.ask import read_verdicts
from pipeline.scoring.config import Score
from pipeline.scoring.scorers import lexicon, open_asker, open_scorers
from pipeline.scoring.vocabularies import BUILT_IN
from reward.scorers.detections import DetectedObjectScorer
from reward.scorers.facts import FactScorer
from reward.scorers.objects import ObjectScorer
from reward.scorers.protocol import gives
from reward.text.fact_findings import by_facts, hallucinations
from reward.text.lexicon import Lexicon
from reward.text.object_vocabulary import Vocabulary
from reward.text.types import Finding, Problem

#: The recipe of a run beside its tables, every default filled in and without secrets.
RECIPE = "recipe.json"
#: Options that name a file.
_FILES = ("vocabulary", "detections")
#: Scorers that tell which words are wrong; others have a value for a whole text.
TELLING = ("objects", "facts", "claims")


class Finder(Protocol):
    """``about`` says what is marked, behind "Marked words"."""

    @property
    def about(self) -> str: ...

    def marks(self, row: PromptRow) -> list[list[Mark]]:
        """For each candidate of the row."""
        ...


@dataclass(frozen=True)
class Objects:
    """Objects that are not there, by facts or by a detector."""

    scorer: ObjectScorer | DetectedObjectScorer

    @property
    def about(self) -> str:
        facts = "facts or detections" if isinstance(self.scorer, DetectedObjectScorer) else "facts"
        words = self.scorer.vocabulary.name
        return f"name an object that is not in the image, by its {facts} and the vocabulary {words}"

    def marks(self, row: PromptRow) -> list[list[Mark]]:
        # Only a file of detections is asked by what the image is.
        images = row.source["images"] or ()
        seen = list(_image_bytes(images)) if isinstance(self.scorer, DetectedObjectScorer) else [b""] * len(images)
        paths = [image["path"] for image in images]
        shown = {"facts": row.source["facts"], "images": seen, "paths": paths, "candidates": row.candidates}
        return [
            [Mark(mention.start, mention.end, f"{mention.name} is not there") for mention in verdict.hallucinated]
            if verdict is not None
            else []
            for verdict in self.scorer.verdicts(shown)
        ]


@dataclass(frozen=True)
class Facts:
    """Objects, attributes, numbers and places that the facts contradict."""

    lexicon: Lexicon
    complete: bool
    about: str = "say what the facts contradict"

    def marks(self, row: PromptRow) -> list[list[Mark]]:
        facts = row.source["facts"] or {}
        if row.is_question or not (facts.get("objects") or facts.get("regions")):
            return [[] for _ in row.candidates]
        return [_marks(by_facts(candidate["text"], facts, self.lexicon, self.complete)) for candidate in row.candidates]


@dataclass(frozen=True)
class Detected:
    """What was found in texts before they were rewritten. A text that was made of another was not looked through."""

    by: str

    @property
    def about(self) -> str:
        return f"were found to be wrong by {self.by} before texts were rewritten"

    def marks(self, row: PromptRow) -> list[list[Mark]]:
        marks: list[list[Mark]] = [[] for _ in row.candidates]
        for finding in (row.detected or {}).get("findings") or ():
            place, start, end = finding["candidate"], finding["start"], finding["end"]
            wrong = finding["verdict"] == "hallucination" and 0 <= place < len(marks)
            if wrong and row.candidates[place]["text"][start:end] == finding["words"]:
                marks[place].append(Mark(start, end, f"{finding['by']}: {finding['reason']}"))
        return marks


@dataclass(frozen=True)
class Claims:
    """Claims that a model was asked about and did not take for true."""

    lexicon: Lexicon | None
    about: str = "make a claim to which a model that sees the image says no (P(yes) below 0.5)"

    def marks(self, row: PromptRow) -> list[list[Mark]]:
        verdicts = read_verdicts((row.verdict_rows.get("ask-claims") or {}).get("verdicts"))
        of_texts = (by_claims(each["text"], at, verdicts, self.lexicon) for at, each in enumerate(row.candidates))
        return [[] if isinstance(findings, Problem) else _marks(findings) for findings in of_texts]


@dataclass(frozen=True)
class Truth:
    """What a run went by. ``lost`` says of what it went by and is not to be had any more."""

    finders: tuple[Finder, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def legend(self) -> str:
        """What a marked word is, or why none is marked, in a sentence or two.

        >>> Truth().legend
        'No word is marked: nothing in this run says which words of a text are wrong.'
        """
        lost = "".join(f" {reason}." for reason in self.lost)
        if not self.finders:
            return f"No word is marked:{lost or ' nothing in this run says which words of a text are wrong.'}"
        return f"Marked words {', or '.join(dict.fromkeys(finder.about for finder in self.finders))}.{lost}"

    def marks(self, row: PromptRow) -> list[list[Mark]]:
        """For each candidate what is not true in it, in the order of the text."""
        by_finder = [finder.marks(row) for finder in self.finders]
        return [sorted({mark for of_row in by_finder for mark in of_row[at]}) for at in range(len(row.candidates))]


def by_vocabulary(vocabulary: Vocabulary) -> Truth:
    """The facts alone, by the objects of a vocabulary."""
    return Truth((Objects(ObjectScorer(vocabulary)),))


def of_run(run: Run, recipe: Mapping[str, Any] | None = None) -> Truth:
    """What a run went by. ``recipe`` is its recipe as plain data, by default the one that lies beside its tables; where
    there is none, the built-in vocabularies are tried."""
    recipe = _with_files(recipe if recipe is not None else saved_recipe(run.path) or {}, run.path)
    versions = _versions(run)
    finders: list[Finder] = []
    lost: list[str] = []
    for name in TELLING:
        recorded = next((version for score, version in versions.items() if gives(name, score)), None)
        listed = name in (recipe.get("score") or {}).get("scorers", ())
        if recorded is None and (versions or not listed):
            continue
        if name == "claims" and "claims" not in (recipe.get("score") or {}):
            finders.append(Claims(None))  # their verdicts are in the run
            continue
        problems: list[str] = []
        specs = _specs(name, recipe.get("score") or {}, problems)
        finder = next(filter(None, (_finder(name, spec, recorded, problems) for spec in specs)), None)
        if finder is not None:
            finders.append(finder)
        else:
            why = f" ({problems[0]})" if problems else ""
            lost.append(f"What {name} went by is not what is there now, or is not known{why}")
    finders += _rewriting_finders(run, (recipe.get("rewrite") or {}))
    return Truth(tuple(finders), tuple(lost))


def saved_recipe(folder: Path) -> dict[str, Any] | None:
    """The recipe of a run as it lies beside its tables; as far as anybody has put one there."""
    for name in (RECIPE, "recipe.yaml"):
        text = files.read_text(folder / name)
        recipe = yaml.safe_load(text) if text else None
        if isinstance(recipe, dict):
            return recipe
    return None


def _with_files(recipe: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """The recipe with its files of words and detections as they are found from here: their names are relative to the
    folder in which the run was started, which a relative ``output_dir`` tells."""
    inner = Path(recipe.get("output_dir") or "runs", recipe.get("name") or run_dir.name)
    place = Path(os.path.abspath(run_dir)) if files.is_local(run_dir) else Path()
    if inner.is_absolute() or place.parts[-len(inner.parts) :] != inner.parts:
        return dict(recipe)
    started_in = Path(*place.parts[: -len(inner.parts)])

    def located(group: Any) -> Any:
        if not isinstance(group, Mapping):
            return group
        names = {key: Path(group[key]) for key in _FILES if isinstance(group.get(key), str)}
        moved = {
            key: str(started_in / name)
            for key, name in names.items()
            if name.suffix and not name.exists() and (started_in / name).is_file()
        }
        return {key: located(value) for key, value in group.items()} | moved

    return {**recipe, **{key: located(recipe[key]) for key in ("score", "rewrite") if key in recipe}}


def _versions(run: Run) -> dict[str, str]:
    """Score -> version, as the first shard says that has any."""
    for shard in run.shards("score"):
        scores = run.read("score", shard)["scores"]
        names, versions = (columns.items(scores, field).to_pylist() for field in ("name", "version"))
        if names:
            return dict(zip(names, versions, strict=True))
    return {}


def _specs(name: str, score: Mapping[str, Any], problems: list[str]) -> Iterator[Score]:
    """What the scorer may have been: as the recipe says, or with a built-in vocabulary."""
    group = score.get(name)
    try:
        yield Score(scorers=(name,), **({name: group} if group is not None else {}))  # type: ignore[arg-type]
    except (ValidationError, ValueError) as error:
        problems.append(f"score.{name}: {str(error).splitlines()[0]}")
    if group is None and name in ("objects", "facts"):
        for words in BUILT_IN:
            yield Score(scorers=(name,), **{name: {"vocabulary": words}})  # type: ignore[arg-type]


def _finder(name: str, spec: Score, recorded: str | None, problems: list[str]) -> Finder | None:
    """None if it has another version than was recorded, or cannot be had."""
    try:
        if name == "claims":
            asker, options = open_asker(name, spec), spec.claims
            words = options.vocabulary if options is not None else None
            same = recorded is None or recorded.startswith(f"{asker.version}:")
            return Claims(lexicon(words, "score.claims.vocabulary") if words is not None else None) if same else None
        (scorer,) = open_scorers(spec)
    except ConfigError as error:
        problems.append(error.message)
        return None
    if recorded not in (None, scorer.version):
        return None
    if isinstance(scorer, FactScorer):
        return Facts(scorer.lexicon, scorer.complete)
    return Objects(scorer) if isinstance(scorer, ObjectScorer | DetectedObjectScorer) else None


def _rewriting_finders(run: Run, rewrite: Mapping[str, Any]) -> Iterator[Finder]:
    record = run.record(DETECT)
    if record is None:
        return
    by = str(record.options.get("by", "rules"))
    if by == "facts":
        # As stored, but also of the texts that were made of others.
        for words in dict.fromkeys([rewrite.get("vocabulary") or BUILT_IN[0], *BUILT_IN]):
            with contextlib.suppress(ConfigError):
                lexical = lexicon(words, "rewrite.vocabulary")
                if lexical.version == record.options.get("lexicon"):
                    yield Facts(lexical, bool(record.options.get("complete", True)))
                    return
    yield Detected({"facts": "the facts", "judge": "a judge", "claims": "a model that was asked"}.get(by, by))


def _marks(findings: Iterable[Finding]) -> list[Mark]:
    return [Mark(finding.start, finding.end, finding.reason) for finding in hallucinations(findings)]


def _image_bytes(images: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    """What is gone, or is on the web, can only be known by its name."""
    for image in images:
        encoded = b""
        if image_files.is_here(image):
            with contextlib.suppress(OSError, pixels.BadImage):
                encoded = image_files.load(image, pixels.MAX_BYTES)
        yield encoded
