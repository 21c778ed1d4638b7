"""Workers are told of how many images the prompts have at most, and are kept as long as they have room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from stage_kit import SCHEMA, Double, png, prompt_row

from pipeline.base.tables import OK, PROMPTS
from pipeline.engines.vllm import OpenVllm
from pipeline.running.executor import Executor
from pipeline.running.stage import ForImages, WorkerSpec
from pipeline.running.store import Run, make_record


@dataclass(frozen=True)
class Room:
    """Opens a model that knows how many images it has room for, and which process it is in."""

    most: int | None = None

    def for_images(self, most: int | None) -> Room:
        return replace(self, most=most)

    def __call__(self) -> tuple[int, int]:
        import os

        return -1 if self.most is None else self.most, os.getpid()


@dataclass(frozen=True)
class Tells(Double):
    name: str = "tells"
    inputs: tuple[str, ...] = ("source",)

    @property
    def worker(self) -> WorkerSpec:
        return WorkerSpec("room", Room())

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        most, pid = model
        ids = tables[self.inputs[0]]["id"].to_pylist()
        return pa.Table.from_pylist([{"id": f"{pid}-{i}", "value": most, **OK} for i in range(len(ids))], schema=SCHEMA)


def put(run: Run, name: str, images: list[int]) -> None:
    for shard, count in enumerate(images):
        rows = [
            prompt_row(f"{name}{shard}{i}", images=[{"bytes": png(i), "path": "a.png"}] * most)
            for i, most in enumerate((0, count))
        ]
        run.write(name, shard, pa.Table.from_pylist(rows, schema=PROMPTS))
    run.save(make_record(name, 1, {}, {}))


def test_images_are_counted_over_all_shards(tmp_path: Path) -> None:
    run = Run(tmp_path)
    put(run, "source", [1, 3, 2])
    put(run, "blind", [0])
    run.write("numbers", 0, pa.Table.from_pylist([{"id": "a", "value": 1, **OK}], schema=SCHEMA))
    assert (run.most_images("source"), run.most_images("blind"), run.most_images("numbers")) == (3, 0, None)
    assert run.most_images("nothing") is None


def test_a_pool_is_kept_while_it_has_room(tmp_path: Path, ray_cluster: None) -> None:
    run = Run(tmp_path)
    for name, images in (("source", [2, 1]), ("fewer", [1]), ("more", [3])):
        put(run, name, images)
    seen = {}
    with Executor(run) as executor:
        for name, inputs in (
            ("first", ("source",)), ("second", ("fewer",)), ("texts", ("first",)), ("third", ("more",)),
            ("fourth", ("fewer", "more")),
        ):  # fmt: skip
            executor.run(Tells(name=name, inputs=inputs))
            table = run.table(name)
            seen[name] = (table["value"][0].as_py(), table["id"][0].as_py().split("-")[0])
    assert {name: most for name, (most, _) in seen.items()} == {
        "first": 2, "second": 2, "texts": 2, "third": 3, "fourth": 3,
    }  # fmt: skip
    assert seen["first"][1] == seen["second"][1] == seen["texts"][1] != seen["third"][1] == seen["fourth"][1]


@pytest.mark.parametrize(
    ("room", "most", "serves"), [(None, 5, True), (2, None, True), (2, 2, True), (2, 1, True), (1, 2, False)]
)
def test_who_serves_whom(room: int | None, most: int | None, serves: bool) -> None:
    spec = WorkerSpec("room", Room())
    assert replace(spec, images=room).serves(replace(spec, images=most)) is serves
    assert not replace(spec, images=room).serves(replace(spec, images=most, kind="other"))


def test_vllm_wants_to_know() -> None:
    opened = OpenVllm("m")
    assert isinstance(opened, ForImages) and opened.for_images(3) == OpenVllm("m", most_images=3)
