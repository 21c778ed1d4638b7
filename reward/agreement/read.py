"""Prompts with their texts and scores, from a run directory, a published dataset, or labelled pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reward.agreement.truth import Prompt


def read(dataset: str, split: str | None = None) -> list[Prompt]:
    """
    Raises:
        ValueError: it is none of the three, or a row cannot be read.
    """
    place = Path(dataset)
    if all((place / stage).is_dir() for stage in ("source", "sample", "score")):
        return list(_run(place))
    if (place / "candidates").is_dir():
        return list(_published(place))
    return list(_labelled(dataset, split))


def _run(folder: Path) -> Iterator[Prompt]:
    for path in sorted((folder / "score").glob("data-*.arrow")):
        source, sample = (_by_id(folder / stage / path.name) for stage in ("source", "sample"))
        for row in _rows(path):
            asked, answered = source.get(row["id"]), sample.get(row["id"])
            if row["status"] != "ok" or asked is None or answered is None:
                continue
            texts = tuple(one["text"] for one in answered["candidates"])
            scores = {one["name"]: tuple(one["values"]) for one in row["scores"]}
            yield Prompt(row["id"], _images(asked["images"]), _messages(asked), texts, scores, asked["facts"])


def _published(folder: Path) -> Iterator[Prompt]:
    import datasets

    candidates = _raw_images(datasets.load_from_disk(str(folder / "candidates")))
    in_pairs: dict[str, Any] = {}
    if "images" not in candidates.column_names and (folder / "pairs").is_dir():
        pairs = _raw_images(datasets.load_from_disk(str(folder / "pairs")))
        in_pairs = {row["id"]: row["images"] for row in pairs}
    for row in candidates:
        if row["error_type"] is not None:
            continue
        names = dict.fromkeys(one["name"] for text in row["candidates"] for one in text["scores"])
        values = [{one["name"]: one["value"] for one in text["scores"]} for text in row["candidates"]]
        images = row.get("images") or in_pairs.get(row["id"])
        texts = tuple(text["text"] for text in row["candidates"])
        scores = {name: tuple(of_text.get(name) for of_text in values) for name in names}
        yield Prompt(row["id"], _images(images) if images is not None else None, _messages(row), texts, scores)


def _labelled(dataset: str, split: str | None) -> Iterator[Prompt]:
    from reward.pairs import read_pairs

    for number, pair in enumerate(read_pairs(dataset, split)):
        texts = (pair.chosen, pair.rejected)
        yield Prompt(str(number), pair.images, pair.prompt, texts, {}, label=pair.kind or "label")


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        rows: list[dict[str, Any]] = reader.read_all().to_pylist()
        return rows


def _by_id(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        raise ValueError(f"{path} is missing; finish the run first")
    return {row["id"]: row for row in _rows(path) if row["status"] == "ok"}


def _raw_images(dataset: Any) -> Any:
    import datasets

    if "images" not in dataset.column_names:
        return dataset
    return dataset.cast_column("images", datasets.List(datasets.Image(decode=False)))


def _images(images: Any) -> tuple[bytes, ...] | None:
    """None if one of them lies where only the pipeline finds it (in a tar, or behind a URL)."""
    found = []
    for image in images:
        data = image["bytes"]
        if data is None:
            path = Path(image["path"])
            if "://" in str(image["path"]) or not path.is_file():
                return None
            data = path.read_bytes()
        found.append(data)
    return tuple(found)


def _messages(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in row["prompt"])
