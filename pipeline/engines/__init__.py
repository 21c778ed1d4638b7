"""How a generative model is asked: one request in, ``n`` completions out.

An engine is opened once per worker process and asked many times. The protocol knows nothing of shards or tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

#: Errors that may be gone next time: a later session asks again for the rows that failed with one of them.
TRANSIENT = frozenset({"timeout", "rate_limited", "server_error", "connection", "worker_died"})


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. ``temperature=0`` is greedy (then ``n`` must be 1)."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt: encoded images, the conversation up to and including the user's turn, and its own seed.

    ``messages`` is a tuple of ``(role, content)``; images are placed before the first user text, as TRL does.
    """

    id: str
    images: tuple[bytes, ...]
    messages: tuple[tuple[str, str], ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """``logprob`` is in nats, summed over the completion's tokens; None where a server does not tell it. So is
    ``n_tokens``."""

    text: str
    n_tokens: int | None
    finish_reason: str  # stop | length
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Response:
    """Either ``completions`` (exactly ``sampling.n`` of them) or an ``error`` with its ``error_type``."""

    id: str
    completions: tuple[Completion, ...] = ()
    error_type: str | None = None
    error: str | None = None


class Engine(Protocol):
    """Responses come in any order; every request is answered exactly once, a bad one with an error."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]: ...
