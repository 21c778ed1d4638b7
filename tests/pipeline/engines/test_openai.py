"""The engine against a small real HTTP server that answers by script. ``test_serve.py`` has a real vLLM behind it."""

from __future__ import annotations

import base64
import io
import json
import logging
import pickle
import re
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.errors import EngineError
from pipeline.engines.chat_completions import CONTINUE, data_url
from pipeline.engines.openai import OpenAIEngine, OpenOpenAI
from pipeline.engines.protocol import TRANSIENT, Request, Response, Sampling
from pipeline.recipe.load import make_recipe
from pipeline.scenes import raster
from pipeline.scenes.world import scene

KEY = "sk-planted-8f3a91c2"
DOCS = Path(__file__).parents[3] / "docs" / "engines.md"
SAMPLING = Sampling(n=3, temperature=1.0, max_tokens=16)
#: Waited instead of the library's own half a second and more.
SOON = {"retry-after-ms": "1"}


@dataclass(frozen=True)
class Reply:
    """``status=0`` hangs up without a word."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def chat(*texts: str | None, finish: str = "stop", logprobs: bool = True, usage: int | None = 7) -> Reply:
    """A chat completion; each of a choice's words counts as a token with log-prob -0.5."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text},
            "finish_reason": finish,
            "logprobs": {"content": [{"token": w, "logprob": -0.5} for w in (text or "").split()]}
            if logprobs
            else None,
        }
        for index, text in enumerate(texts)
    ]
    body: dict[str, Any] = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
    return Reply({**body, "usage": {"completion_tokens": usage, "prompt_tokens": 1, "total_tokens": 8}})


def wrong(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    return Reply({"error": {"message": message, "type": "error", "code": code}}, status, {**SOON, **headers})


def moderated() -> Reply:
    """As OpenRouter refuses what one request says."""
    metadata = {"reasons": ["violence"], "flagged_input": "a ...", "provider_name": "x"}
    return Reply({"error": {"code": 403, "message": "your input was flagged", "metadata": metadata}}, 403, SOON)


def obedient(body: dict[str, Any]) -> Reply:
    """n answers that tell their seed."""
    return chat(*(f"answer {body['seed'] + i}" for i in range(body["n"])))


class Server:
    """Answers ``/v1/models`` with ``models`` and everything else with ``answer(body)``; remembers what was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], Reply] = obedient
        self.models = Reply({"object": "list", "data": [{"id": name, "object": "model"} for name in ("m", "other")]})
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: set[str | None] = set()
        self.running = self.peak = self.abandoned = 0
        self.lock = threading.Lock()
        self.http = _Http(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class _Http(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            server.keys.add(self.headers["Authorization"])
            self._send(server.models if self.path == "/v1/models" else Reply("no such page", 404))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.keys.add(self.headers["Authorization"])
            with server.lock:
                server.requests.append(body)
                server.times.append(time.monotonic())
                server.running += 1
                server.peak = max(server.peak, server.running)
            reply = server.answer(body)
            gone = self._gone(reply.seconds)
            with server.lock:
                server.running -= 1
                server.abandoned += gone
            if gone or not reply.status:
                self.close_connection = True
            else:
                self._send(reply)

        def _gone(self, seconds: float) -> bool:
            """Whether the client hangs up within ``seconds``; a client that waits for its answer sends nothing."""
            readable, *_ = select.select([self.connection], [], [], seconds)
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

        def _send(self, reply: Reply) -> None:
            text = isinstance(reply.body, str)
            data = (reply.body if text else json.dumps(reply.body)).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "text/html" if text else "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.stop()


@pytest.fixture
def opened(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., OpenAIEngine]]:
    """Opens engines of the server, with ``KEY`` in the environment, and closes them in the end."""
    monkeypatch.setenv("TEST_KEY", KEY)
    engines: list[OpenAIEngine] = []

    def open_(**changes: Any) -> OpenAIEngine:
        engines.append(spec(server, **changes)())
        return engines[-1]

    yield open_
    for engine in engines:
        engine.close()


def spec(server: Server, **changes: Any) -> OpenOpenAI:
    values: dict[str, Any] = {"model": "m", "base_url": server.url, "api_key_env": "TEST_KEY", "retries": 2}
    return OpenOpenAI(**{**values, **changes})


def request(index: int = 0, **changes: Any) -> Request:
    values: dict[str, Any] = {"id": f"r{index}", "images": (), "messages": (("user", "Say."),), "seed": 100 * index}
    return Request(**{**values, **changes})


def ask(engine: OpenAIEngine, *requests: Request, sampling: Sampling = SAMPLING) -> dict[str, Response]:
    """The responses by id, after checking that every request got exactly one, of the promised shape."""
    responses = list(engine.generate(requests, sampling))
    assert sorted(item.id for item in responses) == sorted(item.id for item in requests)
    for made in responses:
        assert (made.error_type is None and len(made.completions) == sampling.n) or (
            made.error and not made.completions
        )
    return {response.id: response for response in responses}


def ask_once(engine: OpenAIEngine, sampling: Sampling = SAMPLING, **changes: Any) -> Response:
    return ask(engine, request(**changes), sampling=sampling)["r0"]


def png(size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, kind)
    return buffer.getvalue()


def decoded(url: str) -> tuple[str, bytes]:
    head, _, data = url.partition(",")
    return head, base64.b64decode(data)


# ------------------------------------------------------------------------------------------------------ what is asked


def test_one_request_carries_n_and_every_option(server: Server, opened: Any) -> None:
    answer = ask_once(opened(), Sampling(n=3, temperature=0.7, top_p=0.9, max_tokens=16, stop=("\n", "END")), seed=5)
    assert [c.text for c in answer.completions] == ["answer 5", "answer 6", "answer 7"]
    (body,) = server.requests
    assert {key: body[key] for key in body if key != "messages"} == {
        "model": "m", "n": 3, "temperature": 0.7, "top_p": 0.9, "max_tokens": 16, "seed": 5, "stop": ["\n", "END"],
        "logprobs": True,
    }  # fmt: skip
    assert server.keys == {f"Bearer {KEY}"}


def test_the_alternatives_of_the_first_token_are_asked_for_only_if_wanted(server: Server, opened: Any) -> None:
    ask_once(opened(), Sampling(n=1, top_logprobs=3))
    ask_once(opened(), Sampling(n=1))
    assert [body.get("top_logprobs") for body in server.requests] == [3, None]


def continuing(body: dict[str, Any]) -> Reply:
    """As vLLM's server with ``echo``."""
    return chat(*(f"{body['messages'][-1]['content']} and more \n" for _ in range(body["n"])))


def test_a_begun_answer_is_sent_last_and_only_what_follows_comes_back(server: Server, opened: Any) -> None:
    server.answer = continuing
    answer = ask_once(opened(), Sampling(n=2), prefix="A sun")
    assert [c.text for c in answer.completions] == [" and more"] * 2
    (body,) = server.requests
    assert body["messages"][-1] == {"role": "assistant", "content": "A sun"}
    assert {key: body[key] for key in CONTINUE} == CONTINUE
    server.answer = obedient
    ask_once(opened())
    assert not set(CONTINUE) & set(server.requests[-1]) and server.requests[-1]["messages"][-1]["role"] == "user"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda body: chat("Two suns."), "begins new ones"),
        (lambda body: chat(None), "begins new ones"),
        (lambda body: wrong(400, "Unrecognized request argument: continue_final_message"), "continue_final_message"),
    ],
)
def test_a_server_that_does_not_go_on_with_a_begun_answer_ends_the_run(
    server: Server, opened: Any, answer: Callable[[dict[str, Any]], Reply], reason: str
) -> None:
    server.answer = answer
    with pytest.raises(EngineError, match=f"does not go on with answers that are begun: .*{reason}") as caught:
        ask_once(opened(), Sampling(n=1), prefix="A sun")
    assert "engine.kind=vllm" in caught.value.remedy


def test_a_begun_answer_may_be_refused_for_other_reasons(server: Server, opened: Any) -> None:
    server.answer = lambda body: wrong(400, "no such image")
    assert ask_once(opened(), Sampling(n=1), prefix="A sun").error_type == "bad_request"


def test_greedy(server: Server, opened: Any) -> None:
    assert ask_once(opened(), Sampling(n=1, temperature=0.0)).completions[0].text == "answer 0"
    assert server.requests[0]["temperature"] == 0 and "stop" not in server.requests[0]


@pytest.mark.parametrize(("seed", "sent"), [(2**62 - 1, 2**62 - 1), (2**63 + 4, 4), (-1, 2**63 - 1)])
def test_a_seed_is_what_a_server_accepts(server: Server, opened: Any, seed: int, sent: int) -> None:
    ask_once(opened(), seed=seed)
    assert server.requests[0]["seed"] == sent


def test_the_image_travels_as_it_is_before_the_first_text_of_the_user(server: Server, opened: Any) -> None:
    image = raster.png(scene(5, 0))
    messages = (("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"))
    ask_once(opened(), images=(image, png(kind="JPEG")), messages=messages)
    system, first, *rest = server.requests[0]["messages"]
    assert system == {"role": "system", "content": "s"} and [message["content"] for message in rest] == ["b", "c"]
    assert first["content"][2] == {"type": "text", "text": "a"}
    assert [part["type"] for part in first["content"]] == ["image_url", "image_url", "text"]
    assert decoded(first["content"][0]["image_url"]["url"]) == ("data:image/png;base64", image)
    assert first["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_known_formats_are_not_encoded_again(kind: str) -> None:
    data = png(kind=kind)
    assert decoded(data_url(data)) == (f"data:image/{kind.lower()};base64", data)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "GIF"])
def test_other_formats_become_png(kind: str) -> None:
    head, data = decoded(data_url(png(kind=kind)))
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG" and image.size == (8, 8) and image.getpixel((0, 0)) == (200, 30, 30)


@given(width=st.integers(1, 60), height=st.integers(1, 60), limit=st.integers(1, 2000))
@settings(max_examples=40)
def test_no_image_is_larger_than_the_limit_and_small_ones_stay(width: int, height: int, limit: int) -> None:
    original = png((width, height))
    _, data = decoded(data_url(original, limit))
    assert (data == original) == (width * height <= limit)
    with Image.open(io.BytesIO(data)) as image:
        assert image.width * image.height <= max(limit, max(width, height))  # a side has at least one pixel


# ---------------------------------------------------------------------------------------------------- what comes back


def test_logprob_and_tokens_are_counted_per_answer(server: Server, opened: Any) -> None:
    server.answer = lambda _: chat(" one two three ", "one", "")
    a, b, c = ask_once(opened()).completions
    assert (a.text, a.n_tokens, a.logprob, a.finish_reason) == ("one two three", 3, -1.5, "stop")
    assert (b.n_tokens, b.logprob, c.text, c.n_tokens, c.logprob) == (1, -0.5, "", 0, 0.0)


def test_a_cut_answer_says_so(server: Server, opened: Any) -> None:
    server.answer = lambda _: chat("a", "b", "c", finish="length")
    assert {c.finish_reason for c in ask_once(opened()).completions} == {"length"}


@pytest.mark.parametrize(("n", "tokens"), [(1, 7), (2, None)])
def test_without_logprobs_usage_counts_a_single_answer_only(
    server: Server, opened: Any, n: int, tokens: int | None
) -> None:
    server.answer = lambda body: chat(*["a b"] * body["n"], logprobs=False)
    for completion in ask_once(opened(), Sampling(n=n)).completions:
        assert completion.n_tokens == tokens and completion.logprob is None


def test_a_text_without_its_tokens_has_no_logprob(server: Server, opened: Any) -> None:
    reply = chat("a b")
    reply.body["choices"][0]["logprobs"]["content"] = []
    server.answer = lambda _: reply
    (completion,) = ask_once(opened(), Sampling(n=1)).completions
    assert completion.logprob is None and completion.n_tokens == 7  # as usage says


def test_a_model_that_reasons_until_its_tokens_end_says_what_helps(server: Server, opened: Any) -> None:
    server.answer = lambda _: chat(None, "b", "c", finish="length")
    answer = ask_once(opened())
    assert answer.error_type == "no_text" and "max_tokens" in (answer.error or "")


@pytest.mark.parametrize("value", ["NaN", "-Infinity"])
def test_a_logprob_that_is_no_number_is_none(server: Server, opened: Any, value: str) -> None:
    reply = chat("a")
    reply.body["choices"][0]["logprobs"]["content"][0]["logprob"] = float(value)
    server.answer = lambda _: reply
    assert ask_once(opened(), Sampling(n=1)).completions[0].logprob is None


def with_alternatives(text: str, *tokens: tuple[str, float]) -> Reply:
    reply = chat(text)
    reply.body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = [
        {"token": token, "logprob": logprob} for token, logprob in tokens
    ]
    return reply


def test_the_alternatives_of_the_first_token_come_likeliest_first(server: Server, opened: Any) -> None:
    server.answer = lambda _: with_alternatives("Yes it is", (" no", -2.0), ("Yes", -0.2), ("?", float("-inf")))
    sampling = Sampling(n=1, top_logprobs=3)
    assert ask_once(opened(), sampling).completions[0].first == (("Yes", -0.2), (" no", -2.0))
    server.answer = lambda _: chat("Yes")  # a server that gives none
    assert ask_once(opened(), sampling).completions[0].first is None


@pytest.mark.parametrize(
    ("most", "first", "counts"), [(5, (("Yes", -0.2),), [20, 5, 5]), (0, None, [20, 5, None, None])]
)
def test_a_server_that_gives_few_alternatives_is_asked_for_few_and_one_that_gives_none_for_none(
    server: Server, opened: Any, most: int, first: Any, counts: list[int | None]
) -> None:
    def few(body: dict[str, Any]) -> Reply:
        if body.get("top_logprobs", 0) > most:
            return wrong(400, f"top_logprobs must be at most {most}")
        return with_alternatives("Yes", ("Yes", -0.2)) if body.get("top_logprobs") else chat("Yes", logprobs=False)

    server.answer, engine = few, opened()
    assert [ask_once(engine, Sampling(n=1, top_logprobs=20)).completions[0].first for _ in range(2)] == [first] * 2
    assert [body.get("top_logprobs") for body in server.requests] == counts


def test_choices_are_taken_in_the_order_of_their_index_and_no_more_than_n(server: Server, opened: Any) -> None:
    reply = chat("a", "b", "c", "d")
    reply.body["choices"].reverse()
    server.answer = lambda _: reply
    assert [c.text for c in ask_once(opened()).completions] == ["a", "b", "c"]


@pytest.mark.parametrize("most", [1, 2])
def test_missing_answers_are_asked_for_with_the_seeds_that_belong_to_them(
    server: Server, opened: Any, most: int
) -> None:
    server.answer = lambda body: obedient({**body, "n": min(most, body["n"])})
    answer = ask_once(opened(), Sampling(n=5), seed=40)
    assert [c.text for c in answer.completions] == [f"answer {seed}" for seed in range(40, 45)]
    assert [body["seed"] for body in server.requests] == list(range(40, 45, most))


def test_a_server_that_gives_no_answer_fails_the_row(server: Server, opened: Any) -> None:
    server.answer = lambda body: chat() if body["seed"] else chat("a")
    answer = ask_once(opened())
    assert answer.error_type == "too_few_answers" and "1 of n=3" in (answer.error or "")
    assert len(server.requests) == 2


def test_a_filtered_answer_is_no_data(server: Server, opened: Any) -> None:
    server.answer = lambda _: chat("a", "b", "c", finish="content_filter")
    assert ask_once(opened()).error_type == "content_filter"


def test_an_answer_that_broke_off_is_no_data(server: Server, opened: Any) -> None:
    server.answer = lambda _: chat("a", "b", "c", finish="abort")
    assert ask_once(opened()).error_type == "server_error"


@pytest.mark.parametrize(
    "body", ["<html>hello</html>", {"error": {"message": "upstream is away"}}, {"choices": None}, {"choices": [{}]}, 3]
)
def test_a_reply_that_is_no_completion_is_the_servers_error(server: Server, opened: Any, body: Any) -> None:
    server.answer = lambda _: Reply(body)
    assert ask_once(opened()).error_type == "server_error"


def test_a_reply_that_is_no_json_is_the_servers_error(server: Server, opened: Any) -> None:
    server.answer = lambda _: Reply("{broken", headers={"Content-Type": "application/json"})
    assert ask_once(opened()).error_type == "server_error"


# ----------------------------------------------------------------------------------- what a server does not understand


def test_a_server_without_logprobs_is_asked_without_from_then_on(server: Server, opened: Any) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        if "logprobs" in body:
            return wrong(400, "This model does not support logprobs.")
        return chat(*["a"] * body["n"], logprobs=False)

    server.answer = answer
    engine = opened(concurrency=1)
    answers = ask(engine, *(request(i) for i in range(4)))
    assert all(c.logprob is None for answer in answers.values() for c in answer.completions)
    assert sum("logprobs" in body for body in server.requests) == 1 and len(server.requests) == 5


@pytest.mark.parametrize("message", ["Only one completion choice is allowed", "'n' : number must be at most 1"])
def test_a_server_that_refuses_n_is_asked_one_by_one(server: Server, opened: Any, message: str) -> None:
    server.answer = lambda body: wrong(400, message) if body["n"] > 1 else obedient(body)
    answer = ask_once(opened(), seed=10)
    assert [c.text for c in answer.completions] == ["answer 10", "answer 11", "answer 12"]
    assert [body["n"] for body in server.requests] == [3, 1, 1, 1]


def test_a_server_that_wants_max_completion_tokens_gets_it(server: Server, opened: Any) -> None:
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.answer = lambda body: wrong(400, message) if "max_tokens" in body else obedient(body)
    assert ask_once(opened()).error_type is None
    assert server.requests[1]["max_completion_tokens"] == 16


def test_a_wrong_guess_about_the_server_changes_nothing_for_other_requests(server: Server, opened: Any) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        return wrong(400, "n tokens expected") if body["messages"][0]["content"] == "bad" else obedient(body)

    server.answer = answer
    engine = opened()
    assert ask_once(engine, messages=(("user", "bad"),)).error_type == "bad_request"
    assert [body["n"] for body in server.requests] == [3, 1]
    ask_once(engine)
    assert server.requests[-1]["n"] == 3


# ------------------------------------------------------------------------------------------------------------- faults


def first_wrong(times: int, reply: Reply) -> Callable[[dict[str, Any]], Reply]:
    count = iter(range(10**6))
    return lambda body: reply if next(count) < times else obedient(body)


def test_retry_after_is_honoured(server: Server, opened: Any) -> None:
    reply = Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "1"})
    server.answer = first_wrong(1, reply)
    assert ask_once(opened()).error_type is None
    assert len(server.times) == 2 and server.times[1] - server.times[0] >= 1  # of its own it would wait half of that


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_passing_fault_is_tried_again(server: Server, opened: Any, status: int) -> None:
    server.answer = first_wrong(2, wrong(status))
    assert ask_once(opened()).error_type is None
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "kind"), [(408, "timeout"), (409, "server_error"), (429, "rate_limited"), (500, "server_error")]
)
def test_a_lasting_fault_is_one_that_a_later_run_tries_again(
    server: Server, opened: Any, status: int, kind: str
) -> None:
    server.answer = lambda _: wrong(status, "try later")
    answer = ask_once(opened())
    assert answer.error_type == kind and kind in TRANSIENT
    assert answer.error == f"status {status}: try later (after 2 retries)"
    assert len(server.requests) == 3


def test_a_server_that_does_not_answer_in_time(server: Server, opened: Any) -> None:
    server.answer = lambda _: Reply({}, seconds=5)
    answer = ask_once(opened(timeout_s=0.2, retries=1))
    assert answer.error_type == "timeout" and "after 1 retries" in (answer.error or "")
    assert len(server.requests) == 2


def test_a_server_that_went_away(server: Server, opened: Any) -> None:
    server.answer = lambda _: Reply("", 0)
    assert ask_once(opened(retries=1)).error_type == "connection" and "connection" in TRANSIENT
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (wrong(400, "messages must alternate"), "bad_request"),
        (wrong(413, "body too large"), "bad_request"),
        (wrong(422, "no"), "bad_request"),
        (wrong(400, "This model's maximum context length is 512 tokens"), "prompt_too_long"),
        (wrong(400, "no", "context_length_exceeded"), "prompt_too_long"),
        (wrong(400, "no", "content_filter"), "content_filter"),
        (moderated(), "content_filter"),
    ],
)
def test_a_bad_request_is_not_tried_again(server: Server, opened: Any, reply: Reply, kind: str) -> None:
    server.answer = lambda _: reply
    answer = ask_once(opened())
    assert answer.error_type == kind and kind not in TRANSIENT
    assert answer.error == f"status {reply.status}: {reply.body['error']['message']}"
    assert len(server.requests) == 1


def test_what_no_server_could_answer_is_not_sent(server: Server, opened: Any) -> None:
    whole = png((64, 64))
    answers = ask(
        opened(),
        request(0, images=(whole[:60],)),
        request(1, images=(whole, b"")),
        request(2, messages=(("user", " "),)),
        request(3),
    )
    assert [answers[f"r{i}"].error_type for i in range(4)] == ["unreadable_image"] * 2 + ["empty_prompt", None]
    assert "image 1" in (answers["r1"].error or "") and len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "remedy"),
    [
        (wrong(401, "who are you"), "check the key in the variable TEST_KEY"),
        (wrong(403, "not for you"), "check the key in the variable TEST_KEY"),
        (wrong(404, "no model m"), "'m' is still served"),
        (wrong(429, "no money", "insufficient_quota"), "quota"),
        (wrong(402, "Insufficient credits"), "quota"),
        (wrong(400, "Billing hard limit has been reached", "billing_hard_limit_reached"), "quota"),
    ],
)
def test_what_no_other_request_would_escape_ends_the_run(
    server: Server, opened: Any, reply: Reply, remedy: str
) -> None:
    server.answer = lambda _: reply
    engine = opened(concurrency=1)
    with pytest.raises(EngineError, match=remedy):
        list(engine.generate([request(i) for i in range(50)], SAMPLING))
    assert len(server.requests) < 10


FAULTS = st.sampled_from(["ok", "fewer", "none", "500 once", "500", "429 once", "400", "filter", "html", "hang up"])


@given(faults=st.lists(FAULTS, max_size=12), n=st.integers(1, 4), concurrency=st.integers(1, 4))
@settings(max_examples=15)
def test_every_request_is_answered_exactly_once_whatever_happens(faults: list[str], n: int, concurrency: int) -> None:
    server, seen = Server(), set[int]()

    def answer(body: dict[str, Any]) -> Reply:
        index = int(body["messages"][0]["content"])
        again = index in seen
        seen.add(index)
        fault = faults[index]
        if fault == "fewer":
            return chat("a")
        if fault == "500" or (fault == "500 once" and not again):
            return wrong(500)
        if fault == "429 once" and not again:
            return wrong(429)
        special = {
            "none": chat(),
            "400": wrong(400),
            "filter": chat("a", finish="content_filter"),
            "html": Reply("<p>"),
            "hang up": Reply("", 0),
        }
        return special.get(fault, obedient(body))

    server.answer = answer
    engine = spec(server, concurrency=concurrency, retries=1)()
    requests = [request(i, messages=(("user", str(i)),)) for i in range(len(faults))]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
            answers = ask(engine, *requests, sampling=Sampling(n=n))
    finally:
        engine.close()
        server.stop()
    want = {
        "none": "too_few_answers", "500": "server_error", "400": "bad_request", "filter": "content_filter",
        "html": "server_error", "hang up": "connection",
    }  # fmt: skip
    assert [answers[f"r{i}"].error_type for i in range(len(faults))] == [want.get(fault) for fault in faults]
    assert server.peak <= concurrency


# -------------------------------------------------------------------------------------------------------- concurrency


def slow(seconds: float) -> Callable[[dict[str, Any]], Reply]:
    return lambda body: Reply(obedient(body).body, seconds=seconds)


def test_two_shards_together_keep_to_the_bound_and_use_it(server: Server, opened: Any) -> None:
    server.answer = slow(0.05)
    engine = opened(concurrency=4)
    with ThreadPoolExecutor(2) as threads:
        shards = [threads.submit(ask, engine, *(request(i) for i in range(12))) for _ in range(2)]
        for shard in shards:
            assert len(shard.result()) == 12
    assert server.peak == 4


def test_stats_count_what_is_on_the_way_and_the_tokens_so_far(server: Server, opened: Any) -> None:
    server.answer = slow(0.3)
    engine = opened(concurrency=2)
    responses = engine.generate([request(i) for i in range(5)], SAMPLING)
    next(responses)
    stats = engine.stats()
    assert stats["running"] == 2 and stats["running"] + stats["waiting"] <= 4 and stats["tokens"] >= 3 * 2
    list(responses)
    assert engine.stats() == {"running": 0, "waiting": 0, "tokens": 5 * 3 * 2}
    responses = engine.generate([request(i) for i in range(5)], SAMPLING)
    next(responses)
    responses.close()
    assert wait_for(lambda: engine.stats()["running"] == 0)


def test_responses_come_as_they_finish(server: Server, opened: Any) -> None:
    server.answer = lambda body: Reply(obedient(body).body, seconds=0.0 if body["seed"] else 0.5)
    order = [answer.id for answer in opened().generate([request(i) for i in range(4)], SAMPLING)]
    assert order[-1] == "r0" and sorted(order) == ["r0", "r1", "r2", "r3"]


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_reader_that_stops_cancels_what_is_on_the_way(server: Server, opened: Any) -> None:
    server.answer = lambda body: Reply(obedient(body).body, seconds=30.0 if body["seed"] else 0.0)
    engine = opened(concurrency=3)
    responses = engine.generate([request(i) for i in range(20)], SAMPLING)
    assert next(responses).id == "r0"
    assert wait_for(lambda: server.running == 3)
    responses.close()
    assert wait_for(lambda: server.abandoned == 3 and server.running == 0)
    assert len(server.requests) == 4
    assert ask_once(engine).error_type is None  # and the slots are free again


def test_closing_the_engine_ends_a_generation_with_an_error(server: Server, opened: Any) -> None:
    server.answer = slow(30.0)
    engine = spec(server)()
    with ThreadPoolExecutor(1) as threads:
        shard = threads.submit(ask, engine, request())
        assert wait_for(lambda: server.running == 1)
        engine.close()
        with pytest.raises(CancelledError):
            shard.result(timeout=5)


# ------------------------------------------------------------------------------------------------------------ opening


def test_no_server(opened: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(EngineError, match=rf"(?s)no usable answer from {url}.*vllm serve m"):
            opened(base_url=url, retries=0)


def test_a_model_that_is_not_served(server: Server, opened: Any) -> None:
    with pytest.raises(EngineError, match=r"(?s)does not serve 'othr'.*did you mean 'other'\?.*one of: m, other"):
        opened(model="othr")


def test_a_base_url_without_its_version(server: Server, opened: Any) -> None:
    with pytest.raises(EngineError, match=r"(?s)status 404.*often in /v1"):
        opened(base_url=server.url.removesuffix("/v1"))


@pytest.mark.parametrize("body", ["<html>hello</html>", {"hello": 1}, []])
def test_a_page_that_is_no_list_of_models(server: Server, opened: Any, body: Any) -> None:
    server.models = Reply(body)
    with pytest.raises(EngineError, match="is not a list of models"):
        opened()


def test_a_missing_key_names_the_variable(server: Server, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY")
    server.models = wrong(401, "key please")
    with pytest.raises(EngineError, match="set the variable TEST_KEY where the workers run"):
        opened()
    assert server.keys == {"Bearer none"}


def test_the_opener_compares_by_value_and_survives_pickling(server: Server) -> None:
    assert pickle.loads(pickle.dumps(spec(server))) == spec(server) != spec(server, retries=1)


# ------------------------------------------------------------------------------------------------------------ the key


@pytest.mark.parametrize(
    "reply",
    [
        wrong(400, f"Bearer {KEY} sent nonsense"),
        wrong(401, f"Incorrect API key provided: {KEY}"),
        wrong(500, f"{'x' * 290}{KEY}"),
        Reply(f"<html>{KEY}</html>", 502, SOON),
        Reply(f"<html>{KEY}</html>"),
        Reply({"error": {"message": KEY}}),
        Reply(obedient({"n": 3, "seed": 0}).body, headers={"x-request-id": KEY}),
    ],
)
def test_the_key_is_sent_and_stands_nowhere_else(
    server: Server, opened: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], reply: Reply
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    texts = [repr(spec(server)), repr(pickle.dumps(spec(server)))]
    server.answer = lambda _: reply
    engine = opened()
    texts.append(repr(engine))
    try:
        texts += [repr(answer) for answer in engine.generate([request()], SAMPLING)]
    except EngineError as error:
        texts += [*traceback.format_exception(error), repr(error), repr(pickle.dumps(error))]
        assert error.__context__ is None
    texts += [caplog.text, *capfd.readouterr()]
    assert server.keys == {f"Bearer {KEY}"}
    assert not [text for text in texts if KEY in text or KEY[:12] in text]


def test_a_server_that_quotes_the_key_while_opening(server: Server, opened: Any) -> None:
    server.models = wrong(401, f"Incorrect API key provided: {KEY}")
    with pytest.raises(EngineError) as caught:
        opened()
    assert KEY not in "".join(traceback.format_exception(caught.value)) and "[key]" in str(caught.value)


@pytest.mark.parametrize("value", [f"{KEY}\nmore", f"{KEY} more", f"{KEY}é"])
def test_a_malformed_key_is_not_quoted(
    server: Server, opened: Any, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TEST_KEY", value)
    with pytest.raises(EngineError, match="variable TEST_KEY holds") as caught:
        opened()
    assert KEY not in "".join(traceback.format_exception(caught.value)) and not server.keys


def test_the_libraries_do_not_log_requests(server: Server, opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    ask_once(opened())
    assert not [record for record in caplog.records if record.name.split(".")[0] in ("openai", "httpx2", "httpcore2")]


# ------------------------------------------------------------------------------------------------------------- the docs


def test_the_recipes_of_the_docs_load() -> None:
    snippets = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    rest = {"name": "docs", "source": {"scenes": 1}, "pair": {"weights": {"objects.hallucinated": -1}}}
    recipes = [make_recipe({**rest, **yaml.safe_load(snippet)}) for snippet in snippets]
    assert {recipe.sample.engine.kind for recipe in recipes} == {"vllm", "openai", "scripted"}
