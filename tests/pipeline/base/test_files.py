"""The same guarantees on a local disk and on what fsspec knows; `memory://` stands for an object store."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from stage_kit import Double, generated, put_prompts, recipe

from pipeline.base import files
from pipeline.base.errors import ConfigError, StoreError
from pipeline.publishing import report
from pipeline.recipe.plan import Plan, publish_run
from pipeline.running.executor import Executor
from pipeline.running.store import Run, Survey, make_record


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "run")
        return
    yield f"memory://bucket/{tmp_path.name}"
    fsspec.filesystem("memory").store.clear()


def test_a_run_lives_wherever_its_url_says(place: str) -> None:
    run = Run(place)
    put_prompts(run)
    with Executor(run) as executor:
        first = executor.run(Double())
        run.remove("double", 1)
        second = executor.run(Double())
        assert executor.run(Double(factor=3)).reused == 0
    assert (first.rows, first.reused, second.reused) == (6, 0, 2)
    assert Run(place).table("double")["value"].to_pylist() == [0, 3, 6, 9, 12, 15]
    record = run.record("double")
    assert record is not None and Survey(run).is_current(record, 2, ["source"])


def test_what_is_set_aside_is_no_longer_done_and_can_be_read(place: str) -> None:
    run = Run(place)
    put_prompts(run)
    before, record = run.read("source", 1), make_record("source", 1, {"a": 1}, {})
    run.set_aside("source", 1, record)
    assert run.shards("source") == [0, 2]
    earlier = run.earlier("source", 1)
    assert earlier is not None and earlier[0].equals(before) and run.earlier("source", 0) is None
    assert earlier[1] == {"a": 1}  # of the record that was given: shards of before do not say it themselves
    other = make_record("source", 1, {"a": 2}, {})
    run.write("source", 1, before, by=other)
    run.set_aside("source", 1, record)  # a second time over the first
    again = run.earlier("source", 1)
    assert again is not None and again[1] == {"a": 2}
    run.drop_earlier("source")
    assert run.earlier("source", 1) is None and run.shards("source") == [0, 2]


def test_a_writer_that_fails_leaves_the_old_file(place: str) -> None:
    path = files.locate(place) / "a.txt"
    files.write_text(path, "old")

    def broken(file: Any) -> None:
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.write_atomic(path, broken)
    assert files.read_text(path) == "old" and files.names(path.parent) == ["a.txt"]


def test_an_error_of_a_remote_disk_is_the_stores_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fsspec.filesystem("memory"), "pipe_file", full)
    with pytest.raises(StoreError, match="no space left"):
        files.write_text(files.locate("memory://bucket/x/a.txt"), "text")


def test_file_urls_are_local_paths(tmp_path: Path) -> None:
    assert files.locate(f"file://{tmp_path}/run") == tmp_path / "run"
    assert files.is_local(files.locate("runs")) and not files.is_local(files.locate("memory://runs"))


def test_trees_are_moved_and_removed(place: str) -> None:
    root = files.locate(place)
    files.write_text(root / "old" / "inner" / "a.txt", "a")
    files.move(root / "old", root / "new")
    assert files.read_text(root / "new" / "inner" / "a.txt") == "a" and files.read_text(root / "old" / "a.txt") is None
    files.remove_tree(root / "new")
    files.remove_tree(root / "new")  # one that is not there is fine
    assert files.names(root) == []


def test_a_run_on_an_object_store_publishes_the_bytes_of_a_local_one(tmp_path: Path) -> None:
    published = []
    for place in (tmp_path, f"memory://bucket/{tmp_path.name}"):
        run = generated(place)
        done, _ = publish_run(Plan(recipe(place)), run, ["command"])
        assert done.pairs > 0 and not done.reused
        assert publish_run(Plan(recipe(place)), run, ["command"])[0].reused
        report.write(run.path, {}, "command")
        names = [f"{part}/{name}" for part in ("pairs", "candidates") for name in files.names(done.path / part)]
        published.append({name: (done.path / name).read_bytes() for name in [*names, "README.md", "dataset_dict.json"]})
        assert files.names(run.path).count("dataset.partial") == 0
    assert published[0] == published[1] and len(published[0]) == 8


def test_a_protocol_that_nobody_knows_is_named() -> None:
    with pytest.raises(ConfigError, match=r"abc:// cannot be opened: .*'abc'"):
        files.locate("abc://bucket/run")


def test_a_folder_in_a_bucket_is_moved_although_it_is_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    copy = type(memory).cp_file

    def as_in_s3(self: Any, path1: str, path2: str, **options: Any) -> None:
        if not self.isfile(path1):
            raise FileNotFoundError(f"{path1}: the specified key does not exist")
        copy(self, path1, path2, **options)

    monkeypatch.setattr(type(memory), "cp_file", as_in_s3)
    folder = files.locate("memory://bucket/moved/dataset")
    for content in ("old", "new"):
        files.write_text(folder.with_name("dataset.partial") / "pairs" / "a.txt", content)
        files.replace_folder(folder.with_name("dataset.partial"), folder)
        assert memory.find("/bucket/moved") == ["/bucket/moved/dataset/pairs/a.txt"]
        assert files.read_text(folder / "pairs" / "a.txt") == content
    memory.store.clear()


def test_what_others_have_written_is_for_all_who_may_read_the_folder(tmp_path: Path) -> None:
    """safetensors writes for the owner alone; a file that is linked from elsewhere keeps the mode of its other name."""
    import torch
    from safetensors.torch import save_file

    for name, mode in (("open", 0o755), ("team", 0o750), ("own", 0o700)):
        folder = tmp_path / name
        folder.mkdir()
        folder.chmod(mode)
        save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
        (folder / "model.safetensors").chmod(0o600)
        (tmp_path / f"{name}.bin").write_bytes(b"x")
        (tmp_path / f"{name}.bin").chmod(0o600)
        os.link(tmp_path / f"{name}.bin", folder / "linked.bin")
    for name in ("open", "team", "own"):
        files.sync_tree(tmp_path / name)
    modes = {name: (tmp_path / name / "model.safetensors").stat().st_mode & 0o777 for name in ("open", "team", "own")}
    assert modes == {"open": 0o644, "team": 0o640, "own": 0o600}
    assert {(tmp_path / name / "linked.bin").stat().st_mode & 0o777 for name in modes} == {0o600}


@pytest.mark.parametrize(("code", "matters"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_file_system_that_syncs_no_folder_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, matters: bool
) -> None:
    sync = os.fsync

    def fail(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError) if matters else contextlib.nullcontext():
        files.write_text(tmp_path / "a.txt", "a")
        files.move(tmp_path / "a.txt", tmp_path / "b.txt")
        files.remove_tree(tmp_path / "c")
    assert (tmp_path / "b.txt").exists() != matters
