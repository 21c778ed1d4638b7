import pytest

from reward.correctness import CorrectnessScorer


def row(answer, *texts):
    return {"images": [], "prompt": [], "facts": {"answer": answer}, "candidates": [{"text": text} for text in texts]}


def test_yes_no_goes_through_the_parser():
    scores = CorrectnessScorer().score([row("yes", "Yes, it is.", "No."), row("No", "no", "yes")])
    assert scores["correctness"] == [[1.0, 0.0], [1.0, 0.0]]
    assert scores["correctness.unparseable"] == [[0.0, 0.0], [0.0, 0.0]]


def test_an_unreadable_answer_is_no_data():
    scores = CorrectnessScorer().score([row("yes", "I cannot tell.", "yes and no", "")])
    assert scores == {"correctness": [[None] * 3], "correctness.unparseable": [[1.0] * 3]}


def test_the_official_parser_reads_a_refusal_as_yes_which_is_why_it_is_not_the_default():
    scores = CorrectnessScorer(parser="official").score([row("yes", "I cannot tell.")])
    assert scores == {"correctness": [[1.0]], "correctness.unparseable": [[0.0]]}


def test_other_answers_match_exactly_once_normalised():
    scores = CorrectnessScorer().score([row("dark blue", " Dark  Blue.", "blue", "dark blue and red")])
    assert scores == {"correctness": [[1.0, 0.0, 0.0]], "correctness.unparseable": [[0.0] * 3]}


def test_null_without_an_answer():
    no_facts = {**row(None, "a"), "facts": None}
    assert CorrectnessScorer().score([row(None, "a", "b"), no_facts]) == {
        "correctness": [[None, None], [None]],
        "correctness.unparseable": [[None, None], [None]],
    }


def test_parser_is_checked_and_part_of_the_version():
    assert CorrectnessScorer("lmms_eval").version == "1:lmms_eval"
    with pytest.raises(ValueError, match="parser='pope' is unknown; use one of official"):
        CorrectnessScorer("pope")
