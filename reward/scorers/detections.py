"""What an object detector found in the images, from a file, as the truth that ``reward.scorers.objects`` compares texts
with.

Three layouts are read, told apart by what they hold:

- a list, as a loop over a DETR-style detector writes it:
  ``[{"image": "a.jpg", "detections": [{"label": "dog", "score": 0.97, "box": [...]}]}]``;
- the same as an object: ``{"a.jpg": [{"label": "dog", "score": 0.97, "box": [...]}]}``;
- COCO's: ``{"images": [{"id", "file_name"}], "categories": [{"id", "name"}], "annotations": [{"image_id",
  "category_id", "score"}]}``. COCO's results format is a bare list that names neither images nor classes: put it under
  ``annotations``, beside the other two.

Boxes may be there; those of the last layout that have no area count for nothing, the others are not looked at. An image
is called by its file name, by a path, or by the SHA-256 of its encoded file (64 hexadecimal digits).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from pipeline.base.errors import shorten
from pipeline.base.images.image_files import read_regular
from pipeline.base.json_keys import once
from reward.scorers.objects import ObjectScorer, ObjectVerdict, caption_objects, judge, truth_of, values_of
from reward.scorers.protocol import Row, Scores
from reward.text.object_vocabulary import Vocabulary

_SHA256 = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]|[A-Za-z][A-Za-z0-9+.-]*://")
_COCO = frozenset({"images", "categories"})


class _Detection(NamedTuple):
    image: str
    label: str | None  # None: the image was looked at
    score: float
    place: str


@dataclass(frozen=True)
class Detections:
    """``labels``: for every image of the file what was found in it. ``classes``: all that the detector can find.

    ``version`` says what both depend on.
    """

    labels: Mapping[str, frozenset[str]]
    classes: frozenset[str]
    version: str

    @classmethod
    def read(cls, path: str | Path, threshold: float = 0.5, classes: Iterable[str] | None = None) -> Detections:
        """``threshold``: the lowest score that counts as found. An annotation of COCO without a score counts.

        ``classes``: by default COCO's categories, or else every label that stands anywhere in the file, whatever its
        score.

        Raises:
            ValueError: the file cannot be read or is malformed; the message names the entry, the key and the remedy.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold} must be between 0 and 1, as the scores are")
        try:
            data = read_regular(path)
            content = json.loads(data, object_pairs_hook=once)
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"cannot read the detections {path} ({error}); give a JSON file") from error
        try:
            listed, categories = _read_coco(content) if _is_coco(content) else (_read_list(content), None)
            labels, seen = _labels(listed, threshold)
        except _Malformed as error:
            raise ValueError(shorten(f"{path}: {error}")) from error
        detectable = frozenset(classes) if classes is not None else seen if categories is None else categories
        if unknown := sorted(seen - detectable):
            raise ValueError(
                shorten(f"{path}: label {unknown[0]!r} is none of the detector's classes; add it to classes")
            )
        digest = hashlib.sha256(data + json.dumps([threshold, sorted(detectable)]).encode()).hexdigest()
        return cls(labels, detectable, digest[:16])

    def labels_of(self, image: bytes, path: str | None = None) -> frozenset[str] | None:
        """The labels found in an image, None if the file does not know it (or names it in two ways that fit equally).

        By content, if the file goes by that; else by ``path``: a relative name in the file must be the end of the path,
        or the path the end of it; of an absolute one, made on some other machine, the file name is enough. Of several
        the one that agrees furthest is taken. Where file names repeat across folders, use hashes.
        """
        if self._hashes:
            key = self._hashes.get(hashlib.sha256(image).hexdigest())
            if key is not None:
                return self.labels[key]
        key = self._key(path) if path else None
        return None if key is None else self.labels[key]

    def _key(self, path: str) -> str | None:
        parts = _parts(path)
        agree: dict[int, list[str]] = defaultdict(list)
        for key in self._names.get(parts[-1], ()):
            key_parts = _parts(key)
            same = next(
                (i for i, two in enumerate(zip(parts[::-1], key_parts[::-1], strict=False)) if two[0] != two[1]), 0
            )
            same = same or min(len(parts), len(key_parts))
            if same == min(len(parts), len(key_parts)) or _ABSOLUTE.match(key):
                agree[same].append(key)
        best = agree[max(agree)] if agree else []
        return best[0] if len(best) == 1 else None

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {match[1].lower(): key for key in self.labels if (match := _SHA256.fullmatch(key))}

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """The images by the last part of their names."""
        names = defaultdict(list)
        for key in self.labels:
            names[_parts(key)[-1]].append(key)
        return dict(names)


class DetectedObjectScorer:
    """The scores of ``ObjectScorer`` with a detector's findings as the truth, and one more:

    =======================  ===================================================================================
    objects.unmatched        1.0 if the file does not know every image of the row, else 0.0; null where the file
                             was not asked: for questions, for text-only prompts and for rows with facts of their own
    =======================  ===================================================================================

    Every other score is null for a row that is not matched. Only objects that the detector can find are judged: a text
    that names another one neither gains nor loses. With several images, an object is there if it is in one of them;
    what captions name is there as well.

    A row may have ``paths`` aligned to its images; without it, images are known by their content alone.

    Args:
        always: whether the file goes before facts of the row's own.

    Raises:
        ValueError: the vocabulary knows none of the detector's classes.
    """

    name = "objects"
    names = (*ObjectScorer.names, "objects.unmatched")

    def __init__(self, vocabulary: Vocabulary, detections: Detections, always: bool = False) -> None:
        self.vocabulary, self.detections, self.always = vocabulary, detections, always
        self.classes = frozenset(filter(None, map(vocabulary.canonical, detections.classes)))
        if not self.classes:
            raise ValueError(
                f"vocabulary {vocabulary.name!r} knows none of the detector's {len(detections.classes)} classes; "
                "use one that maps their names to its objects"
            )
        self.version = f"4:{vocabulary.name}@{vocabulary.version}+{detections.version}{'!' if always else ''}"

    def score(self, rows: Sequence[Row]) -> Scores:
        table = [list(self._row(row)) for row in rows]
        return {name: [[values[i] for values in row] for row in table] for i, name in enumerate(self.names)}

    def verdicts(self, row: Row) -> list[ObjectVerdict] | list[None]:
        """Of each candidate; None where the row is not judged."""
        return self._judged(row)[0]

    def _row(self, row: Row) -> Iterator[tuple[float | None, ...]]:
        verdicts, unmatched = self._judged(row)
        for verdict in verdicts:
            values = values_of(verdict) if verdict is not None else (None,) * len(ObjectScorer.names)
            yield *values, unmatched

    def _judged(self, row: Row) -> tuple[list[ObjectVerdict] | list[None], float | None]:
        """With ``objects.unmatched``."""
        texts = [candidate["text"] for candidate in row["candidates"]]
        annotated = truth_of(row, self.vocabulary)
        if annotated is not None and not self.always:
            return [judge(text, annotated, self.vocabulary, denied=False) for text in texts], None
        if (row["facts"] or {}).get("answer") is not None or not row["images"]:
            return [None] * len(texts), None
        if (truth := self._truth(row)) is None:
            return [None] * len(texts), 1.0
        return [judge(text, truth, self.vocabulary, self.classes, denied=False) for text in texts], 0.0

    def _truth(self, row: Row) -> frozenset[str] | None:
        paths = row.get("paths") or [None] * len(row["images"])
        of_images = [self.detections.labels_of(image, path) for image, path in zip(row["images"], paths, strict=True)]
        matched = [labels for labels in of_images if labels is not None]
        if len(matched) < len(of_images):
            return None
        return frozenset().union(*matched, caption_objects(row["facts"], self.vocabulary))


class _Malformed(ValueError):
    pass


def _labels(detections: Iterable[_Detection], threshold: float) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """What is in each image, and every label there is."""
    labels: dict[str, set[str]] = {}
    seen = set()
    for detection in detections:
        of_image = labels.setdefault(detection.image, set())
        if detection.label is None:
            continue
        if not 0 <= detection.score <= 1:  # not a number fails too
            raise _Malformed(f"{detection.place}: score={detection.score} is not between 0 and 1; write probabilities")
        seen.add(detection.label)
        if detection.score >= threshold:
            of_image.add(detection.label)
    return {image: frozenset(names) for image, names in labels.items()}, frozenset(seen)


def _read_list(content: Any) -> Iterator[_Detection]:
    for place, image, detections in _entries(content):
        if not isinstance(detections, list):
            raise _Malformed(
                f"{place}: detections is {str(detections)[:80]!r}; give a list, empty if nothing was found"
            )
        yield _Detection(image, None, math.nan, place)
        for number, detection in enumerate(detections):
            at = f"{place}, detection {number}"
            yield _Detection(image, _get(detection, "label", str, at), _get(detection, "score", (int, float), at), at)


def _entries(content: Any) -> Iterator[tuple[str, str, Any]]:
    if isinstance(content, Mapping):
        for image, value in content.items():
            inner = value.get("detections") if isinstance(value, Mapping) else value
            yield f"image {image!r}", image, inner
    elif isinstance(content, list):
        for number, entry in enumerate(content):
            place = f"entry {number}"
            if isinstance(entry, Mapping) and {"image_id", "category_id"} <= entry.keys():
                raise _Malformed(
                    f"{place} is of COCO's results format, which names neither images nor classes; "
                    'write {"images": [...], "categories": [...], "annotations": this list}'
                )
            yield place, _get(entry, "image", str, place), _get(entry, "detections", list, place)
    else:
        raise _Malformed(f"holds {str(content)[:80]!r}; give a list of entries, or an object keyed by image")


def _is_coco(content: Any) -> bool:
    return isinstance(content, Mapping) and content.keys() >= _COCO and isinstance(content["categories"], list)


def _read_coco(content: Mapping[str, Any]) -> tuple[list[_Detection], frozenset[str]]:
    names, classes = _by_id(content, "images", "file_name"), _by_id(content, "categories", "name")
    result = [_Detection(name, None, math.nan, "images") for name in names.values()]
    for number, annotation in enumerate(_get(content, "annotations", list, "the file")):
        at = f"annotations, entry {number}"
        image, category = _get(annotation, "image_id", (int, str), at), _get(annotation, "category_id", (int, str), at)
        for key, value, numbered in (("image_id", image, names), ("category_id", category, classes)):
            if value not in numbered:
                raise _Malformed(f"{at}: {key}={value!r} is not in the file's own list; add it, or remove the entry")
        score = _get(annotation, "score", (int, float), at) if "score" in annotation else 1.0
        label = None if _flat(annotation.get("bbox")) else classes[category]  # without an area it shows nothing
        result.append(_Detection(names[image], label, score, at))
    return result, frozenset(classes.values())


def _by_id(content: Mapping[str, Any], part: str, name: str) -> dict[Any, str]:
    entries = ((entry, f"{part}, entry {number}") for number, entry in enumerate(_get(content, part, list, "the file")))
    by_id: dict[Any, str] = {}
    for entry, at in entries:
        key, value = _get(entry, "id", (int, str), at), _get(entry, name, str, at)
        if by_id.setdefault(key, value) != value:
            raise _Malformed(f"{at}: id {key!r} is {by_id[key]!r} and {value!r}; give every one an id of its own")
    return by_id


def _flat(box: Any) -> bool:
    """Whether a box ``[x, y, width, height]`` has no area."""
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)
    return numbers and min(box[2:]) <= 0


def _get(entry: Any, key: str, kind: type | tuple[type, ...], place: str) -> Any:
    if not isinstance(entry, Mapping):
        raise _Malformed(f"{place} is {str(entry)[:80]!r}; give an object with {key}")
    if key not in entry:
        raise _Malformed(f"{place}: lacks {key}; it has {', '.join(map(str, entry)) or 'nothing'}")
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = " or ".join(option.__name__ for option in (kind if isinstance(kind, tuple) else (kind,)))
        raise _Malformed(f"{place}: {key} is {str(value)[:80]!r}; give a {kinds}")
    return value


def _parts(path: str) -> list[str]:
    """The folders and the name of a path, a URL or a member of a tar.

    >>> _parts("./a/b.jpg"), _parts("tar:///x/a.tar#offset=1&size=2&name=in/b%20c.jpg")
    (['a', 'b.jpg'], ['in', 'b c.jpg'])
    """
    if path.startswith("tar://"):
        path = unquote(path.rpartition("&name=")[2])
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    return parts or [path]
