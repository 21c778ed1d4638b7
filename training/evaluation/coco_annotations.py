"""COCO annotations: which objects are in which image, and what people wrote about it.

The files are read one element at a time, so those of COCO 2014 (two instances files of some 400 MB together, two of
captions) need little memory beyond what is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.sources.readers import fields
from pipeline.sources.readers.elements import elements
from training.errors import DataError
from training.evaluation.words.coco_words import Words


@dataclass(frozen=True, slots=True)
class Annotated:
    """``categories`` are distinct, in the order in which the file annotates them."""

    file: str
    categories: tuple[str, ...]


def paths(data: Path, kind: str) -> list[Path]:
    """The annotation files of a kind, "instances" or "captions", in a folder; those of COCO 2017, which gives the same
    images other names, only where there are no others.

    Raises:
        DataError: there is none.
    """
    files = sorted(data.glob(f"{kind}_*.json"))
    if not files:
        raise DataError(f"{data} holds no {kind}_*.json; put COCO's annotations there (docs/evaluation.md)")
    return [path for path in files if "2017" not in path.name] or files


def instances(paths: Iterable[Path]) -> dict[int, Annotated]:
    """Every image of the instances files by its id, those without an object included.

    Raises:
        DataError: a file is missing or malformed, or an annotation's category or image is not listed.
    """
    images: dict[int, str] = {}
    names: dict[int, str] = {}
    categories: dict[int, dict[int, None]] = {}
    for path in paths:
        for key, item, where in _elements(path):
            try:
                if key == "images":
                    image, file = fields.number(item, "id"), fields.text(item, "file_name")
                    if images.setdefault(image, file) != file:
                        raise ValueError(f"image {image} is {images[image]!r} and {file!r}")
                elif key == "categories":
                    names[fields.number(item, "id")] = fields.text(item, "name")
                elif key == "annotations":
                    image, category = (fields.number(item, name) for name in ("image_id", "category_id"))
                    categories.setdefault(image, {})[category] = None
            except (KeyError, TypeError, ValueError) as error:
                raise _malformed(where, error) from error
    unknown = sorted({category for of_image in categories.values() for category in of_image} - names.keys())
    if unknown:
        raise DataError(f"category {unknown[0]} is annotated but not listed; give the whole instances files")
    lost = sorted(categories.keys() - images.keys())
    if lost:
        raise DataError(f"image {lost[0]} is annotated but not listed; give the whole instances files")
    return {id: Annotated(file, tuple(names[key] for key in categories.get(id, ()))) for id, file in images.items()}


def captions(paths: Iterable[Path], wanted: Container[int]) -> dict[int, list[str]]:
    """The captions of the wanted images, in the order of the files. One that a file lists among its images and nobody
    has described has none; one that no file knows is not there.

    Raises:
        DataError: a file is missing or malformed.
    """
    texts: dict[int, list[str]] = {}
    for path in paths:
        for key, item, where in _elements(path):
            if key not in ("annotations", "images"):
                continue
            try:
                if key == "images":
                    if (image := fields.number(item, "id")) in wanted:
                        texts.setdefault(image, [])
                    continue
                image, text = fields.number(item, "image_id"), item["caption"]
                if not isinstance(text, str):
                    raise ValueError(f"caption is {text!r:.80}, which is no text")
            except (KeyError, TypeError, ValueError) as error:
                raise _malformed(where, error) from error
            if image in wanted:
                texts.setdefault(image, []).append(text)
    return texts


def truths(data: Path, annotated: Mapping[int, Annotated], ids: Collection[int], words: Words) -> dict[int, list[str]]:
    """The objects of each image, sorted: what is annotated and what its captions name, both as ``words`` reads them.

    Raises:
        DataError: the captions are missing or malformed, those of an image are in no file, or a category is not in the
            list of synonyms.
    """
    written = captions(paths(data, "captions"), frozenset(ids))
    lost = [id for id in ids if id not in written]
    if lost:
        raise DataError(
            f"image {lost[0]} has no caption in captions_*.json of {data} ({len(lost)} of {len(ids)} have none): what "
            "captions name is there, so add the file of its split; or list the image in that file's 'images', if "
            "nobody has described it"
        )
    return {id: sorted(words.truth(annotated[id].categories, written[id])) for id in ids}


def _elements(path: Path) -> Iterable[tuple[str | None, Any, str]]:
    try:
        for number, (key, item) in enumerate(elements(str(path)), 1):
            yield key, item, f"{path}, element {number} (in {key!r})"
    except InputError as error:
        raise DataError(f"{error.message}; {error.remedy}") from error


def _malformed(where: str, error: Exception) -> DataError:
    what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
    return DataError(f"{where}: {what}; give COCO's own annotations of objects (instances) or captions")
