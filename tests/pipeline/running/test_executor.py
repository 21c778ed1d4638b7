from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from stage_kit import SCHEMA, Double, NoModel, chaos, put_prompts

from pipeline.base.errors import EngineError, StoreError, TooManyFailures
from pipeline.base.progress import Bar, Progress
from pipeline.base.tables import OK
from pipeline.engines.scripted import Open
from pipeline.running import executor as module
from pipeline.running.executor import Executor
from pipeline.running.resume import explain, prepare
from pipeline.running.stage import WorkerSpec
from pipeline.running.store import Run, Survey, make_record
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage


@dataclass(frozen=True)
class Thrice(Double):
    """Three rows for each that it reads, as a prompt has pairs."""

    name: str = "thrice"

    def process(self, model: Any, tables: Any) -> pa.Table:
        return pa.concat_tables([super().process(model, tables)] * 3)

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {"pairs": 100 * len(table)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    put_prompts(run)
    return run


def test_a_stage_of_the_driver_makes_every_shard(run: Run) -> None:
    with Executor(run) as executor:
        result = executor.run(Double())
    assert (result.rows, result.failed, result.reused) == (6, 0, 0)
    assert run.table("double")["value"].to_pylist() == [0, 2, 4, 6, 8, 10]


def test_finished_shards_are_reused_and_missing_ones_made(run: Run) -> None:
    with Executor(run) as executor:
        first = executor.run(Double())
        run.remove("double", 1)
        second = executor.run(Double())
        third = executor.run(Double(workers=7))  # no option of its result
    assert [r.reused for r in (first, second, third)] == [0, 2, 3]
    assert run.table("double").num_rows == 6
    assert third.seconds >= second.seconds >= first.seconds > 0


def test_a_changed_option_makes_the_stage_stale_and_explain_names_it(run: Run) -> None:
    with Executor(run) as executor:
        executor.run(Double())
        assert explain(run, Double(), Survey(run)) == []
        assert explain(run, Double(factor=3), Survey(run)) == ["factor: 2 -> 3"]
        assert executor.run(Double(factor=3)).reused == 0
        assert run.table("double")["value"].to_pylist()[-1] == 15


def test_explain_counts_the_shards_that_a_finished_stage_has_lost(run: Run) -> None:
    with Executor(run) as executor:
        executor.run(Double())
        run.remove("double", 1)
        assert explain(run, Double(), Survey(run)) == ["1 shards are missing"]
        assert executor.run(Double()).reused == 2
        assert explain(run, Double(), Survey(run)) == []


def test_resume_modes(run: Run) -> None:
    with Executor(run) as executor:
        executor.run(Double())
        with pytest.raises(StoreError, match="factor: 2 -> 3"):
            executor.run(Double(factor=3), resume="always")
        assert executor.run(Double(), resume="always").reused == 3
        assert executor.run(Double(), resume="never").reused == 0


def test_a_shard_whose_input_changed_is_made_again(run: Run) -> None:
    with Executor(run) as executor:
        executor.run(Double())
        run.write("source", 1, run.read("source", 1).slice(1))
        assert executor.run(Double()).reused == 2
    assert run.table("double").num_rows == 5


def test_a_shard_without_input_goes(run: Run) -> None:
    with Executor(run) as executor:
        executor.run(Double())
        run.remove("source", 2)
        executor.run(Double())
    assert run.shards("double") == [0, 1]


@dataclass(frozen=True)
class Count:
    """A source that reads the whole table of another stage: one row that says how long that is."""

    shard_size: int = 4
    made: list[int] = field(default_factory=list)
    found: list[list[int]] = field(default_factory=list)  # the shards of its own that it finds

    name = "count"
    version = 1
    inputs = ("source",)
    schema = SCHEMA

    def options(self) -> dict[str, Any]:
        return {"shard_size": self.shard_size}

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        self.found.append(run.shards("count"))
        self.made.append(run.table("source").num_rows)
        yield 0, pa.Table.from_pylist([{"id": "rows", "value": self.made[-1], **OK}], schema=SCHEMA)

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}


def test_a_source_is_made_once_and_again_when_a_shard_of_it_does_not_hold(run: Run) -> None:
    source = Count()
    with Executor(run) as executor:
        executor.write(source)
        assert executor.write(source).reused == 1 and source.made == [6]
        older = make_record("count", 0, source.options(), {})
        run.write("count", 0, run.read("count", 0), by=older)
        executor.write(source)
    assert source.made == [6, 6] and run.table("count")["value"].to_pylist() == [6]


@dataclass(frozen=True)
class Two(Count):
    """Two shards, of one row each."""

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        self.made.append(2)
        for shard in range(2):
            yield shard, pa.Table.from_pylist([{"id": str(shard), "value": shard, **OK}], schema=SCHEMA)


def test_a_source_that_was_looked_at_and_no_more_is_not_made_again(run: Run) -> None:
    """Between the record that a stage begins with and the one that it ends with."""
    source, told = Two(), list[str]()
    with Executor(run) as executor:
        executor.write(source)
        watched = Run(run.path, changing=lambda: told.append("changed"))
        prepare(watched, source, "if-possible", Survey(watched))
        assert executor.write(source).rows == 2
    assert source.made == [2] and told == []


def test_a_source_is_made_again_when_a_shard_of_it_is_lost(run: Run) -> None:
    source = Two()
    with Executor(run) as executor:
        executor.write(source)
        run.remove("count", 1)
        executor.write(source)
        assert executor.write(source).rows == 2
    assert source.made == [2, 2] and run.table("count")["value"].to_pylist() == [0, 1]


def test_a_source_that_is_made_anew_finds_its_old_shards_unless_they_were_of_another_size(run: Run) -> None:
    shards: list[list[int]] = []
    with Executor(run) as executor:
        executor.write(Count(4, found=shards))
        run.write("source", 1, run.read("source", 1).slice(1))
        for size in (4, 8, 2):
            executor.write(Count(size, found=shards))
    assert shards == [[], [0], [], []]


def test_other_content_of_what_a_source_reads_is_named_and_so_is_the_old_one_when_it_is_back(run: Run) -> None:
    source, whole = Count(), run.read("source", 1)
    with Executor(run) as executor:
        executor.write(source)
        for table in (whole.slice(1), whole):
            assert explain(run, source, Survey(run)) == []
            run.write("source", 1, table)
            assert explain(run, source, Survey(run)) == ["source has other content now"]
            assert explain(run, source, Survey(run), ["source"]) == [
                "source runs again; shards whose input comes out the same are kept"
            ]
            executor.write(source)
    assert source.made == [6, 5, 6]


def test_too_many_failures_end_the_run_and_keep_what_is_finished(run: Run) -> None:
    with Executor(run, max_failure_rate=0.2) as executor:
        assert executor.run(Double(fail=frozenset({"p1"}))).failed == 1
        with pytest.raises(TooManyFailures, match=r"2 of 6 rows.*unlucky \(2\).*row p1: on the list"):
            executor.run(Double(fail=frozenset({"p1", "p5"})), resume="never")
    assert run.shards("double") == [0, 1, 2]
    assert TooManyFailures.exit_code not in (0, StoreError.exit_code)


def test_plain_lines_where_there_is_no_terminal(run: Run) -> None:
    stream = io.StringIO()
    with Executor(run, progress=Progress(stream, every=0)) as executor:
        executor.run(Double())
    lines = stream.getvalue().splitlines()
    assert re.match(r"double: 2/6 rows, [\d,.]+ rows/s, \d+ s left", lines[0])
    assert re.match(r"double: 6/6 rows, [\d,.]+ rows/s, [\d.]+ s", lines[-1])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_several_rows_of_one_prompt_are_no_more_prompts(run: Run) -> None:
    stream = io.StringIO()
    with Executor(run, progress=Progress(stream, every=0)) as executor:
        executor.run(Thrice())
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("thrice: 6/6 rows, ") and ", 1,800 pairs" in last and "pairs/s" not in last


def test_what_is_waited_for_moves_on_a_terminal_and_is_said_elsewhere() -> None:
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        with Progress(stream).wait("starting 1 x vllm:m"):
            time.sleep(0.3)
    assert "0:00:0" in terminal.getvalue() and re.search(r"starting 1 x vllm:m: \d+\.\d s\n$", terminal.getvalue())
    assert re.fullmatch(r"starting 1 x vllm:m\nstarting 1 x vllm:m: \d+\.\d s\n", log.getvalue())


def test_tokens_tell_how_fast_and_everything_else_is_a_count() -> None:
    bar = Bar("sample", 10, 0, lambda bar: None)
    bar.advance(5, 0, {"tokens": 700, "without_images": 2})
    assert re.search(r"rows/s, [\d,]+ tokens/s, 2 without_images$", bar.detail)


def test_no_stage_of_the_driver_starts_ray(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "start_ray", lambda: pytest.fail("Ray was started"))
    with Executor(run) as executor:
        executor.run(Double())


# With Ray from here on.


def test_workers_write_their_shards_and_the_pool_stays_warm(run: Run, ray_cluster: None) -> None:
    with Executor(run) as executor:
        result = executor.run(chaos(Open(texts=("a sun",))))
        pool = executor._workers.pool
        assert result.rows == 6 and result.failed == 0
        executor.run(chaos(Open(texts=("a sun",)), n=3, name="other"))
        assert executor._workers.pool is pool
        executor.run(chaos(Open(texts=("a boat",))), resume="never")
        assert executor._workers.pool is not pool
    assert {c["text"] for row in run.table("sample")["candidates"].to_pylist() for c in row} == {"a boat"}


def test_a_worker_that_dies_is_replaced_and_the_shard_retried(run: Run, tmp_path: Path, ray_cluster: None) -> None:
    with Executor(run) as executor:
        result = executor.run(chaos(Open(kill_on=(("p2", tmp_path / "died"),))))
    assert (result.rows, result.failed) == (6, 0)
    assert (tmp_path / "died").exists()


def test_a_shard_that_always_kills_fails_alone_and_is_tried_again_next_time(run: Run, ray_cluster: None) -> None:
    with Executor(run, max_failure_rate=0.5, shard_retries=1) as executor:
        result = executor.run(chaos(Open(kill_on=(("p2", None),))))
        status = {row["id"]: row["error_type"] for row in run.table("sample").to_pylist()}
        assert status == {"p0": None, "p1": None, "p2": "worker_died", "p3": "worker_died", "p4": None, "p5": None}
        assert result.failed == 2
        again = executor.run(chaos(Open()))
    assert (again.failed, again.reused) == (0, 2)


def test_an_exception_in_a_shard_becomes_its_rows_reason(run: Run, ray_cluster: None) -> None:
    with Executor(run, max_failure_rate=0.5, shard_retries=0) as executor:
        executor.run(chaos(Open(raise_on=frozenset({"p5"}))))
    bad = [row for row in run.table("sample").to_pylist() if row["status"] == "failed"]
    assert [row["id"] for row in bad] == ["p4", "p5"]
    assert (bad[0]["error_type"], "the engine broke at p5" in bad[0]["error"]) == ("RuntimeError", True)


def test_a_shard_is_not_lost_with_its_neighbour_that_raised(run: Run, ray_cluster: None) -> None:
    """The second shard is with the same worker when the first one raises."""
    with Executor(run, max_failure_rate=0.5, shard_retries=0) as executor:
        executor.run(chaos(Open(raise_on=frozenset({"p0"}), seconds_per_request=0.3)))
    assert [row["id"] for row in run.table("sample").to_pylist() if row["status"] == "failed"] == ["p0", "p1"]


def test_an_error_that_no_retry_can_cure_ends_the_run_with_its_own_message(run: Run, ray_cluster: None) -> None:
    with Executor(run) as executor, pytest.raises(EngineError, match=r"folder X has no config\.json"):
        executor.run(NoModel())


def test_more_workers_than_the_cluster_can_hold_is_an_error_not_a_wait(run: Run, ray_cluster: None) -> None:
    huge = WorkerSpec("huge", Open(), count=10_000)
    with Executor(run) as executor, pytest.raises(EngineError, match="10000 workers of huge need 10000 CPUs"):
        executor._workers.of(huge, "sample")


def test_the_same_bytes_for_any_number_of_workers(tmp_path: Path, ray_cluster: None) -> None:
    digests = []
    for count in (1, 2):
        run = Run(tmp_path / str(count))
        put_prompts(run, shards=5)
        stage = SampleStage(
            Sample.model_validate({"model": "m", "engine": {"kind": "scripted", "workers": count}}), seed=0
        )
        with Executor(run) as executor:
            executor.run(stage)
        digests.append([run.digest("sample", shard) for shard in run.shards("sample")])
    assert digests[0] == digests[1] and len(digests[0]) == 5
