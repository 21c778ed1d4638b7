"""Which files are opened, how much of them is read, and which rows may name them."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.dataset_files import check
from pipeline.base.images.image_files import Refused, Roots, load, open_regular, read_regular
from pipeline.base.images.pixels import BadImage

HTTP = "https://host/a.png"


def no_files(folder: Path) -> dict[str, Path]:
    """What has the name of a file and would be waited for, or never end."""
    os.mkfifo(folder / "fifo.png")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "s.png"))
    (folder / "in").mkdir()
    (folder / "link.png").symlink_to(folder / "fifo.png")
    names = {"a FIFO": "fifo.png", "a socket": "s.png", "a folder": "in"}
    paths = {kind: folder / name for kind, name in names.items()}
    return {**paths, "a FIFO, by a link": folder / "link.png", "a device": Path("/dev/zero")}


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    for kind, path in no_files(tmp_path).items():
        for opened in (open_regular, read_regular, lambda path: load({"bytes": None, "path": str(path)})):
            with pytest.raises(OSError, match=f"it is {kind.partition(',')[0]}, and a file is wanted"):
                opened(path)


def test_a_fifo_that_comes_between_look_and_open_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "a.png")
    regular = os.stat(__file__)
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: regular if "a.png" in str(path) else real(path, **more))
    errors: list[Exception] = []

    def work() -> None:
        try:
            open_regular(tmp_path / "a.png")
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive() and "FIFO" in str(errors[0])


def test_no_more_is_read_than_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x" * 100)
    assert load({"bytes": None, "path": str(tmp_path / "a.png")}, 100) == b"x" * 100
    with pytest.raises(BadImage, match="max_image_bytes=99"):
        load({"bytes": None, "path": str(tmp_path / "a.png")}, 99)


def test_a_file_of_proc_says_that_it_is_empty_and_is_bounded_all_the_same() -> None:
    path = "/proc/self/smaps"
    assert os.stat(path).st_size == 0
    assert len(load({"bytes": None, "path": path}, 10_000_000)) > 100
    with pytest.raises(BadImage, match="max_image_bytes=10"):
        load({"bytes": None, "path": path}, 10)


# --------------------------------------------------------------------------------------------------------------- roots


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    for name in ("data", "more", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "data/out").symlink_to(tmp_path / "other")
    return Roots.of((str(tmp_path / "data"), str(tmp_path / "more"), "s3://bucket/images"))


def test_paths_lead_into_one_of_the_roots(roots: Roots, tmp_path: Path) -> None:
    assert roots.resolve("a.png") == str(tmp_path / "data/a.png")
    for inside in (f"{tmp_path}/data/a.png", f"{tmp_path}/more/b/a.png", "s3://bucket/images/a.png"):
        assert roots.resolve(inside) == inside
    assert (
        roots.resolve(f"tar://{tmp_path}/more/a.tar#offset=0&size=9") == f"tar://{tmp_path}/more/a.tar#offset=0&size=9"
    )
    for outside in (
        "../more/a.png", f"{tmp_path}/other/a.png", "/etc/passwd", "out/a.png", "s3://bucket/a.png", "s3://b/a.png",
        f"tar://{tmp_path}/other/a.tar#offset=0&size=9", f"x::{tmp_path}/data/a.png",
    ):  # fmt: skip
        with pytest.raises(Refused, match="set image_root if it is meant"):
            roots.resolve(outside)


@pytest.mark.parametrize("places", [(), ("/data",), ("/data", "s3://b")])
def test_the_web_is_closed_unless_opened(places: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match="allow_http=true"):
        Roots.of(places).resolve(HTTP)
    assert Roots.of(places, allow_http=True).resolve(HTTP) == HTTP


def test_without_roots_the_caller_vouches() -> None:
    for path in ("/etc/hostname", "s3://b/a.png", "tar:///a.tar#offset=0&size=1"):
        assert Roots.of(()).resolve(path) == path


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "c.png"]), min_size=1, max_size=6).map("/".join))
def test_no_spelling_leaves_the_roots(path: str) -> None:
    roots = Roots.of(("/data/x", "/more"))
    for spelt in (path, f"/{path}", f"/more/{path}", f"file:///more/{path}"):
        try:
            assert roots.resolve(spelt).startswith(("/data/x", "/more"))
        except Refused as refused:
            assert refused.kind == "path_outside_root"


# ------------------------------------------------------------------------------------------------------------ datasets


def saved(folder: Path, rows: int = 3000) -> Path:
    import datasets

    datasets.Dataset.from_list([{"a": i} for i in range(rows)]).save_to_disk(str(folder), num_shards=2)
    return folder


def test_a_dataset_that_was_cut_off_is_seen(tmp_path: Path) -> None:
    import datasets

    folder = saved(tmp_path / "saved")
    check(folder)
    path = folder / "data-00000-of-00002.arrow"
    data = path.read_bytes()
    # Every message of a stream begins with this: the schema, two batches, and nothing.
    starts = [at for at in range(0, len(data), 8) if data.startswith(b"\xff\xff\xff\xff", at)]
    path.write_bytes(data[: starts[-2]])
    assert len(datasets.load_from_disk(str(folder))) == 2500  # what the library makes of it, without a word
    for at in (*starts, *range(100, len(data), 1000), len(data) - 1):
        path.write_bytes(data[:at])
        with pytest.raises(ValueError, match=r"data-00000-of-00002\.arrow is cut off at byte"):
            check(folder)
    path.unlink()
    with pytest.raises(ValueError, match="is missing"):
        check(folder)


def test_a_dataset_with_something_to_wait_for_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    (folder / "inner").mkdir()
    os.mkfifo(folder / "inner/data.jsonl")
    with pytest.raises(OSError, match="a FIFO"):
        check(folder)
    with pytest.raises(OSError, match="a FIFO"):
        check(folder / "inner/data.jsonl")
