from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from stage_kit import Double, put_prompts

from pipeline.base import files
from pipeline.base.errors import InputError, StoreError
from pipeline.running.executor import Executor
from pipeline.running.store import Run, Survey, changes, make_record, options_of

TABLE = pa.table({"id": ["a", "b", None], "n": [[1, 2], None, []]})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write("s", 17, TABLE)
    assert (tmp_path / "s" / "data-00017.arrow").is_file()
    assert run.shards("s") == [17]
    assert run.table("s").equals(TABLE)


def test_a_shard_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(Run(tmp_path).shards("s")), sync(handle)))
    Run(tmp_path).write("s", 0, TABLE)
    assert seen[0] == []  # the bytes are on disk before the name is


def test_a_full_disk_is_one_clear_error_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.write("s", 0, TABLE)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"free some space.*finished shards are kept"):
        run.write("s", 1, TABLE)
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["data-00000.arrow"]


def test_an_interrupt_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path).write("s", 0, TABLE)
    assert list((tmp_path / "s").iterdir()) == []


def test_temporary_files_of_killed_processes_are_swept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write("s", 0, TABLE)
    (tmp_path / "s" / ".data-00001.arrow.77.tmp").write_bytes(b"half")
    run.sweep("s")
    assert run.shards("s") == [0] and len(list((tmp_path / "s").iterdir())) == 1


def test_the_digest_is_of_values_not_of_buffers(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write("s", 0, TABLE)
    run.write("s", 1, pa.concat_tables([TABLE, TABLE]).slice(3))
    run.write("s", 2, TABLE.slice(1))
    assert run.digest("s", 0) == run.digest("s", 1) != run.digest("s", 2)


def test_a_shard_holds_as_long_as_its_inputs_do(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write("in", 0, TABLE)
    run.write("out", 0, TABLE, run.input_digests(["in"], 0))
    of = make_record("out", 1, {}, {})
    assert Survey(run).is_current(of, 0, ["in"])
    run.write("in", 0, TABLE)  # written again, the same
    assert Survey(run).is_current(of, 0, ["in"])
    run.write("in", 0, TABLE.slice(1))
    assert not Survey(run).is_current(of, 0, ["in"])
    run.remove("in", 0)
    assert not Survey(run).is_current(of, 0, ["in"])


def test_a_shard_is_believed_by_what_made_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    mine, other = (make_record("s", 1, {"margin": margin}, {}) for margin in (0.5, 1.0))
    run.save(mine)
    run.write("s", 0, TABLE, by=mine)
    run.write("s", 1, TABLE, by=other)
    assert [Survey(run).is_current(mine, shard, []) for shard in (0, 1)] == [True, False]
    assert run.read("s", 0).num_rows == len(TABLE) and options_of(run.read("s", 0)) == {"margin": 0.5}
    for look in (run.read, run.digest, run.load):
        with pytest.raises(InputError, match=r"data-00001.*made with other options"):
            look("s", 1)
    run.write("s", 2, TABLE)  # says nothing, as those of before did
    assert [Survey(run).is_current(replace(mine, unsigned=of), 2, []) for of in (True, False)] == [True, False]


def test_a_shard_to_retry_does_not_hold(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write("s", 0, TABLE, retry=True)
    assert not Survey(run).is_current(make_record("s", 1, {}, {}), 0, [])


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "data-00000.arrow").write_bytes(b"not arrow at all")
    with pytest.raises(StoreError, match="data-00000"):
        run.read("s", 0)
    assert not Survey(run).is_current(make_record("s", 1, {}, {}), 0, [])
    with pytest.raises(InputError, match="missing"):
        run.read("s", 1)


@pytest.mark.parametrize("kind", ["stage", "source"])
def test_a_shard_that_cannot_be_read_now_is_not_taken_for_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The network may be away for a moment; hours of sampling must not be removed for it."""
    run = Run(tmp_path)
    put_prompts(run)
    with Executor(run) as executor:
        executor.run(Double())
        opened = files.read_schema

        def fail(path: Path) -> pa.Schema:
            if path == tmp_path / {"stage": "double", "source": "source"}[kind] / "data-00001.arrow":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return opened(path)

        monkeypatch.setattr(files, "read_schema", fail)
        with pytest.raises(StoreError, match=r"data-00001.arrow: Input/output error\n.*nothing was removed"):
            executor.run(Double())
        monkeypatch.undo()
        assert executor.run(Double()).reused == 3


def test_a_record_that_cannot_be_read_costs_no_shard(tmp_path: Path) -> None:
    run = Run(tmp_path)
    put_prompts(run)
    path = run.folder("double") / "stage.json"
    with Executor(run) as executor:
        executor.run(Double())
        for damaged in ("{", "[]", "3", '{"stage": 1}'):
            path.write_text(damaged)
            with pytest.raises(StoreError, match=r"stage.json is not a stage record .*\n.*remove that file"):
                executor.run(Double())
        path.unlink()
        assert executor.run(Double()).reused == 3


def test_the_record_of_a_later_version_may_say_more(tmp_path: Path) -> None:
    run, record = Run(tmp_path), make_record("s", 1, {}, {})
    run.save(record)
    path = tmp_path / "s" / "stage.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seen": 3}))
    assert run.record("s") == record


def test_records_survive_the_disk(tmp_path: Path) -> None:
    run = Run(tmp_path)
    record = make_record("s", 1, {"a": {"b": (1, 2)}, "path": Path("x")}, {"up": "f"})
    run.save(record)
    assert run.record("s") == record and run.record("other") is None
    (tmp_path / "s" / "stage.json").write_text("{}")
    with pytest.raises(StoreError, match="remove that file"):
        run.record("s")


@pytest.mark.parametrize("change", [{"version": 2}, {"options": {"n": 8}}, {"upstream": {"up": "g"}}, {"stage": "t"}])
def test_what_the_fingerprint_covers(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"stage": "s", "version": 1, "options": {"n": 4}, "upstream": {"up": "f"}}
    assert make_record(**base).fingerprint != make_record(**{**base, **change}).fingerprint


def test_changes_name_the_keys() -> None:
    old, new = (make_record("s", v, o, {}) for v, o in ((1, {"a": {"n": 4}, "b": 1}), (2, {"a": {"n": 8}, "c": 1})))
    assert changes(old, new) == ["stage version: 1 -> 2", "a.n: 4 -> 8", "b: 1 -> (unset)", "c: (unset) -> 1"]
