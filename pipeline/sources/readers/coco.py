"""COCO annotations: the boxes of an instances file become ``facts.objects``, captions ``facts.captions``.

Annotations lie in any order. They are held as columns, some 30 bytes for each and the text of a caption.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.images.image_files import public
from pipeline.sources.config import CocoSource
from pipeline.sources.readers import fields, files
from pipeline.sources.readers.boxes import fractions
from pipeline.sources.readers.elements import elements
from pipeline.sources.readers.protocol import Entry, user_turn
from pipeline.sources.readers.roots import root_of


def read(spec: CocoSource) -> Iterator[Entry]:
    root, name = root_of(spec.root, spec.path, spec.allow_http), files.base_name(spec.path)
    instances = _Instances(spec.path)
    captions = _captions(spec.captions) if spec.captions else None
    if captions is not None and captions.of_image.of_none(instances.images):
        raise InputError(
            f"{public(spec.captions or '')}: no caption is about an image of {public(spec.path)}",
            "give the captions of the same split",
        )
    for image, (file, width, height) in instances.images.items():
        objects = instances.objects(image, width, height)
        facts = {"objects": objects, "captions": captions.of(image) if captions else None}
        for prompt in spec.prompts:
            place = f"{name}:{image}"
            annotated = (width, height) if objects else None
            yield Entry([{"bytes": None, "path": file}], user_turn(prompt), facts, place, root, annotated=annotated)


def stamp(spec: CocoSource) -> list[str]:
    return [files.stamp(path) for path in (spec.path, spec.captions) if path]


#: Of an annotation without one.
_NO_ID = -(2**63)


class _Grouped:
    """Numbers of annotations by image. ``add`` them all, then ask ``of``."""

    def __init__(self) -> None:
        self._images = array("q")
        self._order: Any = None

    def add(self, image: int) -> None:
        self._images.append(image)

    def image(self, at: int) -> int:
        return self._images[at]

    def of_none(self, images: Collection[int]) -> bool:
        """Whether there are some, and none is of one of the images."""
        return bool(self._images) and not np.isin(np.frombuffer(self._images, np.int64), list(images)).any()

    def of(self, image: int) -> list[int]:
        if self._order is None:
            images = np.frombuffer(self._images, np.int64) if self._images else np.empty(0, np.int64)
            self._order = np.argsort(images, kind="stable")
            self._sorted = images[self._order]
        start, end = np.searchsorted(self._sorted, [image, image + 1])
        places: list[int] = self._order[start:end].tolist()
        return places


class _Instances:
    def __init__(self, path: str) -> None:
        self.images: dict[int, tuple[str, float, float]] = {}
        self._names: dict[int, str] = {}
        self._of = _Grouped()
        self._category, self._crowd, self._boxes = array("q"), array("b"), array("f")
        self._ids = array("q")
        for number, (key, item) in enumerate(elements(path), 1):
            try:
                self._take(key, item)
            except (KeyError, OverflowError, TypeError, ValueError) as error:
                raise _layout_error(path, key, number, error) from error
        if not self.images:
            raise InputError(f"{public(path)} lists no images", "give an instances file")
        self._again = self._repeated()

    def _take(self, key: str | None, item: Any) -> None:
        if key == "images":
            number = fields.number(item, "id")
            if number in self.images:
                raise ValueError(f"image {number} comes a second time; give every image an id of its own")
            shape = fields.size(item, "width"), fields.size(item, "height")
            self.images[number] = (fields.text(item, "file_name"), *shape)
        elif key == "categories":
            number, name = fields.number(item, "id"), fields.text(item, "name")
            if self._names.setdefault(number, name) != name:
                raise ValueError(f"category {number} is called {self._names[number]!r} and {name!r}; keep one")
        elif key == "annotations":
            image, category = fields.number(item, "image_id"), fields.number(item, "category_id")
            fractions(item["bbox"], 1, 1)  # that it is a box
            self._boxes.extend(item["bbox"])
            self._category.append(category)
            self._crowd.append(bool(item.get("iscrowd", 0)))
            self._ids.append(_annotation_id(item))
            self._of.add(image)

    def _repeated(self) -> frozenset[int]:
        """The annotations that say again what another with their id says, as in files that were merged. Of those that
        say something else each counts: some tools begin anew with their ids in every part."""
        ids = np.frombuffer(self._ids, np.int64) if self._ids else np.empty(0, np.int64)
        order = np.argsort(ids, kind="stable")
        twice = np.diff(ids[order]) == 0
        shared = np.zeros(len(ids), bool)
        shared[1:] |= twice
        shared[:-1] |= twice
        seen: set[tuple[Any, ...]] = set()
        again: set[int] = set()
        for at in order[shared & (ids[order] != _NO_ID)].tolist():
            content = (self._ids[at], *self._content(at))
            if content in seen:
                again.add(at)
            seen.add(content)
        return frozenset(again)

    def _content(self, at: int) -> tuple[Any, ...]:
        return self._of.image(at), self._category[at], self._crowd[at], *self._boxes[4 * at : 4 * at + 4]

    def objects(self, image: int, width: float, height: float) -> list[dict[str, Any]]:
        things: dict[int, dict[str, Any]] = {}
        for at in self._of.of(image):
            if at in self._again:
                continue
            category = self._category[at]
            box = fractions(self._boxes[4 * at : 4 * at + 4].tolist(), width, height)
            if box is None:
                continue  # nothing of it is in the image
            thing = things.setdefault(category, {"name": self._name(category), "count": 0, "boxes": []})
            thing["boxes"].append(box)
            # A crowd is one box around a number nobody counted.
            countable = thing["count"] is not None and not self._crowd[at]
            thing["count"] = thing["count"] + 1 if countable else None
        return [things[category] for category in sorted(things)]

    def _name(self, category: int) -> str:
        if category not in self._names:
            raise InputError(f"an annotation has category {category}, which is not listed", "check the instances file")
        return self._names[category]


def _annotation_id(item: dict[str, Any]) -> int:
    """A number that stands for it, whatever it is: nothing refers to it."""
    value = item.get("id")
    if value is None:
        return _NO_ID
    digest = hashlib.blake2b(repr(value).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


class _Captions:
    def __init__(self) -> None:
        self.of_image, self.texts = _Grouped(), bytearray()
        self.ends = array("q", [0])

    def of(self, image: int) -> list[str]:
        spans = ((self.ends[at], self.ends[at + 1]) for at in self.of_image.of(image))
        return [self.texts[start:end].decode() for start, end in spans]


def _captions(path: str) -> _Captions:
    captions = _Captions()
    for number, (key, item) in enumerate(elements(path), 1):
        if key != "annotations":
            continue
        try:
            image = fields.number(item, "image_id")
            if item["caption"] == "":
                continue  # nothing was said
            text = fields.text(item, "caption").strip()
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise _layout_error(path, key, number, error) from error
        captions.texts += text.encode("utf-8", "replace")
        captions.ends.append(len(captions.texts))
        captions.of_image.add(image)
    return captions


def _layout_error(path: str, key: str | None, number: int, error: Exception) -> InputError:
    what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
    return InputError(
        f"{public(path)}, element {number} (in {key!r}): {what}", "give annotations of objects (instances) or captions"
    )
