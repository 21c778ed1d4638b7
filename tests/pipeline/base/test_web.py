"""Images from the web, against real servers on this machine."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from loopback import Say, dripping, endless, reply, serving

from pipeline.base.images.web import Elsewhere, fetch, same_host


def test_the_body_is_what_was_sent() -> None:
    with serving(reply(b"image")) as server:
        assert fetch(f"{server.url}/a b.png?x=1", 5) == b"image"
        assert server.requests[0][0] == "/a%20b.png?x=1" and server.requests[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("say", [endless(chunked=True), endless(chunked=False), reply(b"x" * 1_000_000)])
def test_never_more_than_a_byte_over_the_limit(say: Say) -> None:
    with serving(say) as server:
        assert len(fetch(server.url, 1000)) == 1001


def test_it_ends_in_its_time_however_often_a_byte_comes() -> None:
    begun = time.monotonic()
    with serving(dripping()) as server, pytest.raises(TimeoutError):
        fetch(server.url, seconds=0.5)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (reply(b"no", status=404), "status 404"),
        (reply(b"short", Content_Length="99"), "5 of 99|IncompleteRead"),
        (lambda handler: handler.wfile.write(b"what\r\n\r\n"), "BadStatusLine"),
    ],
)
def test_what_is_no_image_is_an_error_of_the_system(say: Say, reason: str) -> None:
    with serving(say) as server, pytest.raises(OSError, match=reason):
        fetch(server.url, 1000)


def test_a_name_that_is_none_is_an_error_of_the_system() -> None:
    for url in ("http://", "http://[::1", "http://127.0.0.1:99999/", "http://127.0.0.1:1/"):
        with pytest.raises(OSError):
            fetch(url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_server_is_not_followed(status: int) -> None:
    with serving(reply(b"stolen")) as thief, serving(reply(b"", status, Location=f"{thief.url}/a")) as server:
        with pytest.raises(Elsewhere):
            fetch(server.url.replace("http://", "http://me:secret@"))
        assert not thief.requests


def test_a_redirect_on_the_same_server_is_followed_with_what_it_was_given() -> None:
    def say(handler: Any) -> None:
        (reply(b"", 302, Location="/b") if handler.path == "/a" else reply(b"here"))(handler)

    with serving(say) as server:
        assert fetch(f"{server.url.replace('http://', 'http://me:p%40w@')}/a") == b"here"
        wanted = f"Basic {base64.b64encode(b'me:p@w').decode()}"
        assert [headers["Authorization"] for _, headers in server.requests] == [wanted, wanted]


@pytest.mark.parametrize(
    ("url", "target", "same"),
    [
        ("http://a/x", "/y", True),
        ("http://a/x", "https://a/x", True),
        ("http://a:80/x", "https://a:443/x", True),
        ("https://a/x", "http://a/x", False),
        ("http://a/x", "http://a:81/x", False),
        ("http://a:81/x", "https://a/x", False),
        ("http://a/x", "http://a.b/x", False),
        ("http://a/x", "http://a@b/x", False),
        ("http://a/x", "//b/x", False),
        ("http://a/x", "http://A/x", True),
        ("http://a/x", "ftp://a/x", False),
        ("http://a/x", "http://[::1", False),
        ("http://a/x", "http://a:99999/", False),
    ],
)
def test_which_servers_are_the_same(url: str, target: str, same: bool) -> None:
    assert same_host(url, target) is same
