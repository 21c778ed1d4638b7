"""Which rewritten texts make a pair."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rewriting.verify import pairs, scores_agree
from reward.text.types import Lineage

SAID = Lineage("sampled")


@st.composite
def lineages(draw: st.DrawFn) -> list[Lineage]:
    made = [SAID]
    for number in range(1, draw(st.integers(1, 9))):
        origin = draw(st.sampled_from(["sampled", "corrected", "injected", "restyled"]))
        made.append(Lineage(origin, None if origin == "sampled" else draw(st.integers(0, number - 1))))
    return made


def test_a_corrected_text_is_better_than_its_parent_and_that_than_an_injected_one() -> None:
    assert pairs([SAID, Lineage("corrected", 0), Lineage("injected", 0)]) == [(0, 2), (1, 0), (1, 2)]


def test_what_was_injected_into_a_corrected_text_is_worse_than_that_and_not_than_the_first() -> None:
    assert pairs([SAID, Lineage("corrected", 0), Lineage("injected", 1)]) == [(1, 0), (1, 2)]


def test_restyled_texts_meet_only_each_other() -> None:
    of = [SAID, Lineage("corrected", 0), *(Lineage("restyled", parent) for parent in (1, 1, 0, 0))]
    assert pairs(of) == [(1, 0), (2, 4), (2, 5), (3, 4), (3, 5)]


def test_texts_of_different_answers_make_no_pair() -> None:
    of = [SAID, SAID, Lineage("corrected", 0), Lineage("corrected", 1), Lineage("injected", 1)]
    assert pairs(of) == [(1, 4), (2, 0), (3, 1), (3, 4)]


def test_other_origins_have_no_rank() -> None:
    assert pairs([SAID, Lineage("continued", 0), Lineage("noised"), Lineage("given")]) == []


@given(lineages())
def test_better_is_an_order(of: list[Lineage]) -> None:
    related = set(pairs(of))
    assert all(better != other and (other, better) not in related for better, other in related)
    assert all((best, last) in related for best, middle in related for first, last in related if first == middle)


@pytest.mark.parametrize(
    ("of", "part"),
    [
        ([Lineage("corrected")], "no candidate"),
        ([SAID, Lineage("restyled", 2)], "no candidate"),
        ([Lineage("restyled", 1), Lineage("restyled", 0)], "descends from itself"),
        ([Lineage("corrected", 1), Lineage("corrected", 0)], "descends from itself"),
    ],
)
def test_a_lineage_that_cannot_be_is_an_error(of: list[Lineage], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        pairs(of)


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 3))
def test_scores_agree_in_one_direction_at_most(first: float, other: float, margin: float) -> None:
    assert not (scores_agree(first, other, margin) and scores_agree(other, first, margin))
    assert not scores_agree(first, first, 0.0)
    assert scores_agree(first, other, margin) == (first > other and first >= other + margin)
