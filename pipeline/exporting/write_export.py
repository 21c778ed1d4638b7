"""Write a published dataset as the folder of files that another project trains on.

The folder is there whole or not at all. It is filled under another name, which has the process's number in it, and then
takes its own; what a killed export has left is removed by the next one of the same name. A folder that holds anything
but an earlier export is never touched.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.base import files
from pipeline.base.errors import InputError
from pipeline.base.sweep import sweep_shared
from pipeline.exporting import published_pairs
from pipeline.exporting.export_format import ExportFormat
from pipeline.exporting.published_pairs import PublishedPair

#: Begins the README of an export, by which it is told from other people's folders.
_MARK = "---\nwritten_by: pipeline.export\n---\n"
_README = "README.md"
_FILES = frozenset({".json", ".jsonl", ".parquet"})
#: What LLaMA-Factory's list of datasets is called, so no dataset may be.
_TAKEN = "dataset_info"


@dataclass(frozen=True)
class Exported:
    """``left_out`` counts the rows that the format cannot contain, by reason."""

    pairs: int
    images: int
    left_out: Mapping[str, int]


def export(
    export_format: ExportFormat,
    dataset: Path,
    out: Path,
    skip_unfit: bool = False,
    show: Callable[[int, int], object] = lambda done, total: None,
) -> Exported:
    """Write the pairs of ``dataset`` into the folder ``out``. ``show`` is told how many rows of how many are read.

    Raises:
        InputError: the folder is no published dataset, an image is gone, ``out`` is taken, not a single row fits, or
            without ``skip_unfit`` a row does not.
        StoreError: the disk is full, or ``out`` cannot be written.
    """
    _check_free(out)
    pairs = published_pairs.open_published(dataset)
    left_out: Counter[str] = Counter()
    written = 0

    def fitting_pairs() -> Iterator[PublishedPair]:
        nonlocal written
        for number, pair in enumerate(published_pairs.read(pairs), 1):
            reason = export_format.misfit(pair)
            if reason is None:
                written += 1
                yield pair
            elif skip_unfit:
                left_out[reason] += 1
            else:
                raise InputError(
                    f"id {pair.id!r}: {reason}; {export_format.title}'s format cannot say that",
                    "remove the row, or give --skip-unfit, which leaves such rows out and counts them",
                )
            show(number, len(pairs))

    name = dataset_name(out)
    working = f"{out.resolve().name}.export"
    place = out.resolve().parent
    files.make_folder(place)
    sweep_shared(place, f".{working}.")
    partial, aside = (place / f".{working}.{kind}{os.getpid()}{files.PARTIAL}" for kind in ("", "old."))
    try:
        partial.mkdir()
        images = export_format.write(partial, name, fitting_pairs())
        if not written:
            counts = ", ".join(f"{reason}: {count}" for reason, count in left_out.most_common())
            raise InputError(
                f"not one row of {dataset} can be said in {export_format.title}'s format ({counts or 'it has none'})",
                "choose another format",
            )
        done = Exported(written, images, left_out)
        (partial / _README).write_text(_readme(export_format, name, done), encoding="utf-8")
        if (licence := published_pairs.licence_file(dataset)) is not None:
            shutil.copyfile(licence, partial / licence.name)
        files.sync_tree(partial)
        if out.exists():
            files.move(out.resolve(), aside)
        files.move(partial, out.resolve())
    except OSError as error:
        raise files.disk_error(out, error) from error
    finally:
        files.remove_tree(partial)
        if aside.exists() and not out.exists():
            files.move(aside, out.resolve())
        files.remove_tree(aside)
    return done


def dataset_name(out: Path) -> str:
    """What the dataset is called: as its folder, in letters that no command line or list of datasets takes apart.

    >>> dataset_name(Path("exports/my photos, 2"))
    'my_photos_2'
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", out.resolve().name).strip("_.-")
    return name if name and name != _TAKEN else "pairs"


def _check_free(out: Path) -> None:
    """
    Raises:
        InputError: something of others lies there.
    """
    if out.suffix in _FILES and not out.is_dir():
        raise InputError(f"{out} names a file, and an export is a folder", f"give {out.with_suffix('')}")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, and an export is a folder", "give the name of a new folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    readme = out / _README
    if not readme.is_file() or not readme.read_text(encoding="utf-8", errors="replace").startswith(_MARK):
        raise InputError(f"{out} holds files that are no export", "give the name of a new folder")


def _readme(export_format: ExportFormat, name: str, done: Exported) -> str:
    lines = [
        _MARK,
        f"# {name}: preference pairs for {export_format.title}",
        "",
        f"{done.pairs} pairs and {done.images} images, written by `python -m pipeline.export {export_format.name}`.",
        *(f"Left out: {count} rows ({reason})." for reason, count in done.left_out.items()),
        "To train on them, with this folder in the place of OUT:",
        "",
        f"    {export_format.use('OUT', name)}",
    ]
    return "\n".join(lines) + "\n"
