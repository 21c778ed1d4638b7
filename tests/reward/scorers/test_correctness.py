import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.scorers.column_scorer import Batch
from reward.scorers.correctness import CorrectnessScorer


def row(answer, *texts, asked=None, **facts):
    return {
        "images": [],
        "prompt": [] if asked is None else [{"role": "user", "content": asked}],
        "facts": {"answer": answer, **facts},
        "candidates": [{"text": text} for text in texts],
    }


def test_yes_or_no():
    scores = CorrectnessScorer().score([row("yes", "Yes, it is.", "No."), row("No", "no", "yes")])
    assert scores["correctness"] == [[1.0, 0.0], [1.0, 0.0]]
    assert scores["correctness.unparseable"] == [[0.0, 0.0], [0.0, 0.0]]


def test_an_unreadable_answer_is_no_data():
    scores = CorrectnessScorer().score([row("yes", "I cannot tell.", "yes and no", ""), row("cat", "Not a cat.")])
    assert scores == {"correctness": [[None] * 3, [None]], "correctness.unparseable": [[1.0] * 3, [1.0]]}


def test_the_official_parser_reads_a_refusal_as_yes_which_is_why_it_is_not_the_default():
    scores = CorrectnessScorer(parser="official").score([row("yes", "I cannot tell."), row("3", "three")])
    assert scores == {"correctness": [[1.0], [1.0]], "correctness.unparseable": [[0.0], [0.0]]}


def test_other_answers():
    scores = CorrectnessScorer().score([row("dark blue", " Dark  Blue.", "It's dark blue", "red", "dark blue and red")])
    assert scores == {"correctness": [[1.0, 1.0, 0.0, None]], "correctness.unparseable": [[0.0, 0.0, 0.0, 1.0]]}


def test_any_of_several_answers():
    told = row("two", "2", "TWO", "3", answers=["two", "2"])
    assert CorrectnessScorer().score([told])["correctness"] == [[1.0, 1.0, 0.0]]


def test_what_is_denied_is_an_answer_to_the_question_about_it():
    rows = [
        row("0", "No dogs.", "No clue.", "Two dogs.", asked="How many dogs are there?"),
        row("yes", "Yes.", "There are no people.", asked="Is the street empty?"),
        row("no", "There is no dog.", "No comment.", "No cat.", asked="Is there a dog?"),
    ]
    assert CorrectnessScorer().score(rows)["correctness"] == [[1.0, None, 0.0], [1.0, None], [1.0, None, None]]


def test_null_without_an_answer():
    no_facts = {**row(None, "a"), "facts": None}
    assert CorrectnessScorer().score([row(None, "a", "b"), no_facts]) == {
        "correctness": [[None, None], [None]],
        "correctness.unparseable": [[None, None], [None]],
    }


def test_parser_is_checked_and_part_of_the_version():
    assert CorrectnessScorer().version == "4" and CorrectnessScorer("lmms_eval").version == "4:lmms_eval"
    with pytest.raises(ValueError, match="parser='pope' is unknown; use one of official"):
        CorrectnessScorer("pope")


ANSWERS = st.sampled_from([None, "yes", "No", "dark blue", "2", "0"])
OTHERS = st.none() | st.lists(st.sampled_from(["2", "two", "red", "yes"]), max_size=2)
TEXTS = st.lists(
    st.sampled_from(
        ["Yes.", "no, it is not", "yes and no", "Dark  blue!", "", "Stra\u00dfe", "two", "green", "No dogs.", "No cats"]
    ),
    max_size=4,
)
ASKED = st.sampled_from(
    [None, "Is there a dog?", "How many dogs are there?", "How many cats?", "Was ist das?", "\u4ec0\u4e48?"]
)


@given(
    st.lists(st.tuples(st.booleans(), ANSWERS, OTHERS, ASKED, TEXTS), max_size=5),
    st.sampled_from([None, "vlmevalkit", "official"]),
    st.booleans(),
)
def test_columns_are_the_very_values_of_rows(rows, parser, several):
    scorer = CorrectnessScorer(parser)
    names = ["answer", *(["answers"] if several else [])]
    facts = [dict(zip(names, (answer, others), strict=False)) if told else None for told, answer, others, *_ in rows]
    kinds = {"answer": pa.string(), "answers": pa.list_(pa.string())}
    batch = Batch(
        pa.array(facts, pa.struct([(name, kinds[name]) for name in names])),
        pa.array([text for *_, texts in rows for text in texts], pa.string()),
        np.array([i for i, (*_, texts) in enumerate(rows) for _ in texts], dtype=np.int64),
        pa.array([asked for *_, asked, _ in rows], pa.string()),
    )
    plain = scorer.score(
        [
            {**row(None, *texts, asked=asked), "facts": row_facts}
            for row_facts, (*_, asked, texts) in zip(facts, rows, strict=True)
        ]
    )
    assert {name: values.to_pylist() for name, values in scorer.score_columns(batch).items()} == {
        name: [value for of_row in values for value in of_row] for name, values in plain.items()
    }
