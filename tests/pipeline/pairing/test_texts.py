"""The gates on columns say what the gates say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from good_texts import BAD, GOOD
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pairing import texts
from pipeline.pairing.config import Gates, Pair
from pipeline.pairing.texts import Texts
from reward.gates import GATES, stopped
from reward.text.identity import identity
from reward.text.language import asked

EVERY = [*GOOD, *((prompt, text) for _, prompt, text in BAD)]
PIECES = """
the a and sun boat der die ist auf mit nicht image Image . , - | " ` été 太陽 </s> <s> [INST] ASSISTANT: User: USER:
assistant ? I'm I sorry can't cannot help with that As an AI, no provided is please upload supercalifragilistic
hahahahahahahahahahahaha ### Response: = 1 x1
"""
TEXT = st.lists(st.sampled_from([*PIECES.split(), "\n"]), max_size=30).map(" ".join) | st.sampled_from(
    [text for _, text in EVERY]
)
PROMPT = st.sampled_from(sorted({prompt for prompt, _ in EVERY}))


def both(rows: list[tuple[str, str | None, str | None]], policy: Pair) -> tuple[list[Any], list[Any]]:
    """(prompt, text, finish reason) -> what stops each, one by one and by columns."""
    plain = [
        stopped(
            text,
            reason,
            asked(prompt),
            min_words=policy.min_words,
            max_repeated=policy.max_repeated,
            skip=policy.gates.skip,
        )
        for prompt, text, reason in rows
    ]
    found = Texts.of(pa.array([text for _, text, _ in rows], pa.string())).stopped(
        pa.array([reason for _, _, reason in rows], pa.string()),
        [asked(prompt) for prompt, _, _ in rows],
        np.arange(len(rows)),
        policy,
    )
    return plain, [None if at < 0 else GATES[at] for at in found.tolist()]


def options(**changes: Any) -> Pair:
    return Pair(weights={"a": 1.0}, **changes)


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_every_hand_made_text_gets_the_same_gate(reason: str) -> None:
    plain, columns = both([(prompt, text, reason) for prompt, text in EVERY], options())
    assert columns == plain and (None in plain) == (reason == "stop")


@given(
    st.lists(st.tuples(PROMPT, st.none() | TEXT, st.sampled_from(["stop", None, "length"])), max_size=6),
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.sampled_from(list(Gates.model_fields)), max_size=3),
)
def test_columns_stop_what_the_gates_stop(rows: Any, words: int, repeated: int, off: list[str]) -> None:
    policy = options(min_words=words, max_repeated=repeated, gates=Gates(**dict.fromkeys(off, False)))
    plain, columns = both(rows, policy)
    assert columns == plain


@given(PROMPT, st.sampled_from(EVERY), st.sampled_from(EVERY), st.sampled_from([" ", "\n", ". "]))
def test_joined_texts_get_the_same_gate(prompt: str, one: Any, other: Any, between: str) -> None:
    plain, columns = both([(prompt, one[1] + between + other[1], "stop")], options())
    assert columns == plain


def test_a_good_text_is_hardly_ever_looked_at_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_one", None)
    rows = [("Is there a sun?", "Yes", "stop"), ("Describe it.", "There is a sun, and next to it is a boat.", "stop")]
    assert both(rows, options()) == ([None, None], [None, None])


def test_what_the_user_said_is_the_prompt() -> None:
    column = pa.array(
        [
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}],
            [
                {"role": "user", "content": "One"},
                {"role": "assistant", "content": "No"},
                {"role": "user", "content": "Two"},
            ],
            None,
        ]
    )
    assert texts.questions(column) == ["What?", "One\nTwo", ""]


SIGNS = st.lists(
    st.sampled_from([*"abx5 -+*/%#.,:;!?'\"()[]{}_`$<>=&@\\~^|\n\t\x00", "is", "well", "5", "\u00e9", "\u2212"]),
    max_size=8,
).map("".join)


@given(st.lists(SIGNS | TEXT, max_size=8))
def test_texts_share_a_code_if_they_are_the_same_answer(some: list[str]) -> None:
    codes = Texts.of(pa.array(some, pa.string())).code.tolist()
    names = [identity(text) for text in some]
    for one, code in zip(names, codes, strict=True):
        assert [other == one for other in names] == [other == code for other in codes]
