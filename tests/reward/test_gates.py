from __future__ import annotations

import doctest

import pytest
from good_texts import BAD, CUT, DESCRIBE, GOOD
from hypothesis import given
from hypothesis import strategies as st

from reward import gates
from reward.gates import GATES, repeats, stopping_gate
from reward.text import language, refusals
from reward.text.language import answer_language
from reward.text.same_text import blank


def of(text: str, prompt: str = DESCRIBE, finish_reason: str = "stop", **options: object) -> str | None:
    return stopping_gate(text, finish_reason, answer_language(prompt), **options)  # type: ignore[arg-type]


def test_the_lists_are_as_long_as_promised_and_no_text_stands_there_twice() -> None:
    assert len(set(GOOD)) == len(GOOD) >= 60
    assert len({(prompt, text) for _, prompt, text in BAD}) == len(BAD) >= 40
    assert {gate for gate, _, _ in BAD} == set(GATES) - {"too_short"}


@pytest.mark.parametrize(("prompt", "text"), GOOD)
def test_no_gate_touches_a_good_text(prompt: str, text: str) -> None:
    assert of(text, prompt) is None


@pytest.mark.parametrize(("gate", "prompt", "text"), BAD)
def test_a_bad_text_is_stopped_for_what_is_wrong_with_it(gate: str, prompt: str, text: str) -> None:
    assert of(text, prompt) == gate


@pytest.mark.parametrize(("gate", "prompt", "text"), [bad for bad in BAD if bad[0] != "empty"])
def test_a_gate_that_is_turned_off_stops_nothing(gate: str, prompt: str, text: str) -> None:
    assert of(text, prompt, skip=[gate]) != gate


def test_a_text_that_had_to_stop_is_cut_off() -> None:
    assert of(CUT, finish_reason="length") == "cut_off" and of(CUT) is None
    assert of(CUT, finish_reason="length", skip=["cut_off"]) is None


def test_how_short_is_too_short_is_an_option() -> None:
    assert of("Yes.") is None
    assert (of("Yes.", min_words=2), of("Yes, it is.", min_words=2)) == ("too_short", None)


def test_how_often_a_phrase_may_follow_itself_is_an_option() -> None:
    assert (of("very very very red"), of("very very very red", max_repeated=3)) == ("repetition", None)
    loop = "The man on the left is smiling at her. " * 3
    assert (of(loop), of(loop, max_repeated=3)) == ("repetition", None)


@given(st.lists(st.sampled_from(["sun", "boat", "a", "the"]), min_size=1, max_size=9), st.integers(1, 3))
def test_a_phrase_of_any_length_may_not_follow_itself_too_often(phrase: list[str], most: int) -> None:
    assert of(" ".join(phrase * (most + 1)), max_repeated=most) == "repetition"


def test_a_short_phrase_is_counted_where_words_have_spaces_and_a_loop_where_they_have_none() -> None:
    assert repeats("a sun " * 7) == 7 and not gates.loops("a sun " * 7, 6)
    assert repeats("一只狗" * 7) == 1 and gates.loops("一只狗" * 7, 6) and not gates.loops("一只狗" * 7, 7)


@pytest.mark.parametrize("end", ["the", "and the", "next to a", "the mat,", "a mat (", "the well-"])
def test_only_a_text_of_eight_words_or_more_can_break_off(end: str) -> None:
    words = ["There", "is", "a", "dog", "here", "and", "there", "too"]
    long = " ".join([*words[: 8 - len(end.replace("(", "").split())], end])
    assert len(gates.normal_text(long).split()) == 8
    assert of(long) == "cut_off" and of(long.removeprefix("There ")) is None


@given(st.integers(5, 40), st.integers(1, 3))
def test_different_words_never_repeat_however_long_the_text(words: int, most: int) -> None:
    text = " ".join(f"word{i}" for i in range(words))
    assert (
        of(text, max_repeated=most) is None and of(f"{text}. {text}." if most > 1 else text, max_repeated=most) is None
    )


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_text_is_either_fine_or_stopped_for_one_known_reason(text: str, prompt: str) -> None:
    gate = of(text, prompt)
    assert gate is None or gate in GATES
    assert (gate == "empty") == blank(text)


@given(st.sampled_from(BAD))
def test_gates_look_at_the_text_itself_not_at_the_space_around_it(bad: tuple[str, str, str]) -> None:
    gate, prompt, text = bad
    assert of(f"\n {text} \n", prompt) == gate


def test_a_prompt_that_names_a_language_leaves_it_free() -> None:
    german = "Auf dem Bild ist ein Hund, der auf der Matte liegt, und neben der Matte steht eine Lampe mit dem Schirm."
    assert (of(german), of(german, "Describe the image in German.")) == ("wrong_language", None)
    chinese = "图片中有一只狗躺在红色的垫子上，旁边有一个碗。"
    assert (of(chinese), of(chinese, "What does the sign say?")) == ("wrong_script", None)
    assert of(chinese, "") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("What is in the picture?", "en"),
        ("Was ist auf dem Bild?", "de"),
        ("Que voit-on sur cette image ?", "fr"),
        ("¿Qué hay en la imagen?", "es"),
        ("Che cosa si vede in questa immagine?", "it"),
        ("Wat is er op de foto te zien?", "nl"),
        ("O que há na imagem?", "pt"),
        ("Objects?", None),
        ("2 + 2", None),
    ],
)
def test_the_language_of_a_prompt_is_told_only_where_its_words_say(text: str, told: str | None) -> None:
    assert language.language(text) == told


@pytest.mark.parametrize(("text", "times"), [("", 0), ("a", 1), ("a a a", 3), ("a b a b", 2), ("| a | | | b |", 1)])
def test_repeats(text: str, times: int) -> None:
    assert repeats(text) == times


@pytest.mark.parametrize("module", [gates, language, refusals])
def test_examples_of_the_documentation_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["[0.1, 0.1, 0.1, 0.5]", "| 0 | 0 | 0 |", "6, 6, 6", "| a | b |\n| 0 | 0 |\n| 0 | 0 |", "1 1 1 1",
     "room 1, room 2, room 3", "Row 1: 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5."],
)  # fmt: skip
def test_numbers_of_a_series_may_be_alike(text: str) -> None:
    assert of(text) is None


@pytest.mark.parametrize(
    "text", ["0, " * 80, "It is 3. It is 3. It is 3.", "3 dogs 3 dogs 3 dogs", "very 1 very 1 very 1"]
)
def test_numbers_are_no_excuse_for_a_loop(text: str) -> None:
    assert of(text) == "repetition"


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("I can't identify any people in this picture; it shows an empty street.", None),
        ("I cannot identify people, but there are two persons near a bus.", None),
        ("I can't identify people.", "refusal"),
        ("I'm sorry, but I can't identify individuals based on their appearance.", "refusal"),
        ("I cannot recognize real people in photos, because of privacy.", "refusal"),
    ],
)
def test_who_names_nobody_and_says_what_there_is_answers(text: str, gate: str | None) -> None:
    assert of(text) == gate


@pytest.mark.parametrize(
    "text",
    [
        "<think>Is there a dog?</think> Yes, there is one.",
        "<thinking>Is there a dog?</thinking> Yes, there is one.",
        "\u25c1think\u25b7Is there a dog?\u25c1/think\u25b7 Yes, there is one.",
        "Is there a dog?</Thinking> Yes, there is one.",  # the template has begun it
    ],
)
def test_reasoning_is_no_part_of_a_pair(text: str) -> None:
    assert of(text) == "leaked_template"
    assert of("I was thinking: there is one dog, as I think.") is None
