"""How a generative model is asked: one request in, ``n`` completions out.

An engine is opened once per worker process and asked many times. The protocol knows nothing of shards or tables.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.base.errors import EngineError
from pipeline.base.images.tags import TAG

#: Errors that may be gone next time: a later session asks again for the rows that failed with one of them.
TRANSIENT = frozenset({"timeout", "rate_limited", "server_error", "connection", "worker_died"})


#: What may be asked for as ``Sampling.top_logprobs``: the most that vLLM and OpenAI's protocol give by default.
MOST_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. ``temperature=0`` is greedy (then ``n`` must be 1). ``top_logprobs`` asks for that many of the
    likeliest first tokens (``Completion.first``), at most ``MOST_LOGPROBS``."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt: encoded images, the conversation up to and including the user's turn, and its own seed.

    ``messages`` is a tuple of ``(role, content)``; images are placed before the first user text, as TRL does.
    ``prefix`` is how the answer begins, without white space at its end; completions then hold what follows it.
    """

    id: str
    images: tuple[bytes, ...]
    messages: tuple[tuple[str, str], ...]
    seed: int
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """``logprob`` is in nats, summed over the completion's tokens; None where a server does not tell it. So is
    ``n_tokens``. ``text`` has no white space at its ends, but keeps that at its start where the request has a
    ``prefix``: the two joined are the answer.

    ``first``: the likeliest first tokens as texts with their log-probs in nats, before temperature, likeliest first.
    Different tokens may have equal texts. None unless ``Sampling.top_logprobs`` asked for them and they are known.
    """

    text: str
    n_tokens: int | None
    finish_reason: str  # stop | length
    logprob: float | None
    first: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """Either ``completions`` (exactly ``sampling.n`` of them) or an ``error`` with its ``error_type``.
    ``prompt_tokens`` are those of the prompt with its images, where the engine tells."""

    id: str
    completions: tuple[Completion, ...] = ()
    error_type: str | None = None
    error: str | None = None
    prompt_tokens: int | None = None


class Engine(Protocol):
    """Responses come in any order; every request is answered exactly once, a bad one with an error."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]: ...


def unservable(request: Request, tokens: Collection[str] = ()) -> Response | None:
    """The answer to a request that no engine can serve: one without a text of the user, or with a text that would be
    read as one more image: ``<image>`` beside images, or one of the model's own ``tokens`` for them.

    >>> unservable(Request("a", (b"...",), (("user", "<image> What is it?"),), 0)).error_type
    'image_tags'
    """
    if not any(role == "user" and text.strip() for role, text in request.messages):
        return Response(request.id, error_type="empty_prompt", error="no message of the user has any text")
    for token in (*tokens, *((TAG,) if request.images else ())):
        if any(token in text for text in (*(text for _, text in request.messages), request.prefix)):
            error = f"{token} in a text would be read as one more image; take it out"
            return Response(request.id, error_type="image_tags", error=error)
    return None


def ask(engine: Engine, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
    """The responses of ``engine``, one to each request. One with an answer that no table can hold (half of a surrogate
    pair in its text, a count beyond 32 bits), or with more answers or fewer than were asked for, is an error as any
    other; so is none at all.

    Raises:
        EngineError: something is no response, or the second one to a request, or one that nobody made.
    """
    waiting = {request.id: None for request in requests}
    for response in engine.generate(requests, sampling):
        if not isinstance(response, Response):
            raise EngineError(f"the engine gave {response!r:.80} where a Response is wanted", "correct the engine")
        if response.id not in waiting:
            why = " twice" if any(request.id == response.id for request in requests) else ", which it was not asked"
            raise EngineError(f"the engine answered request {response.id!r:.80}{why}", "correct the engine")
        del waiting[response.id]
        yield _check(response, sampling.n)
    for name in waiting:
        yield Response(name, error_type="no_answer", error="the engine has left it out")


def _check(response: Response, n: int) -> Response:
    if response.error_type is not None:
        return response
    if len(response.completions) != n:
        reason = f"{len(response.completions)} answers where {n} were asked for"
        return Response(response.id, error_type="too_few_answers", error=reason)
    for number, completion in enumerate(response.completions):
        if (fault := _fault(completion)) is not None:
            return Response(response.id, error_type="malformed_answer", error=f"answer {number} {fault}")
    return response


def _fault(completion: Completion) -> str | None:
    if not isinstance(completion, Completion) or not isinstance(completion.text, str):
        return f"is {completion!r:.80}, which is no Completion with a text"
    kinds = {"finish_reason": str | None, "n_tokens": int | None, "logprob": float | int | None}
    for name, kind in kinds.items():
        if not isinstance(value := getattr(completion, name), kind):
            return f"has {value!r:.40} as its {name}"
    try:
        completion.text.encode()
    except UnicodeEncodeError as error:
        return f"holds half of a surrogate pair at character {error.start}, which is no text"
    if completion.n_tokens is not None and not 0 <= completion.n_tokens < 2**31:
        return f"has {completion.n_tokens} tokens, which no model makes"
    return None


def trim(text: str, request: Request) -> str:
    """What an engine made, as a completion's text."""
    return text.rstrip() if request.prefix else text.strip()


def likeliest(tokens: Iterable[tuple[str, float]], count: int) -> tuple[tuple[str, float], ...] | None:
    """The ``count`` likeliest tokens in a fixed order, without those that cannot be; None if nothing is left.

    >>> likeliest([("no", -2.0), ("yes", -0.2), ("?", float("-inf"))], 2)
    (('yes', -0.2), ('no', -2.0))
    """
    possible = [(text, logprob) for text, logprob in tokens if math.isfinite(logprob)]
    return tuple(sorted(possible, key=lambda token: (-token[1], token[0]))[:count]) or None
