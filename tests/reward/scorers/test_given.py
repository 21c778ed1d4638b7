from hypothesis import given
from hypothesis import strategies as st

from reward.scorers.given import GivenScorer, preferences

origins = st.lists(st.sampled_from(["given", "sampled", "corrected", None]), max_size=8)


def test_the_first_given_answer_is_the_preferred_one_wherever_it_stands():
    rows = [
        {"candidates": [{"text": "a", "origin": "given"}, {"text": "b", "origin": "given"}]},
        {"candidates": [{"text": "c", "origin": "sampled"}, *({"text": t, "origin": "given"} for t in "de")]},
        {"candidates": [{"text": "f", "origin": "sampled"}, {"text": "g"}]},
        {"candidates": []},
    ]
    assert GivenScorer().score(rows) == {"given": [[1.0, 0.0], [None, 1.0, 0.0], [None, None], []]}


@given(origins)
def test_exactly_one_given_answer_is_preferred_and_nothing_else_is_judged(sides):
    values = preferences(sides)
    assert [value is not None for value in values] == [origin == "given" for origin in sides]
    assert values.count(1.0) == min(sides.count("given"), 1)
