"""POPE (Li et al. 2023): "is there a ... in the image?", half of it about objects that are not there.

The questions are built as POPE's ``main.py`` builds them, save that ties in frequency go by name and random draws are
seeded by the image's own objects, so that neither depends on the order of the images. Positive class is "yes".
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from training.evaluation.ratio import Term, pooled

SPLITS = ("random", "popular", "adversarial")
METRICS = ("accuracy", "precision", "recall", "f1", "yes_ratio")
#: Parsers whose harness counts an answer that is neither yes nor no as "not yes" in precision, recall and F1. The
#: others leave it out of these; in accuracy it is wrong for all.
UNPARSEABLE_IS_NOT_YES = frozenset({"vlmevalkit"})


@dataclass(frozen=True, slots=True)
class Question:
    """``image`` is the position in the list given to ``build``; ``splits`` are the splits this question belongs to."""

    image: int
    object: str
    text: str
    answer: Literal["yes", "no"]
    splits: tuple[str, ...]


def a_or_an(name: str) -> str:
    """The article by spelling, as POPE means it. (Its script replaces every "a", so that its files say "imange".)

    >>> a_or_an("umbrella"), a_or_an("sun")
    ('an', 'a')
    """
    return "an" if name[:1].lower() in set("aeiou") else "a"


def build(
    objects_per_image: Sequence[Sequence[str]],
    per_image: int = 3,
    seed: int = 0,
    question: str = "Is there {article} {object} in the image?",
    article: Callable[[str], str] = a_or_an,
) -> list[Question]:
    """The distinct questions of all three splits, grouped by image.

    Positives are the image's first ``per_image`` objects, the same in every split and asked once. For each of them a
    split asks about one object that is not in the image and not yet asked about in that split:

    - random: uniform over all objects that occur in any image;
    - popular: the one that occurs in most images;
    - adversarial: the one that occurs together with the current positive in most images; once none of the objects
      that ever do is left, random.

    An image with fewer than ``per_image`` objects, or with fewer absent ones, gives fewer questions, always as many
    positive as negative. (POPE itself takes only images with at least three objects: ``suites.pope.build``.)

    >>> [(q.object, q.answer, q.splits) for q in build([["sun"], ["cup"]])][:2]
    [('sun', 'yes', ('random', 'popular', 'adversarial')), ('cup', 'no', ('random', 'popular', 'adversarial'))]
    """
    images = [list(dict.fromkeys(objects)) for objects in objects_per_image]
    frequency = Counter(name for objects in images for name in objects)
    together: dict[str, Counter[str]] = {name: Counter() for name in frequency}
    for objects in images:
        for name in objects:
            together[name].update(other for other in objects if other != name)
    by_frequency = _descending(frequency)
    by_company = {name: _descending(counts) for name, counts in together.items()}
    seen: Counter[tuple[str, ...]] = Counter()
    questions: list[Question] = []
    for index, objects in enumerate(images):
        absent = sorted(set(frequency) - set(objects))
        positives = objects[: min(per_image, len(absent))]
        rng = random.Random(f"pope:{seed}:{objects}:{seen[tuple(objects)]}")
        seen[tuple(objects)] += 1
        negatives = {
            "random": _negatives(positives, lambda _: [], absent, rng),
            "popular": _negatives(positives, lambda _: by_frequency, absent, rng),
            "adversarial": _negatives(positives, by_company.__getitem__, absent, rng),
        }
        splits_of = dict.fromkeys(positives, SPLITS)
        for split in SPLITS:
            for name in negatives[split]:
                splits_of[name] = (*splits_of.get(name, ()), split)
        for name, splits in splits_of.items():
            text = question.format(article=article(name), object=name)
            questions.append(Question(index, name, text, "yes" if name in objects else "no", splits))
    return questions


def terms(truth: str, said: str | None, unparseable_is_not_yes: bool = False) -> dict[str, Term]:
    """What one answer adds to each metric; ``said`` is "yes", "no" or None if neither can be read."""
    hit = said == "yes" and truth == "yes"
    false_alarm = said == "yes" and truth == "no"
    miss = truth == "yes" and (said == "no" or (said is None and unparseable_is_not_yes))
    return {
        "accuracy": (float(said == truth), 1),
        "precision": (float(hit), float(hit or false_alarm)),
        "recall": (float(hit), float(hit or miss)),
        "f1": (2.0 * hit, 2.0 * hit + false_alarm + miss),
        "yes_ratio": (float(said == "yes"), 1),
    }


def measure(answers: Iterable[tuple[str, str | None]], parser: str = "official") -> dict[str, float | None]:
    """Accuracy, precision, recall, F1 and yes ratio of (truth, said), and ``unparseable``, the number of those.

    ``yes_ratio`` is over predictions (lmms-eval computes it over the truth). ``parser`` says how ``said`` was read,
    because harnesses also differ in what they do with an unparseable answer.

    >>> measure([("yes", "yes"), ("no", "yes")])["precision"]
    0.5
    """
    pairs = list(answers)
    rows = [terms(truth, said, parser in UNPARSEABLE_IS_NOT_YES) for truth, said in pairs]
    values = {name: pooled(row[name] for row in rows) for name in METRICS}
    return {**values, "unparseable": float(sum(said is None for _, said in pairs))}


def _negatives(
    positives: Sequence[str], order: Callable[[str], Sequence[str]], absent: Sequence[str], rng: random.Random
) -> list[str]:
    chosen: list[str] = []
    for positive in positives:
        free = [name for name in absent if name not in chosen]
        preferred = next((name for name in order(positive) if name in free), None)
        chosen.append(preferred if preferred is not None else rng.choice(free))
    return chosen


def _descending(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda name: (-counts[name], name))
