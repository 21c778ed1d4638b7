"""Which texts are the same answer."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.gates import normal_text, stopping_gate
from reward.text.same_text import UNSEEN, blank, identity, spelling

#: Of each group no two are the same answer.
DIFFERENT = [
    [
        "-5",
        "5",
        "+5",
        "5%",
        "$5",
        "\u20ac5",
        "5\u00b0",
        "5'",
        '5"',
        "5!",
        "<5",
        ">5",
        "~5",
        "\u22645",
        ".5",
        "5/",
        "#5",
        "5*",
    ],
    ["C", "C++", "C#", "C-", "C+", "c*", "C/C++"],
    ["2-3", "2*3", "2+3", "2/3", "2 3", "23", "2.3", "2:3", "2,3", "2^3", "2=3", "2\u00d73", "2\u00b3", "2_3"],
    ["1/2", "1.2", "\u00bd", "12", "1,2", "1 2", "1:2", "1-2"],
    ["x", "x\u00b2", "x2", "x\u2082", "-x", "x'", "x!", "!x", "\u221ax", "x\u0304"],
    ["x-y", "x+y", "x*y", "x/y", "x y", "xy", "x=y", "x!=y", "x<y"],
    ["5\u00b0C", "5\u00b0F", "5C"],
    ["(2+3)*4", "2+3*4", "2+(3*4)", "[2,3)", "(2,3]", "2,3"],
    ["f(x)", "f x", "fx"],
    ["\u2600", "\u26f5", "\U0001f44d", "\U0001f44e", "\U0001f44d\U0001f3fd", "\U0001f469\u200d\U0001f680"],
    ["Yes :)", "Yes :(", "Yes"],
    ["R&B", "R B", "RB"],
    ["@home", "home"],
    [".NET", "NET"],
    ["\u2460", "1", "\u00b9", "\u2081"],
    ["\u211d", "R"],
    ["caf\u00e9", "cafe", "caf\u00e8"],
    ["i", "\u0131", "\u0130"],
    ["1,000", "1.000", "1000", "1 000"],
    ["10:10", "10.10", "10 10"],
    ["a", "b"],
]
#: Of each group all are.
SAME = [
    ["A sun, and a boat.", "  A SUN\nand a boat!!", "a sun; and a boat?", "\u201cA sun\u201d and a boat"],
    ["caf\u00e9", "cafe\u0301", "CAF\u00c9.", "caf\u200b\u00e9", "**Caf\u00e9**"],
    ["-5", "\u22125", "-5.", "\u20105", "**-5**", "\uff0d\uff15"],
    ["Stra\u00dfe", "STRASSE", "strasse."],
    ["well-known", "Well known", "well\u2010known"],
    ["x-ray", "X ray", "x\u2011ray"],
    ["C++", "c++.", "'C++'", "`C++`"],
    ["50%", "50 %", "50%.", "\uff15\uff10\uff05"],
    ["Yes", "'Yes'", '"Yes."', "*yes*", "__Yes__", "Yes!", "# Yes", "yes\u2026", "\ufeffYes", "Y\u00ades"],
    ["a dog a cat", "- a dog\n- a cat", "* a dog\n* a cat", "\u2022 a dog\n\u2022 a cat", "a dog \u2013 a cat"],
    ["10-20", "10\u201320", "10 \u2013 20"],
    ["\u2600", "\u2600\ufe0f"],
    ["fine", "\ufb01ne", "\uff46\uff49\uff4e\uff45"],
    ["it's", "it\u2019s"],
    ["and a dog", "...and a dog.", "\u2026and a dog", ". and a dog"],
    ["\u732b\u3002", "\u732b"],
]  # fmt: skip


@pytest.mark.parametrize("group", DIFFERENT, ids=lambda group: group[0])
def test_what_a_sign_means_is_kept(group: list[str]) -> None:
    for first, second in itertools.combinations(group, 2):
        assert identity(first) != identity(second), (first, second)
        assert identity(f"It is {first}.") != identity(f"It is {second}."), (first, second)


@pytest.mark.parametrize("group", SAME, ids=lambda group: group[0])
def test_how_an_answer_is_written_makes_no_difference(group: list[str]) -> None:
    assert {identity(text) for text in group} == {identity(group[0])}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.lists(
    st.sampled_from([*"ab5 -+*/%#.,:;!?'\"()[]_`$<>=\n", "\u00e9", "\u0301", "\u200b", "\u2212", "\u00b2"]), max_size=12
).map("".join)


@given(TEXT)
def test_an_identity_is_the_same_in_both_unicode_forms_and_with_space_around(text: str) -> None:
    assert identity(unicodedata.normalize("NFD", text)) == identity(unicodedata.normalize("NFC", text))
    assert identity(f" {text}\n") == identity(text)
    assert "".join(spelling(text).split()) == "".join(spelling(spelling(text)).split())


@given(TEXT)
def test_letters_and_digits_are_never_lost(text: str) -> None:
    def kept(text: str) -> list[str]:
        return [sign for sign in text if sign.isalnum()]

    assert kept(identity(text)) == kept(spelling(text))


@given(st.text(st.sampled_from([*sorted(UNSEEN), *" \n\u00a0\u200d\u200c\x00.\u3002"])))
def test_what_cannot_be_seen_is_no_answer(text: str) -> None:
    assert blank(text) and stopping_gate(text) == "empty" and stopping_gate(text, skip=("empty",)) is None


@pytest.mark.parametrize(
    "sign", ["\u200b", "\ufeff", "\u00ad", "\u2060", "\u3164", "\u2800", "\u0301", "\x00", "\u200d"]
)
def test_an_invisible_character_alone_is_empty_and_within_a_text_is_nothing(sign: str) -> None:
    assert stopping_gate(sign) == stopping_gate(sign * 3 + ".") == "empty"
    assert stopping_gate(f"A dog{sign}.") is None
    if sign in UNSEEN:
        assert identity(f"do{sign}g") == "dog" and normal_text(f"do{sign}g") == "dog"


def test_what_unicode_keeps_for_signs_that_are_never_shown_is_no_answer_and_any_other_unknown_sign_is() -> None:
    assert all(map(blank, ["\ufff0", "\ufff4", "\ufff8", "\U000e0000", "\U000e0041", "\U000e0fff"]))
    assert not any(map(blank, ["\uffef", "\U000e1000", "\U000dffff", "\ue000"]))
