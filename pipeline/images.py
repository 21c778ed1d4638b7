"""The bytes behind an image of the prompts table, and its pixels: the one place that opens and decodes images.

An image is ``{"bytes": ..., "path": ...}``. Its bytes are in the row, or ``path`` says where they lie: a local file, a
URL that fsspec knows, or a member of a tar (``tar://A.tar#offset=1536&size=9021&name=a.jpg``), which takes one seek.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

from reward import web

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 50_000_000
MAX_PIXELS = 100_000_000
#: What a camera, a browser or a renderer writes. Others are refused: Pillow has readers that start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

_TAR = "tar://"
_HEADER = threading.Lock()


class BadImage(ValueError):
    """An image that is not to be decoded, or cannot be. ``kind`` is the row's ``error_type``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def load(image: Mapping[str, Any], max_bytes: int | None = None) -> bytes:
    """The encoded file of ``{"bytes": ..., "path": ...}``; bytes go first.

    Raises:
        OSError: the file is gone, or shorter than it was.
        BadImage: it has more than ``max_bytes`` bytes; it is then not read.
    """
    data: bytes | None = image["bytes"]
    if data is not None:
        _check_size(len(data), max_bytes)
        return data
    path: str = image["path"]
    if path.startswith(_TAR):
        tar, offset, size = _member(path)
        _check_size(size, max_bytes)
        return _read(tar, offset, size)
    return _read(path, 0, None, max_bytes)


def decode(data: bytes, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Image.Image:
    """The pixels as an RGB image, decoded whole: a truncated file has a good header.

    Raises:
        BadImage: too large (found out before any pixel is decoded), truncated, or in none of ``FORMATS``.
    """
    from PIL import UnidentifiedImageError

    if not data:
        raise BadImage("unreadable_image", "empty file")
    _check_size(len(data), max_bytes)
    try:
        image = _open(data)
        width, height = image.size
        if width * height > max_pixels:
            reason = f"{width} x {height} pixels, more than max_image_pixels={max_pixels}"
            raise BadImage("image_too_large", reason)
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage("unreadable_image", f"in none of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error and others
        raise BadImage("unreadable_image", f"{type(error).__name__}: {error}") from error


def encode(image: Image.Image) -> bytes:
    """The picture as a PNG file; hardly compressed, for files that are read at once and not kept."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header alone.

    Raises:
        BadImage: it is no image.
    """
    try:
        return _open(data).size
    except Exception as error:
        raise BadImage("unreadable_image", f"{type(error).__name__}: {error}") from error


def locator(tar: str, offset: int, size: int, name: str) -> str:
    """The ``path`` of a member of an uncompressed tar.

    >>> locator("/data/a.tar", 512, 90, "one two.png")
    'tar:///data/a.tar#offset=512&size=90&name=one%20two.png'
    """
    return f"{_TAR}{tar}#offset={offset}&size={size}&name={quote(name)}"


def is_url(path: str) -> bool:
    """Whether fsspec has to open it; chained ones (``zip://a.png::s3://...``) count."""
    return "://" in path or "::" in path


def public(path: str) -> str:
    """The path without what may be secret: user, password and query of a URL.

    >>> public("https://me:key@host/a.png?signature=x")
    'https://host/a.png'
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
    if scheme in ("http", "https"):  # elsewhere a question mark may be part of a name
        host, tail = host.partition("?")[0], tail.partition("?")[0]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{tail}"


def _open(data: bytes) -> Image.Image:
    """Reads the header. Pillow's own check of the size, which only warns up to twice its limit, gives way to ours."""
    from PIL import Image

    # The limit is a global of Pillow, and workers decode in threads.
    with _HEADER:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(count: int, most: int | None) -> None:
    if most is not None and count > most:
        raise BadImage("image_too_large", f"{count} bytes, more than max_image_bytes={most}")


def _member(path: str) -> tuple[str, int, int]:
    tar, _, fragment = path.removeprefix(_TAR).rpartition("#")
    fields = parse_qs(fragment)
    try:
        return tar, int(fields["offset"][0]), int(fields["size"][0])
    except (KeyError, ValueError) as error:
        raise OSError(f"{path} does not say where in the tar the image lies") from error


def _read(path: str, offset: int, count: int | None, max_bytes: int | None = None) -> bytes:
    """``count`` bytes from ``offset`` on, or all of them."""
    if not is_url(path):
        with open(path, "rb") as file:
            if count is None:
                _check_size(os.fstat(file.fileno()).st_size, max_bytes)
                return file.read()
            file.seek(offset)
            data = file.read(count)
    else:
        data = _fetch(path, offset, count, max_bytes)
    if count is not None and len(data) != count:
        raise OSError(f"{public(path)} ends before byte {offset + count}")
    return data


def _fetch(path: str, offset: int, count: int | None, max_bytes: int | None) -> bytes:
    if scheme(path) in ("http", "https") and "::" not in path and count is None:
        try:
            data = web.fetch(path, max_bytes)
        except OSError as error:
            raise OSError(error.errno or 0, error.strerror or str(error), public(path)) from error
        _check_size(len(data), max_bytes)
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
    _check_size(len(data), max_bytes)
    return data


def scheme(path: str) -> str:
    """``https`` of ``https://host/a.png``, empty for a local path."""
    return urlsplit(path).scheme.lower() if "://" in path else ""


def fit(image: Image.Image, max_pixels: int | None) -> Image.Image:
    """The image, scaled down where it has more than ``max_pixels``; its shape stays."""
    if max_pixels is None or image.width * image.height <= max_pixels:
        return image
    scale = (max_pixels / (image.width * image.height)) ** 0.5
    return image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
