"""Answers of a model to many prompts, made by the pipeline's own stages: in shards that are stored and resumed.

A prompt is known by a hash of its images and its text, so what several suites ask is asked once. What an earlier
session asked stays in the tables even if this one does not want it: another choice of suites throws no answer away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.base.errors import TooManyFailures
from pipeline.base.images import image_files, pixels
from pipeline.base.model_files import local_folder
from pipeline.engines.vllm import OpenVllm
from pipeline.recipe.preflight import reach
from pipeline.running.executor import Executor
from pipeline.running.resume import explain
from pipeline.running.store import Run, Survey
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage
from pipeline.sources.admission.prompt_id import content_of, prompt_id
from pipeline.sources.admission.verdicts import image_digest
from pipeline.sources.stage import BuiltSource
from training.errors import DataError
from training.evaluation.question import Answer, Picture

Row = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)
#: Prompts in a shard: what is lost at most when a session is killed.
SHARD_SIZE = 256


@dataclass(frozen=True)
class ImagePrompt:
    """What is asked about ``pictures``, in their order. Their bytes are read only where they are needed."""

    text: str
    pictures: tuple[Picture, ...] = ()


class Tables(NamedTuple):
    """Where prompts and answers lie in a run: the names of two stages."""

    prompts: str
    answers: str


ANSWERS = Tables("source", "sample")
JUDGEMENTS = Tables("judge-source", "judge")


def identify(prompts: Mapping[Key, ImagePrompt]) -> dict[Key, str]:
    """The id of every prompt, which its images and its text decide. Each image is read once.

    Raises:
        DataError: an image cannot be read.
    """
    digests: dict[int | str, bytes] = {}
    prompt_ids = {}
    for key, prompt in prompts.items():
        images = []
        for picture in prompt.pictures:
            # Not by its bytes, which would all stay in memory.
            place = picture["path"] if picture["bytes"] is None else id(picture)
            if place not in digests:
                digests[place] = _digest(picture)
            images.append(digests[place])
        prompt_ids[key] = prompt_id(images, _messages(prompt))
    return prompt_ids


def revision(ids: Iterable[str]) -> str:
    """16 hexadecimal digits that change whenever a prompt or an image does, and not with how ids begin: evaluations of
    before they began with the images can be compared with later ones."""
    contents = sorted(set(map(content_of, ids)))
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]


def generate(
    run: Run,
    executor: Executor,
    prompts: Mapping[Key, ImagePrompt],
    ids: Mapping[Key, str],
    spec: Sample,
    seed: int = 0,
    tables: Tables = ANSWERS,
    max_failure_rate: float = 0.01,
    shard_size: int = SHARD_SIZE,
) -> dict[Key, Answer]:
    """An answer for every key; its text is None where there is none. Answers of an earlier session are read, failed
    ones asked for again where another try may help.

    Args:
        executor: of ``run``, with a ``max_failure_rate`` of 1: it also counts what earlier sessions asked.
        ids: ``identify(prompts)``.

    Raises:
        TooManyFailures: more than ``max_failure_rate`` of the prompts have no answer; what is finished is kept.
        PipelineError: the model cannot be opened.
    """
    if not prompts:
        return {}
    by_id = {ids[key]: prompt for key, prompt in prompts.items()}
    everything = {*_earlier(run, tables.prompts), *by_id}

    def build(_: Mapping[str, Any]) -> Iterator[Row]:
        yield from map(row_of, by_id.values())
        # What earlier sessions asked: its stage is about to be made anew, so none of it is of this one.
        for shard in run.shards(tables.prompts):
            for row in run.peek(tables.prompts, shard).to_pylist():
                if row["id"] in everything and row["id"] not in by_id:
                    yield {name: row[name] for name in ("images", "prompt", "facts", "source")}

    executor.write(BuiltSource(tables.prompts, build, {"prompts": revision(everything)}, shard_size))
    stage = SampleStage(spec, seed, name=tables.answers, reads=tables.prompts)
    opener = stage.worker.open
    on_hub = isinstance(opener, OpenVllm) and local_folder(opener.model, opener.revision) is None
    if on_hub and explain(run, stage, Survey(run)):
        reach(opener, servers=False)  # in seconds, where an engine would find out in many
    executor.run(stage)
    answers, errors = _read(run, tables.answers, by_id)
    # A prompt that failed as such has no id of its own.
    lost = [id for id in by_id if id not in answers]
    reasons = _failures(run, tables.prompts) if lost else []
    answers |= dict.fromkeys(lost, Answer(None))
    errors |= dict.fromkeys(lost, reasons[0] if reasons else "it was not asked")
    if len(errors) > max_failure_rate * len(by_id):
        (id, error), *_ = errors.items()
        raise TooManyFailures(
            f"{len(errors)} of {len(by_id)} prompts have no answer, more than max_failure_rate={max_failure_rate:g}; "
            f"the first is {by_id[id].text[:80]!r}: {error}",
            "correct the cause and run this again, which asks for them anew (what is finished is kept), or allow more "
            "failures with --max-failure-rate",
        )
    return {key: answers[ids[key]] for key in prompts}


def _earlier(run: Run, stage: str) -> list[str]:
    """The ids of good prompts that an earlier session asked, if their images are still there."""
    ids = []
    for shard in run.shards(stage):
        for row in run.peek(stage, shard).select(["id", "images", "status"]).to_pylist():
            there = (image["bytes"] is not None or Path(image["path"]).is_file() for image in row["images"])
            if row["status"] == "ok" and all(there):
                ids.append(row["id"])
    return ids


def _failures(run: Run, stage: str) -> list[str]:
    """What is wrong with the prompts that nobody can be asked."""
    rows = (row for table in run.tables(stage) for row in table.select(["status", "error_type", "error"]).to_pylist())
    return [f"{row['error_type']}: {row['error']}" for row in rows if row["status"] != "ok"]


def _read(run: Run, stage: str, wanted: Collection[str]) -> tuple[dict[str, Answer], dict[str, str]]:
    """The answers by id, and what went wrong where there is none."""
    answers: dict[str, Answer] = {}
    errors: dict[str, str] = {}
    for table in run.tables(stage):
        for row in table.to_pylist():
            if row["id"] not in wanted:
                continue
            if row["status"] == "ok":
                (candidate,) = row["candidates"]
                answers[row["id"]] = Answer(candidate["text"], finish_reason=candidate["finish_reason"])
            else:
                answers[row["id"]] = Answer(None)
                errors[row["id"]] = f"{row['error_type']}: {row['error']}"
    return answers, errors


def row_of(prompt: ImagePrompt) -> Row:
    """A prompt as a source gives it."""
    images = [dict(picture) for picture in prompt.pictures]
    return {"images": images, "prompt": _messages(prompt), "facts": None, "source": "evaluate"}


def _messages(prompt: ImagePrompt) -> list[dict[str, str]]:
    # JSON may hold half a surrogate pair, which no encoding of text can.
    return [{"role": "user", "content": prompt.text.encode("utf-8", "replace").decode()}]


def _digest(picture: Picture) -> bytes:
    try:
        data = image_files.load(picture, pixels.MAX_BYTES)
    except (OSError, pixels.BadImage) as error:
        raise DataError(f"the image {picture['path']} cannot be read: {error}; replace it") from error
    try:
        return image_digest(data)
    except pixels.BadImage:  # a failed row, which no other has the id of
        return hashlib.blake2b(data, digest_size=32).digest()
