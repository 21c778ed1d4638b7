import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.tables import CANDIDATES, OK, PROMPTS, error_status
from pipeline.scenes.scene_words import scenes
from reward.text.object_vocabulary import Vocabulary
from training.evaluation.ratio import interval, pool, resample, weights
from training.evaluation.summarise import HEADLINE, summarise

VOCABULARY = Vocabulary("demo", "1", {name: name for name in ("sun", "boat", "cup")})
ALL = "pope:random,popular,adversarial"


def prompt(id, image, source, objects, answer=None, status=None):
    return {
        "id": id,
        "images": [{"bytes": image, "path": None}],
        "prompt": [{"role": "user", "content": id}],
        "facts": {"objects": [{"name": name} for name in objects], "answer": answer},
        "source": source,
        **(status or OK),
    }


def answer(id, text, finish_reason="stop", status=None):
    candidates = None if status else [{"text": text, "finish_reason": finish_reason}]
    return {"id": id, "candidates": candidates, **(status or OK)}


def tables(prompts, answers):
    return pa.Table.from_pylist(prompts, schema=PROMPTS), pa.Table.from_pylist(answers, schema=CANDIDATES)


PROMPT_ROWS = [
    prompt("d1", b"1", "describe", ["sun", "boat"]),
    prompt("d2", b"2", "describe", ["cup"]),
    prompt("q1", b"1", ALL, ["sun", "boat"], "yes"),
    prompt("q2", b"1", "pope:random,popular", ["sun", "boat"], "no"),
    prompt("q3", b"1", "pope:adversarial", ["sun", "boat"], "no"),
    prompt("q4", b"2", ALL, ["cup"], "yes"),
]
ANSWER_ROWS = [
    answer("d1", "A sun and a cup."),
    answer("d2", "A cup", "length"),
    answer("q1", "Yes"),
    answer("q2", "yes"),
    answer("q3", "No"),
    answer("q4", "perhaps"),
]


def test_golden():
    summary = summarise(*tables(PROMPT_ROWS, ANSWER_ROWS), VOCABULARY)
    assert summary["chair_i"] == pytest.approx(1 / 3)
    assert summary["chair_s"] == 0.5
    assert summary["cover"] == pytest.approx(2 / 3)
    assert summary["mean_length"] == 3.5
    assert (
        summary["pope_random_accuracy"] == summary["pope_popular_accuracy"] == pytest.approx(2 / 3)
    )  # "perhaps" is yes
    assert summary["pope_adversarial_accuracy"] == 1.0
    assert summary["pope_accuracy"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert summary["pope_random_precision"] == pytest.approx(2 / 3)
    assert summary["pope_f1"] == pytest.approx((0.8 + 0.8 + 1) / 3)
    assert summary["pope_yes_ratio"] == pytest.approx((1 + 1 + 2 / 3) / 3)
    counts = {
        name: summary[name] for name in ("captions", "images", "pope_questions", "truncated", "failed", "unparseable")
    }
    assert counts == {"captions": 2, "images": 2, "pope_questions": 4, "truncated": 1, "failed": 0, "unparseable": 0}
    assert [summary[f"pope_{split}_questions"] for split in ("random", "popular", "adversarial")] == [3, 3, 3]
    json.dumps(summary, allow_nan=False)


def drawn(*texts):
    """Descriptions of one red sun at the top left and two blue cups, each of an image of its own."""
    things = [
        {"name": "sun", "count": 1, "attributes": ["red"], "boxes": [[0.0, 0.0, 0.3, 0.3]]},
        {"name": "cup", "count": 2, "attributes": ["blue"], "boxes": [[0.4, 0.4, 0.6, 0.6], [0.7, 0.7, 0.9, 0.9]]},
    ]
    ids = [f"d{i}" for i in range(len(texts))]
    prompts = [{**prompt(id, id.encode(), "describe", []), "facts": {"objects": things}} for id in ids]
    return tables(prompts, [answer(id, text) for id, text in zip(ids, texts, strict=True)])


def judged_by(lexicon, *texts):
    return summarise(*drawn(*texts), scenes().vocabulary, lexicon=lexicon)


def test_shr_is_wrong_sentences_of_all_sentences_those_included_that_cannot_be_judged():
    summary = judged_by(scenes(), "There is a red sun. You can also see two red cups. How nice.", "There is a moon.")
    assert summary["shr"] == pytest.approx(2 / 4)
    low, high = summary["shr_ci"]
    assert low <= 0.5 <= high and low < high
    assert "shr_objects" not in summary


@pytest.mark.parametrize(
    ("sentence", "wrong", "objects_alone"),
    [
        ("There is a red moon.", 1, 1),
        ("There is a blue sun.", 1, 0),
        ("There are two red suns.", 1, 0),
        ("In the centre is a red sun.", 1, 0),
        ("In the top left corner is a red sun.", 0, 0),
        ("You can also see two blue cups.", 0, 0),
    ],
)
def test_with_a_lexicon_everything_in_a_sentence_counts_and_without_one_its_objects(sentence, wrong, objects_alone):
    assert judged_by(scenes(), sentence)["shr"] == wrong
    assert judged_by(None, sentence)["shr_objects"] == objects_alone


def test_a_lexicon_changes_the_name_and_the_value_of_shr_and_nothing_else():
    with_it, without = (judged_by(lexicon, "There is a blue sun.") for lexicon in (scenes(), None))
    assert with_it.keys() - without.keys() == {"shr", "shr_ci"}
    assert without.keys() - with_it.keys() == {"shr_objects", "shr_objects_ci"}
    assert all(with_it[name] == without[name] for name in with_it.keys() & without.keys())


def test_sentences_are_those_of_the_metric_and_a_repeated_one_counts_once():
    text = "There is a moon. There is a red sun. There is a moon."
    assert judged_by(scenes(), text)["shr"] == 0.5
    assert judged_by(scenes(), "There is a moon! There is a red sun.")["shr"] == 1.0  # only full stops divide


def test_how_varied_the_words_are_is_averaged_over_descriptions():
    summary = judged_by(scenes(), "a sun a sun", "a red sun")
    assert summary["distinct_1"] == pytest.approx((0.5 + 1.0) / 2)
    assert summary["distinct_4"] == 1.0  # the other one has too few words


def test_the_parser_is_named():
    summary = summarise(*tables(PROMPT_ROWS, ANSWER_ROWS), VOCABULARY, parser="lmms_eval")
    assert summary["unparseable"] == 1
    assert summary["pope_adversarial_accuracy"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="unknown"):
        summarise(*tables(PROMPT_ROWS, ANSWER_ROWS), VOCABULARY, parser="x")


def test_failures_are_counted_and_left_out_whichever_table_reports_them():
    bad = error_status("engine", "out of memory")
    answers = [answer("d2", "", status=bad) if row["id"] == "d2" else row for row in ANSWER_ROWS]
    prompts = [{**row, **bad} if row["id"] == "q4" else row for row in PROMPT_ROWS]
    summary = summarise(*tables(prompts, answers), VOCABULARY)
    assert summary["failed"] == 2
    assert (summary["captions"], summary["chair_s"], summary["images"]) == (1, 1.0, 1)
    assert summary["pope_questions"] == 3


def test_a_missing_answer_is_an_error():
    with pytest.raises(ValueError, match="id 'd1' is missing from candidates"):
        summarise(*tables(PROMPT_ROWS, ANSWER_ROWS[1:]), VOCABULARY)
    with pytest.raises(ValueError, match="id 'q1' is missing from prompts"):
        summarise(*tables([row for row in PROMPT_ROWS if row["id"] != "q1"], ANSWER_ROWS), VOCABULARY)


def test_an_unknown_source_is_an_error():
    with pytest.raises(ValueError, match="neither 'describe' nor 'pope:'"):
        summarise(*tables([prompt("a", b"1", "chat", [])], [answer("a", "b")]), VOCABULARY)


def test_nothing_at_all():
    summary = summarise(*tables([], []), VOCABULARY)
    assert summary["chair_i"] is None and summary["pope_f1"] is None and summary["images"] == 0
    assert all(summary[f"{name}_ci"] is None for name in (*HEADLINE, "shr_objects"))
    assert summary["shr_objects"] is None and summary["distinct_1"] is None


def test_intervals_hold_their_value():
    rng = np.random.default_rng(0)
    prompts = [prompt(f"d{i}", str(i).encode(), "describe", ["sun"]) for i in range(60)]
    answers = [answer(f"d{i}", "a sun and a cup" if rng.random() < 0.3 else "a sun") for i in range(60)]
    summary = summarise(*tables(prompts, answers), VOCABULARY)
    low, high = summary["chair_s_ci"]
    assert low < summary["chair_s"] < high
    assert 0.1 < high - low < 0.4
    assert summary["cover_ci"] == [1.0, 1.0]


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rng):
    texts = [
        "a sun",
        "a sun and a cup",
        "a boat, a cup",
        "a boat",
        "a cup and a sun and a boat",
        "nothing",
        "sun sun cup",
    ]
    prompts = [*PROMPT_ROWS, *(prompt(f"e{i}", f"e{i}".encode(), "describe", ["sun"]) for i in range(7))]
    answers = [*ANSWER_ROWS, *(answer(f"e{i}", text) for i, text in enumerate(texts))]
    expected = summarise(*tables(prompts, answers), VOCABULARY)
    rng.shuffle(prompts)
    rng.shuffle(answers)
    assert summarise(*tables(prompts, answers), VOCABULARY) == expected


def test_bootstrap_draws_images_and_ignores_samples_without_a_denominator():
    drawn = weights(5, samples=50, seed=1)
    assert drawn.shape == (50, 5) and (drawn.sum(axis=1) == 5).all()
    assert (drawn == weights(5, samples=50, seed=1)).all()
    terms = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    samples = resample(terms, drawn)
    assert np.isnan(samples).any() and interval(samples) == [1.0, 1.0]
    assert interval(np.array([np.nan])) is None
    assert pool([(0, 0)]) is None
