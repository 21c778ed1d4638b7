"""What is read of the JSON that a model wrote, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.answers.json_answers import objects, values

keys = st.text(alphabet="ab'\"", max_size=2)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet="ab'\"\\,]}é\n", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(plain, max_size=3), st.sampled_from([None, 2]), st.sampled_from(["\n", ",\n", " "]), st.booleans())
def test_values_come_back_however_they_are_laid_out(
    written: list[object], indent: int | None, between: str, fenced: bool
) -> None:
    text = between.join(json.dumps(value, indent=indent) for value in written)
    assert values(f"```json\n{text}\n```" if fenced else text) == written


@given(plain)
def test_what_python_would_write_is_read_alike(value: object) -> None:
    assert values(repr([value])) == [[value]]


@pytest.mark.parametrize(
    "answer",
    [
        "Here: {}",
        '{"a": 1} as I said',
        '{"a": 1',
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": 1e',
        "{'a': 'b'",
        "[" * 100_000,
        "[" * 60 + "]" * 60,
        '{"a":' * 100_000,
        "it's {'a': 1}",
    ],
)
def test_anything_else_is_refused_in_a_short_line(answer: str) -> None:
    with pytest.raises(ValueError) as error:
        values(answer)
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


def test_objects_may_stand_in_a_list_and_nothing_else_may() -> None:
    assert objects('[{"a": 1}, {"a": 2}]\n{"a": 3}') == [{"a": 1}, {"a": 2}, {"a": 3}]
    for answer in ("[1]", '{"a": 1}\n"b"', "[[{}]]"):
        with pytest.raises(ValueError, match="no object"):
            objects(answer)
