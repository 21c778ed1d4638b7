from __future__ import annotations

import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.sources.readers.elements import array, elements

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4))


def expected(value: Any) -> list[tuple[str | None, Any]]:
    if isinstance(value, list):
        return [(None, item) for item in value]
    parts: list[tuple[str | None, Any]] = []
    for key, inner in value.items():
        parts += [(key, item) for item in inner] if isinstance(inner, list) else [(key, inner)]
    return parts


@example([0.5, 1e30, -2.5e-9], 1, None)
@given(st.lists(VALUES) | st.dictionaries(st.text(), VALUES), st.integers(1, 40), st.sampled_from([None, 2]))
def test_elements_are_those_of_the_whole_file_wherever_it_is_cut(value: Any, chunk: int, indent: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        path.write_text(json.dumps(value, indent=indent), encoding="utf-8")
        assert list(elements(str(path), chunk)) == expected(value)


@pytest.mark.parametrize(
    ("text", "line"),
    [("[1,\n2,\n}", 3), ("[1,\n2", 2), ('{"a": 1\n"b": 2}', 2), ("", 1), ("3", 1), ("[1]\n2", 2), ("{1: 2}", 1)],
)
def test_wrong_json_names_the_line(text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    for chunk in (1, 1000):
        with pytest.raises(InputError, match=f"line {line}: not valid JSON"):
            list(elements(str(path), chunk))


def test_an_array_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[{"a": 1}, 3]')
    with pytest.raises(InputError, match="item 2"):
        list(array(str(path)))


def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[" + ",".join(json.dumps({"text": "x" * 1000}) for _ in range(4000)) + "]")
    tracemalloc.start()
    assert sum(1 for _ in elements(str(path), 1 << 16)) == 4000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 4
