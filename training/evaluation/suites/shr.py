"""SHR on Visual Genome images, from HA-DPO's files and Visual Genome's own.

Layout: ``val_images_final.json`` and ``shr_factual_part*.jsonl`` (HA-DPO), ``image_data.json`` and
``region_descriptions.json`` (Visual Genome 1.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.sources.readers.elements import array
from reward.text.lexicon import Lexicon
from reward.text.vocabulary import Vocabulary
from training.errors import DataError
from training.evaluation import files, shr
from training.evaluation.asked import Answered, Asked, pairs
from training.evaluation.tally import Tally

VERSION = "1"
#: A judge is not asked about an image whose prompt is longer, in characters; the original leaves those out.
LONGEST = 15_000
_NAMES = ("shr", "shr_words", "sentences", "words", *(f"distinct_{n}" for n in range(1, 5)))


def questions(data: Path, prompt: str = "Describe this image in detail.") -> list[Asked]:
    """One description per listed image; its truth holds ``regions`` as [box, phrase] and ``facts``, for the judge.

    Raises:
        DataError: a file is missing or malformed, or an image is not in Visual Genome's files.
    """
    path = data / "val_images_final.json"
    wanted = dict.fromkeys(_id(row, path) for row in files.whole(path))
    sizes = {id: row for id, row in _read(data / "image_data.json") if id in wanted}
    regions: dict[int, list[Any]] = {}
    for id, row in _read(data / "region_descriptions.json", of="regions"):
        if id in wanted:
            regions[id] = row["regions"]
    facts: dict[int, list[str]] = {}
    for part in sorted(data.glob("shr_factual_part*.jsonl")):
        for _, row in files.lines(part):
            # Each line has one key, the image; a later line takes the place of an earlier one.
            facts.update((int(id), [str(one) for one in said]) for id, said in list(row.items())[:1])
    lost = [id for id in wanted if id not in sizes or id not in regions]
    if lost:
        raise DataError(f"image {lost[0]} of {path} is not in Visual Genome's files in {data}; add version 1.2")
    return [_asked(id, sizes[id], regions[id], facts.get(id, []), prompt) for id in wanted]


def judge_prompt(asked: Asked, text: str) -> str | None:
    """What to ask a judge about a description; None if it would be longer than ``LONGEST``."""
    asking = shr.prompt(asked.truth["regions"], asked.truth["facts"], text)
    return asking if len(asking) <= LONGEST else None


def score(
    asked: Sequence[Asked],
    answers: Mapping[str, Answered],
    vocabulary: Vocabulary | None = None,
    lexicon: Lexicon | None = None,
) -> Tally:
    """SHR by the saved judgements, with a ``vocabulary`` by the objects that are there (``truth["objects"]``), or with
    a ``lexicon`` by all that is known (``truth["facts"]``, the columns of ``pipeline.base.tables.FACTS``).

    Of an image that is described several times, the last description counts for SHR, as in the original; all count for
    the variety of n-grams. ``unjudged`` counts descriptions without a judgement, ``mismatched`` those whose judgement
    has not one line for each sentence: neither has a sentence with a verdict.

    Raises:
        ValueError: ids differ.
    """
    done, counts = pairs(asked, answers)
    last = {one.image: place for place, (one, _, _) in enumerate(done)}
    counts |= {"unjudged": 0, "mismatched": 0}
    rows = []
    for place, (one, answered, text) in enumerate(done):
        terms = shr.varied(text)
        verdicts: list[shr.Verdict | None] | None = None
        if place == last[one.image]:
            if lexicon is not None:
                verdicts = shr.by_every_fact(text, one.truth["facts"], lexicon)
            elif vocabulary is not None:
                verdicts = shr.by_facts(text, frozenset(one.truth["objects"]), vocabulary)
            elif answered.judgement is None:
                counts["unjudged"] += 1
            else:
                verdicts = shr.read(answered.judgement, text)
                if verdicts is None:
                    counts["mismatched"] += 1
                    verdicts = [None] * len(shr.sentences(text))
        if verdicts is not None:
            terms |= shr.terms(verdicts, text)
        rows.append((one.image, terms))
    return Tally.of(rows, _NAMES, counts=counts)


def _asked(id: int, size: Mapping[str, Any], regions: Sequence[Mapping[str, Any]], facts: list[str], ask: str) -> Asked:
    where = f"Visual Genome, image {id}"
    width, height, url = files.take(size, ("width", "height", "url"), where)
    boxes = []
    for region in regions:
        x, y, w, h, phrase = files.take(region, ("x", "y", "width", "height", "phrase"), where)
        if phrase:
            boxes.append([[x / width, y / height, (x + w) / width, (y + h) / height], phrase])
    return Asked(str(id), "/".join(str(url).split("/")[-2:]), ask, {"regions": boxes, "facts": facts})


def _read(path: Path, of: str | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(image, row); the rows name their image themselves, or in the first element of their list ``of``."""
    try:
        for number, row in array(str(path)):
            if of is None:
                yield _id(row, path, number), row
            elif row.get(of):
                yield _id(row[of][0], path, number), row
    except InputError as error:
        raise DataError(f"{error.message}; {error.remedy}") from error


def _id(row: Any, path: Path, number: int = 0) -> int:
    return int(files.take(row, ("image_id",), f"{path}, item {number}" if number else str(path))[0])
