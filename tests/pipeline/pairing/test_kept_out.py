"""Why a candidate was in no pair: what is said agrees with what the rule did."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.pairing.config import Pair, Veto
from pipeline.pairing.kept_out import GATE_REASONS, bars, sides
from pipeline.pairing.recorded import recorded_rule
from pipeline.pairing.rule import able
from pipeline.running.store import flat_options
from reward.gates import GATES

RULE = Pair(
    weights={"objects.covered": 1.0, "clip.cosine": 0.5},
    vetoes={"objects.hallucinated": Veto(above=0), "claims.lowest": Veto(below=0.2, bars="rejected")},
    min_words=2,
    on_policy_only=True,
)
NUMBER = st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.5, 2.0]))
TEXT = st.sampled_from(["A red sun.", "...", "Sun.", "A sun a sun a sun a sun", "I'm sorry, I can't.", "A boat sails."])


def test_every_gate_has_a_reason():
    assert GATE_REASONS.keys() == set(GATES)


def test_the_rule_comes_back_from_its_record():
    back = recorded_rule(flat_options(RULE.model_dump(mode="json", exclude={"options"})))
    assert back.model_copy(update={"policy": RULE.policy}) == RULE
    assert recorded_rule({}).weights == {}


@given(
    st.lists(st.tuples(TEXT, st.booleans(), st.sampled_from(["stop", "length"]), NUMBER, NUMBER, NUMBER, NUMBER),
             min_size=1, max_size=5),
    st.booleans(),
)  # fmt: skip
def test_who_is_free_of_bars_is_who_the_rule_lets_in(rows, unknown):
    candidates = [
        {"text": text, "on_policy": on, "finish_reason": end, "origin": "sampled", "parent": None, "model": "m"}
        for text, on, end, *_ in rows
    ]
    names = ("objects.covered", "clip.cosine", "objects.hallucinated", "claims.lowest")
    values = {name: [row[3 + i] for row in rows] for i, name in enumerate(names)}
    notes = {"claims": "a timeout"} if unknown else {}
    let_in = {candidate.place: candidate for candidate in able(candidates, values, RULE, "Describe it.", set(notes))}
    for place, of_text in enumerate(bars(candidates, values, RULE, "Describe it.", notes)):
        side, entry = sides(of_text), let_in.get(place)
        fully_barred = entry is None or not (entry.may_be_chosen or entry.may_be_rejected)
        assert (side == "both") == fully_barred
        if entry is not None:
            assert (side == "chosen") == (not entry.may_be_chosen and entry.may_be_rejected)
        assert all(bar.reason for bar in of_text)


def test_a_null_is_told_with_what_its_scorer_said():
    rule = Pair(weights={"claims.true": 1.0})
    candidates = [{"text": "A sun.", "finish_reason": "stop"}] * 2
    (bar,), free = bars(candidates, {"claims.true": [None, 0.5]}, rule, unknown={"claims": "timeout: no answer"})
    assert (bar.kind, bar.name, bar.reason) == ("null", "claims.true", "it has no value: timeout: no answer")
    assert free == ()
    ((bar,),) = bars(candidates[:1], {}, rule)
    assert bar.reason == "no score that is weighed applies to this prompt"
