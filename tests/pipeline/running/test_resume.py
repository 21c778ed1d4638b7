"""A shard is believed by what it says of itself, whatever a kill has left beside it; those of before say nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from salvage_kit import Seeded, sample, stage
from stage_kit import Double, put_prompts

from pipeline.base import files
from pipeline.running.executor import Executor
from pipeline.running.store import Run
from pipeline.sources.admission.shards import place


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    put_prompts(run)
    return run


def double(run: Run, factor: int) -> tuple[int, list[int]]:
    """How many shards held, and the values."""
    with Executor(run) as executor:
        reused = executor.run(Double(factor)).reused
    return reused, run.table("double")["value"].to_pylist()


def copy(run: Run, name: str) -> Path:
    return Path(shutil.copytree(run.folder("double"), run.path.parent / name))


@pytest.mark.parametrize("record", ["none", "the old one", "the new one"])
@pytest.mark.parametrize("left", [[0], [1, 2], [0, 1, 2]])
def test_shards_of_other_options_are_not_believed_whatever_stands_beside_them(
    run: Run, left: list[int], record: str
) -> None:
    double(run, 2)
    old = copy(run, "old")
    run.clear("double")
    double(run, 3)
    new = copy(run, "new")
    # Whatever was removed first, and whatever was written: any shards of the old, under any record.
    run.clear("double")
    run.folder("double").mkdir()
    for shard in left:
        shutil.copy(old / f"data-{shard:05d}.arrow", run.folder("double"))
    if record != "none":
        shutil.copy((old if record == "the old one" else new) / "stage.json", run.folder("double"))
    assert double(run, 3) == (0, [0, 3, 6, 9, 12, 15])


def unsigned(run: Run, stage: str) -> None:
    """Make the stage one of before shards said what made them."""
    for shard in run.shards(stage):
        table = run.peek(stage, shard)
        about = json.loads(table.schema.metadata[b"shard"])
        kept = {key: value for key, value in about.items() if key not in ("made", "span")}
        path = run.folder(stage) / f"data-{shard:05d}.arrow"
        files.write_table(path, table.replace_schema_metadata({b"shard": json.dumps(kept)}))
    path = run.folder(stage) / "stage.json"
    record = json.loads(path.read_text())
    del record["made"], record["unsigned"]
    path.write_text(json.dumps(record))


def test_a_run_of_before_is_found_finished_as_often_as_one_looks(run: Run) -> None:
    _, values = double(run, 2)
    unsigned(run, "double")
    for _ in range(3):
        assert double(run, 2) == (3, values)
    run.remove("double", 1)
    for reused in (2, 3, 3):
        assert double(run, 2) == (reused, values)


def test_what_is_left_of_a_run_of_before_is_not_believed_under_another_record(run: Run, tmp_path: Path) -> None:
    double(run, 2)
    unsigned(run, "double")
    old = copy(run, "old")
    assert double(run, 3)[0] == 0
    shutil.copy(old / "data-00001.arrow", run.folder("double"))  # as if it had come back
    assert double(run, 3) == (2, [0, 3, 6, 9, 12, 15])
    run.clear("double")
    run.folder("double").mkdir()
    shutil.copy(old / "data-00001.arrow", run.folder("double"))  # a kill took the record first
    assert double(run, 3)[0] == 0


@pytest.mark.parametrize("before", [False, True])
def test_rows_are_taken_over_by_what_their_own_shard_was_made_with(run: Run, tmp_path: Path, before: bool) -> None:
    """Set aside for more tokens, and left there: of no use to another temperature."""
    sample(run, stage(), Seeded())
    if before:
        unsigned(run, "sample")
    folder = run.folder("sample")
    shutil.copytree(folder, tmp_path / "first")
    sample(run, stage(max_tokens=32), Seeded())  # sets them aside, and takes them over
    aside = Path(shutil.copytree(folder / "earlier", tmp_path / "aside"))
    shutil.rmtree(folder)
    shutil.copytree(aside, folder / "earlier")
    again = Seeded()
    warm = sample(run, stage(max_tokens=32, top_p=0.5), again)
    assert len(again.requests) == 6 and not warm.equals(sample(run, stage(), Seeded()))

    shutil.rmtree(folder)
    shutil.copytree(aside, folder / "earlier")
    again = Seeded()
    sample(run, stage(max_tokens=32), again)
    assert {n for _, n, *_ in again.requests} == {1}  # only answers that had been cut off


def test_shards_that_share_ids_do_not_both_stay() -> None:
    """A kill leaves those of the new layout beside those of the old."""
    ids = np.array(["a", "b", "c", "d", "e"])
    before: Any = [(0, np.array(["a", "b"])), (1, np.array(["b", "c"])), (2, np.array(["e"]))]
    placed = {shard: ids[at].tolist() for shard, at in place(ids, 2, before)}
    assert placed == {0: ["a", "b"], 1: ["c", "d"], 2: ["e"]}
    assert sorted(id for part in placed.values() for id in part) == ids.tolist()


def test_a_dropped_row_is_counted_with_the_source_that_left_it_out(run: Run) -> None:
    from pipeline.publishing.collect import _drop_reasons
    from pipeline.running.store import make_record

    table = pa.table({"id": ["x"], "reason": ["duplicate"]})
    other = make_record("source", 1, {"limit": 3}, {})
    run.write("dropped", 0, table, by=run.record("source"))
    run.write("dropped", 1, table, by=other)
    assert _drop_reasons(run) == {"duplicate": 1}
