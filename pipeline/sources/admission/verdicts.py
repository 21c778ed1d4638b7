"""What is found when an image is looked at: its digest, its hash, or why it cannot be used. Each file is read once."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pipeline.base.images.image_files import load, public
from pipeline.base.images.pixels import BadImage, is_final, look
from pipeline.sources.admission.phash import phash
from pipeline.sources.readers.roots import Refused, Root

#: Verdicts kept for later rows, some 400 bytes each.
_KEPT = 1 << 16
#: Pillow decodes outside Python's lock. Each may hold an image of the largest size that is allowed.
_THREADS = min(8, os.cpu_count() or 1)

#: Changes whenever ``pipeline.base.images.pixels.decode`` reads turned, transparent or deep images in another way.
#: Prompts about them then have other ids, so that whatever was made of the old pictures is made anew, and nothing else
#: is.
_INTERPRETED = b"1: upright, on white, 8 bits"


class Verdict(NamedTuple):
    """``path`` is where later stages find the image; of one that was refused or is missing, the path as written.

    ``digest`` has 32 bytes: of what is seen, which is the encoded file, and if that had to be interpreted how it was;
    or of the path as written where the file was not read. ``hash`` is null for images that are bad, or if nobody wants
    hashes. ``error_type`` and ``error`` are null for a good image, whose width and height as it is shown are ``shape``.
    """

    path: str | None
    digest: bytes
    hash: int | None = None
    error_type: str | None = None
    error: str | None = None
    shape: tuple[int, int] | None = None


class Verdicts:
    """Looks at images, several at a time. State: the last verdicts, by where images lie or what they are."""

    def __init__(self, max_bytes: int, max_pixels: int, hashed: bool, kept: int = _KEPT) -> None:
        self._max_bytes, self._max_pixels, self._hashed, self._size = max_bytes, max_pixels, hashed, kept
        self._kept: OrderedDict[str | bytes, Verdict] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def look(self, images: Mapping[str | bytes, tuple[Mapping[str, Any], Root | None]]) -> dict[str | bytes, Verdict]:
        """The verdict on every image; the keys are those of ``key``."""
        verdicts = {key: self._kept[key] for key in images if key in self._kept}
        for key in verdicts:
            self._kept.move_to_end(key)
        new = [key for key in images if key not in verdicts]
        for key, verdict in zip(new, self._map([(key, *images[key]) for key in new]), strict=True):
            verdicts[key] = self._kept[key] = verdict
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return verdicts

    def _map(self, jobs: list[tuple[str | bytes, Mapping[str, Any], Root | None]]) -> Iterable[Verdict]:
        if len(jobs) < 2:
            return [self._judge(*job) for job in jobs]
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="images")
        return self._threads.map(lambda job: self._judge(*job), jobs)

    def _judge(self, key: str | bytes, image: Mapping[str, Any], root: Root | None) -> Verdict:
        written = image["path"]
        if isinstance(key, bytes):
            return self._decode(image["bytes"], key, written)
        digest = hashlib.blake2b(written.encode("utf-8", "replace"), digest_size=32).digest()
        try:
            path = written if root is None else root.resolve(written)
            data = load({"bytes": None, "path": path}, self._max_bytes)
        except (Refused, BadImage) as error:
            return Verdict(written, digest, None, error.kind, error.reason)
        except (OSError, ValueError) as error:
            return Verdict(written, digest, None, "missing_image", f"{public(written)}: {_reason(error)}")
        return self._decode(data, hashlib.blake2b(data, digest_size=32).digest(), path)

    def _decode(self, data: bytes, digest: bytes, path: str | None) -> Verdict:
        try:
            image, interpreted = look(data, self._max_pixels, self._max_bytes)
        except BadImage as error:
            return Verdict(path, digest, None, error.kind, f"{public(path or 'image')}: {error.reason}")
        if interpreted:
            digest = _interpretation(digest)
        return Verdict(path, digest, phash(image) if self._hashed else None, shape=image.size)


def image_digest(data: bytes) -> bytes:
    """The digest of a good image, as it is in the ids of prompts.

    Raises:
        BadImage: it cannot be decoded.
    """
    digest = hashlib.blake2b(data, digest_size=32).digest()
    return digest if is_final(data) or not look(data, None, None)[1] else _interpretation(digest)


def _interpretation(digest: bytes) -> bytes:
    return hashlib.blake2b(digest, digest_size=32, key=_INTERPRETED).digest()


def key(image: Mapping[str, Any], root: Root | None) -> str | bytes:
    """What an image is known by: the digest of its bytes, or where it lies."""
    data = image["bytes"]
    if data is not None:
        return hashlib.blake2b(data, digest_size=32).digest()
    path: str = image["path"]
    return path if root is None else f"{root.place}\0{path}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
