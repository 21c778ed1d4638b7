"""What a number must carry to be compared with another, and the JSON of a suite's result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from training.evaluation.tally import Tally

#: What may differ between two results that are compared: the comparison is about it.
_COMPARED = frozenset({"model", "model_revision"})


@dataclass(frozen=True, slots=True)
class Provenance:
    """Everything a result depends on. Two numbers can be compared if nothing but the model differs.

    Args:
        suite: with the version of its metrics, such as ``"pope@1"``.
        model, model_revision: what answered. A folder has no revision of its own; give a digest of its content.
        data, data_revision: what was asked, and a digest of the files it was read from.
        prompt: the text of the prompt, or what was added to those of the data; "as in the data" if nothing was.
        decoding: temperature, max_tokens, stop, beams ...
        image_preprocessing: such as "pad to a square" or "resize and crop to 336".
        parser: how an answer was read; "none" for a suite that reads whole texts.
        versions: whatever else a number depends on: vocabulary, lemmatiser, similarity, tagger.
        judge, judge_version: the model that judged, and which build of it; both or neither.

    Raises:
        ValueError: a text is empty, or one of ``judge`` and ``judge_version`` is missing.
    """

    suite: str
    model: str
    model_revision: str
    data: str
    data_revision: str
    prompt: str
    decoding: Mapping[str, Any]
    image_preprocessing: str
    parser: str
    versions: Mapping[str, str] = field(default_factory=dict)
    judge: str | None = None
    judge_version: str | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, str) and not value.strip():
                raise ValueError(f"{entry.name} is empty; a number without it cannot be compared, so say what it was")
        if (self.judge is None) != (self.judge_version is None):
            raise ValueError("judge and judge_version belong together: numbers differ between builds of one judge")

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "decoding": dict(self.decoding), "versions": dict(self.versions)}


def differing(a: Provenance, b: Provenance) -> list[str]:
    """What keeps two results from being compared: the fields, apart from the model, in which they differ."""
    return [
        entry.name
        for entry in fields(Provenance)
        if entry.name not in _COMPARED and getattr(a, entry.name) != getattr(b, entry.name)
    ]


def result(
    tally: Tally, provenance: Provenance, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Any]:
    """The JSON of one suite: value and interval per metric, what was left out, and what all of it depends on."""
    intervals = tally.intervals(samples, seed, level)
    return {
        "suite": provenance.suite,
        "metrics": {name: {"value": value, "interval": intervals[name]} for name, value in tally.values().items()},
        "images": len(tally.images),
        "counts": dict(tally.counts),
        "bootstrap": {"over": "images", "samples": samples, "seed": seed, "level": level},
        "provenance": provenance.as_json(),
    }
