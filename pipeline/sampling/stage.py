"""Ask a model for n answers to every prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns, seeds
from pipeline.base import model_names as models
from pipeline.base.errors import ConfigError
from pipeline.base.images import image_files
from pipeline.base.tables import CANDIDATES
from pipeline.engines.protocol import Completion, Engine, Request, Sampling
from pipeline.running.stage import WorkerSpec
from pipeline.sampling.config import GivenOptions, OpenAIOptions, PluggedOptions, Sample, ScriptedOptions
from pipeline.sampling.noised import add_noise
from pipeline.sampling.requests import UNREADABLE, Failure, Requests, failure, pictures, unreadable

Candidate = dict[str, Any]
#: One of the answers wanted: (id of the prompt, index of the candidate).
Place = tuple[str, int]
#: What differs from candidate to candidate of one model.
_PER_CANDIDATE = ("text", "seed", "temperature", "n_tokens", "finish_reason", "logprob")
#: Of how a model is sampled, what says nothing about how it is asked a question.
_OF_SAMPLES = frozenset({"n", "max_tokens", "top_p", "stop", "on_policy"})
_COLUMNS = ["id", "images", "prompt", "status", "error_type", "error"]


@dataclass(frozen=True)
class SampleStage:
    """``reads`` names the prompts table, ``spec`` one model. ``on_policy``: it is the model that is to be trained.

    With ``spec.noise`` the model sees the images under noise, and the candidates' origin is ``noised``. A prompt
    without images then has no candidate, and has not failed.
    """

    spec: Sample
    seed: int
    name: str = "sample"
    reads: str = "source"
    on_policy: bool = False

    version = 2
    schema = CANDIDATES

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.reads,)

    @property
    def worker(self) -> WorkerSpec:
        return worker(self.spec)

    def options(self) -> dict[str, Any]:
        # Runs from before there was noise hold.
        without = {"models", "chat_template", "continue", *(() if self.spec.noise else ("noise",))}
        recorded = {key: value for key, value in self.spec.result_options().items() if key not in without}
        template = {"chat_template": models.digest(text)} if (text := template_text(self.spec)) else {}
        return {
            "seed": self.seed,
            "on_policy": self.on_policy,
            **recorded,
            **template,
            "model_identity": self._identity(),
        }

    def salvages(self, options: Mapping[str, Any]) -> bool:
        """With a higher ``max_tokens``, only the answers that were cut off are asked for again. Which model is to be
        trained says nothing about an answer but ``on_policy``."""
        from pipeline.running.store import flat_options

        now = flat_options(self.options())
        rest = {key for key in {*now, *options} if now.get(key) != options.get(key)} - {"max_tokens", "on_policy"}
        return not rest and now["max_tokens"] >= options["max_tokens"]

    def process(self, model: Engine, tables: Mapping[str, pa.Table]) -> pa.Table:
        rows = tables[self.reads].select(_COLUMNS)
        kept = self._earlier(tables.get(self.name))
        answers: dict[Place, Completion] = {}
        errors: dict[str, Failure] = {}
        imageless = set(rows["id"].filter(pc.equal(pc.list_value_length(rows["images"]), 0)).to_pylist())
        nothing = frozenset(imageless) if self.spec.noise else frozenset()
        for places, _, _, response in self._requests(rows, kept, errors, nothing).responses(model):
            if (why := failure(response)) is not None:
                errors[places[0][0]] = why
            else:
                answers.update(zip(places, response.completions, strict=True))
        return self._table(rows["id"].to_pylist(), kept, answers, errors, nothing)

    def extras(self, table: pa.Table) -> dict[str, int]:
        empty = pc.sum(pc.equal(pc.list_value_length(table["candidates"]), 0)).as_py()
        return {**tokens(table), **({"without_images": empty} if empty else {})}

    def _earlier(self, earlier: pa.Table | None) -> dict[str, list[Candidate]]:
        """What an earlier session already has: the candidates of each prompt that did not fail."""
        if earlier is None:
            return {}
        return {row["id"]: row["candidates"] for row in earlier.to_pylist() if row["status"] == "ok"}

    def _requests(
        self,
        rows: pa.Table,
        kept: Mapping[str, Sequence[Candidate]],
        errors: dict[str, Failure],
        nothing: frozenset[str],
    ) -> Requests[list[Place]]:
        """What to ask, each with the candidates that the answers will be.

        Prompts that cannot be asked are put into ``errors``; of those in ``nothing`` there is nothing to ask.
        """
        requests: Requests[list[Place]] = Requests()
        for row in rows.to_pylist():
            row_id = row["id"]
            if row["status"] != "ok":
                errors[row_id] = (row["error_type"], row["error"])
                continue
            if row_id in nothing:
                continue
            before = kept.get(row_id)
            cut = [i for i, c in enumerate(before) if self._is_cut(c)] if before else []
            if before and not cut:
                continue
            try:
                request = self._request(row)
            except UNREADABLE as error:
                errors[row_id] = unreadable(error)
                continue
            if before:
                # The engine numbers the samples of a request from its seed on, so sample i can be asked for alone.
                for i in cut:
                    alone = replace(request, id=f"{row_id}#{i}", seed=before[i]["seed"])
                    requests.add([(row_id, i)], alone, self._sampling(before[i]["temperature"], 1))
                continue
            for at, temperature in enumerate(self.spec.temperatures):
                places = [(row_id, at * self.spec.n + i) for i in range(self.spec.n)]
                seeded = replace(request, seed=self._seed(row_id, at))
                requests.add(places, seeded, self._sampling(temperature, self.spec.n))
        return requests

    def _table(
        self,
        ids: Sequence[str],
        kept: Mapping[str, Sequence[Candidate]],
        answers: Mapping[Place, Completion],
        errors: Mapping[str, Failure],
        nothing: frozenset[str],
    ) -> pa.Table:
        """Candidates from ``answers``, else from what was ``kept``. Built column by column: a shard has thousands."""
        count = len(self.spec.temperatures) * self.spec.n
        flat: dict[str, list[Any]] = {name: [] for name in _PER_CANDIDATE}
        for row_id in ids:
            if row_id in errors or row_id in nothing:
                continue
            before = kept.get(row_id)
            first = [self._seed(row_id, at) for at in range(len(self.spec.temperatures))]
            for index in range(count):
                answer = answers.get((row_id, index))
                if answer is None:
                    assert before is not None
                    for name, column in flat.items():
                        column.append(before[index][name])
                    continue
                at, sample = divmod(index, self.spec.n)
                flat["text"].append(answer.text)
                flat["seed"].append(first[at] + sample)
                flat["temperature"].append(self.spec.temperatures[at])
                flat["n_tokens"].append(answer.n_tokens)
                flat["finish_reason"].append(answer.finish_reason)
                flat["logprob"].append(answer.logprob)
        same = {
            "origin": "noised" if self.spec.noise else "sampled",
            "model": self.spec.model,
            "revision": self.spec.revision,
        }
        candidates = _structs(flat, {**same, "on_policy": self.on_policy})
        bad = [errors.get(row_id) for row_id in ids]
        sizes = [0 if error or row_id in nothing else count for row_id, error in zip(ids, bad, strict=True)]
        lists = columns.lists(np.array(sizes), candidates)
        return pa.table(
            {
                "id": pa.array(ids, pa.string()),
                "candidates": pc.if_else(pa.array([error is None for error in bad]), lists, None),
                "status": pa.array(["failed" if error else "ok" for error in bad], pa.string()),
                "error_type": pa.array([error[0] if error else None for error in bad], pa.string()),
                "error": pa.array([error[1] if error else None for error in bad], pa.string()),
            },
            schema=CANDIDATES,
        )

    def _request(self, row: Mapping[str, Any]) -> Request:
        """
        Raises:
            BadImage: an image may not be read, or cannot be put under noise.
            OSError: an image is gone.
        """
        images = pictures(row["images"])
        if self.spec.noise is not None:
            # Not by the model's name: several see the same noise.
            drawn = (seeds.derive(self.seed, row["id"], "#noise", at) for at in range(len(images)))
            most = self.spec.max_image_pixels
            noise = self.spec.noise
            images = tuple(add_noise(data, noise, seed, most) for data, seed in zip(images, drawn, strict=True))
        return Request(row["id"], images, turns(self.spec, row["prompt"]), seed=0)

    def _sampling(self, temperature: float, n: int) -> Sampling:
        return Sampling(n, temperature, self.spec.top_p, self.spec.max_tokens, tuple(self.spec.stop))

    def _seed(self, row_id: str, at: int) -> int:
        noise = f"#{self.spec.noise.label}" if self.spec.noise else ""
        return seeds.derive(self.seed, row_id, f"{self.spec.model}{noise}", at)

    def _is_cut(self, candidate: Candidate) -> bool:
        return candidate["finish_reason"] == "length" and (candidate["n_tokens"] or 0) < self.spec.max_tokens

    def _identity(self) -> str:
        if isinstance(self.spec.engine, ScriptedOptions):
            return f"scripted:{self.spec.model}"
        if isinstance(self.spec.engine, OpenAIOptions):
            return f"served:{self.spec.model}@{self.spec.revision or 'unknown'}"
        if isinstance(self.spec.engine, PluggedOptions):
            served = f"{self.spec.model}@{self.spec.revision or 'unknown'}"
            return f"{self.spec.engine.identity} {models.identity(self.spec.model) if _is_here(self.spec) else served}"
        return models.identity(self.spec.model, self.spec.revision)


def _structs(flat: Mapping[str, list[Any]], same: Mapping[str, Any]) -> pa.Array:
    """An array of candidates: fields of ``flat`` have a value for each, those of ``same`` one for all."""
    count = len(next(iter(flat.values())))
    fields = list(CANDIDATES.field("candidates").type.value_type)
    arrays = [
        pa.array(flat[field.name], field.type)
        if field.name in flat
        else pa.repeat(pa.scalar(same.get(field.name), field.type), count)
        for field in fields
    ]
    return pa.StructArray.from_arrays(arrays, fields=fields)


def slug(spec: Sample) -> str:
    """A model's name as part of a folder's.

    >>> slug(Sample(model="llava-hf/llava-1.5-7b-hf", revision="a1"))
    'llava-hf-llava-1.5-7b-hf-a1'
    """
    parts = (spec.model, spec.revision, spec.noise.label if spec.noise else None)
    return re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(filter(None, parts))).strip("-.")


def turns(spec: Sample, prompt: Iterable[Mapping[str, str]]) -> tuple[tuple[str, str], ...]:
    """The conversation as a request has it, with the system prompt of ``spec`` unless it has one of its own."""
    messages = tuple((message["role"], message["content"]) for message in prompt)
    if spec.system_prompt is not None and all(role != "system" for role, _ in messages):
        messages = (("system", spec.system_prompt), *messages)
    return messages


def identity_options(spec: Sample, seed: int, without: frozenset[str] = _OF_SAMPLES) -> dict[str, Any]:
    """What of a model that is asked changes the result, for the options of a stage."""
    options = SampleStage(spec, seed).options()
    return {key: value for key, value in options.items() if key not in without}


def tokens(table: pa.Table) -> dict[str, int]:
    """How many tokens a table of candidates took to make."""
    return {"tokens": pc.sum(pc.struct_field(pc.list_flatten(table["candidates"]), "n_tokens")).as_py() or 0}


def template_text(spec: Sample) -> str | None:
    """
    Raises:
        ConfigError: the file of the chat template cannot be read.
    """
    if spec.chat_template is None:
        return None
    try:
        return image_files.read_text(spec.chat_template)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"chat_template: cannot read {spec.chat_template}: {error}", "check the path") from error


def _is_here(spec: Sample) -> bool:
    """Whether a plug-in's model is a folder; whatever else its name says is for the plug-in to say."""
    local = isinstance(spec.engine, PluggedOptions) and spec.engine.gpus > 0
    return local and (spec.model in models.BUILT_IN or Path(spec.model).expanduser().is_dir())


def worker(spec: Sample) -> WorkerSpec:
    """The processes that hold ``spec``'s model."""
    engine = spec.engine
    if isinstance(engine, ScriptedOptions):
        from pipeline.engines.scripted import Open

        return WorkerSpec(
            f"scripted:{spec.model}",
            Open(texts=engine.texts, seconds_per_request=engine.seconds_per_request),
            count=engine.workers,
        )
    if isinstance(engine, OpenAIOptions):
        from pipeline.engines.openai import OpenOpenAI

        return WorkerSpec(
            kind=f"openai:{spec.model}",
            open=OpenOpenAI(
                model=spec.model,
                base_url=engine.base_url,
                api_key_env=engine.api_key_env,
                concurrency=engine.concurrency,
                timeout_s=engine.timeout_s,
                retries=engine.retries,
                max_image_pixels=spec.max_image_pixels,
            ),
            cpus=0.1,  # it waits for the network
            count=engine.workers,
        )
    if isinstance(engine, PluggedOptions):
        from pipeline.engines.plugged_engine import Model, OpenPlugged

        name = models.resolve(spec.model) if _is_here(spec) else spec.model
        model = Model(name, spec.revision, template_text(spec), spec.max_image_pixels)
        opened = OpenPlugged(engine.kind, engine.plug_in, model)
        here = name if _is_here(spec) else None
        return WorkerSpec(f"{engine.kind}:{spec.model}", opened, gpus=engine.gpus, count=engine.workers, model=here)
    if isinstance(engine, GivenOptions):
        raise TypeError("given answers are nobody's to ask; GivenStage has them")
    from pipeline.engines.vllm import OpenVllm

    return WorkerSpec(
        kind=f"vllm:{spec.model}",
        open=OpenVllm(
            model=models.resolve(spec.model),
            revision=spec.revision,
            chat_template=template_text(spec),
            max_image_pixels=spec.max_image_pixels,
            **engine.model_dump(exclude={"kind", "workers", "dtype"}),
            dtype="float32" if engine.dtype == "auto" else engine.dtype,  # pipeline.scoring.run_dtype
        ),
        gpus=engine.gpus or float(engine.tensor_parallel_size),
        count=engine.workers,
        model=spec.model,
    )
