"""Servers that never end, send without end, or send elsewhere: one try, one row, one host."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from loopback import Say, dripping, endless, reply, serving

from pipeline.base.errors import EngineError
from pipeline.engines import bounded
from pipeline.engines.openai import OpenOpenAI
from pipeline.engines.protocol import Request, Response, Sampling

KEY = "sk-planted-8f3a91c2d7"
MODELS = reply(json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode())
NESTED = b"[" * 200_000 + b"]" * 200_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MOST_BYTES", 1 << 20)
    monkeypatch.setenv("TEST_KEY", KEY)


def completion(**message: Any) -> bytes:
    """A chat completion of one choice."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    return json.dumps(
        {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    ).encode()


def routed(chat: Say, models: Say = MODELS) -> Say:
    return lambda handler: (models if handler.path.endswith("/models") else chat)(handler)


def spec(url: str, **changes: Any) -> OpenOpenAI:
    values: dict[str, Any] = {"api_key_env": "TEST_KEY", "timeout_s": 1.0, "retries": 0, **changes}
    return OpenOpenAI(model="m", base_url=f"{url}/v1", **values)


def answered(say: Say, **changes: Any) -> Response:
    with serving(routed(say)) as server:
        engine = spec(server.url, **changes)()
        begun = time.monotonic()
        try:
            (response,) = engine.generate([Request("r", (), (("user", "Say."),), seed=1)], Sampling(n=1, max_tokens=4))
            assert time.monotonic() - begun < 10
            return response
        finally:
            engine.close()


@pytest.mark.parametrize("retries", [0, 1])
def test_a_try_ends_in_its_time_however_often_a_byte_comes(retries: int) -> None:
    assert answered(dripping(), timeout_s=0.5, retries=retries).error_type == "timeout"


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (endless(chunked=True), "more than 1048576 bytes"),
        (endless(chunked=False), "more than 1048576 bytes"),
        (reply(b" " * (2 << 20)), "more than 1048576 bytes"),
        (reply(b"{}", Content_Length="99999999999"), "more than 1048576 bytes"),
        (reply(gzip.compress(b" " * (64 << 20)), Content_Encoding="gzip"), "compressed"),
        (reply(b" " * (2 << 20), status=500), "more than 1048576 bytes"),
    ],
)
def test_a_reply_is_not_read_beyond_its_size_and_not_asked_for_again(say: Say, why: str) -> None:
    response = answered(say, timeout_s=20, retries=3)
    assert response.error_type == "reply_too_large" and why in (response.error or "")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (completion(content=None), "no_text"),
        (completion(), "no_text"),
        (completion(content=["a"]), "no_text"),
        (completion(content=5), "no_text"),
        (NESTED, "server_error"),
        (b'{"choices": ' + NESTED + b"}", "server_error"),
        (b'{"choices": [' + b"9" * 5000 + b"]}", "server_error"),
        (b'{"choices": [{"message": null}]}', "server_error"),
        (b'{"choices": "yes"}', "server_error"),
        (b"\xff\xfe\x00", "server_error"),
    ],
)
def test_a_reply_without_an_answer_is_one_failed_row(body: bytes, kind: str) -> None:
    response = answered(reply(body, Content_Type="application/json"), timeout_s=20)
    assert response.error_type == kind and response.error and len(response.error) <= 400


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_server_is_not_followed_and_ends_the_run(status: int) -> None:
    with serving(reply(completion(content="stolen"))) as thief:
        away = reply(b"", status=status, Location=f"{thief.url}/v1/chat/completions")
        with pytest.raises(EngineError, match="redirects to another server, 127") as caught:
            answered(away, retries=3)
        assert not thief.requests and KEY not in str(caught.value)


def test_a_redirect_on_the_same_server_is_followed() -> None:
    def say(handler: Any) -> None:
        moved = reply(b"", status=307, Location="/elsewhere/chat/completions")
        (moved if handler.path.startswith("/v1") else reply(completion(content="hi"), Content_Type="application/json"))(
            handler
        )

    assert answered(say, timeout_s=20).completions[0].text == "hi"


@pytest.fixture(
    params=["dripping", "endless", "nested", "elsewhere"],
)
def models(request: pytest.FixtureRequest) -> Iterator[Say]:
    with serving(MODELS) as thief:
        yield {
            "dripping": dripping(),
            "endless": endless(chunked=True),
            "nested": reply(NESTED, Content_Type="application/json"),
            "elsewhere": reply(b"", status=302, Location=f"{thief.url}/v1/models"),
        }[request.param]
        assert not thief.requests


def test_a_list_of_models_has_the_same_bounds(models: Say) -> None:
    begun = time.monotonic()
    with serving(routed(reply(b"{}"), models)) as server, pytest.raises(EngineError) as caught:
        spec(server.url, timeout_s=0.5)()
    assert time.monotonic() - begun < 5 and len(str(caught.value)) < 600
