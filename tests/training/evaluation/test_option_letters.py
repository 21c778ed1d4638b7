"""Which option an answer picks: every quirk of the scripts that decide it, held by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation import open_answers
from training.evaluation.option_letters import (
    NONE,
    first_character,
    mmbench_lmms_eval,
    mmmu,
    scienceqa_llava,
    scienceqa_lmms_eval,
    vlmevalkit,
    whole,
)

OPTIONS = {"A": "a cat", "B": "a dog", "C": "a red bus", "D": "none of them"}
RULES = (scienceqa_llava, scienceqa_lmms_eval, mmmu, vlmevalkit, mmbench_lmms_eval, first_character, whole)


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        # One character for each of RULES: the letter, or "-" where it reads none.
        ("A", "AAAAAAA"),
        ("(A)", "--AAA--"),
        ("A.", "-AAAAA-"),
        ("A)", "---AAA-"),
        ("A:", "--AAAA-"),
        (" B ", "BBBBBB-"),
        ("b", "-B---B-"),
        ("(b)", "-------"),
        ("b.", "-----B-"),
        ("**B**", "---B---"),
        ("[B]", "---B---"),
        ("The answer is B", "B-BBB--"),
        ("The answer is B.", "B-BBB--"),
        ("the answer is b", "---B---"),
        ("Answer: B", "--BBBA-"),
        ("Answer: C because A is a bird", "--A--A-"),
        ("B because it barks", "--BBBB-"),
        ("A or B", "--B--A-"),
        ("(A) or (B)", "--B----"),
        ("A, not B", "--B-BA-"),
        ("A and B are both wrong, so C", "--C--A-"),
        ("A cat", "--AAAA-"),
        ("A cat sits on a mat in it", "--AAAA-"),
        ("a cat", "---AAA-"),
        ("A dog", "--AAAA-"),
        ("a dog", "---BBA-"),
        ("It is a dog.", "---BB--"),
        ("It is A DOG, I am quite sure", "--ABB--"),
        ("It is a cat and a dog in one", "--B----"),
        ("BANANA", "--A--B-"),
        ("Blue", "-----B-"),
        ("Because of it", "-----B-"),
        ("The answer is Blue", "B--B---"),
        ("The answer is a bus", "---A---"),
        ("E", "----E--"),
        ("(E)", "----E--"),
        ("Z", "---Z---"),
        ("", "-------"),
        ("   ", "-------"),
        (".", "-------"),
        ("I'm sorry, but without the image provided I cannot say", "---Z---"),
        ("I cannot see any image.", "-------"),
        ("（B）", "-------"),
        ("Ｂ", "-------"),
        ("B。", "-----B-"),
        ("答案是B", "--B----"),
        ("B\nIt barks.", "B--BBB-"),
        ("B. a dog", "BBBBBB-"),
        ("B.a dog", "-BBBBB-"),
        ("B) a dog", "---BBB-"),
        ("Option B", "--BBB--"),
        ("option b", "-------"),
        ("The correct option is B", "--BBB--"),
        ("It is B, as one can see from its long ears", "----B--"),
        ("B, as one can see", "----BB-"),
        ("C\n", "CC-CCC-"),
        ("<B>", "-------"),
        ("$B$", "-------"),
        ("\\boxed{B}", "---B---"),
        ("'B'", "--B----"),
        ('"B"', "-------"),
        ("B/C", "--C--B-"),
        ("-B", "--B----"),
        ("B!", "--BB-B-"),
        ("Sorry, I can't help with images of people yet.", "---Z---"),
        ("Failed to obtain answer via API", "-------"),
        ("AB", "--B--A-"),
        ("A B", "--B--A-"),
        ("A. a cat B. a dog", "AAA--A-"),
        ("I think it is A", "--AA---"),
    ],
)
def test_the_letter_that_each_script_reads(text, letters):
    assert "".join(rule(text, OPTIONS) or "-" for rule in RULES) == letters


def test_what_is_said_last_counts_only_for_mmmu():
    answer = "(A) is what I thought at first, then (C), and (B) in the end"
    assert mmmu(answer, OPTIONS) == "B" and vlmevalkit(answer, OPTIONS) is None
    # Of letters that only stand within words none is last: the first wins.
    assert mmmu("VITAMIN C and IRA and ABBA said", {"A": "x", "B": "y"}) == "A"
    assert mmmu("a dog, though at first it was a cat", OPTIONS) == "A"


def test_vlmevalkit_wants_the_letter_among_the_last_four_words():
    assert vlmevalkit("B one two three", OPTIONS) == "B"
    assert vlmevalkit("B one two three four", OPTIONS) is None
    # Further in front the text decides, if it is not twice as long as all options together.
    assert vlmevalkit("B one two a dog you see", OPTIONS) == "B"
    assert vlmevalkit("B" + " word" * 20 + " a dog", OPTIONS) is None


def test_vlmevalkit_takes_a_word_behind_the_answer_is_for_a_letter():
    assert vlmevalkit("The correct answer is **c**. It is red.", OPTIONS) == "C"
    assert vlmevalkit("I know: the answer is big.", OPTIONS) == "B"
    assert vlmevalkit("the answer is D", {"A": "x", "B": "y"}) is None


def test_an_option_within_another_is_no_single_text():
    options = {"A": "red", "B": "dark red"}
    assert vlmevalkit("dark red", options) is None and mmbench_lmms_eval("dark red", options) is None
    assert vlmevalkit("It's RED", options) == "A"


def test_a_letter_that_is_no_option_is_read_by_some_and_wrong():
    assert mmbench_lmms_eval("E", {"A": "x", "B": "y"}) == "E" and vlmevalkit("E", {"A": "x", "B": "y"}) is None
    assert scienceqa_lmms_eval("E. none", {"A": "x"}) == "E" and scienceqa_llava("E. none", {"A": "x"}) is None
    assert vlmevalkit("Z", OPTIONS) == NONE


@given(st.text(alphabet="ABab (). \n*isdogcatr", max_size=40), st.sampled_from(RULES))
def test_a_rule_gives_a_letter_or_nothing_whatever_is_said(text, rule):
    letter = rule(text, OPTIONS)
    assert letter is None or letter in (*OPTIONS, "E", NONE) or rule is scienceqa_lmms_eval


# Open questions of MMMU ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answers", "right"),
    [
        ("8", ["8"], True),
        ("8.0", ["8"], True),
        ("8.004", ["8"], True),  # to two decimals
        ("8.006", ["8"], False),
        ("-8", ["8"], False),
        ("1,234.5", ["1234.5"], True),
        ("1e3 meters", ["1000"], True),
        ("The result is 12 dollars.", ["12"], True),
        ("It is 12 or 13", ["13"], True),
        ("12 is the first, the answer is 13", ["12"], False),  # only what stands behind the last word of these
        ("12 apples", ["12"], True),  # no such word: all of it
        ("first 12\nthe answer is 13", ["12"], False),
        ("x is 12\nso we get 13", ["12"], True),  # each line has its own
        ("a = 12\nb = 13", ["13"], True),
        ("a = 12\nb = 13", ["12"], False),  # an equals sign counts in the last line alone
        ("So it is a Red Dog", ["red dog"], True),
        ("hotdogs", ["dog"], True),  # within a word
        ("dog", ["red dog"], False),
        ("option x", ["X"], True),  # one letter wants a space beside it
        ("xylophone", ["X"], False),
        ("x", ["X"], True),  # which it gets when it is all there is
        ("", ["8"], False),
        ("the answer is", ["the answer is"], False),  # what stands behind "answer" is meant
        ("1/2", ["['0.5', '1/2']"], False),
        ("1/2", ["0.5", "1/2"], True),
    ],
)
def test_open_answers_are_read_as_mmmu_reads_them(text, answers, right):
    assert open_answers.is_right(text, answers) is right
