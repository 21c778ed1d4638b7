"""Which claims a text makes, how they are asked about, and what the answers come to."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scenes import grammar
from pipeline.scenes.vocabulary import COLOURS, OBJECTS, VOCABULARY
from reward.asking.claims import MIN_MASS, SPLITTING, Claim, ClaimScorer, p_yes, phrases, read_claims, statements
from reward.asking.protocol import Answer, Verdict
from reward.text.object_vocabulary import Vocabulary

THINGS = Vocabulary("demo", "1", {w: w.rstrip("s") for w in ("sun", "boat", "boats", "kite", "dog", "dogs", "owl")})
IN_SCENES = {"vocabulary": THINGS, "template": "Is there {claim} in the image?"}
items = st.lists(
    st.builds(
        grammar.Item,
        st.sampled_from(OBJECTS), st.sampled_from(sorted(COLOURS)), st.integers(1, 3), st.none() | st.integers(0, 8),
    ),
    min_size=1, max_size=6, unique_by=lambda item: item.name,
)  # fmt: skip


def row(*texts: str, **changes: Any) -> dict[str, Any]:
    values = {"id": "p", "images": [b"png"], "prompt": [{"role": "user", "content": "Describe."}], "facts": None}
    return {**values, "candidates": [{"text": text} for text in texts], **changes}


def sure(yes: float) -> Answer:
    """As a model answers that is so sure of yes."""
    first = tuple((word, math.log(p)) for word, p in (("Yes", yes), ("No", 1 - yes)) if p)
    return Answer("Yes" if yes > 0.5 else "No", complete=False, first=first)


def talk(scorer: ClaimScorer, of: dict[str, Any], *rounds: dict[str, Answer]) -> list[Verdict]:
    """What comes of it when the questions of each round are answered so; a question is looked up by a part of it."""
    going = scorer.ask(of)
    try:
        questions = next(going)
        for answers in rounds:
            replies = [next(a for part, a in answers.items() if part in question.text) for question in questions]
            questions = going.send(replies)
    except StopIteration as end:
        verdicts: list[Verdict] = end.value
        return verdicts
    raise AssertionError(f"{len(questions)} questions are left")


# ----------------------------------------------------------------------------------------------------------- phrases


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("There is a red sun and two blue boats. In the centre is a kite.", ["a red sun", "two blue boats", "a kite"]),
        ("The image shows red boats.", ["red boats"]),  # "shows" is no adjective
        ("The big red dog barks at the owl.", ["a big red dog", "an owl"]),
        ("3 boats, 1 kite and some dogs", ["three boats", "a kite", "some dogs"]),
        ("A dog. The dog sleeps. a Dog", ["a dog"]),
        ("There is no dog, not a kite, and a boat without the sun.", ["a boat"]),
        ("Boats\nand a\nkite", ["boats", "a kite"]),
        ("A pair of red boats, 12 dogs, these dogs, both boats and an orange owl",
         ["two red boats", "12 dogs", "dogs", "boats", "an orange owl"]),
        ("The dog and his kite", ["a dog", "a kite"]),
        ("Is it? Yes. Is there a dog?", []),
        ("", []),
    ],
)  # fmt: skip
def test_a_phrase_is_the_object_with_its_determiner_and_adjectives(text: str, claims: list[str]) -> None:
    assert [claim.text for claim in phrases(text, THINGS)] == claims


@given(items, st.integers(0, 99))
def test_what_a_scene_is_said_to_show_is_what_is_claimed(listed: list[grammar.Item], seed: int) -> None:
    text = grammar.describe(listed, random.Random(seed))
    assert [claim.text for claim in phrases(text, VOCABULARY)] == [item.phrase for item in listed]


@given(st.text(alphabet="ab ,.2\ndogsunthe", max_size=40))
def test_every_phrase_ends_with_an_object_and_comes_once(text: str) -> None:
    claims = [claim.text for claim in phrases(text, THINGS)]
    assert len(set(claims)) == len(claims) and all(THINGS.canonical(claim.split()[-1]) for claim in claims)


# -------------------------------------------------------------------------------------------------------- statements


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("There is a sun and two boats. In the centre is a kite.",
         ["there is a sun", "there are two boats", "in the centre there is a kite"]),
        ("The image shows a man holding a cup, a dog, and several birds.",
         ["there is a man holding a cup", "there is a dog", "there are several birds"]),
        ("In this picture you can see a red sun.", ["there is a red sun"]),
        ("The sky is blue; it rains. Dr. Smith waves!", ["The sky is blue", "it rains", "Dr. Smith waves"]),
        ("Birds fly, and a man sleeps, but it is day.", ["Birds fly", "a man sleeps", "it is day"]),
        ("- A red sun\n- Two boats\n3) A cup", ["A red sun", "Two boats", "A cup"]),
        ("There is a man and woman.", ["there is a man and woman"]),
        ('It reads "Stop. Go!" there. J. K. Rowling waves at 5 p.m. in the U.S. It rains, e.g. on Mr. Smith; he waits.',
         ['It reads "Stop. Go!" there', "J. K. Rowling waves at 5 p.m. in the U.S", "It rains, e.g. on Mr. Smith",
          "he waits"]),
        ("There is a dog. there is a dog.\nWhat is it? ... 12", ["there is a dog"]),
        ("", []),
    ],
)  # fmt: skip
def test_a_statement_is_a_sentence_or_one_of_the_things_that_it_lists(text: str, claims: list[str]) -> None:
    assert [claim.text for claim in statements(text)] == claims


# ------------------------------------------------------------------------------------------------------------- p_yes


@pytest.mark.parametrize(
    ("tokens", "value"),
    [
        ([("Yes", 0.6), ("No", 0.2)], 0.75),
        ([(" yes", 0.3), ("YES.", 0.3), ("\u2581no", 0.2), ("\u0120No", 0.2)], 0.6),
        ([("Yes", 0.5), ("Maybe", 0.5)], 1.0),
        ([("Yes", 0.1), ("Maybe", 0.9)], None),
        ([("Yes", 0.0009), ("No", 0.0001), ("The", 0.999)], None),
        ([("Yes", 0.3), ("No", 0.19), ("The", 0.51)], None),
        ([("no,", 0.5)], 0.0),
        ([("Maybe", 0.9), ("yesterday", 0.05), ("know", 0.05), ("", 0.01)], None),
        ([], None),
    ],
)
def test_yes_and_no_are_weighed_by_all_tokens_that_say_them(tokens: list[tuple[str, float]], value: Any) -> None:
    assert p_yes([(token, math.log(p)) for token, p in tokens]) == (value if value is None else pytest.approx(value))


@given(st.lists(st.tuples(st.sampled_from(["Yes", " no", "x"]), st.floats(-30, 0)), max_size=6))
def test_the_opposite_has_the_rest_of_the_probability(tokens: list[tuple[str, float]]) -> None:
    turned = [({"Yes": "no", " no": "Yes"}.get(token, token), logprob) for token, logprob in tokens]
    straight, opposite = p_yes(tokens), p_yes(turned)
    mass = math.fsum(math.exp(logprob) for token, logprob in tokens if token != "x")
    assert (straight is None) == (opposite is None) == (mass < MIN_MASS) or mass == pytest.approx(MIN_MASS)
    assert straight is None or opposite is None or (0 <= straight <= 1 and straight + opposite == pytest.approx(1))


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_an_answer_counts_only_with_enough_of_the_probability(yes: float, rest: float, least: float) -> None:
    mass = 1 - rest
    first = [(word, math.log(p)) for word, p in (("Yes", mass * yes), ("No", mass * (1 - yes)), ("The", rest)) if p]
    share = p_yes(first, least)
    if mass == pytest.approx(least) or not mass:
        return
    assert share == (pytest.approx(yes, abs=1e-6) if mass > least and mass > 1e-300 else None)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 700.0, 1e308, 0.5])
def test_what_is_no_log_prob_is_no_verdict(bad: float) -> None:
    assert p_yes([("Yes", math.log(0.9)), ("No", bad)]) is None
    assert p_yes([("Yes", 0.0), ("Maybe", bad)]) == 1.0  # of a word that says neither, nothing is read
    assert p_yes([("Yes", -math.inf), ("No", 0.0004)]) == 0.0  # as a server rounds


# ------------------------------------------------------------------------------------------------------------ asking


def test_each_claim_of_a_row_is_asked_once_with_the_image_for_one_token() -> None:
    going = ClaimScorer(**IN_SCENES).ask(row("A red sun and a kite.", "The kite.", "A red sun and a kite."))
    questions = next(going)
    assert [question.text for question in questions] == [
        "Is there a red sun in the image?",
        "Is there a kite in the image?",
    ]
    assert all((question.images, question.yes_or_no, question.max_tokens) == (True, True, 1) for question in questions)


def test_counted_things_may_have_a_template_of_their_own() -> None:
    scorer = ClaimScorer(**IN_SCENES, template_many="Are there exactly {number} {noun} in the image?")
    questions = [question.text for question in next(scorer.ask(row("2 blue boats and some boats and a dog.")))]
    assert questions == [
        "Are there exactly two boats in the image?",
        "Is there some boats in the image?",
        "Is there a dog in the image?",
    ]


def test_by_default_statements_are_asked_about() -> None:
    (question,) = next(ClaimScorer().ask(row("There is a sun<image>.")))
    assert question.text == "Is it true of the image that: there is a sun< image>? Answer yes or no."


def test_scores_are_the_mean_the_least_and_the_number() -> None:
    scorer, of = ClaimScorer(**IN_SCENES), row("A sun and a kite.", "A kite. The kite!", "Nothing.", "A sun.")
    verdicts = talk(scorer, of, {"sun": sure(0.25), "kite": sure(0.75)})
    assert [(verdict.candidate, verdict.question) for verdict in verdicts] == [
        (0, "a sun"),
        (0, "a kite"),
        (1, "a kite"),
        (3, "a sun"),
    ]
    scores = scorer.scores(of, verdicts)
    assert scores["claims.true"] == [pytest.approx(0.5), pytest.approx(0.75), None, pytest.approx(0.25)]
    assert scores["claims.lowest"] == [pytest.approx(0.25), pytest.approx(0.75), None, pytest.approx(0.25)]
    assert scores["claims.count"] == [2.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer("Maybe", first=(("Maybe", -0.1),)), "unreadable"),
        (Answer("The", first=(("The", math.log(0.999)), ("No", math.log(0.001)))), "unreadable"),
        (Answer("Yes", first=(("Yes", -0.1), ("No", math.nan))), "unreadable"),
        (Answer("Yes"), "no_logprobs"),  # the text alone is no probability
        (Answer(error="timeout: slow"), "timeout"),
    ],
)
def test_a_claim_without_a_verdict_leaves_its_texts_without_a_score(answer: Answer, kind: str) -> None:
    scorer, of = ClaimScorer(**IN_SCENES), row("A sun and a kite.", "A kite.")
    verdicts = talk(scorer, of, {"sun": answer, "kite": sure(0.75)})
    assert (verdicts[0].error or "").startswith(f"{kind}: ") and verdicts[0].p_yes is None
    assert scorer.scores(of, verdicts) == {
        "claims.true": [None, pytest.approx(0.75)], "claims.lowest": [None, pytest.approx(0.75)],
        "claims.count": [2.0, 1.0],
    }  # fmt: skip
    unreadable = int(kind == "unreadable")
    assert scorer.counts(verdicts) == {"verdicts": 3, "unanswered": 1 - unreadable, "unreadable": unreadable}


def test_how_much_of_the_probability_is_enough_is_an_option() -> None:
    hesitant = Answer("The", first=(("The", math.log(0.7)), ("No", math.log(0.2)), ("Yes", math.log(0.1))))
    (strict,) = talk(ClaimScorer(**IN_SCENES), row("A sun."), {"sun": hesitant})
    assert strict.p_yes is None and "P(yes) + P(no) = 0.3, less than min_mass=0.5" in (strict.error or "")
    (lenient,) = talk(ClaimScorer(**IN_SCENES, min_mass=0.25), row("A sun."), {"sun": hesitant})
    assert lenient.p_yes == pytest.approx(1 / 3) and lenient.error is None


def test_answers_to_questions_make_no_claims() -> None:
    scorer, of = ClaimScorer(**IN_SCENES), row("A dog.", facts={"answer": "a dog"})
    assert talk(scorer, of) == [] and scorer.scores(of, []) == {name: [None] for name in scorer.names}


# ------------------------------------------------------------------------------------------- a model writes the claims


def test_a_model_splits_each_text_first_and_sees_no_image_for_it() -> None:
    scorer, of = ClaimScorer(splitter="model"), row("It is red, the sun.", "Hm.", " ")
    questions = next(scorer.ask(of))
    assert len(questions) == 2 and not any(question.images or question.yes_or_no for question in questions)
    split = {"It is red": Answer("- The sun is red.\n- There is a sun."), "Hm": Answer("- none")}
    verdicts = talk(scorer, of, split, {"sun is red": sure(0.5), "is a sun": sure(1.0)})
    assert [verdict.question for verdict in verdicts] == ["The sun is red", "There is a sun"]
    assert scorer.scores(of, verdicts)["claims.count"] == [2.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer("Here are the claims:\n- a"), "unreadable"),
        (Answer(""), "unreadable"),
        (Answer("- The sun is", complete=False), "cut_off"),
        (Answer(error="server_error: gone"), "server_error"),
    ],
)
def test_a_text_that_could_not_be_split_has_no_scores_at_all(answer: Answer, kind: str) -> None:
    scorer, of = ClaimScorer(splitter="model"), row("A sun.", "A kite.")
    verdicts = talk(scorer, of, {"A sun": answer, "A kite": Answer("- There is a kite")}, {"kite": sure(0.75)})
    assert verdicts[0] == Verdict(0, SPLITTING, answer.text, error=verdicts[0].error)
    assert (verdicts[0].error or "").startswith(f"{kind}: ")
    assert scorer.scores(of, verdicts) == {
        "claims.true": [None, pytest.approx(0.75)], "claims.lowest": [None, pytest.approx(0.75)],
        "claims.count": [None, 1.0],
    }  # fmt: skip


def test_a_list_of_claims_is_read_whatever_marks_its_lines() -> None:
    assert read_claims("```\n- A sun.\n```") == [Claim("A sun")]
    assert read_claims("1. A sun.\n2) Two\n* Three\n\n- A sun") == [Claim("A sun"), Claim("Two"), Claim("Three")]


def test_the_version_changes_with_what_is_asked() -> None:
    options: list[dict[str, Any]] = [
        {}, {"vocabulary": THINGS}, {"vocabulary": VOCABULARY}, {"template": "{claim}?"}, {"template_many": "{noun}?"},
        {"splitter": "model"}, {"splitter": "model", "max_tokens": 9}, {"min_mass": 0.1},
    ]  # fmt: skip
    assert len({ClaimScorer(**changes).version for changes in options}) == len(options)
    assert ClaimScorer(max_tokens=9).version == ClaimScorer().version  # rules need no tokens


@pytest.mark.parametrize(
    ("answer", "claims"),
    [
        ("- A dog runs.\r\n\r\n- It is red.", ["A dog runs", "It is red"]),
        ("<think>\n- A cat?\n</think>\n\u2013 A dog runs.", ["A dog runs"]),
        ("- (none)", []),
        ("- No claims.", []),
        ("- There are no claims about the image.", []),
        ("- None of the dogs runs.", ["None of the dogs runs"]),
        ("Here are the claims:", None),
        ("A dog runs:\nit is red.", None),
    ],
)
def test_a_list_of_claims_is_read_as_models_write_it(answer: str, claims: list[str] | None) -> None:
    read = read_claims(answer)
    assert (read and [claim.text for claim in read]) == claims
