"""``marks.jsonl``: what a person decided about pairs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.base.marks import FILE, MARKS, PairKey, put, read, write

TEXT = st.text(max_size=20)
KEYS = st.builds(PairKey, TEXT, TEXT, TEXT)


@given(marks=st.dictionaries(KEYS, st.sampled_from(MARKS), max_size=5))
def test_what_is_written_is_read(tmp_path_factory, marks):
    folder = tmp_path_factory.mktemp("run")
    write(folder, marks)
    assert read(folder) == marks
    assert (folder / FILE).exists() == bool(marks)


def test_a_mark_is_set_changed_and_taken_away(tmp_path):
    key = PairKey("a", "A sun.", "A moon.")
    assert put(tmp_path, key, "reject") is None
    assert put(tmp_path, PairKey("b", "x", "y"), "accept") is None
    assert put(tmp_path, key, "swap") == "reject"
    assert read(tmp_path)[key] == "swap"
    assert put(tmp_path, key, None) == "swap" and key not in read(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "chosen": "x", "rejected": "y", "mark": "delete"}', "none of accept, reject, swap"),
        ('{"id": "a", "chosen": "x", "mark": "swap"}', "'rejected' is missing"),
        ("no json", "Expecting value"),
        ("[]", "list indices"),
        ('{"id": 3, "chosen": "x", "rejected": "y", "mark": "swap"}', "a text is no text"),
        ('{"id": "a", "chosen": "\\ud800", "rejected": "y", "mark": "swap"}', "surrogates not allowed"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    (tmp_path / FILE).write_text('{"id": "a", "chosen": "x", "rejected": "y", "mark": "swap"}\n\n' + line + "\n")
    with pytest.raises(InputError, match=f"marks.jsonl, line 3: .*{message}"):
        read(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_that_another_program_has_saved_is_read(tmp_path, encoding):
    """jq writes U+2028 and its like as they are, and some editors a byte order mark."""
    key = PairKey("a", "One\u2028two\x85three\x0c.", "Caf\u00e9")
    line = json.dumps({**key._asdict(), "mark": "swap"}, ensure_ascii=False)
    (tmp_path / FILE).write_bytes(f"{line}\r\n".encode(encoding))
    assert read(tmp_path) == {key: "swap"}
    (tmp_path / FILE).write_bytes(f"{line}\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"marks\.jsonl: .*\n.*save it as UTF-8"):
        read(tmp_path)


def test_marks_that_are_set_at_the_same_time_are_all_kept(tmp_path):
    keys = [PairKey(f"{i}", "x", "y") for i in range(60)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda key: put(tmp_path, key, "accept"), keys))
    assert set(read(tmp_path)) == set(keys) and [path.name for path in tmp_path.iterdir()] == [FILE]
