"""Images are untrusted: where they may lie, how large they may be, and what opens them."""

from __future__ import annotations

import io
import json
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stage_kit import png

from pipeline.base.errors import InputError
from pipeline.base.images.image_files import load, locator, public
from pipeline.base.images.pixels import BadImage, decode
from pipeline.sources.readers.roots import Refused, Root


def bomb(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes that says it has ``width`` x ``height`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(out, "JPEG")
    return out.getvalue()


# -------------------------------------------------------------------------------------------------------------- decode


def test_an_image_is_decoded_to_rgb() -> None:
    assert (decode(png()).mode, decode(png()).size) == ("RGB", Image.open(io.BytesIO(png())).size)
    assert decode(jpeg()).mode == "RGB"


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (bomb(60_000, 60_000), "image_too_large", "60000 x 60000"),
        (bomb(10_001, 10_000), "image_too_large", "max_image_pixels=100000000"),
        (jpeg()[:-200], "unreadable_image", "truncated"),
        (png()[:-30], "unreadable_image", "Error"),
        (b"", "unreadable_image", "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unreadable_image", "none of the formats"),
        (b"<svg/>", "unreadable_image", "none of the formats"),
    ],
)
def test_what_cannot_be_decoded_is_refused(data: bytes, kind: str, says: str) -> None:
    with pytest.raises(BadImage, match=says) as caught:
        decode(data)
    assert caught.value.kind == kind and isinstance(caught.value, ValueError)


def test_limits_are_those_given_in_every_thread(recwarn: pytest.WarningsRecorder) -> None:
    data, outcomes = png(), list[str]()
    pixels = decode(data).width * decode(data).height
    before = Image.MAX_IMAGE_PIXELS

    def work() -> None:
        for _ in range(20):
            decode(data, max_pixels=pixels)
            with pytest.raises(BadImage):
                decode(data, max_pixels=pixels - 1)
            with pytest.raises(BadImage, match="max_image_bytes"):
                decode(data, max_bytes=len(data) - 1)
        outcomes.append("done")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["done"] * 4 and before == Image.MAX_IMAGE_PIXELS and not recwarn.list


def test_a_limit_above_pillows_own_is_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(BadImage) as caught:  # it has no pixels, but is not too large
        decode(bomb(9_500, 9_500))
    assert caught.value.kind == "unreadable_image" and not recwarn.list


# ---------------------------------------------------------------------------------------------------------------- load


def test_bytes_come_from_the_row_a_file_a_url_or_a_tar(tmp_path: Path) -> None:
    (tmp_path / "a b.bin").write_bytes(b"0123456789")
    fsspec.filesystem("memory").pipe("/x/a.bin", b"0123456789")
    at = str(tmp_path / "a b.bin")
    for path in (at, f"file://{at}", "memory://x/a.bin"):
        assert load({"bytes": None, "path": path}) == b"0123456789"
        assert load({"bytes": None, "path": locator(path, 2, 3, "ü #&.png")}) == b"234"
        with pytest.raises(OSError, match="ends before byte 13"):
            load({"bytes": None, "path": locator(path, 8, 5, "x")})
        for image in ({"bytes": None, "path": path}, {"bytes": None, "path": locator(path, 0, 10, "x")}):
            assert load(image, max_bytes=10)
            with pytest.raises(BadImage, match="max_image_bytes=9"):
                load(image, max_bytes=9)
    assert load({"bytes": b"first", "path": at}) == b"first"


@pytest.mark.parametrize("path", ["none.png", "memory://none.png", "tar://a.tar", "unheard://x/y"])
def test_a_missing_image_is_an_oserror(path: str) -> None:
    with pytest.raises(OSError):
        load({"bytes": None, "path": path})


def test_messages_show_no_secrets() -> None:
    with pytest.raises(OSError) as caught:
        load({"bytes": None, "path": "unheard://user:key@host/y"})
    assert "key" not in str(caught.value)
    assert public("zip://a.png::https://u:key@h/b.zip?sig=key") == "zip://a.png::https://h/b.zip"


# --------------------------------------------------------------------------------------------------------------- roots


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data/in").mkdir(parents=True)
    (tmp_path / "data/in/a.png").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png(1))
    (tmp_path / "data/out.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "data/up").symlink_to(tmp_path)
    (tmp_path / "data/inner.png").symlink_to(tmp_path / "data/in/a.png")
    return tmp_path / "data"


def rows(data: Path, make: Any, paths: list[str], **keys: Any) -> list[str | None]:
    lines = [json.dumps({"images": [path], "prompt": f"{n}"}) for n, path in enumerate(paths)]
    (data / "rows.jsonl").write_text("\n".join(lines))
    return [row["error_type"] for row in make(kind="jsonl", path=data / "rows.jsonl", **keys)]


def test_paths_may_not_leave_the_root(data: Path, make: Any) -> None:
    fine = ["in/a.png", "./in/../in/a.png", "inner.png", str(data / "in/a.png"), f"file://{data}/in/a.png"]
    assert rows(data, make, fine) == [None] * len(fine)
    out = ["../secret.png", "in/../../secret.png", "/etc/hostname", "out.png", "up/secret.png", "a\0.png"]
    out += [
        "file:///etc/hostname",
        "memory://x/a.png",
        f"tar://{data}/rows.jsonl#offset=0&size=9",
        f"x::{data}/in/a.png",
    ]
    assert rows(data, make, out[:9]) == ["path_outside_root"] * 9 and rows(data, make, out[9:]) == ["path_outside_root"]
    assert rows(data, make, ["secret.png"], root=data.parent) == [None]


def test_a_refused_row_does_not_hold_what_was_refused(data: Path, make: Any) -> None:
    (data / "rows.jsonl").write_text(json.dumps({"images": ["../secret.png"], "prompt": "x"}))
    (row,) = make(kind="jsonl", path=data / "rows.jsonl")
    assert row["images"] == [{"bytes": None, "path": "../secret.png"}] and "source.root" in row["error"]


def test_the_web_is_closed_unless_opened(data: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://user:key@host/a.png?sig=key"
    assert rows(data, make, [url]) == ["http_not_allowed"]
    with pytest.raises(Refused) as caught:
        Root("https://host/data").resolve("a.png")
    assert caught.value.kind == "http_not_allowed" and Root("https://host/data", True).resolve("a.png")
    with pytest.raises(Refused) as caught:
        Root(".").resolve(url)
    assert "key" not in caught.value.reason
    opened: list[str] = []
    monkeypatch.setattr("pipeline.base.images.image_files._fetch", lambda path, *_: opened.append(path) or png())
    assert rows(data, make, [url], allow_http=True) == [None] and opened == [url]


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "c.png"]), min_size=1, max_size=6).map("/".join))
def test_no_spelling_leaves_a_url(path: str) -> None:
    try:
        assert Root("s3://bucket/data").resolve(path).startswith("s3://bucket/data/")
    except Refused as refused:
        assert refused.kind == "path_outside_root"


def test_limits_of_the_recipe_hold(data: Path, make: Any) -> None:
    assert rows(data, make, ["in/a.png"], max_image_bytes=50) == ["image_too_large"]
    assert rows(data, make, ["in/a.png"], max_image_pixels=50) == ["image_too_large"]
    (data / "bomb.png").write_bytes(bomb(50_000, 50_000))
    (data / "cut.png").write_bytes(png()[:-40])
    assert rows(data, make, ["bomb.png", "cut.png", "none.png"]) == [
        "image_too_large",
        "unreadable_image",
        "missing_image",
    ]


def test_what_is_no_file_is_a_failed_row_and_not_waited_for(data: Path, make: Any) -> None:
    os.mkfifo(data / "fifo.png")
    (data / "link2.png").symlink_to(data / "fifo.png")
    (data / "folder.png").mkdir()
    assert rows(data, make, ["fifo.png", "link2.png", "folder.png", "in/a.png"]) == [*["missing_image"] * 3, None]
    (row, *_) = make(kind="folder", path=data)
    assert row["status"] == "failed" and "it is a FIFO" in row["error"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "llava", "pds", "coco", "visual_genome", "webdataset"])
@pytest.mark.parametrize("what", ["a FIFO", "a folder", "a device"])
def test_an_input_that_is_no_file_is_an_error_and_not_waited_for(
    tmp_path: Path, make: Any, kind: str, what: str
) -> None:
    path = tmp_path / "input"
    if what == "a device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path) if what == "a FIFO" else path.mkdir()
    with pytest.raises(InputError, match=f"cannot read .*input.*: it is {what}"):
        make(kind=kind, path=path, prompts=["What?"])


def test_a_benchmark_that_is_no_file_is_an_error(data: Path, make: Any) -> None:
    os.mkfifo(data / "fifo.txt")
    (data / "rows.jsonl").write_text(json.dumps({"images": ["in/a.png"], "prompt": "x"}))
    with pytest.raises(InputError, match="it is a FIFO"):
        make(kind="jsonl", path=data / "rows.jsonl", decontaminate={"texts": [str(data / "fifo.txt")]})
