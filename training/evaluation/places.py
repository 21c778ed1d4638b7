"""Where the files and images of a benchmark lie: in the folder of its name, or as their authors give them out.

A place such as ``POPE/output/coco`` is looked for below the folder of all benchmarks and below that of the suite, whole
and without its first folders, so that ``--data`` may be where several clones lie, one of them, or any folder on the way
to the files. Upper and lower case are alike, and ``POPE-main``, the archive of a branch, is ``POPE``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.errors import DataError
from training.evaluation import benchmark_files

#: COCO as its archives are unpacked, alone or in a folder of its own.
COCO_IMAGES = tuple(
    f"{coco}/{split}"
    for split in ("val2014", "train2014", "val2017", "train2017")
    for coco in ("coco", "coco/images", "coco2014")
)
#: What RLHF-V's and RLAIF-V's repositories read their benchmarks from.
RLAIF_V = ("RLAIF-V/eval/data", "RLHF-V/eval/data")
_BRANCHES = ("-main", "-master")


@dataclass(frozen=True)
class Files:
    """Files that lie in one folder.

    Args:
        marks: patterns, by a match of one of which the folder is known. No other benchmark has such files.
        source: where they come from, for messages.
        places: folders in which their authors give them out, from the name of a repository or an archive on.
        own: patterns that are marks in the folder of the suite's name alone: others have files of these names, too.
        remedy: what may be done but to put them there.
        single: whether what is wanted is one file, and not its folder.
    """

    marks: tuple[str, ...]
    source: str
    places: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    remedy: str = "give another --data DIR"
    single: bool = False

    def path(self, folder: Path) -> Path:
        """What is wanted, in the folder that ``find`` has found."""
        names = (name for name in (*self.marks, *self.own) if (folder / name).is_file())
        return folder / next(names) if self.single else folder


COCO_ANNOTATIONS = Files(
    marks=("instances_*.json",),
    source="annotations_trainval2014.zip of cocodataset.org",
    places=("coco/annotations", "coco2014/annotations"),
)


def find(files: Files, data: Path, folder: str, suite: str, beside: Sequence[Path] = ()) -> Path:
    """The folder of ``data`` that holds the files: the one named ``folder``, one of those ``beside``, or one of
    ``Files.places``.

    Raises:
        DataError: there is none, or two hold files that differ.
    """
    own = _folders(data, folder)
    direct = next((place for place in [*own, *beside] if _has(place, (*files.marks, *files.own))), None)
    if direct is not None:
        return direct
    paths = _paths(files.places)
    for bases, rest in ((own, []), ([data], [data])):
        candidates = [*(place for path in paths for base in bases for place in _folders(base, path)), *rest]
        matches = [place for place in _distinct(candidates) if _has(place, files.marks)]
        for other in matches[1:]:
            if _digest(other, files.marks) != _digest(matches[0], files.marks):
                raise DataError(
                    f"suite {suite}: {matches[0]} and {other} both hold {_list(files.marks)}, and differ; put those "
                    f"that are meant in {data / folder}, or {files.remedy}"
                )
        if matches:
            return matches[0]
    folders = dict.fromkeys([folder, *(_within(place, data) for place in beside), *paths])
    raise DataError(
        f"suite {suite}: there is no {_list((*files.marks[:2], *files.own))} in {data}, nor in its folders "
        f"{_list(folders)}; clone or unpack {files.source} there, or {files.remedy} (docs/evaluation.md)"
    )


def image_folders(images: Path | None, data: Path, folder: str, files: Path, places: Iterable[str]) -> list[Path]:
    """The folders that are there of those in which images are looked for, in order: ``images`` and what is in it, then
    ``images`` beside the files, then ``places`` beside the files and in ``data``.

    Args:
        images: what ``--images`` names.
        folder: the name of the suite's folder.
        files: the folder with its files.
    """
    paths = _paths(places)
    roots = [] if images is None else [(images, folder), (images, ""), *((images, path) for path in paths)]
    own = [*_folders(data, folder), files]
    roots += [(base, "images") for base in own] + [(base, path) for base in [*own, data] for path in paths]
    return _distinct(place for base, path in roots for place in _folders(base, path))


def _paths(places: Iterable[str]) -> list[str]:
    """
    >>> _paths(["POPE/output/coco", "coco"])
    ['POPE/output/coco', 'output/coco', 'coco']
    """
    parts = [place.split("/") for place in places]
    return list(dict.fromkeys("/".join(path[start:]) for path in parts for start in range(len(path))))


def _folders(base: Path, path: str) -> list[Path]:
    """The folders that are there by this path, whatever their case."""
    folders = [base] if base.is_dir() else []
    for name in path.split("/") if path else ():
        folders = [inner for folder in folders for inner in _named(folder, name)]
    return folders


def _named(folder: Path, name: str) -> list[Path]:
    if (folder / name).is_dir():
        return [folder / name]
    alike = {name.lower() + branch for branch in ("", *_BRANCHES)}
    try:
        return sorted(inner for inner in folder.iterdir() if inner.name.lower() in alike and inner.is_dir())
    except OSError:  # a folder of somebody else
        return []


def _distinct(folders: Iterable[Path]) -> list[Path]:
    unique: dict[Path, Path] = {}
    for folder in folders:
        unique.setdefault(folder.resolve(), folder)
    return list(unique.values())


def _has(folder: Path, patterns: Iterable[str]) -> bool:
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))


def _digest(folder: Path, patterns: Iterable[str]) -> str:
    return benchmark_files.digest(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def _within(folder: Path, data: Path) -> str:
    return folder.relative_to(data).as_posix() if folder.is_relative_to(data) and folder != data else str(folder)


def _list(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
