"""A real HTTP server on this machine that says, byte by byte, what a test wants."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Say = Callable[[BaseHTTPRequestHandler], None]


class Loopback:
    """``say`` answers every request; ``asked`` are their (path, headers)."""

    def __init__(self, say: Say) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                loopback.requests.append((self.path, dict(self.headers)))
                self.close_connection = True
                with contextlib.suppress(OSError):  # the client has gone
                    say(self)

            do_POST = do_GET

            def end_headers(self) -> None:
                # It is said, as a server that closes must: a client that follows a redirect on this host would
                # otherwise sometimes write into a connection that is going away.
                self.send_header("Connection", "close")
                super().end_headers()

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextlib.contextmanager
def serving(say: Say) -> Iterator[Loopback]:
    server = Loopback(say)
    try:
        yield server
    finally:
        server.stop()


def reply(data: bytes, status: int = 200, **headers: str) -> Say:
    def say(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return say


def dripping(every: float = 0.1) -> Say:
    """A byte now and then, without end."""

    def say(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(every)

    return say


def endless(chunked: bool) -> Say:
    """Bytes as fast as they are taken, their number not told."""

    def say(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        block = b" " * 65536
        for _ in range(100_000):
            handler.wfile.write(b"10000\r\n" + block + b"\r\n" if chunked else block)

    return say
