"""What in a folder a recipe could read: annotations, tables, pairs, tars, saved datasets, or nothing but images."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from pipeline.base.errors import InputError, PipelineError
from pipeline.base.images import image_files, pixels, references
from pipeline.sources.config import DESCRIBE
from pipeline.sources.kinds import Source
from pipeline.sources.readers import jsonl
from pipeline.sources.readers.elements import elements
from pipeline.sources.readers.folder import SUFFIXES
from pipeline.sources.readers.protocol import Entry, entries

#: Where several could be read, the one that knows most of its images comes first.
KINDS = ("pds", "coco", "visual_genome", "llava", "jsonl", "csv", "parquet", "webdataset", "huggingface", "folder")
#: Folders below the one that is looked into.
DEEPEST = 4
#: Prompts that are looked at. Every category of COCO's annotations is named, which are read as a whole anyway.
LOOK = 200
#: Images that are opened to see whether they can be.
OPENED = 20
_LAYOUT = 'a .jsonl with {"images": ..., "prompt": ..., "answer": ...} in each line would be (docs/sources.md)'
_COCO = {"info", "licenses", "images", "annotations", "categories"}
_SOURCE: TypeAdapter[Any] = TypeAdapter(Source)


@dataclass(frozen=True)
class FolderSource:
    """A source that can be read. ``objects`` are the names of its facts, in the order in which they come."""

    kind: str
    options: Mapping[str, Any]
    objects: tuple[str, ...] = ()
    regions: bool = False
    answers: bool = False

    @property
    def title(self) -> str:
        return f"{self.kind}: {self.options['path']}"


class Contents(NamedTuple):
    """``sources`` could be read, what says most first; ``notes`` say what else is there and could not."""

    sources: list[FolderSource]
    notes: list[str]


def contents(folder: Path, images: Path | None = None) -> Contents:
    """What is in a folder. ``images``: a folder that annotations may name images of, too.

    Raises:
        InputError: there is nothing; the message says why each file is not.
    """
    for needed in (folder, images):
        if needed is not None and not needed.is_dir():
            raise InputError(f"no folder {needed}", "give the folder of your images or annotations")
    notes: list[str] = []
    folders = list(_folders(folder, notes))
    places = [place for place, _ in [*folders, *(_folders(images, notes) if images is not None else ())]]
    sources: list[FolderSource] = []
    for source in _candidates(folder, folders, notes):
        try:
            sources.append(_looked_at(source, places, notes))
        except PipelineError as error:
            notes.append(f"{source.title}: {error.message}")
    if not sources:
        why = "\n".join(f"  - {note}" for note in notes[:8]) or f"  - no file ends with {', '.join(SUFFIXES)}"
        raise InputError(f"{folder} holds nothing that a recipe can read:\n{why}", "docs/sources.md says what it reads")
    return Contents(sorted(sources, key=lambda source: KINDS.index(source.kind)), notes)


def unreadable(source: FolderSource) -> str | None:
    """That some of its first images cannot be opened, if so."""
    path = Path(source.options["path"])
    root = source.options.get("root") or (path if path.is_dir() else path.parent)
    images = [
        image if image["bytes"] or source.kind == "webdataset" else {**image, "path": os.path.join(root, image["path"])}
        for row in _first(source)
        for image in row.images
        if image_files.is_here(image)
    ][:OPENED]
    reasons: list[str] = []
    for image in images:
        try:
            pixels.check(image_files.load(image, pixels.MAX_BYTES))
        except (OSError, pixels.BadImage) as error:
            reasons.append(f"{image['path'] or 'an image of a row'}: {error}")
    if not reasons:
        return None
    return f"{len(reasons)} of the first {len(images)} images cannot be read, and fail their prompts: {reasons[0]}"


def _folders(folder: Path, notes: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder below, nearest first, and its files; hidden ones and what a library keeps apart are left out, and
    with a note those that may not be read, as a disk's ``lost+found``."""
    level = [folder]
    for _ in range(DEEPEST + 1):
        below: list[Path] = []
        for place in level:
            try:
                with os.scandir(place) as listing:
                    every = sorted(listing, key=lambda item: item.name)
            except PermissionError as error:
                if place == folder:
                    raise
                notes.append(f"{place} is left out: {error.strerror}")
                continue
            items = [item for item in every if not item.name.startswith(".")]
            names = [item.name for item in items if item.is_file()]
            yield place, names
            if not {"state.json", "dataset_dict.json"} & set(names):
                below += [Path(item.path) for item in items if item.is_dir(follow_symlinks=False)]
        level = below


def _candidates(folder: Path, folders: list[tuple[Path, list[str]]], notes: list[str]) -> Iterator[FolderSource]:
    captions: list[Path] = []
    instances: list[Path] = []
    sizes: list[Path] = []
    regions: list[Path] = []
    pictures = False
    for place, names in folders:
        if saved := {"state.json", "dataset_dict.json"} & set(names):
            yield _saved_dataset(place, saved.pop())
            continue
        stems = {Path(name).stem for name in names if name.lower().endswith(SUFFIXES)}
        pictures = pictures or bool(stems)
        if beside := [name for name in names if name.endswith(".txt") and name[:-4] in stems]:
            notes.append(f"{len(beside)} texts beside images, such as {place / beside[0]}, are not read; {_LAYOUT}")
        if any(name.endswith(".tar") for name in names):
            pattern = str(Path(glob.escape(str(place))) / "*.tar")
            # Texts beside the images of tars are captions far more often than prompts.
            yield FolderSource("webdataset", {"path": pattern, "prompts": list(DESCRIBE)})
        for name in names:
            path = place / name
            ending = path.suffix.lower()
            if ending in (".csv", ".parquet"):
                yield FolderSource(ending[1:], {"path": str(path)})
            elif ending in (".json", ".jsonl"):
                kind = _kind_of_json(path)
                by_kind = {"instances": instances, "captions": captions, "sizes": sizes, "visual_genome": regions}
                if kind in by_kind:
                    by_kind[kind].append(path)
                elif kind is not None:
                    yield FolderSource(kind, {"path": str(path)})
                else:
                    notes.append(f"{path} is not read, as it has none of the layouts that are known; {_LAYOUT}")
    for path in instances:
        texts = [file for file in captions if file.name == path.name.replace("instances", "captions")]
        yield FolderSource("coco", {"path": str(path)} | ({"captions": str(texts[0])} if texts else {}))
    for path in regions:
        known = {"image_data": str(sizes[0])} if sizes else {}
        yield FolderSource("visual_genome", {"path": str(path)} | known)
    if pictures:
        yield FolderSource("folder", {"path": str(folder), "prompts": list(DESCRIBE)})


def _kind_of_json(path: Path) -> str | None:
    """By what its first items hold; None of a file that is nothing of ours, such as a configuration."""
    try:
        if path.suffix.lower() == ".jsonl":
            line = next((line for _, line in jsonl.lines(str(path))), None)
            return _kind_of_row(json.loads(line), "jsonl") if isinstance(line, str) else None
        keys: set[str] = set()
        for number, (key, item) in enumerate(elements(str(path))):
            if key is None:
                return _kind_of_row(item, None)
            keys.add(key)
            if key == "annotations" and isinstance(item, Mapping):
                return "instances" if "bbox" in item else "captions" if "caption" in item else None
            if not keys <= _COCO or (number > 1000 and "images" not in keys):
                return None
    except (PipelineError, ValueError):
        return None
    return None


def _kind_of_row(row: Any, table: str | None) -> str | None:
    if not isinstance(row, Mapping):
        return None
    if "conversations" in row:
        return "pds" if "rejected_conversations" in row else "llava"
    if "regions" in row and table is None:
        return "visual_genome"
    if {"image_id", "width", "height"} <= row.keys() and table is None:
        return "sizes"
    return table if any(name in row for name in references.IMAGES) else None


def _saved_dataset(place: Path, marker: str) -> FolderSource:
    """One of ``save_to_disk``: its columns by their usual names."""
    options: dict[str, Any] = {"path": str(place)}
    about = place
    try:
        if marker == "dataset_dict.json":
            splits = json.loads((place / marker).read_text(encoding="utf-8"))["splits"]
            options["split"] = "train" if "train" in splits else splits[0]
            about = place / options["split"]
        features = json.loads((about / "dataset_info.json").read_text(encoding="utf-8"))["features"]
    except (OSError, ValueError, LookupError, TypeError):
        features = {}
    images = next((name for name in references.IMAGES if name in features), "image")
    prompt = next((name for name in ("prompt", "question") if name in features), None)
    options["columns"] = {"images": images, "prompt": prompt}
    return FolderSource("huggingface", options)


def _looked_at(source: FolderSource, places: list[Path], notes: list[str]) -> FolderSource:
    """The source with what its prompts leave open, and what their facts know.

    Raises:
        PipelineError: it cannot be read, or its images are nowhere below.
    """
    try:
        rows = _first(source)
    except InputError as error:
        if "source.prompts" not in error.remedy and "source.prompts" not in error.message:
            raise
        source = replace(source, options={**source.options, "prompts": list(DESCRIBE)})
        rows = _first(source)
        if source.kind in ("jsonl", "csv", "parquet"):
            notes.append(f"{source.title}: {error.message.partition(';')[0]}; every image is asked the same")
    if "prompts" in source.options and any(_answers_another(row) for row in rows):
        named = "columns.prompt names it" if source.kind == "huggingface" else "call the column `prompt`"
        raise InputError(f"its answers are to questions that it does not call `prompt`: {named}")
    path = next((path for row in rows for image in row.images if (path := image["path"]) and not image["bytes"]), None)
    if path is not None and source.kind not in ("folder", "webdataset") and not image_files.is_url(path):
        source = _with_root(source, path, places)
    facts = [row.facts for row in rows if row.facts]
    names = [thing["name"] for fact in facts for thing in fact.get("objects") or ()]
    return replace(
        source,
        objects=tuple(dict.fromkeys(names)),
        regions=any(fact.get("regions") for fact in facts),
        answers=any(fact.get("answer") is not None for fact in facts),
    )


def _answers_another(row: Entry) -> bool:
    """Whether a row that is asked for a description has the answer to another question."""
    return bool(row.facts and row.facts.get("answer") is not None) and row.prompt[-1]["content"] in DESCRIBE


def _first(source: FolderSource) -> list[Entry]:
    """
    Raises:
        InputError: nothing is a prompt; the message is that of the first row.
    """
    spec = _SOURCE.validate_python({"kind": source.kind, **source.options})
    rows = list(islice(entries(spec), None if source.kind == "coco" else LOOK))
    usable = [row for row in rows if row.error is None]
    if not usable:
        raise InputError(rows[0].error[1] if rows and rows[0].error else "no prompt in it")
    return usable


def _with_root(source: FolderSource, path: str, places: list[Path]) -> FolderSource:
    """With the folder that the images' paths are relative to, where it is not that of the file."""
    own = Path(source.options["path"])
    own = own if own.is_dir() else own.parent
    if os.path.isabs(path):
        if not os.path.isfile(path):
            raise InputError(f"its images, such as {path}, are not there")
        above = next((place for place in [own, *places] if Path(path).is_relative_to(place.resolve())), None)
        root = above or Path(path).parent
    else:
        at = next((place for place in [own, *places] if (place / path).is_file()), None)
        if at is None:
            raise InputError(f"its images, such as {path}, are in no folder below; name it with --images")
        root = at
    return source if root == own else replace(source, options={**source.options, "root": str(root)})
