"""Which objects a text names that are not there, and which of those that are there it names.

The counting of CHAIR (Rohrbach et al. 2018, "Object Hallucination in Image Captioning"): every mention counts, repeats
included, and an object is hallucinated when it is not in the image's set of true objects: those that are annotated, and
those that the image's captions name. Where labels are made of it, what a text denies is not named by it: "There are no
cars" makes no car up. CHAIR itself counts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reward.scorers.column_scorer import Batch
from reward.scorers.protocol import Row, Scores
from reward.text.denials import DENIES
from reward.text.noun_phrases import affirmed
from reward.text.object_vocabulary import Mention, Vocabulary


@dataclass(frozen=True, slots=True)
class ObjectVerdict:
    """``hallucinated`` is the part of ``mentions`` whose object is not in ``truth``, in the same order.

    ``covered`` are the true objects that were named at least once. ``repeated`` counts mentions beyond the first of the
    same object, true or not.
    """

    mentions: tuple[Mention, ...]
    hallucinated: tuple[Mention, ...]
    covered: frozenset[str]
    truth: frozenset[str]
    repeated: int

    @property
    def chair_i(self) -> float | None:
        """Hallucinated mentions / mentions; None for a text that names no object, which is not a good score of 0."""
        return len(self.hallucinated) / len(self.mentions) if self.mentions else None

    @property
    def recall(self) -> float | None:
        """Covered objects / true objects; None where nothing is known to be there."""
        return len(self.covered) / len(self.truth) if self.truth else None


def judge(
    text: str,
    truth: frozenset[str],
    vocabulary: Vocabulary,
    classes: frozenset[str] | None = None,
    denied: bool = True,
) -> ObjectVerdict:
    """Compare the objects that ``text`` names with those that are there.

    ``truth`` may use any name the vocabulary knows. A true object the vocabulary does not know can never be mentioned;
    it is left out, as in CHAIR, whose truth is restricted to its own classes. With ``classes`` (canonical names), what
    is none of them is left out of text and truth alike: whoever made the truth could not have seen it. ``denied``: what
    the text denies is named by it, as for CHAIR.

    >>> vocabulary = Vocabulary("demo", "1", {"sun": "sun", "boat": "boat", "boats": "boat"})
    >>> verdict = judge("Boats under a sun; a boat.", frozenset({"boat", "anchor"}), vocabulary)
    >>> [m.surface for m in verdict.hallucinated], verdict.covered, verdict.repeated
    (['sun'], frozenset({'boat'}), 1)
    """
    there = frozenset(name for name in map(vocabulary.canonical, truth) if name is not None)
    there = there if classes is None else there & classes
    # Left out after they are found, not before: without "hot dog", the text would be found to name a dog.
    found = vocabulary.mentions(text) if denied else affirmed(text, vocabulary)
    mentions = tuple(mention for mention in found if classes is None or mention.name in classes)
    named = frozenset(mention.name for mention in mentions)
    return ObjectVerdict(
        mentions=mentions,
        hallucinated=tuple(mention for mention in mentions if mention.name not in there),
        covered=named & there,
        truth=there,
        repeated=len(mentions) - len(named),
    )


class ObjectScorer:
    """``judge`` over rows, as scores.

    =======================  ==================================================================
    objects.mentions         mentions of any object of the vocabulary, but for those that are denied
    objects.hallucinated     mentions of objects that are not there (every mention counts)
    objects.chair_i          hallucinated / mentions; null if nothing was mentioned
    objects.recall           covered true objects / true objects
    objects.covered          covered true objects
    objects.repeated         mentions beyond the first of the same object
    =======================  ==================================================================

    What is there are the facts' objects and what the facts' captions name. All are null for rows without object facts
    and for questions (rows with ``facts.answer``), where naming the object asked for is no claim that it is there.
    Facts that a detector found: ``reward.scorers.detections``.
    """

    name = "objects"
    names = tuple(
        f"objects.{part}" for part in ("mentions", "hallucinated", "chair_i", "recall", "covered", "repeated")
    )

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.version = f"4:{vocabulary.name}@{vocabulary.version}"

    def score(self, rows: Sequence[Row]) -> Scores:
        table = [
            [values_of(verdict) if verdict is not None else (None,) * len(self.names) for verdict in self.verdicts(row)]
            for row in rows
        ]
        return {name: [[values[i] for values in row] for row in table] for i, name in enumerate(self.names)}

    def verdicts(self, row: Row) -> list[ObjectVerdict] | list[None]:
        """Of each candidate; None where the row is not judged."""
        truth = truth_of(row, self.vocabulary)
        if truth is None:
            return [None] * len(row["candidates"])
        return [judge(candidate["text"], truth, self.vocabulary, denied=False) for candidate in row["candidates"]]

    def score_columns(self, batch: Batch) -> dict[str, Any]:
        """
        Raises:
            ValueError: an object of the facts has no name.
        """
        prompts, texts, things = len(batch.facts), len(batch.texts), len(self.vocabulary.objects)
        judged = _has_truth(batch.facts)
        truth = self._truth(batch.facts, things)  # prompt * things + thing, sorted, each once
        text, thing = self._named(batch.texts)
        wrong = ~np.isin(batch.prompt[text] * things + thing, truth)
        distinct, first = np.unique(text * things + thing, return_index=True)
        mentions = np.bincount(text, minlength=texts).astype(float)
        hallucinated = np.bincount(text[wrong], minlength=texts).astype(float)
        covered = np.bincount(text[first][~wrong[first]], minlength=texts).astype(float)
        true = np.bincount(truth // max(things, 1), minlength=prompts)[batch.prompt].astype(float)
        repeated = mentions - np.bincount(distinct // max(things, 1), minlength=texts)
        no = ~judged[batch.prompt]
        with np.errstate(invalid="ignore"):  # 0 / 0, where the value is null
            columns = {
                "mentions": (mentions, no),
                "hallucinated": (hallucinated, no),
                "chair_i": (hallucinated / mentions, no | (mentions == 0)),
                "recall": (covered / true, no | (true == 0)),
                "covered": (covered, no),
                "repeated": (repeated, no),
            }
        return {f"objects.{part}": pa.array(values, mask=null) for part, (values, null) in columns.items()}

    def _truth(self, facts: Any, things: int) -> Any:
        objects = pc.struct_field(facts, "objects")
        names = pc.struct_field(pc.list_flatten(objects), "name")
        if names.null_count:
            raise ValueError("an object of the facts has no name")
        sizes = pc.fill_null(pc.list_value_length(objects), 0).to_numpy(zero_copy_only=False)
        prompt = np.repeat(np.arange(len(facts)), sizes)
        coded = names.dictionary_encode()
        place = {name: i for i, name in enumerate(sorted(self.vocabulary.objects))}
        places = [place.get(self.vocabulary.canonical(name) or "", -1) for name in coded.dictionary.to_pylist()]
        thing = np.array(places, np.int64)[coded.indices.to_numpy(zero_copy_only=False)]
        captioned_at, captioned = self._caption_objects(facts)
        annotated = prompt[thing >= 0] * things + thing[thing >= 0]
        return np.unique(np.concatenate([annotated, captioned_at * things + captioned]))

    def _caption_objects(self, facts: Any) -> tuple[Any, Any]:
        """(prompt, object) of everything that a caption names."""
        if facts.type.get_field_index("captions") < 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        captions = pc.struct_field(facts, "captions")
        sizes = pc.fill_null(pc.list_value_length(captions), 0).to_numpy(zero_copy_only=False)
        text, thing = self._named(pc.fill_null(pc.list_flatten(captions), ""))
        return np.repeat(np.arange(len(facts)), sizes)[text], thing

    def _named(self, texts: Any) -> tuple[Any, Any]:
        """(text, object) of every mention that is not denied. Few texts deny anything: those are read one by one."""
        text, thing = self.vocabulary.named_objects(texts)
        denies = pc.match_substring_regex(texts, DENIES, ignore_case=True).to_numpy(zero_copy_only=False)
        place = {name: i for i, name in enumerate(sorted(self.vocabulary.objects))}
        read = [
            (i, place[mention.name])
            for i in np.flatnonzero(denies).tolist()
            for mention in affirmed(texts[i].as_py(), self.vocabulary)
        ]
        rest, plain = np.array(read, np.int64).reshape(-1, 2), ~denies[text]
        return np.concatenate([text[plain], rest[:, 0]]), np.concatenate([thing[plain], rest[:, 1]])


def values_of(verdict: ObjectVerdict) -> tuple[float | None, ...]:
    """In the order of ``ObjectScorer.names``."""
    return (
        float(len(verdict.mentions)),
        float(len(verdict.hallucinated)),
        verdict.chair_i,
        verdict.recall,
        float(len(verdict.covered)),
        float(verdict.repeated),
    )


def _has_truth(facts: Any) -> Any:
    """For each prompt whether ``truth_of`` is not None."""
    some = pc.greater(pc.list_value_length(pc.struct_field(facts, "objects")), 0)
    open_prompt = pc.is_null(pc.struct_field(facts, "answer"))
    return pc.fill_null(pc.and_(some, open_prompt), False).to_numpy(zero_copy_only=False)


def truth_of(row: Row, vocabulary: Vocabulary) -> frozenset[str] | None:
    """The names of the objects that are there, those that the captions name included, or None for a question and for a
    row without object facts.

    Captions add to the annotated objects, as in CHAIR's own truth; alone they are none, for nobody captions everything.

    >>> words = Vocabulary("demo", "1", {"sun": "sun", "boats": "boat"})
    >>> seen = {"objects": [{"name": "sun"}], "captions": ["Boats."]}
    >>> sorted(truth_of({"facts": seen}, words)), truth_of({"facts": {**seen, "answer": "yes"}}, words)
    (['boat', 'sun'], None)
    """
    facts = row["facts"]
    if not facts or facts.get("answer") is not None or not facts.get("objects"):
        return None
    named = caption_objects(facts, vocabulary)
    return frozenset([*(thing["name"] for thing in facts["objects"]), *named])


def caption_objects(facts: Mapping[str, Any] | None, vocabulary: Vocabulary) -> frozenset[str]:
    """What the captions of the facts say to be there."""
    captions = (facts or {}).get("captions") or ()
    return frozenset(mention.name for caption in captions for mention in affirmed(caption or "", vocabulary))
