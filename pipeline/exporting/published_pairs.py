"""The pairs of a published dataset, one after the other, whatever columns it has besides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.base import dataset_files
from pipeline.base.errors import InputError, shorten
from pipeline.base.images import image_files, pixels

if TYPE_CHECKING:
    import datasets

Message = Mapping[str, str]

_MESSAGE = frozenset({"role", "content"})
#: The columns, and what each of their items has.
_NEEDED = {
    "id": frozenset(),
    "images": frozenset({"bytes", "path"}),
    **dict.fromkeys(("prompt", "chosen", "rejected"), _MESSAGE),
}
_ROWS = 32


@dataclass(frozen=True)
class PublishedPair:
    """One row. ``id`` is that of the prompt, with ``-2``, ``-3``, ... for its further pairs: no two rows share one.
    ``images`` are ``{"bytes": ..., "path": ...}``, and ``source`` says where the prompt came from, or is empty."""

    id: str
    images: tuple[Mapping[str, Any], ...]
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    source: str = ""

    def files(self) -> Iterator[bytes]:
        """The images as ``pipeline.base.images.pixels.final`` gives them: every reader sees the same in them.

        Raises:
            InputError: one is gone or no image any more.
        """
        for image in self.images:
            try:
                if image["bytes"] is None and not image["path"]:
                    raise OSError("neither bytes nor a path")
                yield pixels.final(image_files.load(image))
            except (OSError, pixels.BadImage) as error:
                reason = getattr(error, "strerror", None) or error
                place = image_files.public(image["path"] or "in the row")
                raise InputError(
                    f"id {self.id!r}: the image {place} cannot be read ({reason})",
                    "put it back, or publish with publish.images=embed",
                ) from error


def open_published(folder: Path) -> datasets.Dataset:
    """The table ``pairs`` of the folder that a run has published, of the run's own folder, or of ``pairs`` itself.

    Raises:
        InputError: there is none, it is damaged, or it has not the columns.
    """
    remedy = "give the folder `dataset` of a run, or its folder `pairs`"
    place = next((inner for inner in (folder / "dataset", folder) if inner.is_dir()), folder)
    try:
        dataset_files.check(place)
        import datasets

        pairs = datasets.load_from_disk(str(place))
    except Exception as error:  # the library raises OSError, ValueError and its own
        reason = shorten(" ".join(str(error).split()), 200)
        raise InputError(f"cannot open the dataset {folder} ({type(error).__name__}: {reason})", remedy) from error
    if isinstance(pairs, datasets.DatasetDict):
        if "pairs" not in pairs:
            raise InputError(f"{folder} has the tables {', '.join(pairs)}, and none called pairs", remedy)
        pairs = pairs["pairs"]
    schema = pairs.features.arrow_schema
    wrong = [name for name, keys in _NEEDED.items() if name not in schema.names or not keys <= _keys(schema, name)]
    if wrong:
        raise InputError(f"{folder} has no column {', '.join(wrong)} as a run publishes it", remedy)
    return pairs


def licence_file(folder: Path) -> Path | None:
    """What says under which licence the published dataset may be used; None where nothing does."""
    places = (folder / "dataset", folder, *([folder.parent] if folder.name == "pairs" else ()))
    return next((place / "LICENSE" for place in places if (place / "LICENSE").is_file()), None)


def _keys(schema: pa.Schema, name: str) -> set[str]:
    """Of the items of a list."""
    inner = getattr(schema.field(name).type, "value_type", None)
    return {field.name for field in inner} if inner is not None and pa.types.is_struct(inner) else set()


def read(pairs: datasets.Dataset) -> Iterator[PublishedPair]:
    """Every row, in order. Memory does not grow with the dataset but for the ids."""
    columns = [name for name in (*_NEEDED, "source") if name in pairs.column_names]
    ids: set[str] = set()
    for table in pairs.select_columns(columns).with_format("arrow").iter(batch_size=_ROWS):
        for row in table.to_pylist():
            numbers = itertools.count(2)
            pair_id = str(row["id"])
            while pair_id in ids:
                pair_id = f"{row['id']}-{next(numbers)}"
            ids.add(pair_id)
            messages = {name: tuple(row[name] or ()) for name in ("prompt", "chosen", "rejected")}
            yield PublishedPair(pair_id, tuple(row["images"] or ()), **messages, source=row.get("source") or "")
