"""Tars: what belongs together, what is passed over, and that damage is never the end of the data."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_kit import source
from stage_kit import png

from pipeline.base.errors import InputError
from pipeline.base.images.image_files import load
from pipeline.sources.readers import protocol as sources

BLOCK = 512
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
LONG = f"{'folder' * 15}/{'name' * 15}"

Members = Iterable[tuple[str, bytes]]


def tar(members: Members, format: int = tarfile.GNU_FORMAT, links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE if target.endswith(".png") else tarfile.SYMTYPE, target
            archive.addfile(info)
    return out.getvalue()


def asks(text: str) -> bytes:
    return json.dumps({"prompt": text}).encode()


def sample(key: str, index: int = 0) -> Members:
    return (f"{key}.png", png(index)), (f"{key}.json", asks(f"What is {key}?"))


@pytest.fixture
def rows(tmp_path: Path, make: Any) -> Any:
    def rows(data: bytes, **keys: Any) -> list[dict[str, Any]]:
        (tmp_path / "a.tar").write_bytes(data)
        made: list[dict[str, Any]] = make(kind="webdataset", path=tmp_path / "a.tar", **keys)
        return made

    return rows


def entries(path: object, **keys: Any) -> list[sources.Entry]:
    return list(sources.entries(source(kind="webdataset", path=path, **keys)))


# ----------------------------------------------------------------------------------------------- what is a sample


def test_a_key_that_comes_again_is_an_error(rows: Any) -> None:
    apart = [*zip(("0.png", "1.png"), (png(0), png(1)), strict=True), ("0.json", asks("0?")), ("1.json", asks("1?"))]
    with pytest.raises(InputError, match=r"key 0 comes again, with '0\.json' at byte \d+.*\n.*--sort=name"):
        rows(tar(apart))


@pytest.mark.parametrize("name", ["._0.png", "._0.json", ".DS_Store", "__MACOSX/0.png", ".cache/0.png", "./._0.png"])
def test_what_systems_leave_behind_is_passed_over(rows: Any, name: str) -> None:
    (row,) = rows(tar([("0.png", png()), (name, b"\0\5\x16\7"), ("0.json", asks("What?"))]))
    assert row["status"] == "ok" and row["prompt"][0]["content"] == "What?" and load(row["images"][0]) == png()


def test_a_folder_called_by_a_dot_is_no_hidden_one(rows: Any) -> None:
    made = rows(tar([*sample("./0"), *sample("./1", 1)]))
    assert [row["status"] for row in made] == ["ok", "ok"] and made[0]["source"] == "a.tar:0"


@pytest.mark.parametrize("name", ["0.heic", "0.npy", "0.png.bak", "0.meta.json", "0"])
def test_what_is_not_known_beside_a_prompt_is_a_failed_row(rows: Any, name: str) -> None:
    bad, good = rows(tar([(name, b"x"), ("0.json", asks("What?")), *sample("1")]))
    assert bad["error_type"] == "malformed_row" and repr(name) in bad["error"] and good["status"] == "ok"
    assert "extension" in bad["error"]


def test_a_lone_picture_of_an_unknown_kind_is_not_lost(rows: Any) -> None:
    bad, _ = rows(tar([("0.heic", b"x"), ("1.png", png())]), prompts=["What?"])
    assert "unknown extension .heic" in bad["error"]


def test_numbers_and_names_of_a_sample_may_stand_beside_it(rows: Any) -> None:
    extra = [(f"0.{name}", b"1") for name in ("cls", "id", "key", "__key__.url")]
    (row,) = rows(tar([*sample("0"), *extra, ("README", b"about")]))
    assert row["status"] == "ok"


def test_prompts_of_the_recipe_go_before_a_caption_and_it_is_said(
    rows: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tar([("0.png", png()), ("0.txt", b"A caption."), ("1.png", png(1)), ("1.json", asks("Own?"))])
    first, second = rows(data, prompts=["What?"])
    assert [row["prompt"][0]["content"] for row in (first, second)] == ["What?", "Own?"]
    assert capsys.readouterr().err.count("KEY.txt is not read as a prompt") == 1
    (row,) = rows(tar([("0.png", png()), ("0.txt", b"What now?\n")]))
    assert row["prompt"][0]["content"] == "What now?" and not capsys.readouterr().err


@pytest.mark.parametrize("target", ["0.png", "/etc/passwd"])
def test_a_link_is_a_failed_row(rows: Any, target: str) -> None:
    _, bad = rows(tar([*sample("0"), ("1.json", asks("What?"))], links={"1.png": target}))
    assert bad["status"] == "failed" and "'1.png' is a link" in bad["error"]


def test_a_member_twice_and_a_text_that_is_none_are_failed_rows(rows: Any) -> None:
    twice = [("0.png", png()), ("0.PNG", png(1)), ("0.json", asks("What?"))]
    bad, worse, good = rows(tar([*twice, ("1.png", png()), ("1.json", b"\xff\xfe{"), *sample("2")]))
    assert "comes again" in bad["error"] and "is not UTF-8" in worse["error"] and good["status"] == "ok"


def test_pictures_stand_in_the_order_of_their_numbers(rows: Any) -> None:
    names = [f"0.{number}.png" for number in (10, 2, 1)]
    (row,) = rows(tar([*((name, png(i)) for i, name in enumerate(names)), ("0.json", asks("Which?"))]))
    assert [load(image) for image in row["images"]] == [png(2), png(1), png(0)]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("key", [LONG, "ü/ö", "a b#&c"])
def test_names_may_be_long_and_in_any_language(rows: Any, format: int, key: str) -> None:
    (row,) = rows(tar(sample(key), format))
    assert row["status"] == "ok" and row["source"] == f"a.tar:{key}" and load(row["images"][0]) == png()


def test_a_name_in_another_encoding_is_read(rows: Any) -> None:
    (row,) = rows(renamed(tar(sample("KEY")), b"KEY", b"\xff\xe9Y"))
    assert row["status"] == "ok" and load(row["images"][0]) == png()


def renamed(data: bytes, old: bytes, new: bytes) -> bytes:
    """With other names in the headers, and checksums that fit."""
    out = bytearray(data)
    for at in headers(data):
        out[at : at + BLOCK] = out[at : at + BLOCK].replace(old, new)
        out[at + 148 : at + 156] = b"        "
        out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + BLOCK])
    return bytes(out)


# -------------------------------------------------------------------------------------------------------------- damage


def headers(data: bytes) -> Iterator[int]:
    """Where headers stand, those of long names included."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            yield member.offset
            if member.offset_data - BLOCK != member.offset:
                yield member.offset_data - BLOCK


def end_of(data: bytes) -> int:
    """Where the two empty blocks begin."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.getmembers()
        return archive.offset


@cache
def whole(format: int) -> bytes:
    return tar([*sample("0"), *sample(LONG, 1), *sample("2", 2), ("3.png", png(3)), ("3.txt", b"What?")], format)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tars") / "a.tar"


def check(place: Path, damaged: bytes, format: int) -> None:
    """An error that names a byte, or all rows."""
    place.write_bytes(whole(format))
    right = entries(place)
    place.write_bytes(damaged)
    try:
        read = entries(place)
    except InputError as error:
        assert "byte" in str(error)
    else:
        assert read == right


@pytest.mark.parametrize("format", FORMATS)
def test_a_tar_that_is_cut_off_is_an_error_wherever_it_is_cut(place: Path, format: int) -> None:
    data, end = whole(format), end_of(whole(format))
    for at in range(0, end + 2 * BLOCK, BLOCK // 2):
        place.write_bytes(data[:at])
        with pytest.raises(InputError, match="byte"):
            entries(place)
    place.write_bytes(data[: end + 2 * BLOCK])  # as some write it: no more than what ends it
    assert len(entries(place)) == 4


@pytest.mark.parametrize("format", FORMATS)
def test_a_header_that_was_zeroed_is_an_error_with_its_place(place: Path, format: int) -> None:
    data = whole(format)
    for at in headers(data):
        place.write_bytes(data[:at] + bytes(BLOCK) + data[at + BLOCK :])
        with pytest.raises(InputError, match="byte"):
            entries(place)


@given(st.sampled_from(FORMATS), st.integers(0, 30), st.integers(0, BLOCK * 8 - 1))
@settings(max_examples=150)
def test_a_flipped_bit_in_a_header_loses_nothing_silently(place: Path, format: int, which: int, bit: int) -> None:
    data = bytearray(whole(format))
    places = list(headers(bytes(data)))
    data[places[which % len(places)] + bit // 8] ^= 1 << bit % 8
    check(place, bytes(data), format)


def test_what_stands_behind_the_end_is_an_error(place: Path) -> None:
    data = whole(FORMATS[0])
    for more, says in (
        (data, "another tar was put behind it"),
        (bytes(1 << 21), "not finished"),
        (b"x", "more at byte"),
    ):
        place.write_bytes(data + more)
        with pytest.raises(InputError, match=says):
            entries(place)
    place.write_bytes(data + bytes(9 * 10240))
    assert len(entries(place)) == 4


def test_tars_of_others_are_whole(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for key in "01":
        for name, data in sample(key, int(key)):
            (folder / name).write_bytes(data)
    run = lambda *command: subprocess.run(["tar", "--sort=name", *command], cwd=folder, check=True)  # noqa: E731
    run("-cf", "../plain.tar", ".")
    run("-b", "1", "-cf", "../small.tar", "0.json", "0.png", "1.json", "1.png")
    run("-cf", "../first.tar", "0.json", "0.png")
    run("-cf", "../second.tar", "1.json", "1.png")
    subprocess.run(["tar", "--concatenate", "-f", "../first.tar", "../second.tar"], cwd=folder, check=True)
    for name in ("plain", "small", "first"):
        assert len(entries(tmp_path / f"{name}.tar")) == 2, name


def test_behind_a_url_damage_is_seen_as_well() -> None:
    memory, data = fsspec.filesystem("memory"), whole(FORMATS[0])
    for at, says in ((len(data), None), (end_of(data), "cut off at byte"), (BLOCK * 3, "byte")):
        memory.pipe("/damaged/a.tar", data[:at])
        if says is None:
            assert len(entries("memory://damaged/a.tar")) == 4
        else:
            with pytest.raises(InputError, match=says):
                entries("memory://damaged/a.tar")
