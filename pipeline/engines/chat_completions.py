"""OpenAI's chat completions as plain data: what is sent, in the dialect of a server, and how a reply is read.

No network and no ``openai`` library: ``pipeline.engines.openai`` has both.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.base.images import pixels
from pipeline.engines.protocol import (
    MOST_LOGPROBS,
    Completion,
    Request,
    Response,
    Sampling,
    likeliest,
    trim,
    unservable,
)

#: Servers read a seed as a signed 64-bit integer and some refuse a negative one. A seed of ``pipeline.base.seeds`` has
#: 62 bits, so nothing is lost; of a larger one the low 63 bits count.
SEED_MASK = 2**63 - 1

#: What servers give of the first tokens that do not give ``MOST_LOGPROBS``.
_FEW_LOGPROBS = 5

#: What a final image may be, by the file's first bytes.
_MIME = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)


class NoData(Exception):
    """A reply that holds no completions to keep."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class NotContinued(Exception):
    """A reply that begins a new answer, where a begun one was to be gone on with."""


#: How vLLM's server goes on with an answer that is begun, beyond OpenAI's protocol. With ``echo`` the reply begins with
#: the beginning, which tells such a server from one that overlooks the rest.
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False, "echo": True}


def refuses_to_continue(complaint: str) -> bool:
    """
    >>> refuses_to_continue("Unrecognized request argument supplied: echo"), refuses_to_continue("no such image")
    (True, False)
    """
    return any(re.search(rf"\b{name}\b", complaint) for name in CONTINUE)


@dataclass(frozen=True)
class Dialect:
    """Which parts of the protocol a server understands."""

    logprobs: bool = True
    several: bool = True
    limit: str = "max_tokens"
    alternatives: int = MOST_LOGPROBS

    def options(self, sampling: Sampling, n: int, seed: int) -> dict[str, Any]:
        options: dict[str, Any] = {
            "n": n if self.several else 1,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self.limit: sampling.max_tokens,
            "seed": seed & SEED_MASK,
        }
        if sampling.stop:
            options["stop"] = list(sampling.stop)
        if self.logprobs:
            options["logprobs"] = True
            if sampling.top_logprobs:
                options["top_logprobs"] = min(sampling.top_logprobs, self.alternatives)
        return options

    def without(self, complaint: str, n: int) -> Dialect:
        """The dialect that avoids what a refusal complains about; the same one if it cannot be avoided.

        >>> Dialect().without("logprobs are not supported by this model", 1)
        Dialect(logprobs=False, several=True, limit='max_tokens', alternatives=20)
        """
        text = complaint.lower()
        if self.logprobs and self.alternatives > _FEW_LOGPROBS and "top_logprobs" in text:
            return replace(self, alternatives=_FEW_LOGPROBS)
        if self.logprobs and re.search(r"log_?probs", text):
            return replace(self, logprobs=False)
        if self.limit == "max_tokens" and "max_completion_tokens" in text:  # OpenAI's own, for reasoning models
            return replace(self, limit="max_completion_tokens")
        # A wrong guess costs one request: a dialect is kept only if the request then succeeds.
        if self.several and n > 1 and re.search(r"\bn\b|\bcompletion choices?\b", text):
            return replace(self, several=False)
        return self


def messages(request: Request, max_pixels: int | None = None) -> list[dict[str, Any]] | Response:
    """The conversation of a request with its images as data URLs, or the answer to one that no server could serve."""
    if (refused := unservable(request)) is not None:
        return refused
    parts: list[dict[str, Any]] = []
    for index, data in enumerate(request.images):
        try:
            url = data_url(data, max_pixels)
        except pixels.BadImage as error:
            return Response(request.id, error_type=error.kind, error=f"image {index}: {error}")
        parts.append({"type": "image_url", "image_url": {"url": url}})
    begun = [("assistant", request.prefix)] if request.prefix else []
    return conversation((*request.messages, *begun), parts)


def conversation(messages: Sequence[tuple[str, str]], parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a request; ``parts`` (images) stand before the first user text, where TRL puts them.

    A message without images has plain text as content: not every server takes a list there.

    >>> conversation((("system", "Be brief."), ("user", "Hi.")), ())
    [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi.'}]
    """
    out: list[dict[str, Any]] = []
    waiting = list(parts)
    for role, text in messages:
        if role == "user" and waiting:
            out.append({"role": role, "content": [*waiting, {"type": "text", "text": text}]})
            waiting = []
        else:
            out.append({"role": role, "content": text})
    return out


def data_url(data: bytes, max_pixels: int | None = None) -> str:
    """The encoded image as a data URL: byte for byte if it is not too large and every server sees the same in it
    (``pipeline.base.images.pixels.final``), else as PNG.

    Raises:
        BadImage: it is truncated, or no image.
    """
    # Whole: of a truncated file a server would only say that the request is bad.
    picture = pixels.decode(data, None, None)
    fitted = pixels.fit(picture, max_pixels)
    if fitted is not picture or not pixels.is_final(data):
        data = pixels.encode(fitted)
    mime = next(mime for start, mime in _MIME if start.match(data))
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def prompt_tokens(reply: Any) -> int | None:
    """How long the prompt was, with its images, where the server tells."""
    counted = getattr(getattr(reply, "usage", None), "prompt_tokens", None)
    return counted if type(counted) is int and counted > 0 else None


def completions(reply: Any, request: Request) -> list[Completion]:
    """
    Raises:
        NoData: a choice is no answer, or the reply is not one of chat completions.
        NotContinued: the request has a prefix, and a choice does not begin with it.
    """
    choices = getattr(reply, "choices", None)
    if not isinstance(choices, list):  # an error, or a proxy's page, sent with status 200
        detail = reply if isinstance(reply, str) else getattr(reply, "error", None)
        raise NoData("server_error", f"the reply is not a chat completion: {detail or type(reply).__name__}")
    usage = getattr(reply, "usage", None)
    # What usage counts is the sum over the choices.
    counted = getattr(usage, "completion_tokens", None) if len(choices) == 1 else None
    counted = counted if type(counted) is int else None
    try:
        return [_completion(choice, counted, request) for choice in sorted(choices, key=lambda item: item.index or 0)]
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise NoData("server_error", f"a choice of the reply is malformed: {error}") from None


def _completion(choice: Any, counted: int | None, request: Request) -> Completion:
    if choice.finish_reason == "content_filter":
        raise NoData("content_filter", "the server's content filter cut an answer")
    if choice.finish_reason not in ("stop", "length"):  # vLLM says "abort" when it shuts down
        raise NoData("server_error", f"finish_reason {choice.finish_reason!r} is neither stop nor length")
    text = choice.message.content
    if text is None and request.prefix:
        raise NotContinued
    if text is None and choice.finish_reason == "length":
        raise NoData("no_text", "max_tokens ended it before its text began, as where a model reasons first; raise it")
    if not isinstance(text, str):
        raise NoData("no_text", f"the content of an answer is {str(text)[:80]!r}, not a text")
    if not text.startswith(request.prefix):
        raise NotContinued
    tokens = getattr(choice.logprobs, "content", None)
    if text and not tokens:  # an empty list beside a text is none of its tokens: a log-prob of 0 would be certainty
        tokens = None
    logprob = math.fsum(token.logprob for token in tokens) if tokens is not None else math.nan
    return Completion(
        text=trim(text.removeprefix(request.prefix), request),
        n_tokens=len(tokens) if tokens is not None else counted,
        finish_reason=choice.finish_reason,
        logprob=logprob if math.isfinite(logprob) else None,
        first=_first(tokens) if tokens else None,
    )


def _first(tokens: Sequence[Any]) -> tuple[tuple[str, float], ...] | None:
    top = getattr(tokens[0], "top_logprobs", None) or ()
    return likeliest([(token.token, float(token.logprob)) for token in top], len(top))
