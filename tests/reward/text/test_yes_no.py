import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.text.yes_no import PARSERS, lmms_eval, official, vlmevalkit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("no", "no"),
        ("No.", "no"),
        ("No, there is no dog", "no"),
        ("There is not a dog", "no"),
        ("Yes. No", "yes"),  # only the first sentence
        (".no", "yes"),  # which may be empty
        ("n,o", "no"),  # commas are deleted, not replaced
        ("NO", "yes"),  # only these three spellings
        ("Not here", "yes"),
        ("There isn't one", "yes"),
        ("None", "yes"),
        ("no!", "yes"),
        ("\nno", "yes"),  # split at spaces, not at white space
        ("I cannot tell", "yes"),  # a refusal
        ("", "yes"),
    ],
)
def test_official(text, expected):
    assert official(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Yes", "yes"), (" NO\n", "no"), ("yes.", None), ("yes, it is", None), ("", None), ("maybe", None)],
)
def test_lmms_eval(text, expected):
    assert lmms_eval(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", "yes"),
        ("NO!", "no"),
        ("Yes, there is a dog.", "yes"),
        ("yes,there is", "yes"),  # a sign without a space becomes one
        ("yes-no", None),  # ... so these are two words
        ("yes- no", None),
        ("It is yes-ish", "yes"),
        ("a -b yes-no", None),  # "yesno": the hyphen touches a space elsewhere, so it vanishes here
        ("1,000 yes-or", None),  # "yesor": a grouped number makes every sign vanish
        ("yes and no", None),
        ("not", None),
        ("nope", None),
        ("", None),
        ("yes.no", None),  # a full stop vanishes: "yesno"
        ("." * 31 + " yes.", "yes"),
        ("." * 32 + " yes.", None),  # the 33rd full stop stays: "yes."
        ("no .5", "no"),
    ],
)
def test_vlmevalkit(text, expected):
    assert vlmevalkit(text) == expected


def test_a_full_stop_before_a_digit_stays():
    assert vlmevalkit("yes.5") is None  # the word is "yes.5"


@given(st.text(max_size=40))
def test_every_parser_is_total(text):
    assert official(text) in ("yes", "no")
    assert all(parse(text) in ("yes", "no", None) for parse in PARSERS.values())


@given(st.sampled_from(["yes", "no"]))
def test_all_agree_on_the_bare_words(word):
    assert {parse(word) for parse in PARSERS.values()} == {word}
