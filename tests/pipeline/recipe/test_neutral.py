"""Options that change how a stage runs and not what it computes: marked on their fields, in no fingerprint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.base.config_file import groups
from pipeline.recipe.recipe import Recipe
from pipeline.running.store import make_record
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage
from pipeline.sources.imagine.config import ImagineSource

OPENAI = {"kind": "openai", "base_url": "http://a/v1"}


def marked(group: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in group.model_fields.items():
        if name in group.neutral():  # type: ignore[attr-defined]
            yield name
        for member in groups(field).values():
            yield from marked(member)


def test_nothing_else_is_marked() -> None:
    assert set(marked(Recipe)) == {
        *("api_key_env", "base_url", "batch_size", "concurrency", "gpu_memory_utilization", "gpus"),
        *(
            "late_decode",
            "max_failure_rate",
            "max_num_batched_tokens",
            "max_num_seqs",
            "output_dir",
            "overlap",
            "retries",
            "seconds_per_request",
        ),
        *("shard_retries", "share_prompt", "tensor_parallel_size", "timeout_s", "workers"),
    }


@pytest.mark.parametrize(
    ("engine", "key", "value", "counts"),
    [
        ({}, "max_num_seqs", 9, False),
        ({}, "gpu_memory_utilization", 0.5, False),
        ({}, "tensor_parallel_size", 2, False),
        ({}, "overlap", True, False),
        ({}, "late_decode", False, False),
        ({}, "workers", 3, False),
        ({}, "dtype", "float32", True),
        ({}, "max_model_len", 99, True),
        (OPENAI, "base_url", "http://b/v1", False),
        (OPENAI, "api_key_env", "B", False),
        (OPENAI, "concurrency", 3, False),
        (OPENAI, "timeout_s", 3.0, False),
        (OPENAI, "retries", 3, False),
        ({"kind": "scripted"}, "seconds_per_request", 1.0, False),
        ({"kind": "scripted"}, "texts", ["a"], True),
    ],
)
def test_a_fingerprint_covers_what_changes_the_result(
    engine: dict[str, Any], key: str, value: Any, counts: bool
) -> None:
    def made(engine: dict[str, Any]) -> str:
        stage = SampleStage(Sample.model_validate({"model": "scenes-vlm", "engine": engine}), 0)
        return make_record(stage.name, stage.version, stage.options(), {}).fingerprint

    assert (made(engine) != made({**engine, key: value})) == counts


def test_inner_groups_leave_them_out_too() -> None:
    options = ImagineSource.model_validate({"kind": "imagine", "texts": {"scenes": 1}}).result_options()
    assert options["rank"]["model"] == "scenes-clip" and {"batch_size", "workers"}.isdisjoint(options["rank"])
