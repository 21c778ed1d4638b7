"""Folders of this machine are left out of what is published, and found in what was."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.base import local_paths
from pipeline.base.local_paths import base_name, own_pattern, own_places, shorten_options, shorten_paths


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/me/a.png", "a.png"),
        ("/data/models/qwen/", "qwen"),
        ("~/models/qwen", "qwen"),
        ("file:///home/me/My photos/a.png", "a.png"),
        (r"C:\Users\me\a.png", "a.png"),
        ("./models/qwen", "./models/qwen"),
        ("owner/name", "owner/name"),
        ("s3://bucket/a/b.png", "s3://bucket/a/b.png"),
        ("hf://datasets/owner/name/a.png", "hf://datasets/owner/name/a.png"),
        ("/describe the image", "/describe the image"),
        ("", ""),
    ],
)
def test_of_a_path_its_name_is_left(path: str, name: str) -> None:
    assert base_name(path) == name


@pytest.mark.parametrize(
    ("text", "shortened"),
    [
        ("no file '/home/me/a b/c.png'", "no file 'a b/c.png'"),
        ("a.jsonl:3 and /data/x/b.jsonl:4", "a.jsonl:3 and b.jsonl:4"),
        ("see https://host/a/b/c and s3://bucket/a/b", "see https://host/a/b/c and s3://bucket/a/b"),
        ("yes/no/maybe, 1/2/3, km/h", "yes/no/maybe, 1/2/3, km/h"),
        ("source.path=/home/me/a.jsonl sample.n=4", "source.path=a.jsonl sample.n=4"),
    ],
)
def test_of_paths_within_a_message_their_names_are_left(text: str, shortened: str) -> None:
    assert shorten_paths(text) == shortened


def test_options_are_looked_through() -> None:
    options = {"a": ["/x/y/z", {"b": "run /x/y/z"}], "c": None, "d": 3}
    assert shorten_options(options) == {"a": ["z", {"b": "run z"}], "c": None, "d": 3}


@pytest.fixture
def pattern(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(local_paths.Path, "home", lambda: Path("/home/anna"))
    monkeypatch.setattr(local_paths, "_user", lambda: "anna")
    return own_pattern(own_places(["/mnt/disk/photos", "relative", "/tmp"]))


@pytest.mark.parametrize(
    ("text", "names_one"),
    [
        ("/home/anna/a.png", True),
        ("it lies in /home/anna.", True),
        ("'/mnt/disk/photos/1.jpg'", True),
        ("file:///etc/passwd", True),
        ("/Users/anna/a.png", True),
        (r"C:\Users\anna\a.png", True),
        ("/home/annabel/a.png", False),
        ("/mnt/disk/photos2/1.jpg", False),
        ("/usr/bin/python and /tmp/x", False),
        ("https://host/home/x and/or anna", False),
        ("a photo by anna", False),
        ("the file: a.png", False),
    ],
)
def test_a_place_of_this_machine_is_found_by_both_engines(pattern: str, text: str, names_one: bool) -> None:
    assert bool(re.search(pattern, text)) == names_one
    assert pc.match_substring_regex(pa.array([text]), pattern).to_pylist() == [names_one]
