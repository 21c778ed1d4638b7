"""SHR, the share of hallucinated sentences (Zhao et al. 2023, HA-DPO), and how varied a text is.

The unit is the sentence, so made-up colours and relations count, which CHAIR cannot see. The verdicts come from a judge
that reads facts about the image, or, where objects are all there is to say, from the facts themselves.

Files: ``val_images_final.json`` and ``shr_factual_part*.jsonl`` (HA-DPO), ``image_data.json`` and
``region_descriptions.json`` (Visual Genome 1.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pipeline.base.errors import InputError
from pipeline.sources.readers.elements import array
from reward.asking.judge import defuse
from reward.text import fact_findings, noun_phrases
from reward.text.lexicon import Lexicon, general
from reward.text.object_vocabulary import Vocabulary
from reward.text.types import Facts
from training.errors import DataError
from training.evaluation import benchmark_files
from training.evaluation.benchmark import Benchmark, Opened
from training.evaluation.places import Files
from training.evaluation.question import Answer, Question, pairs
from training.evaluation.ratio import Term
from training.evaluation.tally import Tally

Verdict = Literal["hallucination", "correct", "cannot judge"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
VARIED = tuple(f"distinct_{n}" for n in range(1, 5))
METRICS = ("shr", "shr_words", "sentences", "words", *VARIED)
#: A judge is not asked about an image whose prompt is longer, in characters; the original leaves those out.
LONGEST = 15_000
#: Above each line of the judge's answer stands this one.
_HEAD = "Judgement:"
_DELETED = re.compile(r"[.:\n?,]")
_SIDES, _EDGES = ("width", "height"), ("x", "y", "width", "height")
_VISUAL_GENOME = ("HA-DPO/ha_dpo/data/VG", "visual_genome")

_PROMPT = """\
Sentences from a description of an image are to be checked against what is known of the image.

What is known, as [left, top, right, bottom]: text, with coordinates as fractions of width and height. Boxes that
overlap much may show the same thing.
{regions}

Also true:
{facts}

The sentences:
{sentences}

Decide for every sentence: "hallucination" if what is known contradicts it or it names something that is not there,
"correct" if what is known supports it, "cannot judge" if it is a matter of opinion or mood, or nothing is known of it.
Answer in exactly this form, a line for each sentence:
Judgement:
1. hallucination: the reason
2. correct: the reason"""


@dataclass(frozen=True)
class Shr(Benchmark):
    """SHR on Visual Genome images.

    Args:
        prompt: asks for a description.
        visual_genome: the folder of Visual Genome's files; that of the others if left out.
    """

    prompt: str = "Describe this image in detail."
    visual_genome: Path | None = None
    name: ClassVar[str] = "shr"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "Visual Genome, images of HA-DPO"
    files: ClassVar[tuple[str, ...]] = ("*.json", "shr_factual_part*.jsonl")
    given_out: ClassVar[Files] = Files(
        marks=("val_images_final.json",),
        source="val_images_final.json and shr_factual_part*.jsonl of HA-DPO "
        "(huggingface.co/datasets/juliozhao/hadpo-data)",
        places=("HA-DPO/ha_dpo/data/shr",),
    )
    image_places: ClassVar[tuple[str, ...]] = _VISUAL_GENOME
    judged: ClassVar[bool] = True
    headline: ClassVar[tuple[str, ...]] = ("shr", "shr_words", "sentences", "words", "distinct_1", "distinct_2")
    units: ClassVar[Mapping[str, str]] = {"words": "per description", "sentences": "per description"}
    lower: ClassVar[frozenset[str]] = frozenset({"shr", "shr_words"})

    def parts(self) -> Mapping[str, Files]:
        files = Files(
            marks=("image_data.json",),
            source="image_data.json and region_descriptions.json of Visual Genome 1.2",
            places=_VISUAL_GENOME,
            remedy="give --option shr.visual_genome=DIR",
        )
        return {"visual_genome": files}

    def open(self, data: Path) -> Opened:
        files = None
        if self.visual_genome is not None and self.visual_genome != data:
            files = [path for pattern in self.files for path in data.glob(pattern)]
            files += [self.visual_genome / "image_data.json", self.visual_genome / "region_descriptions.json"]
        return Opened(self.questions(data), self.score, files=files)

    def questions(self, data: Path) -> list[Question]:
        """One description per listed image; its truth holds ``regions`` as [box, phrase] and ``facts``, for the judge.

        Raises:
            DataError: a file is missing or malformed, or an image is not in Visual Genome's files. An image may
                have no facts: to some the original's files give none.
        """
        path = data / "val_images_final.json"
        genome = self.visual_genome or data
        wanted = dict.fromkeys(_id(row, path) for row in benchmark_files.listed(path))
        sizes = {id: row for id, row in _read(genome / "image_data.json") if id in wanted}
        regions: dict[int, list[Any]] = {}
        for id, row in _read(genome / "region_descriptions.json", of="regions"):
            if id in wanted:
                regions[id] = row["regions"]
        facts: dict[int, list[str]] = {}
        parts = sorted(data.glob("shr_factual_part*.jsonl"))
        if not parts:
            raise DataError(f"{data} holds no shr_factual_part*.jsonl; put HA-DPO's there (docs/evaluation.md)")
        for part in parts:
            for number, row in benchmark_files.lines(part):
                where = f"{part}, line {number}"
                # Each line has one key, the image; a later line takes the place of an earlier one.
                for key, texts in list(row.items())[:1]:
                    facts[benchmark_files.number(key, where, "image")] = benchmark_files.texts(texts, where, key)
        lost = [id for id in wanted if id not in sizes or id not in regions]
        if lost:
            raise DataError(f"image {lost[0]} of {path} is not in Visual Genome's files in {genome}; add version 1.2")
        return [_question(id, sizes[id], regions[id], facts.get(id, []), self.prompt) for id in wanted]

    def judge_prompt(self, question: Question, text: str) -> str | None:
        """None if it would be longer than ``LONGEST``."""
        asking = prompt(question.truth["regions"], question.truth["facts"], text)
        return asking if len(asking) <= LONGEST else None

    def score(self, questions: Sequence[Question], answers: Mapping[str, Answer]) -> Tally:
        return score(questions, answers)


def score(
    questions: Sequence[Question],
    answers: Mapping[str, Answer],
    vocabulary: Vocabulary | None = None,
    lexicon: Lexicon | None = None,
) -> Tally:
    """SHR by the saved judgements, with a ``vocabulary`` by the objects that are there (``truth["objects"]``), or with
    a ``lexicon`` by all that is known (``truth["facts"]``, the columns of ``pipeline.base.tables.FACTS``).

    Of an image that is described several times, the last description counts for SHR, as in the original; all count for
    the variety of n-grams. ``unjudged`` counts descriptions without a judgement, ``mismatched`` those whose judgement
    has not one line for each sentence: neither has a sentence with a verdict. ``unread`` counts sentences of the other
    descriptions whose verdict is none of the three: they are in no numerator and no denominator of SHR.

    Raises:
        ValueError: ids differ.
    """
    done, counts = pairs(questions, answers)
    last = {question.image: place for place, (question, _, _) in enumerate(done)}
    counts |= {"unjudged": 0, "mismatched": 0, "unread": 0}
    rows = []
    for place, (question, answer, text) in enumerate(done):
        added = variety(text)
        verdicts: list[Verdict | None] | None = None
        if place == last[question.image]:
            if lexicon is not None:
                verdicts = by_every_fact(text, question.truth["facts"], lexicon)
            elif vocabulary is not None:
                verdicts = by_facts(text, frozenset(question.truth["objects"]), vocabulary)
            elif answer.judgement is None:
                counts["unjudged"] += 1
            else:
                verdicts = read(answer.judgement, text)
                if verdicts is None:
                    counts["mismatched"] += 1
                    verdicts = [None] * len(sentences(text))
                else:
                    counts["unread"] += verdicts.count(None)
        if verdicts is not None:
            added |= terms(verdicts, text)
        rows.append((question.image, added))
    return Tally.of(rows, METRICS, counts=counts)


def sentences(text: str) -> list[str]:
    """What stands between full stops, in order, without what an earlier sentence already contains word for word.

    Only full stops divide: a question is part of the next sentence, and "3.5" is cut in two. As in the original.

    >>> sentences("A cat sits. A dog. A cat. Is it 3.5 m?")
    ['A cat sits', 'A dog', 'Is it 3', '5 m?']
    """
    kept: list[str] = []
    for part in text.split("."):
        sentence = part.strip()
        if sentence and not any(sentence in earlier for earlier in kept):
            kept.append(sentence)
    return kept


def prompt(regions: Iterable[tuple[Sequence[float], str]], facts: Iterable[str], text: str) -> str:
    """What a judge is asked about ``text``, in words of this project; ``read`` understands the answer.

    ``regions`` are (box, what is in it), boxes as (x1, y1, x2, y2) in fractions of width and height.
    """
    seen = [f"[{', '.join(f'{edge:.2f}' for edge in box)}]: {phrase}" for box, phrase in regions]
    numbered = (f"{number}. {sentence}" for number, sentence in enumerate(sentences(text), 1))
    # Replaced in one pass, so that braces in what was said are nothing but braces.
    parts = {"regions": "\n".join(seen) or "(nothing)", "facts": "\n".join(facts) or "(nothing)",
             "sentences": defuse("\n".join(numbered))}  # fmt: skip
    return re.sub(r"\{(regions|facts|sentences)\}", lambda match: parts[match[1]], _PROMPT)


def read(judgement: str, text: str) -> list[Verdict | None] | None:
    """The judge's verdict on each of ``sentences(text)``; None if there is not exactly one line for each.

    A line is a number, a space, a verdict and a colon, as the original reads it. A verdict that is none of the three
    is None; such a sentence counts nowhere but in ``unread``.

    >>> read("Judgement:\\n1. Correct: seen.\\n2. cannot judge: mood.", "A cat sits. How calm.")
    ['correct', 'cannot judge']
    """
    lines = [line for line in judgement.split("\n") if line]
    head = next((at for at, line in enumerate(lines) if _HEAD in line), None)
    if head is None:
        return None
    judged = [line.partition(" ")[2].strip() for line in lines[head + 1 :]]
    verdicts = [_verdict(line.split(":")[0].lower()) for line in judged if line]
    return verdicts if len(verdicts) == len(sentences(text)) else None


def by_facts(text: str, truth: frozenset[str], vocabulary: Vocabulary) -> list[Verdict | None]:
    """Verdicts by the objects that a sentence names: one that is not there, else one that is, else none at all.

    What is denied is not named: "no boat" is no hallucination, and nothing that could be judged.

    >>> vocabulary = Vocabulary("demo", "1", {"sun": "sun", "boat": "boat"})
    >>> by_facts("A sun. A boat and a sun. No boat. How calm.", frozenset({"sun"}), vocabulary)
    ['correct', 'hallucination', 'cannot judge', 'cannot judge']
    """
    lexicon = general(vocabulary)
    there = {vocabulary.canonical(name) for name in truth}
    verdicts: list[Verdict | None] = []
    for sentence in sentences(text):
        named = {phrase.name for phrase in noun_phrases.read(sentence, lexicon)}
        verdicts.append("hallucination" if named - there else "correct" if named else "cannot judge")
    return verdicts


def by_every_fact(text: str, facts: Facts, lexicon: Lexicon) -> list[Verdict | None]:
    """Verdicts by all that facts can tell: objects, attributes, numbers and places, as ``reward.text.types`` reads
    them. One wrong claim makes a sentence a hallucination; else one right claim makes it correct.

    >>> from pipeline.scenes.scene_words import scenes
    >>> facts = {"objects": [{"name": "sun", "count": 1, "attributes": ["red"]}]}
    >>> by_every_fact("A red sun. A blue sun. No boat. How calm.", facts, scenes())
    ['correct', 'hallucination', 'cannot judge', 'cannot judge']
    """
    verdicts: list[Verdict | None] = []
    for sentence in sentences(text):
        claims = {finding.verdict for finding in fact_findings.by_facts(sentence, facts, lexicon)}
        verdicts.append(
            "hallucination" if "hallucination" in claims else "correct" if "correct" in claims else "cannot judge"
        )
    return verdicts


def terms(verdicts: Sequence[Verdict | None], text: str) -> dict[str, Term]:
    """What one description adds: ``shr`` and ``shr_words`` (each sentence weighs as many words as it has) over all
    sentences with a verdict, "cannot judge" included; ``sentences`` and ``words`` per description, over all sentences.
    """
    # Split at every single space, as in the original: two spaces make a word more.
    lengths = [len(sentence.split(" ")) for sentence in sentences(text)]
    judged = [(verdict, words) for verdict, words in zip(verdicts, lengths, strict=True) if verdict is not None]
    wrong = [words for verdict, words in judged if verdict == "hallucination"]
    return {
        "shr": (len(wrong), len(judged)),
        "shr_words": (sum(wrong), sum(words for _, words in judged)),
        "sentences": (len(lengths), 1),
        "words": (sum(lengths), 1),
    }


def distinct(text: str, n: int) -> float | None:
    """Distinct n-grams / n-grams, in words; None for a text of fewer than n words, where the original stops.

    Signs are deleted and put nothing in their place: a line break joins the words beside it.

    >>> distinct("a b a b", 1), distinct("a b a b", 2), distinct("a", 2)
    (0.5, 0.6666666666666666, None)
    """
    words = _DELETED.sub("", text).split()
    grams = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def variety(text: str) -> dict[str, Term]:
    """``distinct_1`` to ``distinct_4``: means over descriptions."""
    ratios = {name: distinct(text, n) for n, name in enumerate(VARIED, 1)}
    return {name: (ratio or 0.0, float(ratio is not None)) for name, ratio in ratios.items()}


def _verdict(word: str) -> Verdict | None:
    return next((verdict for verdict in VERDICTS if verdict == word), None)


def _question(
    id: int, size: Mapping[str, Any], regions: Sequence[Mapping[str, Any]], facts: list[str], ask: str
) -> Question:
    where = f"Visual Genome, image {id}"
    *sides, url = benchmark_files.take(size, (*_SIDES, "url"), where)
    width, height = (benchmark_files.real(value, where, key) for key, value in zip(_SIDES, sides, strict=True))
    if width <= 0 or height <= 0:
        raise DataError(f"{where}: is {width} x {height} pixels in image_data.json; give the benchmark's own file")
    boxes = []
    for region in regions:
        *edges, phrase = benchmark_files.take(region, (*_EDGES, "phrase"), where)
        if phrase:
            x, y, w, h = (benchmark_files.real(value, where, key) for key, value in zip(_EDGES, edges, strict=True))
            boxes.append([[x / width, y / height, (x + w) / width, (y + h) / height], phrase])
    return Question(str(id), "/".join(str(url).split("/")[-2:]), ask, {"regions": boxes, "facts": facts})


def _read(path: Path, of: str | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(image, row); the rows name their image themselves, or in the first element of their list ``of``."""
    try:
        for number, row in array(str(path)):
            if of is None:
                yield _id(row, path, number), row
            elif rows := row.get(of):
                if not isinstance(rows, list):
                    raise DataError(f"{path}, item {number}: {of} is no list; give the benchmark's own file")
                yield _id(rows[0], path, number), row
    except InputError as error:
        raise DataError(f"{error.message}; {error.remedy}") from error


def _id(row: Any, path: Path, number: int = 0) -> int:
    where = f"{path}, item {number}" if number else str(path)
    (id,) = benchmark_files.take(row, ("image_id",), where)
    return benchmark_files.number(id, where, "image_id")
