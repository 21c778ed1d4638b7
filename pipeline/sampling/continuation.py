"""Let a model go on from the beginnings of sampled answers, blind to the images: what it makes up there is rejected.

Wang et al. 2024, "Enhancing the Reasoning Ability of Multimodal Large Language Models via Mixed Preference
Optimization" (arXiv 2411.10442), where it is called Dropout Next-Token Prediction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.base import columns, seeds
from pipeline.base.tables import CANDIDATES, OK, error_status, stage_table
from pipeline.engines.protocol import Completion, Engine, Request, Sampling
from pipeline.running.stage import WorkerSpec
from pipeline.sampling.config import Continuation, Sample
from pipeline.sampling.gather import GatherStage
from pipeline.sampling.requests import UNREADABLE, Failure, Requests, failure, pictures, unreadable
from pipeline.sampling.stage import identity_options, tokens, turns, worker

NAME = "sample-continued"
#: Of fewer words there is no beginning to speak of.
FEWEST_WORDS = 4

_WORD = re.compile(r"\S+")
#: Of how a model is sampled, what says nothing about how it continues.
_OF_SAMPLES = frozenset({"n", "temperature", "max_tokens", "on_policy"})

Candidate = dict[str, Any]


@dataclass(frozen=True)
class ContinueStage:
    """One ``continued`` candidate for every ``sampled`` one in the tables ``parts`` that is whole (not cut off at
    ``max_tokens``) and has ``FEWEST_WORDS``. ``spec`` is the model that goes on, ``on_policy`` if it is to be trained.

    ``parent`` counts through the parts, in their order: ``GatherStage`` puts this table behind them. A row fails if one
    of its continuations does; the candidates of the parts stay.
    """

    spec: Sample
    rule: Continuation
    seed: int
    parts: tuple[str, ...]
    on_policy: bool = False

    name = NAME
    version = 1
    schema = CANDIDATES

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("source", *self.parts)

    @property
    def worker(self) -> WorkerSpec:
        return worker(self.spec)

    def options(self) -> dict[str, Any]:
        rule = self.rule.model_dump(mode="json", exclude={"model"})
        return {
            **identity_options(self.spec, self.seed, _OF_SAMPLES),
            **rule,
            "max_tokens": self._most,
            "parts": list(self.parts),
            "on_policy": self.on_policy,
        }

    def process(self, model: Engine, tables: Mapping[str, pa.Table]) -> pa.Table:
        sampled = GatherStage(self.parts).process(None, {name: tables[name] for name in self.parts})
        source = columns.align(tables["source"].select(["id", "images", "prompt"]), columns.whole(sampled["id"]))
        made: dict[str, list[Candidate]] = {}
        problems: dict[str, Failure] = {}
        requests: Requests[tuple[str, int]] = Requests()
        for prompt, row in zip(source.to_pylist(), sampled.to_pylist(), strict=True):
            row_id = row["id"]
            if row["status"] != "ok":
                problems[row_id] = (row["error_type"], row["error"])
                continue
            made[row_id] = []
            begun = list(self._beginnings(row["candidates"]))
            try:
                images = pictures(prompt["images"] if self.rule.images and begun else ())
            except UNREADABLE as error:
                problems[row_id] = unreadable(error)
                continue
            for place, prefix, temperature in begun:
                seed = seeds.derive(self.seed, f"{row_id}#continued", self.spec.model, place)
                request = Request(f"{row_id}#{place}", images, turns(self.spec, prompt["prompt"]), seed, prefix)
                requests.add((row_id, place), request, self._sampling(temperature))
        for (row_id, place), request, sampling, response in requests.responses(model):
            if (why := failure(response)) is not None:
                problems[row_id] = why
                continue
            (answer,) = response.completions
            made[row_id].append(self._candidate(request, sampling, place, answer))
        return _table(columns.whole(sampled["id"]).to_pylist(), made, problems)

    def extras(self, table: pa.Table) -> dict[str, int]:
        return tokens(table)

    @property
    def _most(self) -> int:
        return self.rule.max_tokens or self.spec.max_tokens

    def _beginnings(self, candidates: Sequence[Candidate]) -> Iterable[tuple[int, str, float]]:
        """Of what is to be continued: index, the words that stay, temperature."""
        for place, candidate in enumerate(candidates):
            prefix = beginning(candidate["text"], self.rule.share)
            if candidate["origin"] == "sampled" and candidate["finish_reason"] != "length" and prefix:
                temperature = self.rule.temperature
                yield place, prefix, candidate["temperature"] if temperature is None else temperature

    def _sampling(self, temperature: float) -> Sampling:
        return Sampling(1, temperature, self.spec.top_p, self._most, tuple(self.spec.stop))

    def _candidate(self, request: Request, sampling: Sampling, place: int, answer: Completion) -> Candidate:
        return {
            "text": request.prefix + answer.text,
            "origin": "continued",
            "parent": place,
            "model": self.spec.model,
            "revision": self.spec.revision,
            "seed": request.seed,
            "temperature": sampling.temperature,
            "n_tokens": answer.n_tokens,
            "finish_reason": answer.finish_reason,
            "logprob": answer.logprob,
            "on_policy": self.on_policy,
        }


def beginning(text: str, share: float) -> str:
    """The first ``share`` of the words, rounded down, at least one and not all; empty for a text that is too short.

    >>> beginning("The image  shows a sun.", 0.5), beginning("The image  shows a sun.", 0.7), beginning("a b c", 0.5)
    ('The image', 'The image  shows', '')
    """
    ends = [word.end() for word in _WORD.finditer(text)]
    if len(ends) < FEWEST_WORDS:
        return ""
    kept = min(max(1, int(share * len(ends))), len(ends) - 1)
    return text[: ends[kept - 1]]


def _table(ids: Sequence[str], made: Mapping[str, list[Candidate]], problems: Mapping[str, Failure]) -> pa.Table:
    rows = [
        {"id": row_id, **error_status(*problems[row_id])}
        if row_id in problems
        else {"id": row_id, "candidates": sorted(made[row_id], key=lambda candidate: candidate["parent"]), **OK}
        for row_id in ids
    ]
    return stage_table(rows, CANDIDATES)
