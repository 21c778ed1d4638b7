"""An engine without a model: canned texts, chosen by seed. For tests and for trying out a recipe."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines.protocol import Completion, Request, Response, Sampling, likeliest

#: What the first word of a text gets of the probability, where nothing else is said.
SURE = 0.9


@dataclass(frozen=True)
class ScriptedEngine:
    """Answers depend on the request's id and seed only, so they are the same in any shard and any order.

    ``texts`` are drawn from, or ``answer(request, index)`` makes the text; it follows a request's prefix, whatever that
    says. ``first(request, index)`` tells the
    likeliest first tokens; without it they are the text's first word with ``SURE`` and, if that says yes or no, the
    opposite with the rest. ``raise_on`` are ids for which ``generate`` raises, as a broken engine would; ``refuse`` are
    ids answered with an error. ``kill_on`` maps an id to a file: the process dies at that id unless the file exists,
    and leaves the file, so it happens once; None kills every time.
    """

    texts: tuple[str, ...] = ("yes", "no")
    answer: Callable[[Request, int], str] | None = None
    first: Callable[[Request, int], tuple[tuple[str, float], ...] | None] | None = None
    raise_on: frozenset[str] = frozenset()
    refuse: frozenset[str] = frozenset()
    kill_on: tuple[tuple[str, Path | None], ...] = ()
    seconds_per_request: float = 0.0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        for request in requests:
            time.sleep(self.seconds_per_request)
            self._chaos(request)
            if request.id in self.refuse:
                yield Response(request.id, error_type="refused", error=f"{request.id} is on the list")
                continue
            yield Response(request.id, tuple(self._complete(request, i, sampling) for i in range(sampling.n)))

    def _complete(self, request: Request, index: int, sampling: Sampling) -> Completion:
        drawn = index if sampling.temperature else 0
        text = self.answer(request, index) if self.answer else self._draw(request, drawn)
        words = text.split(" ")
        cut = len(words) > sampling.max_tokens
        first = None
        if sampling.top_logprobs:
            tokens = self.first(request, index) if self.first else _alternatives(words[0])
            first = likeliest(tokens or (), sampling.top_logprobs)
        words = words[: sampling.max_tokens]
        answer = " ".join(words)
        answer = f" {answer}" if request.prefix else answer
        return Completion(answer, len(words), "length" if cut else "stop", -float(len(words)), first)

    def _draw(self, request: Request, index: int) -> str:
        digest = hashlib.blake2b(f"{request.id}:{request.seed + index}".encode(), digest_size=8).digest()
        return self.texts[int.from_bytes(digest, "big") % len(self.texts)]

    def _chaos(self, request: Request) -> None:
        if request.id in self.raise_on:
            raise RuntimeError(f"the engine broke at {request.id}")
        for fatal, mark in self.kill_on:
            if fatal == request.id and (mark is None or not mark.exists()):
                if mark is not None:
                    mark.touch()
                os._exit(1)


def _alternatives(word: str) -> tuple[tuple[str, float], ...]:
    """
    >>> [word for word, _ in _alternatives("No,")]
    ['No,', 'Yes']
    """
    other = {"yes": "No", "no": "Yes"}.get(word.strip(".,!").lower())
    return ((word, math.log(SURE)), *([(other, math.log(1 - SURE))] if other else []))


@dataclass(frozen=True)
class Open:
    """Opens a ``ScriptedEngine`` in a worker; compares by value, as ``WorkerSpec`` wants."""

    texts: tuple[str, ...] = ("yes", "no")
    raise_on: frozenset[str] = frozenset()
    kill_on: tuple[tuple[str, Path | None], ...] = ()
    seconds_per_request: float = 0.0

    def __call__(self) -> ScriptedEngine:
        return ScriptedEngine(
            texts=self.texts,
            raise_on=self.raise_on,
            kill_on=self.kill_on,
            seconds_per_request=self.seconds_per_request,
        )
