"""Any server that speaks OpenAI's chat completions: vLLM's own, a hosted one, a router in front of several.

The key is read from the environment in the worker and goes into the request's header, nowhere else. Waiting and trying
again is left to the ``openai`` library: it honours Retry-After (up to two minutes) and otherwise waits 0.5, 1, 2, 4, 8,
8 ... seconds less a random quarter, on 408, 409, 429, 5xx, time-outs and lost connections.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import difflib
import logging
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.base.errors import EngineError
from pipeline.engines.bounded import REDIRECTED, TOO_LARGE, bounded_client
from pipeline.engines.chat_completions import (
    CONTINUE,
    Dialect,
    NoData,
    NotContinued,
    completions,
    messages,
    prompt_tokens,
    refuses_to_continue,
)
from pipeline.engines.protocol import Completion, Request, Response, Sampling

#: Sent when the variable is not set: a server without keys ignores it, one with keys answers 401.
_NO_KEY = "none"
_TOO_LONG = ("context length", "context window", "context size", "longer than", "model length", "too long")
#: What OpenAI calls an account that has nothing left; others answer with status 402.
_NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
#: At their debug level these print requests and headers.
_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
#: While opening: a server that is not there should be named soon.
_OPEN_RETRIES, _OPEN_TIMEOUT_S = 2, 30.0


@dataclass(frozen=True)
class OpenOpenAI:
    """Opens an ``OpenAIEngine``. ``model`` is the name the server knows it by, ``base_url`` ends before
    ``/chat/completions``, ``timeout_s`` is for one try, up to the last byte of its reply. Larger images than
    ``max_image_pixels`` are scaled down."""

    model: str
    base_url: str
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 64
    timeout_s: float = 120.0
    retries: int = 6
    max_image_pixels: int | None = None

    def __call__(self) -> OpenAIEngine:
        """
        Raises:
            EngineError: the ``openai`` library is not installed, no server answers, it refuses the key, or it does not
                serve the model.
        """
        try:
            import openai  # noqa: F401
        except ImportError as error:
            raise EngineError(f"the openai library cannot be imported: {error}", "pip install openai") from error
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(max(logger.level, logging.WARNING))
        engine = OpenAIEngine(self, _read_key(self.api_key_env))
        problem = engine.check()
        if problem is not None:
            engine.close()
            raise problem
        return engine


class OpenAIEngine:
    """An open engine. ``generate`` may be called from several threads; together they have at most
    ``spec.concurrency`` requests on the way. State: the client and its event loop, which runs in a thread of its own,
    what the server was found not to understand, and counts."""

    def __init__(self, spec: OpenOpenAI, key: str) -> None:
        import openai

        self._spec = spec
        self._key = key
        self._dialect = Dialect()
        self._unfinished = self._tokens = 0
        self._slots = asyncio.Semaphore(spec.concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()
        # pool=None: waiting for one of the library's thousand connections is no time-out of the server.
        timeout = openai.Timeout(spec.timeout_s, pool=None)
        self._client: Any = openai.AsyncOpenAI(
            api_key=key,
            base_url=spec.base_url,
            max_retries=spec.retries,
            timeout=timeout,
            http_client=bounded_client(openai.DefaultAsyncHttpxClient)(),
        )

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        """Responses as they finish. A request may fail with timeout, rate_limited, server_error or connection, all in
        ``pipeline.engines.protocol.TRANSIENT``, or for good with unreadable_image, image_too_large, empty_prompt,
        image_tags, prompt_too_long, bad_request, content_filter, no_text, reply_too_large or too_few_answers.

        Raises:
            EngineError: the server refuses the key, no longer serves the model, redirects to another server, or does
                not go on with begun answers.
        """
        answers: queue.SimpleQueue[Response | None] = queue.SimpleQueue()
        future = self._submit(self._answer_all(requests, sampling, answers))
        future.add_done_callback(lambda _: answers.put(None))
        try:
            while (answer := answers.get()) is not None:
                yield answer
            future.result()  # raises what ended it early
        finally:
            future.cancel()  # the caller stopped reading: give up what is still on the way

    def stats(self) -> dict[str, int]:
        """Requests ``running`` and ``waiting`` now, ``tokens`` of all answers so far."""
        running = min(self._unfinished, self._spec.concurrency)
        return {"running": running, "waiting": self._unfinished - running, "tokens": self._tokens}

    def check(self) -> EngineError | None:
        """Why the server cannot be used, or None."""
        return self._submit(self._check()).result()

    def close(self) -> None:
        """Give up every request and stop the thread."""
        self._submit(self._shut_down()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _submit(self, coroutine: Any) -> concurrent.futures.Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _shut_down(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await _cancel(others)
        await self._client.close()
        await self._loop.shutdown_default_executor()

    # ------------------------------------------------------------------------------------------------------- opening

    async def _check(self) -> EngineError | None:
        import openai

        spec = self._spec
        try:
            client = self._client.with_options(
                max_retries=min(spec.retries, _OPEN_RETRIES), timeout=min(spec.timeout_s, _OPEN_TIMEOUT_S)
            )
            served = [str(model.id) for model in (await client.models.list()).data]
        except openai.OpenAIError as error:
            return self._ends_the_run(error) or EngineError(
                f"no usable answer from {spec.base_url}: {self._reason(error)}",
                f"start the server (for instance: vllm serve {spec.model}), or correct engine.base_url",
            )
        except (
            AttributeError,
            TypeError,
            ValueError,
            RecursionError,
        ):  # what the library makes of a page that is no list of models
            return EngineError(
                f"{spec.base_url}/models is not a list of models", "base_url must end before /models, often in /v1"
            )
        if spec.model in served:
            return None
        close = difflib.get_close_matches(spec.model, served, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        names = ", ".join(served[:5]) + (f" and {len(served) - 5} more" if len(served) > 5 else "")
        return EngineError(
            f"{spec.base_url} does not serve {spec.model!r}", f"{hint}the model must be one of: {names or '(none)'}"
        )

    # -------------------------------------------------------------------------------------------------------- asking

    async def _answer_all(
        self, requests: Sequence[Request], sampling: Sampling, answers: queue.SimpleQueue[Response | None]
    ) -> None:
        tasks = [asyncio.create_task(self._answer(request, sampling)) for request in requests]
        left = len(tasks)
        self._unfinished += left
        try:
            for task in asyncio.as_completed(tasks):
                answer = await task
                if isinstance(answer, EngineError):
                    raise answer
                left -= 1
                self._unfinished -= 1
                self._tokens += sum(completion.n_tokens or 0 for completion in answer.completions)
                answers.put(answer)
        finally:
            self._unfinished -= left
            await _cancel(tasks)

    async def _answer(self, request: Request, sampling: Sampling) -> Response | EngineError:
        """An error is returned and not raised here, so that it does not carry the failed HTTP request along."""
        import openai

        async with self._slots:
            # Encoded here, so that at most ``concurrency`` requests lie in memory with their images; in a thread, so
            # that the others go on meanwhile.
            sent = await asyncio.to_thread(messages, request, self._spec.max_image_pixels)
            if isinstance(sent, Response):
                return sent
            try:
                return await self._complete(request, sent, sampling)
            except NotContinued:
                return self._no_continuation("it begins new ones")
            except NoData as error:
                return Response(request.id, error_type=error.error_type, error=self._safe(str(error)))
            except openai.OpenAIError as error:
                kind = _error_type(error)
                if request.prefix and kind == "bad_request" and refuses_to_continue(_message(error)):
                    return self._no_continuation(self._reason(error))
                return self._ends_the_run(error) or Response(request.id, error_type=kind, error=self._reason(error))

    async def _complete(self, request: Request, sent: list[dict[str, Any]], sampling: Sampling) -> Response:
        """Ask until there are n answers. Answer i belongs to seed + i, as vLLM numbers the samples of one request."""
        done: list[Completion] = []
        counted: int | None = None
        while len(done) < sampling.n:
            missing = sampling.n - len(done)
            reply = await self._send(request, sent, sampling, missing, request.seed + len(done))
            got, counted = completions(reply, request), prompt_tokens(reply)
            if not got:
                raise NoData("too_few_answers", f"the server gave {len(done)} of n={sampling.n} answers and no more")
            done += got[:missing]
        return Response(request.id, tuple(done), prompt_tokens=counted)

    async def _send(self, request: Request, sent: list[dict[str, Any]], sampling: Sampling, n: int, seed: int) -> Any:
        """One reply; what the server refuses to understand is left out, and not sent again to it once that helped."""
        import openai

        dialect = first = self._dialect
        more = {"extra_body": CONTINUE} if request.prefix else {}
        while True:
            try:
                reply = await self._client.chat.completions.create(
                    model=self._spec.model, messages=sent, **dialect.options(sampling, n, seed), **more
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                simpler = dialect.without(_message(error), n)
                if simpler == dialect:
                    raise
                dialect = simpler
            except (ValueError, RecursionError) as error:  # the body is not JSON, or nested without end
                raise NoData("server_error", f"the reply cannot be read: {error}") from None
            else:
                if dialect != first:
                    self._dialect = dialect
                return reply

    # -------------------------------------------------------------------------------------------------------- errors

    def _ends_the_run(self, error: Exception) -> EngineError | None:
        """The error that no other request would escape."""
        spec, status = self._spec, getattr(error, "status_code", None)
        if status == 401 or (status == 403 and not _is_moderated(error)):
            remedy = (
                f"set the variable {spec.api_key_env} where the workers run"
                if self._key == _NO_KEY
                else f"check the key in the variable {spec.api_key_env}"
            )
            return EngineError(f"{spec.base_url} refuses the key: {self._reason(error)}", remedy)
        if status in (404, 405):
            return EngineError(
                f"{spec.base_url} knows no such address or model: {self._reason(error)}",
                f"base_url must end before /chat/completions, often in /v1; check that {spec.model!r} is still served",
            )
        if getattr(error, "code", None) == REDIRECTED:
            return EngineError(f"{spec.base_url}: {_message(error)}", "set base_url to the server that answers")
        if status == 402 or getattr(error, "code", None) in _NO_MONEY:
            return EngineError(f"{spec.base_url}: {self._reason(error)}", "add to the account's quota, then run again")
        return None

    def _no_continuation(self, reason: str) -> EngineError:
        return EngineError(
            f"{self._spec.base_url} does not go on with answers that are begun: {reason}",
            "sample.continue needs a server that knows vLLM's continue_final_message and echo, or engine.kind=vllm",
        )

    def _reason(self, error: Exception) -> str:
        request = getattr(error, "request", None)
        retried = request.headers.get("x-stainless-retry-count", "0") if request is not None else "0"
        status = getattr(error, "status_code", None)
        text = self._safe(_message(error))
        if status is not None:
            text = f"status {status}: {text}"
        return text if retried == "0" else f"{text} (after {retried} retries)"

    def _safe(self, text: str) -> str:
        """One line without the key, which some servers quote."""
        if self._key != _NO_KEY:
            text = text.replace(self._key, "[key]")
        return " ".join(text.split())[:300]


def _error_type(error: Exception) -> str:
    import openai

    if isinstance(error, openai.APITimeoutError):
        return "timeout"
    if isinstance(error, openai.APIConnectionError):
        return "connection"
    status = getattr(error, "status_code", 500)
    special = {408: "timeout", 409: "server_error", 429: "rate_limited"}
    if status in special or not 400 <= status < 500:
        return special.get(status, "server_error")
    code, text = str(getattr(error, "code", "") or ""), _message(error).lower()
    if code in ("content_filter", "content_policy_violation") or _is_moderated(error):
        return "content_filter"
    if code == TOO_LARGE:
        return code
    if code == "context_length_exceeded" or any(phrase in text for phrase in _TOO_LONG):
        return "prompt_too_long"
    return "bad_request"


def _is_moderated(error: Exception) -> bool:
    """Whether a server refuses what it was asked, and not who asks: routers say so with status 403, the reasons beside
    the message (OpenRouter's ``metadata``)."""
    body = getattr(error, "body", None)
    metadata = body.get("metadata") if isinstance(body, dict) else None
    return isinstance(metadata, dict) and not {"reasons", "flagged_input"}.isdisjoint(metadata)


def _message(error: Exception) -> str:
    """What the server itself said, where it said something."""
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or getattr(error, "message", "") or error) or type(error).__name__


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        # The HTTP library would quote the whole header.
        raise EngineError(f"the variable {variable} holds spaces, line breaks or non-ASCII signs", "set it to the key")
    return key or _NO_KEY


async def _cancel(tasks: Any) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
