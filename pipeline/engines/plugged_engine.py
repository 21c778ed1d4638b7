"""An engine that is not ours (``pipeline.base.plugins``): opened in a worker, asked by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.base.errors import EngineError
from pipeline.engines.protocol import Engine, Request, Response, Sampling


@dataclass(frozen=True, slots=True)
class Model:
    """Which model is asked: a folder, or whatever ``name`` stands for where the engine looks for it.

    ``chat_template`` is Jinja, None for the model's own. An image of more than ``max_image_pixels`` is to be scaled
    down before the model sees it.
    """

    name: str
    revision: str | None = None
    chat_template: str | None = None
    max_image_pixels: int | None = None


@dataclass(frozen=True)
class OpenPlugged:
    """``plugin`` has ``open(model)``, which gives an ``Engine``; ``kind`` is its name in a recipe."""

    kind: str
    plugin: Any
    model: Model

    def __call__(self) -> Engine:
        engine = self.plugin.open(self.model)
        if not callable(getattr(engine, "generate", None)):
            told = f"{self.kind}: open(model) gave a {type(engine).__name__} without generate(requests, sampling)"
            raise EngineError(told, "see docs/extending.md")
        return InTurns(engine)


class InTurns:
    """A worker has two shards at a time. This asks ``engine`` about one after the other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        with self._turn:
            yield from self._engine.generate(requests, sampling)

    def stats(self) -> dict[str, int]:
        counts: dict[str, int] = getattr(self._engine, "stats", dict)()
        return counts
