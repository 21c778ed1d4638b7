"""Write a published dataset in the format of PDS-DPO: ``python -m pipeline.pds DATASET OUT.json``.

DATASET is ``runs/NAME/dataset``. OUT.json becomes a list of ``{"id", "image", "conversations",
"rejected_conversations"}``, and ``images/`` beside it holds every image once, as ``pipeline.base.images.pixels.final``
gives it. What is read back with ``source.kind=pds`` has the same texts and images.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from pipeline.base.command import command
from pipeline.base.conversations import SIDES, SPEAKERS

FOLDER = "images"
_COLUMNS = ("id", "images", "prompt", "chosen", "rejected")
#: How the files that ``pipeline.base.images.pixels.final`` gives begin.
_SUFFIXES = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8", ".jpg"),
    (b"RIFF", ".webp"),
)


@dataclass(frozen=True)
class Exported:
    pairs: int
    images: int


def export(dataset: Path, out: Path) -> Exported:
    """Write the pairs of ``dataset`` to ``out``, whole or not at all, and their images beside it.

    Memory does not grow with the dataset but for the ids.

    Raises:
        InputError: the folder is no published dataset, an image is gone, or a row cannot be said in this format.
        StoreError: the disk is full, or ``out`` cannot be written.
    """
    from pipeline.base import files

    pictures: set[str] = set()
    pairs = 0

    def write(file: IO[bytes]) -> None:
        nonlocal pairs
        file.write(b"[")
        for row in _rows(dataset):
            names = [_keep(data, out.parent / FOLDER) for data in _images(row)]
            pictures.update(names)
            item = json.dumps(_item(row, names), ensure_ascii=False, indent=2)
            file.write((",\n" if pairs else "\n").encode() + item.encode())
            pairs += 1
        file.write(b"\n]\n")

    files.write_atomic(out, write)
    return Exported(pairs, len(pictures))


def _rows(dataset: Path) -> Iterator[dict[str, Any]]:
    """The pairs, with ids that are unique: a prompt may have several."""
    import datasets

    from pipeline.base.errors import InputError

    try:
        pairs = datasets.load_from_disk(str(dataset))
    except Exception as error:  # the library raises OSError, ValueError and its own
        raise InputError(
            f"cannot open the dataset {dataset} ({type(error).__name__}: {str(error)[:200]})",
            "give the folder `dataset` of a run, or its folder `pairs`",
        ) from error
    if isinstance(pairs, datasets.DatasetDict):
        pairs = pairs.get("pairs", pairs)
    missing = [name for name in _COLUMNS if name not in pairs.column_names]
    if missing:
        raise InputError(
            f"{dataset} has no column {', '.join(missing)}", "give the folder `dataset` of a run, or its folder `pairs`"
        )
    seen: Counter[str] = Counter()
    for table in pairs.select_columns(list(_COLUMNS)).with_format("arrow").iter(batch_size=32):
        for row in table.to_pylist():
            seen[row["id"]] += 1
            again = seen[row["id"]]
            yield {**row, "id": row["id"] if again == 1 else f"{row['id']}-{again}"}


def _item(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    prompt = [_turn(message, row["id"]) for message in row["prompt"]]
    first = next((turn for turn in prompt if turn["from"] == "human"), None)
    if names and first is not None:
        from pipeline.base.images.tags import TAG

        first["value"] = f"{TAG}\n" * len(names) + first["value"]
    image = {} if not names else {"image": names[0] if len(names) == 1 else list(names)}
    return {
        "id": row["id"],
        **image,
        **{side: [*prompt, *_answer(row, of)] for side, of in zip(SIDES, ("chosen", "rejected"), strict=True)},
    }


def _answer(row: Mapping[str, Any], side: str) -> list[dict[str, str]]:
    from pipeline.base.errors import InputError

    if [message["role"] for message in row[side]] != ["assistant"]:
        raise InputError(f"id {row['id']!r}: {side} is not one message of the assistant", "remove the row")
    return [_turn(row[side][0], row["id"])]


def _turn(message: Mapping[str, str], pair_id: str) -> dict[str, str]:
    from pipeline.base.errors import InputError
    from pipeline.base.images.tags import TAG

    role, text = message["role"], message["content"]
    if role not in SPEAKERS or TAG in text:
        what = (
            f"a message of role {role!r}" if role not in SPEAKERS else f"{TAG} in a text, which would become an image"
        )
        raise InputError(f"id {pair_id!r}: {what}; this format cannot say that", "remove the row")
    return {"from": SPEAKERS[role], "value": text}


def _images(row: Mapping[str, Any]) -> Iterator[bytes]:
    from pipeline.base.errors import InputError
    from pipeline.base.images import image_files, pixels

    for image in row["images"] or ():
        try:
            yield pixels.final(image_files.load(image))
        except (OSError, pixels.BadImage) as error:
            why = getattr(error, "strerror", None) or error
            place = image_files.public(image["path"] or "in the row")
            raise InputError(
                f"id {row['id']!r}: the image {place} cannot be read ({why})",
                "put it back, or publish with publish.images=embed",
            ) from error


def _keep(data: bytes, folder: Path) -> str:
    """Write an image that is not there yet; its name in the items is relative to their file."""
    from pipeline.base import files

    suffix = next((suffix for start, suffix in _SUFFIXES if data.startswith(start)), ".bin")
    name = f"{hashlib.sha256(data).hexdigest()[:32]}{suffix}"
    if not (folder / name).exists():
        files.write_atomic(folder / name, lambda file: file.write(data))
    return f"{FOLDER}/{name}"


def main(
    dataset: Annotated[Path, typer.Argument(help="The folder `dataset` of a run.")],
    out: Annotated[Path, typer.Argument(help="The JSON file to write; images go to the folder images/ beside it.")],
) -> None:
    """Write a published dataset in the format of PDS-DPO."""
    done = export(dataset, out)
    typer.echo(f"{done.pairs} pairs in {out}, {done.images} images in {out.parent / FOLDER}")


app = command(main)

if __name__ == "__main__":
    app()
