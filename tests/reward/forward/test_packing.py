"""The packed layout is the padded one without repetition: nothing lost, nothing counted twice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reward.forward.packing import Row, common_prefix, pack, pad, unpack

tokens = st.integers(1, 3)  # few, so that answers share first words
answers = st.lists(tokens, min_size=1, max_size=6)


@st.composite
def groups(draw: st.DrawFn) -> list[list[Row]]:
    result = []
    for _ in range(draw(st.integers(1, 4))):
        prompt = draw(st.lists(tokens, min_size=1, max_size=5))
        result.append([Row((*prompt, *draw(answers)), len(prompt)) for _ in range(draw(st.integers(1, 3)))])
    return result


@given(groups())
def test_unpack_is_the_inverse_of_pack(given_groups: list[list[Row]]) -> None:
    assert unpack(pack(given_groups)) == given_groups


@given(groups())
def test_both_layouts_score_the_same_tokens_in_the_same_contexts(given_groups: list[list[Row]]) -> None:
    rows = [row for group in given_groups for row in group]
    packed, padded = pack(given_groups), pad(rows, padding=0)
    # A stand-in for a model: the "log-prob" of a token is a hash of all that stands before it, and of itself.
    flat = padded.ids.flatten().tolist()
    width = padded.ids.shape[1]
    padded_logps = [
        hash((*flat[where // width * width : where + 1], target)) % 1000
        for where, target in zip(padded.read.tolist(), padded.targets.tolist(), strict=True)
    ]
    packed_logps = [
        hash((*seen_at(packed, where), target)) % 1000
        for where, target in zip(packed.read.tolist(), packed.targets.tolist(), strict=True)
    ]
    assert packed.sums(torch.tensor(packed_logps)).tolist() == padded.sums(torch.tensor(padded_logps)).tolist()


def seen_at(packed: object, where: int) -> list[int]:
    """The tokens up to ``where`` that attention lets it see."""
    for group in packed.groups:  # type: ignore[attr-defined]
        if group.start <= where < group.end:
            if where < group.fork:
                return packed.ids[group.start : where + 1].tolist()  # type: ignore[attr-defined]
            first = next(first for first, end in group.branches if first <= where < end)
            return [*packed.ids[group.start : group.fork].tolist(), *packed.ids[first : where + 1].tolist()]  # type: ignore[attr-defined]
    raise AssertionError(where)


@given(groups())
def test_an_offset_is_the_place_in_the_sequence(given_groups: list[list[Row]]) -> None:
    packed = pack(given_groups)
    for group in packed.groups:
        trunk = group.fork - group.start
        assert packed.offsets[group.start : group.fork].tolist() == list(range(trunk))
        for first, end in group.branches:
            assert packed.offsets[first:end].tolist() == list(range(trunk, trunk + end - first))


@given(groups())
def test_the_last_token_is_never_read_and_no_prompt_is_repeated(given_groups: list[list[Row]]) -> None:
    packed = pack(given_groups)
    for group, rows in zip(packed.groups, given_groups, strict=True):
        trunk = common_prefix([row.ids[:-1] for row in rows])
        assert group.end - group.start == trunk + sum(len(row.ids) - 1 - trunk for row in rows)
    assert packed.groups[-1].end == len(packed.ids)


def test_words_that_both_answers_begin_with_are_scored_once_and_counted_for_both() -> None:
    packed = pack([[Row((9, 1, 2, 3), 1), Row((9, 1, 2, 4), 1)]])
    assert packed.ids.tolist() == [9, 1, 2]
    assert list(zip(packed.read.tolist(), packed.targets.tolist(), strict=True)) == [(0, 1), (1, 2), (2, 3), (2, 4)]
    assert packed.sums(torch.tensor([1.0, 10.0, 100.0, 1000.0])).tolist() == [111.0, 1011.0]


@pytest.mark.parametrize("rows", [[Row((1, 2), 2)], [Row((1, 2), 1), Row((3, 2), 1)]])
def test_an_empty_response_or_another_prompt_is_refused(rows: list[Row]) -> None:
    with pytest.raises(ValueError, match="same prompt and a response"):
        pack([rows])
