"""Images from the web: whole within a time, up to a size, and from the host that the data names."""

from __future__ import annotations

import base64
import http.client
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

#: For one image, from the first look at its name to its last byte.
SECONDS = 60.0
_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}


class Elsewhere(OSError):
    """A redirect to another server."""


def same_host(url: str, target: str) -> bool:
    """Whether a redirect stays with the server that was asked; from http it may lead to https, but not back.

    >>> same_host("http://a/v1", "https://a/v1"), same_host("http://a:8000/v1", "/v2"), same_host("http://a/", "//b/")
    (True, True, False)
    """
    try:
        old, new = urlsplit(url), urlsplit(urljoin(url, target))
        ports = [part.port or _PORTS.get(part.scheme) for part in (old, new)]
    except ValueError:
        return False
    upgraded = (old.scheme, new.scheme, ports) == ("http", "https", [80, 443])
    return old.hostname == new.hostname and (upgraded or (old.scheme == new.scheme and ports[0] == ports[1]))


def fetch(url: str, most: int | None = None, seconds: float = SECONDS) -> bytes:
    """The body behind an http or https URL, and one byte more than ``most`` if it is longer. User and password in it
    are sent to its own host.

    Raises:
        OSError: it cannot be had: no such server, another status than 200, a redirect to another server, too slow.
    """
    try:
        return _fetch(url, most, seconds)
    except urllib.error.HTTPError as error:
        raise OSError(f"status {error.code}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, OSError):
            raise error.reason from None
        raise OSError(str(error.reason)) from None
    except (http.client.HTTPException, ValueError, OverflowError) as error:
        raise OSError(f"{type(error).__name__}: {error}") from None


def _fetch(url: str, most: int | None, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    headers = {"User-Agent": "vlm-preference", "Accept-Encoding": "identity"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    plain = urlunsplit((parts.scheme, host, _quote(parts.path), _quote(parts.query), ""))
    opener = urllib.request.build_opener(_Redirects)
    with opener.open(urllib.request.Request(plain, headers=headers), timeout=seconds) as reply:
        return _read(reply, most, deadline)


def _read(reply: Any, most: int | None, deadline: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    # read1 returns what is there: a server that drips must not hold a read until a whole chunk has come.
    while chunk := reply.read1(_CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if most is not None and size > most:
            break
        if time.monotonic() > deadline:
            raise TimeoutError("it is not there within its time")
    data = b"".join(chunks)
    if most is None or size <= most:
        length = reply.headers.get("Content-Length")
        if length is not None and length.isdigit() and int(length) != size:
            raise OSError(f"it ends after {size} of {length} bytes")
        return data
    return data[: most + 1]


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not same_host(req.full_url, newurl):
            raise Elsewhere("it redirects to another server, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _quote(text: str) -> str:
    """Spaces and letters outside of ASCII as a URL has them; what is quoted already stays."""
    return quote(text, safe="/:?=&%+,;@!$'()*~[]")
