"""All metrics of one model from its stored answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from reward.scorers.objects import judge, truth_of
from reward.text.lexicon import Lexicon
from reward.text.vocabulary import Vocabulary
from reward.text.yes_no import PARSERS
from training.evaluation import chair, pope, shr
from training.evaluation.prompts import DESCRIBE, POPE
from training.evaluation.ratio import Term
from training.evaluation.tally import Linear, Tally, mean_of

#: Metrics that also get a confidence interval.
HEADLINE = (
    *("chair_i", "chair_s", "cover", "mean_length", "pope_accuracy", "pope_f1", "pope_yes_ratio"),
    *(f"pope_{split}_accuracy" for split in pope.SPLITS),
)
#: See ``shr.varied``.
_VARIED = ("distinct_1", "distinct_2", "distinct_3", "distinct_4")
Summary = dict[str, float | list[float] | None]


def summarise(
    prompts: pa.Table,
    candidates: pa.Table,
    vocabulary: Vocabulary,
    parser: str = "official",
    lexicon: Lexicon | None = None,
) -> Summary:
    """Metrics of the answers in ``candidates`` to the prompts of ``training.evaluation.prompts.build``.

    Shares are fractions in [0, 1]; ``mean_length`` counts words. None where there is nothing to divide by.

    - ``chair_i``, ``chair_s``, ``cover``, ``cover_per_image``, ``mean_length``: see ``chair``;
    - ``shr``: hallucinated sentences / all sentences, those included that nothing can be said of. With a ``lexicon`` a
      sentence is judged by everything that exact facts tell: its objects, attributes, numbers and places. Without one
      the objects of ``vocabulary`` are all there is to judge by; the metric is then called ``shr_objects``;
    - ``distinct_1`` to ``distinct_4``: distinct n-grams / n-grams of a description, averaged (``shr.varied``);
    - ``pope_{split}_{accuracy,precision,recall,f1,yes_ratio}``: see ``pope``; ``pope_accuracy``, ``pope_f1`` and
      ``pope_yes_ratio`` are the means of the three splits;
    - ``{metric}_ci`` for the metrics in ``HEADLINE`` and for SHR: 95 % percentile bootstrap over images
      (1000 samples, seed 0);
    - ``captions``, ``pope_{split}_questions``, ``pope_questions`` (distinct), ``images``: how many counted;
    - ``unparseable``: distinct questions in whose answer ``parser`` finds neither yes nor no; ``truncated``: answers
      cut at the token limit; ``failed``: prompts without an answer. Those count in nothing else.

    A prompt with several candidates counts each of them. The result does not depend on the order of rows.

    Raises:
        ValueError: the tables do not hold the same ids, a source is neither ``describe`` nor ``pope:...``, or
            ``parser`` is unknown.
    """
    if parser not in PARSERS:
        raise ValueError(f"parser={parser!r} is unknown; use one of {', '.join(PARSERS)}")
    asked = {row["id"]: row for row in prompts.to_pylist()}
    answered = {row["id"]: row for row in candidates.to_pylist()}
    if asked.keys() != answered.keys():
        odd = min(asked.keys() ^ answered.keys())
        where = "candidates" if odd in asked else "prompts"
        raise ValueError(f"id {odd!r} is missing from {where}; both tables need the same ids, failed ones included")

    counts: dict[str, float] = {"captions": 0, "pope_questions": 0, "unparseable": 0, "truncated": 0, "failed": 0}
    rows: list[tuple[str, dict[str, Term]]] = []  # image, terms of one answer
    images: set[str] = set()
    for id, row in asked.items():
        if "failed" in (row["status"], answered[id]["status"]):
            counts["failed"] += 1
            continue
        image = _image_key(row)
        images.add(image)
        for candidate in answered[id]["candidates"]:
            counts["truncated"] += candidate["finish_reason"] == "length"
            if row["source"] == DESCRIBE:
                counts["captions"] += 1
                new = _described(candidate["text"], row, vocabulary, lexicon)
            elif row["source"].startswith(POPE):
                said = PARSERS[parser](candidate["text"])
                counts["pope_questions"] += 1
                counts["unparseable"] += said is None
                part = pope.terms(row["facts"]["answer"], said, parser in pope.UNPARSEABLE_IS_NOT_YES)
                splits = row["source"].removeprefix(POPE).split(",")
                new = {f"pope_{split}_{name}": term for split in splits for name, term in part.items()}
            else:
                raise ValueError(f"id {id!r}: source {row['source']!r} is neither {DESCRIBE!r} nor {POPE!r}...")
            rows.append((image, new))

    for split in pope.SPLITS:
        counts[f"pope_{split}_questions"] = sum(f"pope_{split}_accuracy" in terms for _, terms in rows)
    own = (*chair.METRICS, _shr(lexicon), *_VARIED)
    names = [*own, *(f"pope_{split}_{name}" for split in pope.SPLITS for name in pope.METRICS)]
    tally = Tally.of(rows, names, {f"pope_{name}": _of_splits(name) for name in ("accuracy", "f1", "yes_ratio")})
    intervals = tally.intervals()
    return {
        **tally.values(),
        **{f"{name}_ci": intervals[name] for name in (*HEADLINE, _shr(lexicon))},
        "images": float(len(images)),
        **counts,
    }


def _described(text: str, row: Mapping[str, Any], vocabulary: Vocabulary, lexicon: Lexicon | None) -> dict[str, Term]:
    """What a description adds to each metric."""
    truth = truth_of(row, vocabulary) or frozenset()
    facts = row["facts"] or {}
    said = shr.by_every_fact(text, facts, lexicon) if lexicon is not None else shr.by_facts(text, truth, vocabulary)
    return {
        **chair.terms(judge(text, truth, vocabulary), len(text.split())),
        _shr(lexicon): shr.terms(said, text)["shr"],
        **shr.varied(text),
    }


def _shr(lexicon: Lexicon | None) -> str:
    """What the metric is called, by what it looks at."""
    return "shr" if lexicon is not None else "shr_objects"


def _of_splits(name: str) -> Linear:
    return mean_of([f"pope_{split}_{name}" for split in pope.SPLITS])


def _image_key(row: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for image in row["images"]:
        digest.update(image["bytes"] or (image["path"] or "").encode())
    return digest.hexdigest()
