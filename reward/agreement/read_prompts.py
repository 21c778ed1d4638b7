"""Prompts with their texts and scores, from a run directory, a published dataset, or labelled pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.base.dataset_files import check
from pipeline.base.images.image_files import Refused, Roots
from pipeline.base.images.pixels import BadImage
from reward.agreement.truth import LABEL, Prompt
from reward.models.preference_pairs import OPTIONS, image_content, read_pairs, roots_of


def read(
    dataset: str,
    split: str | None = None,
    image_root: str | None = None,
    allow_http: bool = False,
    with_images: bool = True,
) -> list[Prompt]:
    """Images of a dataset lie below ``image_root``, by default its folder; those of a run where its source has found
    them. Without ``with_images`` those of the first two kinds are not read.

    Raises:
        ValueError: it is none of the three, or a row cannot be read.
    """
    place = Path(dataset)
    if all((place / stage).is_dir() for stage in ("source", "sample", "score")):
        return list(_run_prompts(place, Roots.of((), allow_http, OPTIONS) if with_images else None))
    if (place / "candidates").is_dir():
        return list(_published_prompts(place, roots_of(dataset, image_root, allow_http) if with_images else None))
    return list(_labelled_prompts(dataset, split, image_root, allow_http))


def _run_prompts(folder: Path, roots: Roots | None) -> Iterator[Prompt]:
    for path in sorted((folder / "score").glob("data-*.arrow")):
        source, sample = (_by_id(folder / stage / path.name) for stage in ("source", "sample"))
        for row in _rows(path):
            prompt, answers = source.get(row["id"]), sample.get(row["id"])
            if row["status"] != "ok" or prompt is None or answers is None:
                continue
            texts = tuple(candidate["text"] for candidate in answers["candidates"])
            scores = {score["name"]: tuple(score["values"]) for score in row["scores"]}
            yield Prompt(row["id"], _images(prompt["images"], roots), _messages(prompt), texts, scores, prompt["facts"])


def _published_prompts(folder: Path, roots: Roots | None) -> Iterator[Prompt]:
    import datasets

    try:
        check(folder)
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from error

    candidates = _raw_images(datasets.load_from_disk(str(folder / "candidates")))
    in_pairs: dict[str, Any] = {}
    if "images" not in candidates.column_names and (folder / "pairs").is_dir():
        pairs = _raw_images(datasets.load_from_disk(str(folder / "pairs")))
        in_pairs = {row["id"]: row["images"] for row in pairs}
    for row in candidates:
        if row["error_type"] is not None:
            continue
        names = dict.fromkeys(score["name"] for candidate in row["candidates"] for score in candidate["scores"])
        values = [{score["name"]: score["value"] for score in candidate["scores"]} for candidate in row["candidates"]]
        images = row.get("images") or in_pairs.get(row["id"])
        texts = tuple(text["text"] for text in row["candidates"])
        scores = {name: tuple(of_text.get(name) for of_text in values) for name in names}
        shown = _images(images, roots) if images is not None else None
        yield Prompt(row["id"], shown, _messages(row), texts, scores)


def _labelled_prompts(dataset: str, split: str | None, image_root: str | None, allow_http: bool) -> Iterator[Prompt]:
    pairs = read_pairs(dataset, split, image_root=image_root, allow_http=allow_http)
    for number, pair in enumerate(pairs):
        if pair.rejected_images not in (None, pair.images):
            raise ValueError(
                f"dataset {dataset}, row {number}: its rejected text is about other images, and two texts are compared "
                "about the same ones; leave out such rows, or the column rejected_images"
            )
        texts = (pair.chosen, pair.rejected)
        yield Prompt(str(number), pair.images, pair.prompt, texts, {}, label=pair.kind or LABEL)


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


def _images(images: Any, roots: Roots | None) -> tuple[bytes, ...] | None:
    """None if they are not wanted, or one of them is gone.

    Raises:
        ValueError: one lies where it may not be read.
    """
    if roots is None:
        return None
    try:
        return tuple(image_content(image, roots) for image in images)
    except (OSError, BadImage):
        return None
    except Refused as error:
        raise ValueError(error.reason) from error


def _messages(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in row["prompt"])
