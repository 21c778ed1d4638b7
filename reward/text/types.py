"""What is found in a text, and what becomes of it: sentences, findings, edits, rewrites.

Zhao et al. 2023, "Beyond Hallucinations: Enhancing LVLMs through Hallucination-Aware Direct Preference Optimization"
(arXiv 2311.16839) for detection, correction, restyling and questions; Zhou et al. 2024, "Aligning Modalities in Vision
Large Language Models via Preference Fine-tuning" (POVID, arXiv 2402.11411) for injection.

``reward.text`` reads: ``sentences``, ``phrases`` by a ``lexicon``, what is ``known`` by facts, and ``findings`` of the
two. ``pipeline.rewriting`` has the verbs. A function that may refuse returns a ``Problem`` in place of its result; the
same arguments always give the same result.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")

#: Raised whenever a rule here may give another result; part of the fingerprint of every stage that uses one.
VERSION = 2

Says = Literal["hallucination", "correct", "unclear"]
Kind = Literal["object", "attribute", "count", "relation"]
Why = Literal["hallucinated", "true", "cooccurring"]
#: In the order in which corrections and injections consider them.
KINDS: tuple[Kind, ...] = ("object", "attribute", "count", "relation")
#: The columns of ``pipeline.base.tables.FACTS``; None and missing keys both mean that nothing is known.
Facts = Mapping[str, Any]


class Problem(NamedTuple):
    """Why there is no result: ``kind`` is an error type, ``message`` says what is wrong with this text. The kinds:

    ===================  =========================================================================================
    no_facts             nothing is known of the image
    nothing_wrong        no finding is a hallucination, so there is nothing to correct
    nothing_left         without what is wrong, the text says nothing
    nothing_to_change    no phrase of the text can be made wrong in any of the wanted ways
    cannot_correct       what becomes of it is still not true by the facts
    touched_the_rest     a model changed a sentence that was not flagged, or dropped or added one
    unchanged            a model returned the text as it was, or with an object in it that is not there
    not_in_grammar       the text says something that the built-in world's grammar cannot say
    off_task             what a model wrote speaks about its task, or is laid out or as long as no such text is
    other_facts          a paraphrase says something else than its original
    unreadable, cut_off  a model's answer is of no use; an engine's own error keeps its type
    ===================  =========================================================================================
    """

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """Characters ``[start, end)`` of a text, without the white space around them."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What is thought of characters ``[start, end)`` of a text, which are ``words``, in its sentence ``sentence``.

    ``kind`` is the kind of claim, None for a verdict on a sentence as a whole. ``reason`` is for readers. ``by`` is who
    said so: facts, judge, claims, or the name of a plug-in. Every sentence has at least one finding; by facts, one for
    every claim in it, or a single one of the kind None if it makes none.
    """

    sentence: int
    start: int
    end: int
    verdict: Says
    kind: Kind | None
    words: str
    reason: str
    by: str = "facts"


@dataclass(frozen=True, slots=True)
class ImageQuestion:
    """A question about an image. ``answer`` is right and ``wrong`` is not: Yes and No, or short answers.

    ``question_type`` is existence, attribute, count or relation. ``about`` is the object. ``why`` is what the question
    was made for: hallucinated (somebody said so of this image), true, or cooccurring (an absent object that often goes
    along with those that are there).
    """

    text: str
    question_type: str
    answer: str
    wrong: str
    about: str
    why: Why


class Lineage(NamedTuple):
    """Of a candidate: columns of ``pipeline.base.tables.CANDIDATE``; ``parent`` is an index among the same
    candidates."""

    origin: str
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """Characters ``[start, end)`` of the parent were ``old`` and are ``new`` now: as ``pipeline.base.tables.EDIT``."""

    start: int
    end: int
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Rewrite:
    """``apply(parent, edits) == text``; the edits are sorted and do not overlap."""

    text: str
    edits: tuple[Edit, ...]

    @classmethod
    def of(cls, parent: str, changes: Iterable[tuple[int, int, str]]) -> Rewrite:
        """From ``(start, end, new)``. Words that a change leaves as they were are no part of its edits.

        >>> Rewrite.of("a red sun", [(0, 9, "a blue sun")]).edits
        (Edit(start=2, end=5, old='red', new='blue'),)

        Raises:
            ValueError: two changes overlap.
        """
        edits = tuple(edit for change in sorted(changes, key=_at) for edit in _edits(parent, *change))
        return cls(apply(parent, edits), edits)


def apply(parent: str, edits: Iterable[Edit]) -> str:
    """The parent with its edits made.

    >>> apply("a red sun", [Edit(2, 5, "red", "blue")])
    'a blue sun'

    Raises:
        ValueError: two edits overlap, or the parent does not hold what an edit says it did.
    """
    parts, at = [], 0
    for edit in sorted(edits, key=lambda change: (change.start, change.end)):
        if edit.start < at:
            raise ValueError(f"two edits change character {edit.start}; make one of them")
        if parent[edit.start : edit.end] != edit.old:
            raise ValueError(
                f"characters {edit.start} to {edit.end} are {parent[edit.start : edit.end]!r} and not {edit.old!r}; "
                "the edits belong to another text"
            )
        parts += [parent[at : edit.start], edit.new]
        at = edit.end
    return "".join([*parts, parent[at:]])


def _at(change: tuple[int, int, str]) -> tuple[int, int]:
    return change[:2]


def _edits(parent: str, start: int, end: int, new: str) -> Iterator[Edit]:
    old = parent[start:end]
    before, after = _TOKEN.findall(old), _TOKEN.findall(new)
    places = [0, *itertools.accumulate(map(len, before))]
    for what, first, last, begin, until in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if what != "equal":
            words = "".join(before[first:last])
            yield Edit(start + places[first], start + places[last], words, "".join(after[begin:until]))
