"""Prompts with facts, texts about them, and tables of both, for the tests of rewriting stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from stage_kit import candidate, prompt_row

from pipeline.base.tables import CANDIDATES, COOCCURRENCE, OK, PROMPTS, error_status
from pipeline.engines.protocol import Request, Response, Sampling
from pipeline.engines.scripted import ScriptedEngine
from pipeline.scenes.scene_words import scenes
from reward.text.cooccurrence import Cooccurrence
from reward.text.types import Edit, apply

DESCRIBED = "sample-described"
#: A red sun and two blue boats of which no text of the tests is wrong about the places.
FACTS = {
    "objects": [
        {"name": "sun", "count": 1, "attributes": ["red"], "boxes": [[0.0, 0.0, 0.3, 0.3]]},
        {"name": "cup", "count": 2, "attributes": ["blue"], "boxes": [[0.4, 0.4, 0.6, 0.6], [0.7, 0.7, 0.9, 0.9]]},
    ]
}
TRUE = "The image shows a red sun and two blue cups."
#: Of two sentences, the second is wrong.
FALSE = "The image shows a red sun and two blue cups. There is also a green anchor."
Texts = Sequence[dict[str, Any]] | None


def candidates(*texts: str, **changes: Any) -> list[dict[str, Any]]:
    return [candidate(text, temperature=0.7, **changes) for text in texts]


def tables(*rows: Texts, facts: Mapping[str, Any] | None = FACTS) -> dict[str, pa.Table]:
    """Prompts p0, p1, ... and what was said to each; None where that failed."""
    ids = [f"p{at}" for at in range(len(rows))]
    sampled = [
        {"id": id, **(error_status("timeout", "late") if texts is None else {"candidates": texts, **OK})}
        for id, texts in zip(ids, rows, strict=True)
    ]
    return {
        "source": pa.Table.from_pylist([prompt_row(id, facts=facts) for id in ids], schema=PROMPTS),
        DESCRIBED: pa.Table.from_pylist(sampled, schema=CANDIDATES),
    }


def cooccurrence(*facts: Mapping[str, Any] | None) -> pa.Table:
    counts = Cooccurrence.of(facts or (FACTS, {"objects": [{"name": "sun"}, {"name": "moon"}]}), scenes())
    row = {"id": "cooccurrence", "together": counts.as_json(), **OK}
    return pa.Table.from_pylist([row], schema=COOCCURRENCE)


def through(given: dict[str, pa.Table], *stages: Any, engine: Any = None) -> dict[str, pa.Table]:
    """The tables with those that the stages make, one after the other."""
    filled = dict(given)
    for stage in stages:
        made = stage.process(engine, {name: filled[name] for name in stage.inputs})
        filled[stage.name] = made.cast(stage.schema)
    return filled


def restored(parent: str, row: Mapping[str, Any]) -> str:
    """What the edits of a candidate make of its parent."""
    return apply(parent, [Edit(**edit) for edit in row["edits"]])


@dataclass
class Listener:
    """Answers by ``answer`` and remembers what it was asked."""

    answer: Callable[[Request, int], str]
    refuse: frozenset[str] = frozenset()
    requests: list[tuple[Request, Sampling]] = field(default_factory=list)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        self.requests += [(request, sampling) for request in requests]
        engine = ScriptedEngine(answer=self.answer, refuse=self.refuse)
        # Backwards: answers come in any order.
        return iter(list(engine.generate(requests, sampling))[::-1])
