"""WebDataset tars: members that share a name up to its first dot are one sample, and stand one behind the other.

Images stay where they are: a row names the tar, the offset and the size. Members whose name begins with a dot, or that
lie in a folder of such a name, are what systems leave behind and no part of the data.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from pipeline.base.errors import InputError
from pipeline.base.images import references
from pipeline.base.images.image_files import locator, public
from pipeline.base.progress import Progress
from pipeline.sources.config import WebDatasetSource
from pipeline.sources.readers import files, record
from pipeline.sources.readers.folder import SUFFIXES
from pipeline.sources.readers.protocol import Entry
from pipeline.sources.readers.tar import members

#: What a row is made of, beside images, and what may stand beside it: numbers, names and sums of the sample.
_TEXTS = ("json", "txt")
_IGNORED = frozenset(
    ("cls", "cls2", "class", "count", "id", "idx", "index", "inx", "key", "url", "md5", "sha1", "sha256")
)
#: ``png``, and of several pictures ``0.png``, ``image_1.png``. What is called otherwise may be a mask or a depth map.
_IMAGE = re.compile(
    rf"(?:(?:image|img|picture|photo|input)?[_-]?\d*\.)?(?:{'|'.join(suffix.lstrip('.') for suffix in SUFFIXES)})"
)
#: Of a member with a prompt or facts; a larger one is no such thing.
_MAX_TEXT = 16_000_000


@dataclass
class _Sample:
    """``parts`` is the text of a JSON or text member, or the locator of an image, by extension. ``wrong`` says why it
    is no row; ``bare`` is a member without an extension, which alone is no sample."""

    key: str
    parts: dict[str, str] = field(default_factory=dict)
    wrong: str | None = None
    bare: str | None = None


def read(spec: WebDatasetSource) -> Iterator[Entry]:
    warned = False
    for path in files.expand(spec.path):
        name = files.base_name(path)
        for sample in _samples(path):
            yield from record.attempt(f"{name}:{sample.key}", _entries, path, name, sample, spec.prompts)
            if spec.prompts and "txt" in sample.parts and not warned:
                warned = True
                Progress().say(f"{name}: source.prompts are asked, so KEY.txt is not read as a prompt")


def stamp(spec: WebDatasetSource) -> list[str]:
    """By size and time: shards are large, and are not rewritten."""
    return [files.stamp(path, whole=False) for path in files.expand(spec.path)]


def _entries(path: str, name: str, sample: _Sample, prompts: Sequence[str]) -> Iterator[Entry]:
    place = f"{public(path)}, sample {sample.key!r}"
    wrong = sample.wrong or (f"member {sample.bare!r} has no extension" if sample.bare is not None else None)
    if wrong is not None:
        raise record.BadRow(f"{place}: {wrong}")
    return record.entries(_value(sample.parts, place, prompts), place, f"{name}:{sample.key}", None, prompts)


def _samples(path: str) -> Iterator[_Sample]:
    """
    Raises:
        InputError: the tar is damaged, or the members of a sample do not stand together.
    """
    tar = files.absolute(path)
    seen: set[str] = set()
    sample = _Sample("")
    with files.reading(path) as file:
        for member in members(path, file):
            if not member.name.isascii():  # names of old tars are in any encoding
                member.name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            name = posixpath.normpath(member.name) if "/" in member.name else member.name
            if member.isdir() or _is_hidden(name):
                continue
            folder, slash, base = name.rpartition("/")
            stem, _, extension = base.partition(".")
            key = f"{folder}{slash}{stem}"
            if key != sample.key:
                if sample.parts or sample.wrong:
                    yield sample
                if key in seen:
                    raise InputError(
                        f"{public(path)}: key {key} comes again, with {member.name!r} at byte {member.offset}",
                        "write the members of a sample one behind the other, for instance with `tar --sort=name`",
                    )
                seen.add(key)
                sample = _Sample(key)
            _take(sample, extension.lower(), member, path, tar, file)
    if sample.parts or sample.wrong:
        yield sample


def _is_hidden(name: str) -> bool:
    if not (name.startswith(".") or "/" in name):
        return False
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/") if part not in (".", ".."))


def _take(sample: _Sample, extension: str, member: tarfile.TarInfo, path: str, tar: str, file: IO[bytes]) -> None:
    """Add a member to its sample, or what is wrong with it."""
    image = _IMAGE.fullmatch(extension) is not None
    if not extension:
        sample.bare = member.name
    elif extension.rpartition(".")[2] in _IGNORED:
        return
    elif extension in sample.parts:
        sample.wrong = f"member {member.name!r} comes again"
    elif not image and extension not in _TEXTS:
        sample.wrong = (
            f"member {member.name!r} has the unknown extension .{extension}; images are {', '.join(SUFFIXES)} (of "
            f"several: .0.png), prompts .json or .txt, and ignored are .{', .'.join(sorted(_IGNORED))}"
        )
    elif not member.isreg() or member.issparse():
        kind = "a link" if member.islnk() or member.issym() else "no plain file"
        sample.wrong = f"member {member.name!r} is {kind}; write the file itself (`tar --hard-dereference -h`)"
    elif image:
        sample.parts[extension] = locator(tar, member.offset_data, member.size, member.name)
    elif member.size > _MAX_TEXT:
        sample.wrong = f"member {member.name!r} has {member.size} bytes; prompts and facts are not that large"
    else:
        try:
            sample.parts[extension] = _bytes(file, member).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            sample.wrong = f"member {member.name!r} is not UTF-8 ({error.reason} at byte {error.start})"


def _bytes(file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    back = file.tell()
    file.seek(member.offset_data)
    data = file.read(member.size)
    file.seek(back)
    return data


def _value(parts: dict[str, str], place: str, prompts: Sequence[str]) -> dict[str, Any]:
    """A sample as a row. Its paths are ours: what the JSON says about images is not followed."""
    value: dict[str, Any] = {}
    if "json" in parts:
        value = record.parse(parts["json"], place)
        if not isinstance(value, dict):
            raise record.BadRow(f"{place}: its JSON is not an object", "give {prompt, facts, answer}")
    # The recipe knows better what to ask: beside an image, a text is more often its caption.
    if "txt" in parts and value.get("prompt") is None and not prompts:
        value["prompt"] = parts["txt"].strip()
    named = [name for name in references.IMAGES if references.is_filled(value.pop(name, None))]
    pictures = [extension for extension in parts if extension not in _TEXTS]
    value["images"] = [parts[extension] for extension in sorted(pictures, key=_natural)]
    if named and not pictures:
        raise record.BadRow(
            f"{place}: `{named[0]}` of its JSON names images, and the tar has none of this key",
            "put them beside it, or remove the sample",
            "missing_image",
        )
    return value


def _natural(extension: str) -> list[tuple[int, str]]:
    """Numbers by their value: ``2.png`` goes before ``10.png``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", extension)]
