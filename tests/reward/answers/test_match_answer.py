"""Which texts give the right answer, which a wrong one, and in which none can be read."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.answers.match_answer import agrees, yes_or_no
from reward.answers.quantity import quantity
from reward.text.same_text import identity

NUMBERS = ["-5", "5", "0", "2", "12", "1.2", "1/2", "50%", "$5", "1,000", "three", "twenty-one", "100"]
NAMES = [
    "cat",
    "dog",
    "dark blue",
    "tennis racket",
    "C++",
    "C#",
    "C",
    "left",
    "Paris",
    "café",
    "x²",
    "R&B",
    "猫",
    "AC/DC",
]
LETTERS = ["A", "B", "D"]
YES_NO = ["yes", "no"]
ALL = [*NUMBERS, *NAMES, *LETTERS, *YES_NO]
#: Ways to write an answer of any kind.
PLAIN = ["{}", "{}.", " {} ", "**{}**", "'{}'", "The answer is {}.", "Answer: {}", "the answer is: {}", "{}\n", "`{}`"]
#: Ways to say a name or a number.
SAID = ["It is {}.", "It's {}.", "I think it is {}.", "This is {}.", "{} in the image", "There is {}.", "I can see {}."]
COUNTED = [
    "There are {} dogs.",
    "{} dogs",
    "{} dogs are visible.",
    "I see {} dogs in the picture.",
    "{}. There are {} dogs.",
]
CHOSEN = ["({})", "{}) a cat", "Option {}", "The correct answer is ({}) a dog."]
UNREADABLE = [
    "", "...", "\u200b", "I'm sorry, but I can't assist with that.", "I cannot tell.", "I don't know.", "unknown",
    "maybe",
    "It is hard to say what is shown here, as the image is blurred and much of it lies in the dark.", "It depends.",
    "I can't see the image clearly enough to tell.", "not sure", "several", "There is something on the table.",
]  # fmt: skip


def ways(answer: str) -> list[str]:
    patterns = PLAIN if answer in YES_NO else [*PLAIN, *SAID]
    if answer in LETTERS:
        patterns = [*PLAIN, *CHOSEN]
    number = quantity(answer)
    if number is not None and not number.unit and number.value.denominator == 1:
        patterns = [*patterns, *COUNTED]
    return patterns


@pytest.mark.parametrize("answer", ALL)
def test_the_right_answer_is_right_however_it_is_put(answer: str) -> None:
    for way in ways(answer):
        for case in (str.lower, str.upper, str):
            text = way.format(case(answer), case(answer))
            assert agrees(text, [answer]) is True, text
            assert agrees(unicodedata.normalize("NFD", text), [answer]) is True, text


@given(st.sampled_from(list(itertools.permutations(ALL, 2))), st.data())
def test_another_answer_is_never_right(two: tuple[str, str], data: st.DataObject) -> None:
    answer, other = two
    text = data.draw(st.sampled_from(ways(other))).format(other, other)
    assert agrees(text, [answer]) is not True, text


@given(st.sampled_from(ALL), st.sampled_from(UNREADABLE))
def test_what_is_no_answer_is_neither_right_nor_wrong(answer: str, text: str) -> None:
    assert agrees(text, [answer]) is None


@given(st.sampled_from(ALL), st.text(max_size=40))
def test_of_any_text_something_or_nothing_is_read_and_only_the_answer_is_right(answer: str, text: str) -> None:
    verdict = agrees(text, [answer])
    assert verdict in (True, False, None)
    if verdict and identity(text) != identity(answer):
        assert any(sign.isalnum() for sign in text)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("-5", "5"), ("5", "-5"), ("C++", "C"), ("C", "C++"), ("C#", "C"), ("C++", "C#"), ("50%", "50"), ("50", "50%"),
        ("$5", "5"), ("5", "$5"), ("2-3", "2*3"), ("2*3", "2-3"), ("1/2", "1.2"), ("1.2", "1/2"), ("<5", ">5"),
        ("5°C", "5°F"), ("3", "There are two dogs."), ("3", "4."), ("3", "The answer is 2."), ("3", "No dogs."),
        ("cat", "A dog."), ("cat", "It's a dog"), ("red", "blue"), ("left", "right"), ("B", "A"), ("B", "(C)"),
        ("B", "The answer is D."), ("yes", "No, there is none."), ("no", "Yes."), ("yes", "There is no dog."),
        ("2 dogs", "3 dogs"), ("1,000", "10000"), ("5 cm", "6 cm"), ("true", "No"),
    ],
)  # fmt: skip
def test_wrong(right: str, wrong: str) -> None:
    assert agrees(wrong, [right]) is False


@pytest.mark.parametrize(
    ("right", "answer"),
    [
        # In other words, or nearly: never wrong, and not so sure that it is right.
        ("cat", "kitten"), ("cat", "cats"), ("cat", "a black cat"), ("cat", "feline"), ("cat", "animal"), ("cat",
        "not a cat"),
        ("cat", "cat or dog"), ("cat", "The cat sits beside the dog."), ("couch", "sofa"), ("tv", "television"),
        ("grey", "gray"), ("red", "crimson"), ("US", "United States"), ("NYC", "New York City"), ("café", "cafe"),
        ("USA", "United States"), ("United States", "USA"), ("NYC", "New York"), ("UN", "United Nations Organization"),
        ("dark blue", "blue"), ("AC/DC", "ACDC"), ("left", "on the left"), ("x²", "x^2"), ("motorcycle", "motocycle"),
        ("3", "3 or 4"), ("3", "about 3"), ("3", "at least three"), ("3", "not three"), ("3", "three or four dogs"),
        ("3", "There are 3 dogs and 2 cats."), ("3", "one of the three"), ("3", "3 meters"), ("3", "a dog"), ("3",
        "III"),
        ("12", "a dozen"), ("12", "1 dozen"), ("5000", "5 k"), ("500000", "5 lakh"),
        ("1000000", "1 mil"), ("20", "1 score"), ("5", "+5"), ("7", "007"), ("0.5", "1/2"), ("1/2", "half"), ("50%",
        "0.5"),
        ("1000", "1.000"), ("1.5", "1,5"), ("5", "5!"), ("3.1", "3.10"), ("5 cm", "50 mm"), ("5 cm", "5"), ("-5",
        "minus 5"),
        ("10:15", "10.15"), ("2-3", "2:3"), ("5 am", "5 pm"), ("3", "2. There are three dogs."),
        ("B", "A cat"), ("B", "B or C"), ("B", "cat"), ("cat", "B"), ("cat", "5"), ("5", "cat"), ("猫", "cat"),
        ("猫", "狗"), ("猫", "貓"), ("狗", "不知道"), ("Hund", "weiß nicht"), ("二", "两"), ("café", "bar"),
        ("dog", "poodle"), ("horse", "pony"), ("car", "suv"), ("bag", "purse"),
        ("dog", "idk"), ("dog", "blurry"), ("dog", "see above"), ("3", "insufficient information"),
        ("yes", "There is no doubt."), ("yes", "No doubt about it."), ("yes", "There are no cats, but a dog."),
        ("yes", "yes and no"), ("yes", "No one is there, but there is a dog"), ("no", "I can't see. No."), ("yes", "1"),
        ("unanswerable", "cat"), ("cat", "<cat>"), ("3", "= 3"), ("A man in a red hat stands beside a white horse.",
        "A man beside a horse."),
    ],
)  # fmt: skip
def test_what_might_be_right_is_not_called_wrong(right: str, answer: str) -> None:
    assert agrees(answer, [right]) is None


@pytest.mark.parametrize(
    ("right", "answer"),
    [
        ("3", "three"), ("three", "3"), ("21", "twenty-one"), ("205", "two hundred and five"), ("2", "2.0"), ("1000",
        "1,000"),
        ("50%", "50 percent"), ("$5", "5 dollars"), ("5 cm", "5 centimeters"), ("-5", "\u22125"), ("0",
        "There are no dogs."),
        ("3", "٣"), ("2 dogs", "two dogs"), ("3", "3. There are three dogs."), ("a cat", "cat"), ("yes",
        "Yes, there is."),
        ("no", "There is no dog in the image."), ("no", "No dogs are visible."), ("true", "Yes"), ("no", "False."),
        ("yes", "It is, yes."), ("B", "b)"), ("B", "I think it's B."), ("2-3", "2 \u2013 3"), ("Straße", "STRASSE"),
    ],
)  # fmt: skip
def test_right_in_other_words(right: str, answer: str) -> None:
    assert agrees(answer, [right]) is True


def test_any_of_several_answers_is_right_and_only_what_is_none_of_them_is_wrong() -> None:
    assert agrees("1", ["one", "1"]) is agrees("two", ["2", "3"]) is agrees("3 dogs", ["2", "3"]) is True
    assert agrees("4", ["2", "3"]) is False
    assert agrees("sofa", ["dog", "couch"]) is None and agrees("cat", []) is None and agrees("cat", [" "]) is None


def test_an_answer_is_read_in_up_to_three_sentences_that_all_give_it() -> None:
    texts = ["3.", "There are three dogs.", "I can see three dogs.", "It is 3."]
    assert [agrees(" ".join(texts[:many]), ["3"]) for many in range(1, 5)] == [True, True, True, None]
    assert [agrees("\n".join(texts[:many]), ["4"]) for many in range(1, 5)] == [False, False, False, None]
    assert agrees("3. There are three dogs. It is 4.", ["3"]) is None


@pytest.mark.parametrize(
    ("right", "answer", "question"),
    [
        ("0", "No idea", "How many?"), ("0", "no sé", "¿Cuántos perros hay?"), ("0", "No cats.", "How many cows?"),
        ("2", "No dogs.", "How many cats and dogs are there?"), ("0", "No dogs.", "How many dogs and cats are there?"),
        ("0", "No cats.", "How many dogs sit beside the cats?"), ("3", "No comment.", "How many dogs are there?"),
        ("no", "No comment.", "Is there a dog?"), ("no", "No answer.", "Is there a dog?"),
        ("no", "There is no image.", "Is there a dog in the image?"), ("no", "No entiendo.", "¿Hay un perro?"),
        ("yes", "There are no people.", "Is the street empty?"), ("yes", "No cars.", "Is the road clear of cars?"),
        ("no", "There are no people.", "Is the sky clear?"), ("yes", "There is no cat.", "Is there a dog or a cat?"),
        ("yes", "There is no dog.", "Is there no dog?"), ("yes", "There is no red dog.", "Is there a dog?"),
        ("yes", "There is a dog, no?", "Is there a dog?"), ("yes", "No-smoking sign is visible.", "Is there a sign?"),
        ("yes", "No. 5 is on the shirt", "Is there a number?"), ("dog", "Hund", "Was für ein Tier ist das?"),
        ("Hund", "Tier", "Was für ein Tier ist das?"), ("狗", "cat", "这是什么动物?"), ("dog", "cat", "这是什么动物?"),
        ("A", "(A) is wrong; the answer is B.", None), ("B", "(A) is wrong; the answer is B.", None),
        # A thing may be denied to say yes, and markup hides no denial.
        ("yes", "No parking.", "Is parking prohibited here?"), ("yes", "There is no light.", "Is the light off?"),
        ("yes", "No smoking", "Is there a sign about smoking?"), ("yes", "No dogs.", "Are the dogs hidden?"),
        ("yes", "No dogs.", "Are there more cats than dogs?"), ("yes", "No dogs.", "Are there 0 dogs?"),
        ("yes", "No lights.", "Have the lights been turned off?"), ("yes", "No dog.", "Is there a dog house?"),
        ("yes", "**No** people.", "Is the street empty?"), ("yes", "There are no *people*.", "Is the street empty?"),
        ("yes", "\uff2e\uff2f people.", "Is the street empty?"), ("0", "**No** cats.", "How many dogs are there?"),
        ("bil", "fordon", "Vilken typ av fordon \u00e4r det?"), ("mobil", "kendaraan", "Apa ini?"),
        ("auto", "samoch\u00f3d", "Co to jest?"),
        ("Auto", "Wagen", "What is it? Answer in German."), ("Auto", "Wagen", "Fahrzeug?"),
        ("yes", "There isn't a dog, true.", "Is there a dog?"), ("no", "There isn't a dog, yes", "Is there a dog?"),
        ("no", "It is a dog, no.", "Is it a dog?"), ("yes", "There is a dog, no.", "Is there a dog?"),
        ("B", "A) is incorrect. B", None), ("A", "The answer is B, not A.", None), ("C", "A or C. Not B.", None),
    ],
)  # fmt: skip
def test_what_a_text_does_not_say_of_what_was_asked_is_not_read_into_it(
    right: str, answer: str, question: str | None
) -> None:
    assert agrees(answer, [right], question) is None


@pytest.mark.parametrize(
    ("answer", "right", "wrong", "question"),
    [
        ("No dogs.", "0", "2", "How many dogs are there?"),
        ("There are no dogs in the picture.", "0", "1", "What is the number of dogs?"),
        ("There are no people.", "0", "3", "Count the people in the image."),
        ("none", "0", "3", "How many?"),
        ("There is no dog.", "no", "yes", "Is there a dog in the image?"),
        ("No dogs are visible.", "no", "yes", "Are there any dogs?"),
        ("There is no dog.", "no", "yes", "Is there a dog in the image? Answer yes or no."),
        ("There are no dogs.", "no", "yes", "Can you see dogs sitting on the mat?"),
        ("In this picture, no.", "no", "yes", "Is there a dog?"),
        ("There isn't a dog, no.", "no", "yes", "Is there a dog?"),
        ("There is, yes.", "yes", "no", "Is there a dog?"),
        ("No hat.", "no", "yes", "Is the man wearing a red hat?"),
        ("There is no stop sign.", "no", "yes", "Is it true that there is a stop sign?"),
        ("**No** dogs.", "0", "2", "How many dogs are there?"),
        ("No, it is a cat.", "no", "yes", "Is it a dog?"),
        ("cat", "cat", "dog", "Which animal is it?"),
        ("2", "2", "3", "多少只狗?"),
        ("(B) A dog", "B", "C", "Which is it? A. A cat B. A dog"),
        ("B. I see a dog.", "B", "A", None),
    ],
)
def test_what_was_asked_about_is_read(answer: str, right: str, wrong: str, question: str | None) -> None:
    assert agrees(answer, [right], question) is True
    assert agrees(answer, [wrong], question) is False


def test_what_stands_beyond_the_part_that_is_read_may_turn_the_end_of_it_round() -> None:
    """ ", no" at the very end of what is read may go on as "not", or as "no doubt"."""
    for letters in range(180, 202):
        text = f"{'x' * letters}, no doubt a dog that sits beside the cat"
        assert agrees(text, ["yes"], "Is there a dog?") is agrees(text, ["no"], "Is there a dog?") is None
    assert agrees(f"Yes, {'it is a dog ' * 30}", ["yes"], "Is there a dog?") is True


@pytest.mark.parametrize(
    ("right", "answer"),
    [("autumn", "fall"), ("trash can", "garbage bin"), ("faucet", "tap"), ("female", "girl"), ("green", "teal"),
     ("noon", "midday"), ("leaf", "leaves"), ("feet", "foot"), ("wolf", "wolves"), ("sky", "skies"),
     ("sitting", "sat"), ("running", "ran"), ("France", "French"), ("US", "America"),
     ("purple", "magenta"), ("sunset", "dusk"), ("gas", "gasoline")],
)  # fmt: skip
def test_another_name_for_it_is_not_called_wrong(right: str, answer: str) -> None:
    assert agrees(answer, [right]) is agrees(right, [answer]) is None


@given(st.text(max_size=60))
def test_yes_is_read_only_where_it_is_said(text: str) -> None:
    if yes_or_no(text) is not None:
        assert {"yes", "no", "true", "false"} & set(identity(text).replace("'", " ").split())
