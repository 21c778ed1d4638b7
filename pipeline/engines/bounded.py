"""What a server may do to a client: reply within a time, with so many bytes, from its own host.

The ``openai`` library's HTTP client has a limit for each read and none for the whole, reads a body of any size, and
follows redirects anywhere with the conversation and its images. No ``openai`` here: the client class is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit

from pipeline.base.images.web import same_host

#: Of one reply. Eight long answers with twenty alternatives for each token have some forty million.
MOST_BYTES = 64 << 20
#: Codes of the replies that are made here in place of the server's. The status is one that nobody tries again.
REDIRECTED, TOO_LARGE = "redirected", "reply_too_large"
_STATUS = 421


class _Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@cache
def bounded_client(client: type[Any]) -> type[Any]:
    """A subclass of the ``httpx`` client class whose ``send`` ends within the request's read time-out, all in all. A
    reply from elsewhere or of more than ``MOST_BYTES`` becomes one with status 421 and a code of this module."""
    import httpx2

    class Stream(httpx2.AsyncByteStream):
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in self._inner:
                size += len(chunk)
                if size > MOST_BYTES:
                    raise _too_large()
                yield chunk

        async def aclose(self) -> None:
            await self._inner.aclose()

    async def check(response: Any) -> None:
        if response.is_redirect and "location" in response.headers:
            target = response.headers["location"]
            if not same_host(str(response.request.url), target):
                host = urlsplit(urljoin(str(response.request.url), target)).netloc.rpartition("@")[2]
                raise _Refused(REDIRECTED, f"it redirects to another server, {host[:200]}, which is not followed")
        length = response.headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > MOST_BYTES:
            raise _too_large()
        # It was not asked for, and a few bytes can stand for gigabytes.
        if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise _Refused(TOO_LARGE, "the reply is compressed, which was not asked for")
        response.stream = Stream(response.stream)

    class Client(client):
        def __init__(self, **options: Any) -> None:
            super().__init__(event_hooks={"response": [check]}, **options)

        async def send(self, request: Any, **options: Any) -> Any:
            request.headers["accept-encoding"] = "identity"
            seconds = request.extensions.get("timeout", {}).get("read")
            try:
                async with asyncio.timeout(seconds):
                    return await super().send(request, **options)
            except TimeoutError as error:
                raise httpx2.ReadTimeout(f"no whole reply within {seconds:g} s", request=request) from error
            except _Refused as error:
                body = {"error": {"message": str(error), "code": error.code}}
                return httpx2.Response(_STATUS, json=body, request=request)

    return Client


def _too_large() -> _Refused:
    return _Refused(TOO_LARGE, f"the reply has more than {MOST_BYTES} bytes")
