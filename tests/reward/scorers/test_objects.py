from dataclasses import FrozenInstanceError

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.scorers.column_scorer import Batch
from reward.scorers.objects import ObjectScorer, judge
from reward.text.object_vocabulary import Vocabulary

OBJECTS = ("sun", "boat", "cup", "star")
VOCABULARY = Vocabulary("demo", "3", {form: name for name in OBJECTS for form in (name, name + "s")} | {"ship": "boat"})


def row(texts, objects=("sun", "boat"), answer=None):
    facts = {"objects": [{"name": name} for name in objects], "answer": answer}
    return {"images": [], "prompt": [], "facts": facts, "candidates": [{"text": text} for text in texts]}


def test_every_mention_counts_and_synonyms_are_the_same_object():
    verdict = judge("A ship, a boat, two cups and a cup. A star.", frozenset({"boat", "sun"}), VOCABULARY)
    assert [m.name for m in verdict.mentions] == ["boat", "boat", "cup", "cup", "star"]
    assert [m.surface for m in verdict.hallucinated] == ["cups", "cup", "star"]
    assert verdict.covered == {"boat"}
    assert verdict.repeated == 2
    assert verdict.chair_i == 3 / 5
    assert verdict.recall == 1 / 2


def test_naming_nothing_is_not_a_perfect_score():
    verdict = judge("Nothing of note.", frozenset({"boat"}), VOCABULARY)
    assert (verdict.chair_i, verdict.recall) == (None, 0.0)


def test_truth_goes_by_any_known_name_and_leaves_out_what_the_vocabulary_does_not_know():
    verdict = judge("A boat.", frozenset({"ship", "zebra"}), VOCABULARY)
    assert verdict.hallucinated == () and verdict.truth == {"boat"} and verdict.recall == 1.0


def test_scores_are_aligned_to_rows_and_candidates():
    scores = ObjectScorer(VOCABULARY).score([row(["A sun.", "Cups, cups."]), row(["A star and a boat"], ["star"])])
    assert scores == {
        "objects.mentions": [[1.0, 2.0], [2.0]],
        "objects.hallucinated": [[0.0, 2.0], [1.0]],
        "objects.chair_i": [[0.0, 1.0], [0.5]],
        "objects.recall": [[0.5, 0.0], [1.0]],
        "objects.covered": [[1.0, 0.0], [1.0]],
        "objects.repeated": [[0.0, 1.0], [0.0]],
    }


def test_null_for_questions_and_without_object_facts():
    no_facts = {**row(["A sun."]), "facts": None}
    scores = ObjectScorer(VOCABULARY).score([row(["Yes."], answer="yes"), no_facts, row(["A sun."], objects=())])
    assert all(values == [[None], [None], [None]] for values in scores.values())
    assert len(scores) == 6


def test_what_a_caption_names_is_there_and_is_covered_where_it_is_named():
    told = {**row(["A ship and a sun.", "A sun."], ("sun",)), "id": "a"}
    told["facts"]["captions"] = ["Two boats.", None]
    scores = ObjectScorer(VOCABULARY).score([told])
    assert scores["objects.hallucinated"] == [[0.0, 0.0]]
    assert scores["objects.covered"] == [[2.0, 1.0]] and scores["objects.recall"] == [[1.0, 0.5]]
    alone = {**told, "facts": {"objects": [], "captions": ["A boat."], "answer": None}}
    assert ObjectScorer(VOCABULARY).score([alone])["objects.hallucinated"] == [[None, None]]


def test_version_names_the_vocabulary():
    assert ObjectScorer(VOCABULARY).version == "4:demo@3"


texts = st.lists(st.sampled_from([*OBJECTS, "ship", "a", "and", ","]), max_size=10).map(" ".join)
truths = st.sets(st.sampled_from(OBJECTS)).map(frozenset)


@given(texts, truths)
def test_counts_add_up(text, truth):
    verdict = judge(text, truth, VOCABULARY)
    true_mentions = [m for m in verdict.mentions if m.name in truth]
    assert len(verdict.mentions) == len(verdict.hallucinated) + len(true_mentions)
    assert verdict.covered <= truth
    assert verdict.repeated == len(verdict.mentions) - len({m.name for m in verdict.mentions})


@given(texts, truths, st.sampled_from(OBJECTS))
def test_learning_that_more_is_there_never_adds_a_hallucination(text, truth, extra):
    more = judge(text, truth | {extra}, VOCABULARY)
    assert len(more.hallucinated) <= len(judge(text, truth, VOCABULARY).hallucinated)


FACTS = pa.struct(
    [
        ("objects", pa.list_(pa.struct([("name", pa.string())]))),
        ("captions", pa.list_(pa.string())),
        ("answer", pa.string()),
    ]
)
things = st.lists(st.sampled_from([*OBJECTS, "Ships", "zebra"]), max_size=4).map(lambda ns: [{"name": n} for n in ns])
facts = st.none() | st.fixed_dictionaries(
    {
        "objects": st.none() | things,
        "captions": st.none() | st.lists(st.none() | texts, max_size=2),
        "answer": st.sampled_from([None, None, "no"]),
    }
)
prompts = st.lists(st.tuples(facts, st.lists(texts, max_size=3)), max_size=4)


def batch(rows):
    candidates = [text for _, texts in rows for text in texts]
    owner = [i for i, (_, texts) in enumerate(rows) for _ in texts]
    return Batch(
        pa.array([facts for facts, _ in rows], FACTS),
        pa.array(candidates, pa.string()),
        np.array(owner, dtype=np.int64),
        pa.nulls(len(rows), pa.string()),
    )


@given(prompts)
def test_columns_are_the_very_values_of_rows(rows):
    scorer = ObjectScorer(VOCABULARY)
    plain = scorer.score([{"facts": facts, "candidates": [{"text": text} for text in texts]} for facts, texts in rows])
    assert {name: values.to_pylist() for name, values in scorer.score_columns(batch(rows)).items()} == {
        name: [value for row in values for value in row] for name, values in plain.items()
    }


@pytest.mark.parametrize("names", [["captions", "objects", "answer"], ["objects", "answer"]])
def test_captions_are_read_wherever_they_stand_among_the_facts_and_may_be_missing(names):
    kinds = {field.name: field.type for field in FACTS}
    with_captions = {"objects": [{"name": "sun"}], "captions": ["A boat."], "answer": None}
    told = {name: with_captions[name] for name in names}
    columns = ObjectScorer(VOCABULARY).score_columns(
        Batch(
            pa.array([told], pa.struct([(name, kinds[name]) for name in names])),
            pa.array(["A boat."], pa.string()),
            np.zeros(1, np.int64),
            pa.nulls(1, pa.string()),
        )
    )
    assert columns["objects.hallucinated"].to_pylist() == [0.0 if "captions" in names else 1.0]


def test_a_verdict_is_a_value_that_nobody_changes():
    verdict, same = (judge("A sun.", frozenset({"boat"}), VOCABULARY) for _ in range(2))
    assert len({verdict, same}) == 1
    with pytest.raises(FrozenInstanceError):
        verdict.repeated = 0


def test_an_object_without_a_name_is_an_error():
    with pytest.raises(ValueError, match="has no name"):
        ObjectScorer(VOCABULARY).score_columns(batch([({"objects": [{"name": None}], "answer": None}, ["a sun"])]))


DENYING = Vocabulary("denying", "1", {"dog": "dog", "dogs": "dog", "car": "car", "cars": "car", "person": "person"})


def with_captions(captions, *texts):
    facts = {"objects": [{"name": "person"}], "captions": captions, "answer": None}
    return {"images": [], "prompt": [], "facts": facts, "candidates": [{"text": text} for text in texts]}


def test_what_a_caption_denies_is_not_there():
    told = with_captions(["A room without a dog."], "A person and a dog.", "A person.")
    assert ObjectScorer(DENYING).score([told])["objects.hallucinated"] == [[1.0, 0.0]]


def test_what_a_text_denies_it_does_not_make_up_and_does_not_cover_either():
    told = with_captions([], "A person. There are no cars.", "A person and cars.", "There is no person.")
    scores = ObjectScorer(DENYING).score([told])
    assert scores["objects.hallucinated"] == [[0.0, 1.0, 0.0]] and scores["objects.covered"] == [[1.0, 1.0, 0.0]]
    # CHAIR, which is measured with, counts it.
    assert len(judge("A person. There are no cars.", frozenset({"person"}), DENYING).hallucinated) == 1


CAPTIONED = pa.struct(
    [
        ("objects", pa.list_(pa.struct([("name", pa.string())]))),
        ("captions", pa.list_(pa.string())),
        ("answer", pa.string()),
    ]
)
SENTENCES = st.sampled_from(
    ["A person.", "There are no dogs or cars.", "No dog, and a car.", "A car isn't a dog.", "Is there a dog?", "Cars",
     "N\u00f6 dog", "Free of cars", "It does not show any dogs or cars.", "Dogs are not visible.",
     "A dog-free car", "A person without a car", "Not only a dog but a car", "There is neither a dog nor a car."]
)  # fmt: skip


@given(st.lists(SENTENCES, max_size=3), st.lists(st.lists(SENTENCES, max_size=3).map(" ".join), min_size=1, max_size=4))
def test_denials_are_read_alike_at_once_and_one_by_one(captions, texts):
    scorer = ObjectScorer(DENYING)
    told = with_captions(captions, *texts)
    columns = scorer.score_columns(
        Batch(
            pa.array([told["facts"]], CAPTIONED),
            pa.array(texts, pa.string()),
            np.zeros(len(texts), np.int64),
            pa.nulls(1, pa.string()),
        )
    )
    assert {name: [values.to_pylist()] for name, values in columns.items()} == scorer.score([told])
