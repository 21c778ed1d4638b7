"""WebDataset tars: members that share a name up to its first dot are one sample.

Images stay where they are: a row names the tar, the offset and the size.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

from pipeline import references
from pipeline.config.source import WebDatasetSource
from pipeline.errors import InputError
from pipeline.images import locator, public
from pipeline.sources import Entry, files, record

_IMAGES = (".jpg", ".jpeg", ".png", ".webp")
#: Of a member with a prompt or facts; a larger one is no such thing.
_MAX_TEXT = 16_000_000


def read(spec: WebDatasetSource) -> Iterator[Entry]:
    for path in files.expand(spec.path):
        name = files.base_name(path)
        for key, sample in _samples(path):
            yield from record.attempt(f"{name}:{key}", _entries, path, name, key, sample, spec.prompts)


def _entries(path: str, name: str, key: str, sample: dict[str, str], prompts: Sequence[str]) -> Iterator[Entry]:
    place = f"{public(path)}, sample {key!r}"
    return record.entries(_value(sample, place), place, f"{name}:{key}", None, prompts)


def stamp(spec: WebDatasetSource) -> list[str]:
    """By size and time: shards are large, and are not rewritten."""
    return [files.stamp(path, whole=False) for path in files.expand(spec.path)]


def _samples(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Key and ``{extension: text of a JSON or text member, or locator of an image}``."""
    tar = files.absolute(path)
    current, sample = "", dict[str, str]()
    with files.reading(path) as file:
        for member in _members(path, file):
            folder, base = posixpath.split(member.name)
            stem, _, extension = base.partition(".")
            key, extension = posixpath.join(folder, stem), extension.lower()
            if key != current and sample:
                yield current, sample
                sample = {}
            current = key
            if f".{extension}".endswith(_IMAGES):
                sample[extension] = locator(tar, member.offset_data, member.size, member.name)
            elif extension in ("json", "txt"):
                sample[extension] = _text(path, file, member)
    if sample:
        yield current, sample


def _members(path: str, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    try:
        archive: Any
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # it would keep them all
                if member.isreg() and not member.issparse():
                    yield member
    except tarfile.TarError as error:
        remedy = "give uncompressed tars: an image in a compressed one cannot be found again without reading it all"
        raise InputError(f"{public(path)} cannot be read as a tar ({error})", remedy) from error


def _text(path: str, file: IO[bytes], member: tarfile.TarInfo) -> str:
    if member.size > _MAX_TEXT:
        raise InputError(
            f"{public(path)}: {member.name} has {member.size} bytes", "prompts and facts are not that large"
        )
    back = file.tell()
    file.seek(member.offset_data)
    data = file.read(member.size)
    file.seek(back)
    return data.decode("utf-8", "replace")


def _value(sample: dict[str, str], place: str) -> dict[str, Any]:
    """A sample as a row. Its paths are ours: what the JSON says about images is not followed."""
    value: dict[str, Any] = {}
    if "json" in sample:
        value = record.parse(sample["json"], place)
        if not isinstance(value, dict):
            raise record.BadRow(f"{place}: its JSON is not an object", "give {prompt, facts, answer}")
    if "txt" in sample and value.get("prompt") is None:
        value["prompt"] = sample["txt"].strip()
    named = [name for name in references.IMAGES if references.filled(value.pop(name, None))]
    value["images"] = [sample[extension] for extension in sorted(sample) if extension not in ("json", "txt")]
    if named and not value["images"]:
        raise record.BadRow(
            f"{place}: `{named[0]}` of its JSON names images, and the tar has none of this key",
            "put them beside it, or remove the sample",
            "missing_image",
        )
    return value
