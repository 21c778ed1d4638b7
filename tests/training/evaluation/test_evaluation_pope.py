import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.benchmarks.pope import METRICS, SPLITS, UNPARSEABLE_IS_NOT_YES, Pope, build, question, terms
from training.evaluation.question import Answer
from training.evaluation.ratio import pool

#: sun is in most images; cup goes along with boat; star is rare.
IMAGES = [["sun", "boat", "cup"], ["boat", "cup"], ["sun", "anchor"], ["sun"], ["star"]]


def of(questions, image, split, answer):
    return [q.object for q in questions if (q.image, q.answer) == (image, answer) and split in q.splits]


def test_positives_are_the_first_objects_of_the_list_and_belong_to_every_split():
    questions = build([["a", "b", "c", "d"], ["e"], ["f"], ["g"]])
    positives = [q for q in questions if q.image == 0 and q.answer == "yes"]
    assert [q.object for q in positives] == ["a", "b", "c"]
    assert {q.splits for q in positives} == {SPLITS}


def test_popular_takes_the_most_frequent_absent_objects_in_order():
    # frequencies: sun 3, boat 2, cup 2, anchor 1, star 1; ties by name
    questions = build(IMAGES)
    assert of(questions, 4, "popular", "no") == ["sun"]
    assert set(of(questions, 1, "popular", "no")) == {"sun", "anchor"}
    assert of(questions, 3, "popular", "no") == ["boat"]


def test_adversarial_takes_what_goes_along_with_the_current_positive():
    questions = build(IMAGES)
    # Image 3 holds only the sun, seen with boat, cup and anchor once each: the tie goes by name.
    assert of(questions, 3, "adversarial", "no") == ["anchor"]
    # Image 1: boat was seen with sun (and cup, which is there); for cup nothing is left, so the second is random.
    first, second = sorted(of(questions, 1, "adversarial", "no"), key="sun".__ne__)
    assert first == "sun" and second in {"anchor", "star"}


def test_adversarial_falls_back_to_random_without_company():
    assert of(build(IMAGES), 4, "adversarial", "no")[0] in {"sun", "boat", "cup", "anchor"}


def test_fewer_absent_objects_give_fewer_questions_but_as_many_yes_as_no():
    questions = build([["a", "b", "c"], ["a", "d"]])
    assert Counter((q.image, q.answer) for q in questions if "random" in q.splits) == {
        (0, "yes"): 1,  # only d is absent
        (0, "no"): 1,
        (1, "yes"): 2,
        (1, "no"): 2,
    }
    assert build([["a", "b"]]) == []
    assert build([]) == []


def test_texts_and_articles():
    questions = build([["umbrella"], ["sun"]])
    assert questions[0].text == "Is there an umbrella in the image?"
    assert (
        build([["sun"], ["cup"]], question="See {article} {object}?", article=lambda _: "one")[0].text == "See one sun?"
    )


objects = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=6, unique=True)
corpora = st.lists(objects, min_size=1, max_size=8)


@given(corpora, st.integers(1, 4), st.integers(0, 3))
def test_the_rules_hold_for_every_corpus(images, per_image, seed):
    questions = build(images, per_image, seed)
    assert len({(q.image, q.object) for q in questions}) == len(questions)
    occurring = {name for image in images for name in image}
    for index, image in enumerate(images):
        expected = min(per_image, len(image), len(occurring - set(image)))
        for split in SPLITS:
            assert of(questions, index, split, "yes") == image[:expected]
            negatives = of(questions, index, split, "no")
            assert len(negatives) == expected
            assert set(negatives) <= occurring - set(image)
    assert questions == build(images, per_image, seed)


@given(corpora, st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(images, rng):
    order = list(range(len(images)))
    rng.shuffle(order)

    def bag(corpus):
        return Counter((tuple(corpus[q.image]), q.object, q.answer, frozenset(q.splits)) for q in build(corpus))

    assert bag(images) == bag([images[i] for i in order])


def measure(answers, parser="official"):
    """The metrics of (truth, said), and how many could not be read."""
    rows = [terms(truth, answer, parser in UNPARSEABLE_IS_NOT_YES) for truth, answer in answers]
    values = {name: pool(row[name] for row in rows) for name in METRICS}
    return {**values, "unparseable": float(sum(answer is None for _, answer in answers))}


def test_metrics_of_a_known_confusion_matrix():
    answers = [("yes", "yes")] * 3 + [("no", "yes")] + [("no", "no")] * 4 + [("yes", "no")] * 2
    assert measure(answers) == {
        "accuracy": 0.7,
        "precision": 0.75,
        "recall": 0.6,
        "f1": pytest.approx(2 * 0.75 * 0.6 / 1.35),
        "yes_ratio": 0.4,
        "unparseable": 0.0,
    }


def test_answers_count_the_same_when_they_come_back_from_a_file():
    answers = [("yes", "yes"), ("no", "yes"), ("no", "no"), ("yes", "no"), ("yes", None)]
    read = [tuple(pair) for pair in json.loads(json.dumps(answers))]
    for parser in ("official", "vlmevalkit"):
        assert measure(read, parser) == measure(answers, parser)
        assert measure(read, parser)["precision"] == 0.5


@pytest.mark.parametrize("parser", ["official", "lmms_eval", "vlmevalkit"])
@pytest.mark.parametrize("begin", ["<think>", "", "\n<thinking>", "\u25c1think\u25b7"])
def test_an_answer_is_what_stands_behind_the_reasoning(parser, begin):
    close = begin.strip().replace("<", "</").replace("\u25c1", "\u25c1/") or "</think>"
    said = {"yes": f"{begin}There is no doubt, or not?{close}\n\nYes", "no": f"{begin}Yes? {close}<answer>No</answer>"}
    questions = [question("a.jpg", truth, truth, ["random"]) for truth in said]
    answers = {entry.id: Answer(said[entry.truth["answer"]]) for entry in questions}
    assert Pope(parser).score(questions, answers).values()["accuracy"] == 1.0


def test_an_unparseable_answer_is_wrong_and_each_harness_treats_the_rest_its_own_way():
    answers = [("yes", "yes"), ("yes", None), ("no", None), ("no", "no")]
    left_out, not_yes = measure(answers, "lmms_eval"), measure(answers, "vlmevalkit")
    assert left_out["accuracy"] == not_yes["accuracy"] == 0.5
    assert (left_out["recall"], not_yes["recall"]) == (1.0, 0.5)
    assert left_out["precision"] == not_yes["precision"] == 1.0
    assert (left_out["f1"], not_yes["f1"]) == (1.0, pytest.approx(2 / 3))
    assert left_out["unparseable"] == 2.0


def test_always_yes_looks_as_bad_as_it_is():
    metrics = measure([("yes", "yes"), ("no", "yes")] * 5)
    assert (metrics["accuracy"], metrics["recall"], metrics["yes_ratio"]) == (0.5, 1.0, 1.0)


def test_nothing_to_divide_is_none_not_zero():
    assert measure([]) == {**dict.fromkeys(("accuracy", "precision", "recall", "f1", "yes_ratio")), "unparseable": 0.0}
    assert measure([("no", "no")])["precision"] is None
