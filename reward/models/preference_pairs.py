"""Preference pairs from a dataset: what somebody, or exact facts, found better and worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base import json_files, named_datasets, nesting
from pipeline.base.dataset_files import READERS, check, is_missing, reader
from pipeline.base.images import references
from pipeline.base.images.image_files import Refused, Roots, load
from pipeline.base.images.pixels import MAX_BYTES
from pipeline.base.images.pixels import check as check_image
from pipeline.base.images.tags import in_front
from reward.models.conversation import Conversation

#: What the commands call where images may lie.
OPTIONS = ("--image-root", "--allow-http")
_COLUMNS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Pair:
    """``prompt`` is (role, text) of every message, ``images`` are encoded files; ``rejected_images`` are those of the
    rejected side where they are others. ``margin`` is how much better the chosen one is, and ``kind`` the kind of error
    in the rejected one, both where the dataset says."""

    images: tuple[bytes, ...]
    prompt: tuple[tuple[str, str], ...]
    chosen: str
    rejected: str
    margin: float | None = None
    kind: str | None = None
    rejected_images: tuple[bytes, ...] | None = None

    def conversation(self, response: str, images: tuple[bytes, ...] | None = None) -> Conversation:
        return Conversation(self.images if images is None else images, (*self.prompt, ("assistant", response)))


def read_pairs(
    dataset: str,
    split: str | None = None,
    margin: str | None = None,
    image_root: str | None = None,
    allow_http: bool = False,
) -> list[Pair]:
    """Every row of a dataset with TRL's columns ``images`` (optional, under any name of
    ``pipeline.base.images.references``),
    ``prompt``, ``chosen`` and ``rejected``, as texts or as messages. Columns ``system``, ``rejected_images`` and
    ``kind`` are read where they are.

    Args:
        dataset: a folder of ``save_to_disk`` (of a published dataset its ``pairs``), a .json, .jsonl (.gz, .bz2,
            .xz) or .parquet file, or what ``load_dataset`` takes.
        margin: the column that says how much better the chosen one is.
        image_root: what image paths are relative to and may not leave; by default the dataset's folder.
        allow_http: follow http(s) addresses in rows.

    Raises:
        ValueError: the dataset or a row of it cannot be used; the message names the row.
    """
    rows = _open(dataset, split)
    wanted = [*_COLUMNS, *([margin] if margin else [])]
    if missing := [name for name in wanted if name not in rows.column_names]:
        raise ValueError(f"dataset {dataset}: no column {', '.join(missing)} among {', '.join(rows.column_names)}")
    if not len(rows):
        raise ValueError(f"dataset {dataset}: has no rows")
    roots = roots_of(dataset, image_root, allow_http)
    pairs = []
    for number, row in enumerate(rows):
        try:
            pairs.append(_pair(row, roots, margin))
        except (ValueError, TypeError, KeyError, OSError, Refused) as error:
            raise ValueError(f"dataset {dataset}, row {number}: {error}; correct or drop the row") from error
    return pairs


def _open(dataset: str, split: str | None) -> Any:
    import datasets

    place = Path(dataset)
    if is_missing(dataset):
        raise ValueError(f"dataset {dataset}: cannot be opened (there is no such file or folder); check the path")
    try:
        if place.exists():
            check(place)
        if place.is_file():
            loaded = _open_file(place)
        elif any((place / name).is_file() for name in ("state.json", "dataset_dict.json")):
            loaded = datasets.load_from_disk(dataset)
        else:
            config = "pairs" if "pairs" in datasets.get_dataset_config_names(dataset) else None
            loaded = named_datasets.load(dataset, config)
        if isinstance(loaded, dict):
            loaded = loaded[split or ("pairs" if "pairs" in loaded else "train")]
    except Exception as error:  # datasets, huggingface_hub and fsspec each raise their own kinds
        raise ValueError(f"dataset {dataset}: cannot be opened ({type(error).__name__}: {str(error)[:500]})") from error
    for name in (*references.IMAGES, "rejected_images"):
        if name in loaded.column_names:
            feature = loaded.features[name]
            raw = datasets.Image(decode=False)
            if isinstance(feature, datasets.Image):
                loaded = loaded.cast_column(name, raw)
            elif isinstance(getattr(feature, "feature", None), datasets.Image):
                loaded = loaded.cast_column(name, datasets.List(raw))
    return loaded


def _open_file(place: Path) -> Any:
    import datasets

    kind = reader(place)
    if kind is None:
        raise ValueError(f"is a file of no known kind; known: {', '.join(READERS)}")
    if kind != "json":
        return datasets.load_dataset(kind, data_files=str(place))
    nesting.refuse(place)
    return json_files.load([place])


def _pair(row: Mapping[str, Any], roots: Roots, margin: str | None) -> Pair:
    # Other images than the pair's are read from their own column.
    column = references.find({name: value for name, value in row.items() if name != "rejected_images"})
    images = [] if column is None else column if isinstance(column, list) else [column]
    prompt = row["prompt"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not messages:
        raise ValueError("prompt has no message")
    texts = [{"role": message["role"], "content": _text(message["content"])} for message in messages]
    others = _others(row.get("rejected_images"), len(images))
    pair = Pair(
        images=tuple(image_content(image, roots) for image in images),
        prompt=_with_system(in_front(texts, len(images)), row.get("system")),
        chosen=_response(row["chosen"], "chosen"),
        rejected=_response(row["rejected"], "rejected"),
        margin=None if margin is None else _margin(row[margin], margin),
        kind=None if row.get("kind") is None else str(row["kind"]),
        rejected_images=None if others is None else tuple(image_content(image, roots) for image in others),
    )
    if pair.chosen == pair.rejected and pair.rejected_images in (None, pair.images):
        raise ValueError("chosen and rejected are the same text about the same images")
    return pair


def _others(value: Any, images: int) -> list[Any] | None:
    """The other images of the rejected side; None where a row has none, for which an empty list stands, too."""
    if not references.is_filled(value):
        return None
    others = value if isinstance(value, list) else [value]
    if len(others) != images:
        raise ValueError(f"rejected_images has {len(others)} image(s) for a prompt about {images}; make them equal")
    return others


def _with_system(messages: Sequence[Mapping[str, str]], system: Any) -> tuple[tuple[str, str], ...]:
    """The prompt with the text of the column ``system`` before it; empty is none."""
    prompt = tuple((message["role"], message["content"]) for message in messages)
    if system is None or system == "":
        return prompt
    if not isinstance(system, str):
        raise ValueError(f"column system is {system!r:.80}; give a text")
    if prompt[0][0] != "system":
        return (("system", system), *prompt)
    if prompt[0][1] != system:
        raise ValueError("has a column system and another system turn in its prompt; keep one of them")
    return prompt


def _margin(value: Any, column: str) -> float:
    known = value is not None and not isinstance(value, bool)
    number = float(value) if known else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{column} is {value!r}, and no number says how much better the chosen one is")
    return number


def _response(value: Any, column: str) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, Sequence) and len(value) == 1 and value[0]["role"] == "assistant":
        text = _text(value[0]["content"])
    else:
        raise ValueError(f"{column} is neither a text nor one message of the assistant")
    if not text.strip():
        raise ValueError(f"{column} is empty")
    return text


def _text(content: Any) -> str:
    """Of a text, or of the text parts of a message; images stand before them, wherever the parts put them."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def roots_of(dataset: str, image_root: str | None, allow_http: bool) -> Roots:
    """Where the images of a dataset may lie: below ``image_root``, or its folder."""
    place = Path(dataset)
    root = str(place if place.is_dir() else place.parent) if image_root is None else image_root
    return Roots.of((root,), allow_http, OPTIONS)


def image_content(image: Any, roots: Roots) -> bytes:
    """The file of an image, whose size and format are those that sources take.

    Raises:
        Refused: its path leads out of the roots.
        OSError: there is no such file.
        BadImage: it is too large, or no image.
    """
    if isinstance(image, str | bytes):
        image = {"bytes": image, "path": None} if isinstance(image, bytes) else {"bytes": None, "path": image}
    data = image.get("bytes")
    path = roots.resolve(image["path"]) if data is None else None
    content = load({"bytes": data, "path": path}, MAX_BYTES)
    check_image(content)
    return content
