"""Plug-ins that do what they should not, for the tests of sources, engines and detectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from stage_kit import png

from pipeline.engines.protocol import Completion, Request, Response, Sampling
from pipeline.sources.readers.protocol import Entry
from reward.text.fact_findings import at

GOOD = {"images": [png()], "prompt": "Is there a sun?", "answer": "Yes"}
#: Rows that are none, with their error types.
BROKEN: tuple[tuple[Any, str], ...] = (
    ([1, 2], "malformed_row"),
    (None, "malformed_row"),
    ({"prompt": "no images"}, "malformed_row"),
    ({"images": [object()], "prompt": "x"}, "malformed_row"),
    ({"images": ["../secret.png"], "prompt": "x"}, "path_outside_root"),
    ({"images": ["/etc/hostname"], "prompt": "x"}, "path_outside_root"),
    ({"images": [], "prompt": "half \ud800"}, "malformed_row"),
    ({"images": [], "prompt": "<image> what?"}, "image_tags"),
    ({"images": [], "prompt": "x", "facts": {"objcts": []}}, "malformed_facts"),
    (Entry(7, "x", None, "a:1"), "malformed_row"),  # type: ignore[arg-type]
    (Entry([{"bytes": None, "path": "/etc/hostname"}], [{"role": "user", "content": "x"}], None, "a:2"),
     "path_outside_root"),
    (Entry([], [], None, "a:3", error=("mine", "it is odd")), "mine"),
    (Entry([], [], None, "a:4", error="odd"), "malformed_row"),  # type: ignore[arg-type]
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    width: int = 8


@dataclass(frozen=True)
class Rows:
    """``mode`` is good, broken, twice (every row), or raise (after two)."""

    mode: str = "good"
    frame: Frame = Frame()
    names: dict[str, list[int]] = field(default_factory=dict)
    note: str = field(default="", compare=False)
    version: ClassVar[str] = "1"

    def read(self) -> Iterator[Any]:
        yield GOOD
        yield {**GOOD, "prompt": "Is there a cup?"}
        if self.mode == "raise":
            raise KeyError("the third")
        for row, _ in BROKEN if self.mode == "broken" else ():
            yield row
        yield from [GOOD, GOOD] if self.mode == "twice" else ()

    def stamp(self) -> Any:
        if self.mode == "raise":
            raise OSError("gone")
        return {"rows": 2}


@dataclass(frozen=True)
class WithoutVersion:
    def read(self) -> Iterator[Any]:
        yield GOOD


@dataclass(frozen=True)
class WithoutMethod:
    version: ClassVar[str] = "1"


@dataclass(frozen=True)
class Limited(WithoutVersion):
    limit: int = 3
    version: ClassVar[str] = "1"


def good(request: Request, n: int) -> Response:
    return Response(request.id, tuple(Completion("A sun.", 2, "stop", -1.0) for _ in range(n)))


#: What an engine makes of a request and the number of answers.
ANSWERS: dict[str, Callable[[Request, int], list[Any]]] = {
    "good": lambda request, n: [good(request, n)],
    "few": lambda request, n: [good(request, n - 1)],
    "none": lambda request, n: [],
    "twice": lambda request, n: [good(request, n)] * 2,
    "other": lambda request, n: [Response("nobody", ())],
    "mapping": lambda request, n: [{"id": request.id}],
    "texts": lambda request, n: [Response(request.id, ("A sun.",) * n)],  # type: ignore[arg-type]
    "no text": lambda request, n: [Response(request.id, (Completion(None, 2, "stop", None),) * n)],  # type: ignore[arg-type]
    "half": lambda request, n: [Response(request.id, (Completion("a", 1.5, "stop", None),) * n)],  # type: ignore[arg-type]
    "log-prob": lambda request, n: [Response(request.id, (Completion("a", 1, "stop", "x"),) * n)],  # type: ignore[arg-type]
}


@dataclass(frozen=True)
class Server:
    """``mode`` is one of ``ANSWERS``, raise, or nothing (to ask)."""

    mode: str = "good"
    address: str = field(default="", compare=False)
    gpus: float = 0.0
    version: ClassVar[int] = 2

    def open(self, model: Any) -> Any:
        return None if self.mode == "nothing" else Client(self.mode, model)


@dataclass
class Client:
    mode: str
    model: Any
    inside: int = 0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Any]:
        self.inside += 1
        assert self.inside == 1, "asked by two at a time"
        for request in requests:
            time.sleep(0.001)
            if self.mode == "raise":
                raise RuntimeError("the server is\non fire")
            yield from ANSWERS[self.mode](request, sampling.n)
        self.inside -= 1


@dataclass(frozen=True)
class Finder:
    """``mode`` is good, raise, tuple, outside, or verdict."""

    mode: str = "good"
    words: tuple[str, ...] = ("anchor",)
    version: ClassVar[str] = "1"
    in_worker: ClassVar[bool] = False

    def find(self, text: str, row: Any) -> Iterator[Any]:
        if self.mode == "raise":
            raise RuntimeError(f"nothing is known of {row['id']}")
        if self.mode == "tuple":
            yield (0, 3)
        if self.mode == "outside":
            yield at(text, 0, len(text) + 1, "hallucination")
        if self.mode == "verdict":
            yield at(text, 0, 3, "wrong")  # type: ignore[arg-type]
        for word in self.words:
            if (start := text.find(word)) >= 0:
                yield at(text, start, start + len(word), "hallucination", "on the list", "object")


@dataclass(frozen=True)
class HeavyFinder(Finder):
    in_worker: ClassVar[bool] = True
