"""What a run says of a model before and after training: the suites over scenes, from its stored answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from reward.text.lexicon import Lexicon
from reward.text.object_vocabulary import Vocabulary
from reward.text.yes_no import PARSERS
from training.evaluation.benchmarks import chair, pope, shr
from training.evaluation.question import Answer, Question, pairs
from training.evaluation.scenes import DESCRIBE, VocabularyReader, question
from training.evaluation.tally import Tally, mean_of

#: Metrics that also get a confidence interval.
HEADLINE = (
    *("chair_i", "chair_s", "cover", "mean_length", "pope_accuracy", "pope_f1", "pope_yes_ratio"),
    *(f"pope_{split}_accuracy" for split in pope.SPLITS),
)
_POPE = {f"{split}_{name}": f"pope_{split}_{name}" for split in pope.SPLITS for name in pope.METRICS}
Summary = dict[str, float | list[float] | None]


def summarise(
    prompts: pa.Table,
    candidates: pa.Table,
    vocabulary: Vocabulary,
    parser: str = "official",
    lexicon: Lexicon | None = None,
) -> Summary:
    """Metrics of the answers in ``candidates``, one each, to the prompts of ``scenes.build``.

    Shares are fractions in [0, 1]; ``mean_length`` counts words. None where there is nothing to divide by.

    - ``chair_i``, ``chair_s``, ``cover``, ``cover_per_image``, ``mean_length``: see ``chair``;
    - ``shr``: hallucinated sentences / all sentences, those included that nothing can be said of. With a ``lexicon`` a
      sentence is judged by everything that exact facts tell: its objects, attributes, numbers and places. Without one
      the objects of ``vocabulary`` are all there is to judge by; the metric is then called ``shr_objects``;
    - ``distinct_1`` to ``distinct_4``: distinct n-grams / n-grams of a description, averaged (``shr.variety``);
    - ``pope_{split}_{accuracy,precision,recall,f1,yes_ratio}``: see ``pope``; ``pope_accuracy``, ``pope_f1`` and
      ``pope_yes_ratio`` are the means of the three splits;
    - ``{metric}_ci`` for the metrics in ``HEADLINE`` and for SHR: 95 % percentile bootstrap over images
      (1000 samples, seed 0);
    - ``captions``, ``pope_{split}_questions``, ``pope_questions`` (distinct), ``images``: how many counted;
    - ``unparseable``: distinct questions in whose answer ``parser`` finds neither yes nor no; ``truncated``: answers
      cut at the token limit; ``failed``: prompts without an answer. Those count in nothing else.

    The result does not depend on the order of rows.

    Raises:
        ValueError: the tables do not hold the same ids, a source is neither ``describe`` nor ``pope:...``, or
            ``parser`` is unknown.
    """
    if parser not in PARSERS:
        raise ValueError(f"parser={parser!r} is unknown; use one of {', '.join(PARSERS)}")
    rows = {row["id"]: row for row in prompts.to_pylist()}
    answered = {row["id"]: row for row in candidates.to_pylist()}
    if rows.keys() != answered.keys():
        odd = min(rows.keys() ^ answered.keys())
        where = "candidates" if odd in rows else "prompts"
        raise ValueError(f"id {odd!r} is missing from {where}; both tables need the same ids, failed ones included")

    described: list[Question] = []
    yes_no: list[Question] = []
    answers: dict[str, Answer] = {}
    for id, row in rows.items():
        if "failed" not in (row["status"], answered[id]["status"]):
            (candidate,) = answered[id]["candidates"]
            answers[id] = Answer(candidate["text"], finish_reason=candidate["finish_reason"])
            (described if row["source"] == DESCRIBE else yes_no).append(question(row, id, _image_key(row), vocabulary))
    captions = {entry.id: answers.pop(entry.id) for entry in described}

    name = "shr" if lexicon is not None else "shr_objects"
    of_shr = shr.score(described, captions, vocabulary, lexicon)
    of_chair = chair.count(described, captions, VocabularyReader(vocabulary))
    of_pope = pope.Pope(parser).score(yes_no, answers)  # type: ignore[arg-type]
    of_splits = {
        metric: [f"pope_{split}_{metric}" for split in pope.SPLITS] for metric in ("accuracy", "f1", "yes_ratio")
    }
    tally = Tally.joined(
        [of_chair, of_shr.picked({"shr": name, **{metric: metric for metric in shr.VARIED}}), of_pope.picked(_POPE)],
        {f"pope_{metric}": mean_of(splits) for metric, splits in of_splits.items()},
    )
    intervals = tally.intervals()
    return {
        **tally.values(),
        **{f"{metric}_ci": intervals[metric] for metric in (*HEADLINE, name)},
        "images": float(len(tally.images)),
        "captions": len(described),
        "pope_questions": len(yes_no),
        "unparseable": sum(PARSERS[parser](text) is None for _, _, text in pairs(yes_no, answers)[0]),
        "truncated": of_chair.counts["truncated"] + of_pope.counts["truncated"],
        "failed": len(rows) - len(described) - len(yes_no),
        **{f"pope_{split}_questions": sum(split in entry.truth["splits"] for entry in yes_no) for split in pope.SPLITS},
    }


def _image_key(row: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for image in row["images"]:
        digest.update(image["bytes"] or (image["path"] or "").encode())
    return digest.hexdigest()
