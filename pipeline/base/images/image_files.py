"""The bytes behind an image of a row, and which files a row may name.

An image is ``{"bytes": ..., "path": ...}``. Its bytes are in the row, or ``path`` says where they lie: a local file, a
URL that fsspec knows, or a member of a tar (``tar://A.tar#offset=1536&size=9021&name=a.jpg``), which takes one seek.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import posixpath
import stat
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from pipeline.base.images import web
from pipeline.base.images.pixels import MAX_BYTES, check_size

_TAR = "tar://"
_LOCAL = ("file://", "local://")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def load(image: Mapping[str, Any], max_bytes: int | None = None) -> bytes:
    """The encoded file of ``{"bytes": ..., "path": ...}``; bytes go first.

    Raises:
        OSError: the file is gone, shorter than it was, or no regular file.
        BadImage: it has more than ``max_bytes`` bytes; no more than one of them beyond is then read.
    """
    data: bytes | None = image["bytes"]
    if data is not None:
        check_size(len(data), max_bytes)
        return data
    path: str = image["path"]
    if path.startswith(_TAR):
        tar, offset, size = _member(path)
        check_size(size, max_bytes)
        return _read(tar, offset, size)
    return _read(path, 0, None, max_bytes)


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """A local file, opened for reading. What is no file is refused before it is opened: a FIFO without a writer would
    be waited for, and some devices never end.

    Raises:
        OSError: there is no such file, or it is a folder, FIFO, socket or device; ``strerror`` says which.
    """
    check_regular(path, os.stat(path))
    # Between the two somebody may put a FIFO there: not waited for, and seen below.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        check_regular(path, os.fstat(handle))
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: str | os.PathLike[str], status: os.stat_result) -> None:
    """
    Raises:
        OSError: it is no regular file.
    """
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
        raise OSError(errno.EINVAL, f"it is {kind}, and a file is wanted", os.fspath(path))


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """
    Raises:
        OSError: as ``open_regular``.
    """
    with open_regular(path) as file:
        return file.read()


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """As ``Path.read_text``: every line ends with a line feed alone.

    Raises:
        OSError: as ``open_regular``.
        UnicodeDecodeError: it is in another encoding.
    """
    with open_regular(path) as file, io.TextIOWrapper(file, encoding) as text:
        return text.read()


def locator(tar: str, offset: int, size: int, name: str) -> str:
    """The ``path`` of a member of an uncompressed tar.

    >>> locator("/data/a.tar", 512, 90, "one two.png")
    'tar:///data/a.tar#offset=512&size=90&name=one%20two.png'
    """
    return f"{_TAR}{tar}#offset={offset}&size={size}&name={quote(name)}"


# ---------------------------------------------------------------------------------------------------------------- names


def is_url(path: str) -> bool:
    """Whether fsspec has to open it; chained ones (``zip://a.png::s3://...``) count."""
    return "://" in path or "::" in path


def scheme(path: str) -> str:
    """``https`` of ``https://host/a.png``, empty for a local path."""
    return urlsplit(path).scheme.lower() if "://" in path else ""


def local(path: str) -> str | None:
    """The path on this machine, or None for a URL that leads elsewhere.

    >>> local("file:///data/a.csv"), local("a.csv"), local("s3://b/a.csv")
    ('/data/a.csv', 'a.csv', None)
    """
    for prefix in _LOCAL:
        if path.startswith(prefix) and "::" not in path:
            return path.removeprefix(prefix)
    return None if is_url(path) else path


def is_here(image: Mapping[str, Any]) -> bool:
    """Whether an image's bytes are in the row or on a disk of this machine, so that nothing has to be fetched.

    >>> is_here({"bytes": None, "path": "tar:///a.tar#offset=0&size=1&name=b"}), is_here({"bytes": None, "path": "s3://b/a"})
    (True, False)
    """
    path = image["path"] or ""
    if path.startswith(_TAR):
        path = path.removeprefix(_TAR).rpartition("#")[0]
    return image["bytes"] is not None or (path != "" and local(path) is not None)


def public(path: str) -> str:
    """The path without what may be secret: user, password and query of a URL.

    >>> public("https://me:key@host/a.png?signature=x")
    'https://host/a.png'
    >>> public("HTTPS://host/a.png?signature=x")
    'HTTPS://host/a.png'
    >>> public("a/b.png")
    'a/b.png'
    """
    if not is_url(path):
        return path
    return "::".join(_public(link) for link in path.split("::"))


def _public(link: str) -> str:
    scheme, sign, rest = link.partition("://")
    if not sign:
        return link
    host, slash, tail = rest.partition("/")
    if scheme.lower() in ("http", "https"):  # elsewhere a question mark may be part of a name
        host, tail = host.partition("?")[0], tail.partition("?")[0]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{tail}"


# ---------------------------------------------------------------------------------------------------------------- roots


class Refused(Exception):
    """A path that is not followed. ``kind`` is the row's ``error_type``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Root(NamedTuple):
    """The folder or URL that image paths are relative to and may not leave. ``options`` are what errors call the two
    options that decide: the place, and whether the web may be asked."""

    place: str
    allow_http: bool = False
    options: tuple[str, str] = ("source.root", "source.allow_http")

    def resolve(self, path: str) -> str:
        """The absolute path or URL of an image.

        >>> Root("s3://bucket/data").resolve("a/../b.png")
        's3://bucket/data/b.png'

        Raises:
            Refused: it leads out of the root (also by a symbolic link), or to the web where that is not allowed.
        """
        http = scheme(path) in ("http", "https")
        if (http or scheme(self.place) in ("http", "https")) and not self.allow_http:
            raise Refused("http_not_allowed", f"{public(path)}: images from the web need {self.options[1]}=true")
        if http:
            return path
        base = local(self.place)
        return self._on_disk(base, path) if base is not None else self._remote_path(path)

    def _on_disk(self, base: str, path: str) -> str:
        inner = local(path)
        if inner is None or "\0" in inner:
            raise self._outside(path)
        base = os.path.abspath(base)
        # First without `..`, then through the links: what is checked must be what is opened.
        full = os.path.normpath(os.path.join(base, inner))
        real = os.path.realpath(base)
        if os.path.commonpath([real, os.path.realpath(full)]) != real:
            raise self._outside(path)
        return full

    def _remote_path(self, path: str) -> str:
        base = self.place.rstrip("/")
        if is_url(path):
            if "::" in path or not path.startswith(f"{base}/"):
                raise self._outside(path)
            path = path[len(base) + 1 :]
        inner = posixpath.normpath(path)
        if inner.startswith(("/", "../")) or inner in ("..", "."):
            raise self._outside(path)
        return f"{base}/{inner}"

    def _outside(self, path: str) -> Refused:
        return Refused(
            "path_outside_root",
            f"{public(path)} is not below {public(self.place)}; set {self.options[0]} if it is meant",
        )


class Roots(NamedTuple):
    """The roots of a dataset's images. What is relative is so to the first; the others are for absolute paths and URLs.
    Without any, the caller vouches for all paths, and only the web is closed."""

    roots: tuple[Root, ...]
    allow_http: bool = False
    options: tuple[str, str] = ("image_root", "allow_http")

    @classmethod
    def of(cls, places: Sequence[str], allow_http: bool = False, options: tuple[str, str] | None = None) -> Roots:
        options = options or ("image_root", "allow_http")
        return cls(tuple(Root(place, allow_http, options) for place in places), allow_http, options)

    def resolve(self, path: str) -> str:
        """The absolute path or URL of an image; also of a member of a tar, which is below a root if the tar is.

        Raises:
            Refused: it leads out of all roots, or to the web where that is not allowed.
        """
        if path.startswith(_TAR):
            tar, _, fragment = path.removeprefix(_TAR).rpartition("#")
            return f"{_TAR}{self.resolve(tar)}#{fragment}"
        if not self.roots:
            # Any place will do to ask about the web.
            return path if scheme(path) not in ("http", "https") else self._open_root().resolve(path)
        first, *others = self.roots if is_url(path) or os.path.isabs(path) else self.roots[:1]
        try:
            return first.resolve(path)
        except Refused:
            for root in others:
                with contextlib.suppress(Refused):
                    return root.resolve(path)
            raise

    def _open_root(self) -> Root:
        return Root("/", self.allow_http, self.options)


# -------------------------------------------------------------------------------------------------------------- reading


def _member(path: str) -> tuple[str, int, int]:
    tar, _, fragment = path.removeprefix(_TAR).rpartition("#")
    fields = parse_qs(fragment)
    try:
        return tar, int(fields["offset"][0]), int(fields["size"][0])
    except (KeyError, ValueError) as error:
        raise OSError(f"{path} does not say where in the tar the image lies") from error


def _read(path: str, offset: int, count: int | None, max_bytes: int | None = None) -> bytes:
    """``count`` bytes from ``offset`` on, or all of them."""
    here = local(path)
    if here is None:
        data = _fetch(path, offset, count, max_bytes)
    elif count is None:
        return _whole(here, max_bytes)
    else:
        with open_regular(here) as file:
            file.seek(offset)
            data = file.read(count) or b""
    if count is not None and len(data) != count:
        raise OSError(f"{public(path)} ends before byte {offset + count}")
    return data


def _whole(path: str, max_bytes: int | None) -> bytes:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        check_size(size, max_bytes)
        # Files of /proc say that they are empty and may go on for ever.
        most = max_bytes if max_bytes is not None else max(size, MAX_BYTES)
        data = file.read(size + 1) or b""
        if len(data) > size:
            data += file.read(most - size) or b""
    check_size(len(data), most)
    return data


def _fetch(path: str, offset: int, count: int | None, max_bytes: int | None) -> bytes:
    if scheme(path) in ("http", "https") and "::" not in path and count is None:
        try:
            data = web.fetch(path, max_bytes)
        except OSError as error:
            raise OSError(error.errno or 0, error.strerror or str(error), public(path)) from error
        check_size(len(data), max_bytes)
        return data
    import fsspec

    try:
        fs, name = fsspec.core.url_to_fs(path)
        if count is not None:
            part: bytes = fs.cat_file(name, start=offset, end=offset + count)
            return part
        # A server may not say how much it will send: never read more than one byte over the limit.
        with fs.open(name, "rb") as file:
            data = file.read() if max_bytes is None else file.read(max_bytes + 1)
    except OSError as error:
        raise OSError(error.errno, error.strerror or type(error).__name__, public(path)) from error
    except Exception as error:  # every protocol has errors of its own
        raise OSError(f"{public(path)} cannot be read ({type(error).__name__})") from error
    check_size(len(data), max_bytes)
    return data
