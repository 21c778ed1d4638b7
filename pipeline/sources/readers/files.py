"""Input files, on disk or behind any URL that fsspec knows."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from pipeline.base.errors import InputError
from pipeline.base.images.image_files import is_url, open_regular, public
from pipeline.base.images.image_files import local as local

#: A larger file is told by its size and time; reading it all would take longer than most resumed runs.
_WHOLE = 1 << 30


def folder(path: str) -> str:
    """Where a file lies; of a chained URL, nothing can be said but the URL itself.

    >>> folder("a.csv"), folder("s3://b/c/a.csv")
    ('.', 's3://b/c')
    """
    if "::" in path:
        return path
    return path.rpartition("/")[0] if is_url(path) else os.path.dirname(path) or "."


def base_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] if is_url(path) else os.path.basename(os.path.normpath(path))


@contextmanager
def reading(path: str) -> Iterator[IO[bytes]]:
    """
    Raises:
        InputError: the file cannot be opened or read.
    """
    try:
        with open_binary(path) as file:
            yield file
    except (OSError, UnicodeDecodeError, ImportError) as error:
        raise unreadable(path, error) from error


def open_binary(path: str) -> IO[bytes]:
    here = local(path)
    if here is not None:
        return open_regular(here)
    fs, name = _remote(path)
    file: IO[bytes] = fs.open(name, "rb")
    return file


def expand(path: str) -> list[str]:
    """The files a path or a glob stands for, sorted.

    Raises:
        InputError: the glob matches nothing.
    """
    if not glob.has_magic(path) or _exists(path):
        return [path]
    here = local(path)
    if here is not None:
        paths = glob.glob(here, recursive=True)
    else:
        fs, pattern = _remote(path)
        paths = [fs.unstrip_protocol(name) for name in fs.glob(pattern)]
    if not paths:
        raise InputError(f"source: no file matches {public(path)}", "check the pattern")
    return sorted(paths)


def walk(path: str, suffixes: Iterable[str], links: bool = False) -> Iterator[tuple[str, str]]:
    """Files below a folder as ``(relative path, stamp)``, sorted within every folder; hidden ones are left out. Links
    to folders are not followed, as they may lead in a circle; with ``links`` they are named, too.

    Raises:
        InputError: there is no such folder, or one below it may not be read.
    """
    ends = tuple(suffixes)
    here = local(path)
    if here is not None:
        if not os.path.isdir(here):
            raise InputError(f"source.path: no folder {here}", "check the path")
        yield from _walk(here, "", ends, links)
        return
    fs, name = _remote(path)
    listing = fs.find(name, detail=True)
    for full in sorted(listing):
        if full.lower().endswith(ends):
            yield full[len(name) :].lstrip("/"), _remote_stamp(listing[full])


def absolute(path: str) -> str:
    here = local(path)
    return path.rstrip("/") if here is None else os.path.abspath(here)


def stamp(path: str, whole: bool = True) -> str:
    """A digest of what a file says; of a large or remote one, or if not ``whole``, what its file system says of it."""
    here = local(path)
    if here is None:
        fs, name = _remote(path)
        try:
            return _remote_stamp(fs.info(name))
        except Exception as error:
            raise unreadable(path, error) from error
    file: Any
    with reading(path) as file:
        stat = os.fstat(file.fileno())
        if not whole or stat.st_size > _WHOLE:
            return f"{stat.st_size}:{stat.st_mtime_ns}"
        content: str = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()
        return content


def digest(values: Iterable[str]) -> str:
    """One digest of many texts, in order."""
    total = hashlib.blake2b(digest_size=12)
    for value in values:
        total.update(value.encode("utf-8", "replace") + b"\0")
    return total.hexdigest()


def unreadable(path: str, error: Exception) -> InputError:
    missing = isinstance(error, ImportError)  # fsspec's own, such as "Install s3fs to access S3"
    hidden = is_url(path) and not missing  # a client's message may hold what signs its requests
    reason = getattr(error, "strerror", None) or (type(error).__name__ if hidden else str(error))
    remedy = "install the fsspec package of this protocol" if missing else "check the path and who may read it"
    return InputError(f"source.path: cannot read {public(path)}: {reason}", remedy)


def _walk(base: str, inner: str, ends: tuple[str, ...], links: bool) -> Iterator[tuple[str, str]]:
    folder = os.path.join(base, inner)
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:  # what lies below is not left out without a word
        raise unreadable(folder, error) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = os.path.join(inner, entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(base, name, ends, links)
        elif links and entry.is_dir():
            yield name, "a link to a folder"
        elif entry.name.lower().endswith(ends):
            try:
                stat = entry.stat()
                yield name, f"{stat.st_size}:{stat.st_mtime_ns}"
            except OSError:  # a dangling link: whoever opens it will say so
                yield name, "missing"


def _remote(path: str) -> tuple[Any, str]:
    import fsspec

    try:
        fs, name = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError, OSError) as error:
        raise unreadable(path, error) from error
    return fs, name


def _exists(path: str) -> bool:
    here = local(path)
    if here is not None:
        return os.path.exists(here)
    fs, name = _remote(path)
    return bool(fs.exists(name))


def exists(path: str) -> bool:
    """Whether there is such a file; a file system that does not answer counts as no."""
    try:
        return _exists(path)
    except (InputError, OSError, ValueError):
        return False


def is_folder(path: str) -> bool:
    here = local(path)
    if here is not None:
        return os.path.isdir(here)
    fs, name = _remote(path)
    return bool(fs.isdir(name))


def _remote_stamp(info: dict[str, Any]) -> str:
    keys = ("size", "ETag", "etag", "checksum", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    return json.dumps({key: str(info[key]) for key in keys if info.get(key) is not None})
