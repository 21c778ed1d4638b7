"""What holds for the pairs of every policy, and what each policy is about."""

from __future__ import annotations

import doctest
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.base.tables import CANDIDATES, OK, PAIRS, PROMPTS, SCORES
from pipeline.pairing import balance, policies, rule
from pipeline.pairing.config import BY_ORIGIN, Gates, Pair, Veto
from pipeline.pairing.policies import POLICIES, REASONS, Able, standardise
from pipeline.pairing.rounding import without_rounding
from pipeline.pairing.rule import make_pairs, totals, valid
from pipeline.pairing.stage import PairStage, pairs_of
from reward.gates import normal_text

WEIGHTS = {"a": 1.0, "b": -0.5}
SYMMETRIC = ("best_vs_worst", "all_above_margin", "top_k", "correctness")
TEXTS = st.sampled_from(
    [
        "A sun.",
        "a sun",
        "A sun and a boat.",
        "A boat.",
        "an anchor and a sun and a boat",
        "Étude",
        "a sun a sun a sun",
        "I'm sorry, but I can't assist with that.",
        "A sun.</s>",
        "",
        "图片中有一只狗躺在红色的垫子上",
        "a b c d e f g",
    ]
)
NUMBER = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, None])


@st.composite
def candidate(draw: Any) -> dict[str, Any]:
    return {
        "text": draw(TEXTS),
        "finish_reason": draw(st.sampled_from(["stop", "stop", "stop", None, "length"])),
        "origin": draw(st.sampled_from(["sampled", "sampled", "noised", "continued"])),
        "parent": draw(st.sampled_from([None, 0, 1, 2])),
        "model": draw(st.sampled_from(["m", "n"])),
        "on_policy": draw(st.sampled_from([True, True, False, None])),
    }


ROW = st.lists(st.tuples(candidate(), NUMBER, NUMBER), max_size=7)
Row = Sequence[tuple[dict[str, Any], float | None, float | None]]


@st.composite
def options(draw: Any, policy: str) -> Pair:
    correct = policy == "correctness"
    weights = {} if policy in BY_ORIGIN and draw(st.booleans()) else {"correctness": 1.0} if correct else WEIGHTS
    name = "correctness" if correct else "a"
    veto = Veto(above=draw(st.sampled_from([0.0, 1.0])), bars=draw(st.sampled_from(["chosen", "rejected", "both"])))
    return Pair(
        policy=policy,
        weights=weights,
        standardise=draw(st.booleans()),
        vetoes={name: veto} if draw(st.integers(0, 3)) == 0 else {},
        margin=draw(st.sampled_from([1e-9, 0.25, 1.0])),
        max_length_ratio=draw(st.sampled_from([1.0, 2.0, 9.0])),
        min_words=draw(st.integers(1, 2)),
        gates=Gates(refusal=draw(st.booleans()), wrong_script=draw(st.booleans())),
        on_policy_only=draw(st.integers(0, 3)) == 0,
        max_pairs=None if policy == "best_vs_worst" else draw(st.sampled_from([None, 1, 3])),
        k=draw(st.integers(1, 3)),
        balance_length=draw(st.integers(0, 3)) == 0,
    )


def names(policy: Pair) -> tuple[str, str]:
    return ("correctness", "unused") if policy.policy == "correctness" else ("a", "b")


def tables(rows: Sequence[Row], policy: Pair) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    samples = [{"id": str(i), "candidates": [c for c, _, _ in row], **OK} for i, row in enumerate(rows)]
    scores = [
        {
            "id": str(i),
            "scores": [
                {"name": name, "version": "1", "values": [texts[side] for texts in row]}
                for side, name in enumerate(names(policy), 1)
            ],
            **OK,
        }
        for i, row in enumerate(rows)
    ]
    return samples, scores


PROMPT = "Describe the image in detail."


def run(row: Row, policy: Pair, seed: int = 0) -> list[dict[str, Any]]:
    return make_pairs(*tables([row], policy), policy, {"0": PROMPT}, seed)


def made(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row.get("chosen") is not None]


def told(row: Row, rows: Sequence[dict[str, Any]]) -> list[Any]:
    """The pairs as texts and scores, whatever the numbers of the candidates."""
    sides = ("chosen", "rejected")
    return [
        tuple((row[pair[side]][0]["text"], pair[f"{side}_score"]) for side in sides)
        if pair.get("chosen") is not None
        else pair["reason"]
        for pair in rows
    ]


def plain(**changes: Any) -> Pair:
    return Pair(**{"weights": {"a": 1.0}, "margin": 0.5, "max_length_ratio": 9.0, **changes})


def pairs(policy: Pair, *texts: tuple[str, float | None], seed: int = 0, **more: Any) -> list[Any]:
    row = [({"text": t, "finish_reason": "stop", "origin": "sampled", **more}, value, None) for t, value in texts]
    return [
        made_pair if isinstance(made_pair, str) else tuple(text for text, _ in made_pair)
        for made_pair in told(row, run(row, policy, seed))
    ]


# ------------------------------------------------------------------------------------------- what holds for every pair


@pytest.mark.parametrize("name", POLICIES)
@given(data=st.data(), row=ROW)
def test_every_pair_of_every_policy_is_one(name: str, data: Any, row: Row) -> None:
    policy = data.draw(options(name))
    rows = run(row, policy)
    assert rows and all((pair.get("chosen") is None) == (pair.get("reason") in REASONS) for pair in rows)
    assert len({pair.get("reason") for pair in rows} - {None, "length_balance"}) == 0 or len(rows) == 1
    assert len(made(rows)) <= (policy.max_pairs or POLICIES[name].most or math.inf)
    values = {n: [scored[side] for scored in row] for side, n in enumerate(names(policy), 1)}
    able = [i for i, (text, _, _) in enumerate(row) if valid(text, policy, PROMPT)]
    worth = totals(values, policy, able, len(row))
    seen = set()
    for pair in made(rows):
        sides = ("chosen", "rejected")
        chosen, rejected = (row[pair[side]][0] for side in sides)
        for text in (chosen, rejected):
            assert valid(text, policy, PROMPT)
            assert text["on_policy"] or not policy.on_policy_only
        words = [normal_text(text["text"]).split() for text in (chosen, rejected)]
        assert words[0] != words[1]
        assert max(map(len, words)) / min(map(len, words)) <= policy.max_length_ratio
        assert frozenset(map(tuple, words)) not in seen, "the same two texts again, or the other way round"
        seen.add(frozenset(map(tuple, words)))
        if policy.weights:
            # A margin that is missed by the rounding of floats alone is reached.
            scale = max(abs(pair["chosen_score"]), abs(pair["rejected_score"]))
            assert pair["chosen_score"] - pair["rejected_score"] >= policy.margin - 1e-9 * scale
            assert pair["chosen_score"] > pair["rejected_score"]
            assert pair["margin"] == pair["chosen_score"] - pair["rejected_score"]
            assert [worth[pair[side]] for side in sides] == [pair[f"{side}_score"] for side in sides]
        else:
            assert pair["chosen_score"] is pair["rejected_score"] is pair["margin"] is None
        for score, veto in policy.vetoes.items():
            assert not any(veto.bar(side, values[score][pair[side]]) for side in ("chosen", "rejected"))


@pytest.mark.parametrize("name", POLICIES)
@given(data=st.data(), row=ROW, random=st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(name: str, data: Any, row: Row, random: Any) -> None:
    policy = data.draw(options(name))
    order = list(range(len(row)))
    random.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    shuffled = [
        ({**row[old][0], "parent": place.get(row[old][0]["parent"], row[old][0]["parent"])}, *row[old][1:])
        for old in order
    ]
    assert told(row, run(row, policy)) == told(shuffled, run(shuffled, policy))


def equally_wide(row: Row) -> bool:
    """Whether two pairs of the same two texts, such as one over the other and the other way round, have one margin:
    only one of the two is made, and which one is up to the order of texts."""
    for weight in (0, 0.5):
        margins = [
            (frozenset((normal_text(first["text"]), normal_text(other["text"]))), (a - weight * b) - (c - weight * d))
            for (first, a, b), (other, c, d) in itertools.permutations(row, 2)
            if a is not None and b is not None and c is not None and d is not None
        ]
        wide = [pair for pair in margins if pair[1] > 0]
        if len(set(wide)) < len(wide):
            return True
    return False


@pytest.mark.parametrize("name", SYMMETRIC)
@given(data=st.data(), row=ROW)
def test_with_the_sign_of_all_scores_chosen_and_rejected_change_places(name: str, data: Any, row: Row) -> None:
    policy = data.draw(options(name)).model_copy(update={"vetoes": {}, "balance_length": False})
    # Among texts that are worth the same the tie-break looks at the chosen one first.
    worth = [scored[1:] for scored in row if None not in scored[1:]]
    assume(len({a - b / 2 for a, b in worth}) == len(worth) and len({a for a, _ in worth}) == len(worth))
    assume(name != "correctness" or None not in [scored[1] for scored in row])
    assume(not equally_wide(row))
    mirrored = [(text, None if a is None else -a, None if b is None else -b) for text, a, b in row]
    there, back = run(row, policy), run(mirrored, policy)
    assert [pair.get("reason") for pair in there] == [pair.get("reason") for pair in back]
    turned = {(two["rejected"], two["chosen"], -two["rejected_score"], -two["chosen_score"]) for two in made(back)}
    assert {
        (two["chosen"], two["rejected"], two["chosen_score"], two["rejected_score"]) for two in made(there)
    } == turned


@pytest.mark.parametrize("name", POLICIES)
@given(data=st.data(), rows=st.lists(ROW, min_size=1, max_size=5), seed=st.integers(0, 3))
def test_columns_give_the_very_rows(name: str, data: Any, rows: Sequence[Row], seed: int) -> None:
    policy = data.draw(options(name))
    samples, scores = tables(rows, policy)
    prompts = data.draw(
        st.lists(st.sampled_from([PROMPT, "请描述这张图片。", ""]), min_size=len(rows), max_size=len(rows))
    )
    questions = {row["id"]: prompt for row, prompt in zip(samples, prompts, strict=True)}
    source = [{"id": id, "prompt": [{"role": "user", "content": text}], **OK} for id, text in questions.items()]
    columns = pairs_of(
        pa.Table.from_pylist(samples, schema=CANDIDATES),
        pa.Table.from_pylist(scores, schema=SCORES),
        policy,
        pa.Table.from_pylist(source, schema=PROMPTS),
        seed,
    )
    by_rows = make_pairs(samples, scores, policy, questions, seed)
    assert columns.to_pylist() == pa.Table.from_pylist(by_rows, schema=PAIRS).to_pylist()


# -------------------------------------------------------------------------------------- scores that are not known

NOTE = st.fixed_dictionaries(
    {
        "scorer": st.sampled_from(["a", "b", "correctness", "idle"]),
        "failed": st.booleans(),
        "error_type": st.sampled_from(["timeout", "unreadable"]),
        "error": st.just("why"),
    }
)
NOTES = st.none() | st.lists(NOTE, max_size=2)


@pytest.mark.parametrize("name", POLICIES)
@given(data=st.data(), rows=st.lists(st.tuples(ROW, NOTES), min_size=1, max_size=4))
def test_no_pair_goes_through_what_is_not_known(name: str, data: Any, rows: Sequence[tuple[Row, Any]]) -> None:
    policy = data.draw(options(name))
    samples, scores = tables([row for row, _ in rows], policy)
    noted = [{**score, "unknown": notes} for score, (_, notes) in zip(scores, rows, strict=True)]
    with_notes, without = (make_pairs(samples, score_rows, policy) for score_rows in (noted, scores))
    columns = pairs_of(
        pa.Table.from_pylist(samples, schema=CANDIDATES), pa.Table.from_pylist(noted, schema=SCORES), policy
    )
    assert columns.to_pylist() == pa.Table.from_pylist(with_notes, schema=PAIRS).to_pylist()
    needed = {score for score, weight in policy.weights.items() if weight} | set(policy.vetoes)
    for number, (row, notes) in enumerate(rows):
        of_row = [pair for pair in with_notes if pair["id"] == str(number)]
        hurt = [note for note in notes or () if note["scorer"] in needed]
        if not hurt and not policy.balance_length:  # nobody weighs it: as if it had said nothing
            assert of_row == [pair for pair in without if pair["id"] == str(number)]
        if any(note["failed"] for note in hurt):
            (pair,) = of_row
            assert (pair["reason"], pair["status"], pair.get("chosen")) == ("failed", "failed", None)
        values = {n: [scored[side] for scored in row] for side, n in enumerate(names(policy), 1)}
        for pair in made(of_row):
            for note in hurt:
                of_pair = [values[note["scorer"]][pair[side]] for side in ("chosen", "rejected")]
                if policy.weights.get(note["scorer"]):
                    assert None not in of_pair
                elif (veto := policy.vetoes[note["scorer"]]).bars != "both":
                    assert of_pair[("chosen", "rejected").index(veto.bars)] is not None
                else:
                    assert None not in of_pair


def test_a_weighed_score_that_nobody_knows_is_not_left_out_of_the_sum() -> None:
    """As one that does not apply is: the two would be paired by the other score alone."""
    texts = [{"text": text, "finish_reason": "stop"} for text in ("A sun.", "A boat.")]
    both = [{"name": "claims.true", "values": [None, None]}, {"name": "objects.covered", "values": [2.0, 1.0]}]
    policy = Pair(weights={"claims.true": 1.0, "objects.covered": 1.0}, margin=0.5)
    unknown = [{"scorer": "claims", "failed": False, "error_type": "unreadable", "error": "why"}]
    for notes, expected in ((None, 0), (unknown, None)):
        (pair,) = make_pairs([{"id": "0", "candidates": texts, **OK}],
                            [{"id": "0", "scores": both, "unknown": notes, **OK}], policy)  # fmt: skip
        assert pair.get("chosen") == expected and (notes is None or pair["reason"] == "no_valid_candidate")


def test_a_shard_in_which_a_scorer_failed_everywhere_misses_no_score_of_the_recipe() -> None:
    texts = [{"text": text, "finish_reason": "stop"} for text in ("A sun.", "A boat.")]
    samples = [{"id": "0", "candidates": texts, **OK}]
    note = {"scorer": "clip", "failed": True, "error_type": "timeout", "error": "slow"}
    values = [{"name": "objects.covered", "version": "1", "values": [2.0, 1.0]}]
    scores = [{"id": "0", "scores": values, "unknown": [note], **OK}]
    given = (pa.Table.from_pylist(samples, schema=CANDIDATES), pa.Table.from_pylist(scores, schema=SCORES))
    (row,) = pairs_of(*given, Pair(weights={"clip.cosine": 1.0, "objects.covered": 1.0})).to_pylist()
    assert (row["reason"], row["error_type"], row["error"]) == ("failed", "timeout", "clip: slow")
    (row,) = pairs_of(*given, Pair(weights={"objects.covered": 1.0})).to_pylist()
    assert row["chosen"] == 0


# ------------------------------------------------------------------------------------------------ what each is about


def test_every_pair_above_the_margin_the_widest_first() -> None:
    texts = (("one", 3.0), ("two", 2.0), ("three", 1.9), ("four", 0.0))
    policy = plain(policy="all_above_margin")
    made_pairs = pairs(policy, *texts)
    assert made_pairs[:1] == [("one", "four")] and len(made_pairs) == 5 and ("two", "three") not in made_pairs
    assert pairs(policy.model_copy(update={"max_pairs": 2}), *texts) == made_pairs[:2]


def test_the_best_against_one_of_the_others_by_chance() -> None:
    texts = [("best", 9.0)] + [(f"text {i}", float(i)) for i in range(8)]
    drawn = [pairs(plain(policy="best_vs_random"), *texts, seed=seed) for seed in range(40)]
    assert all(len(of_seed) == 1 and of_seed[0][0] == "best" for of_seed in drawn)
    assert len({of_seed[0][1] for of_seed in drawn}) > 4
    assert drawn[0] == pairs(plain(policy="best_vs_random"), *texts, seed=0)


def test_chance_is_another_for_another_prompt() -> None:
    draw = policies.Draw(0, "x").of("text")
    assert len({draw, policies.Draw(1, "x").of("text"), policies.Draw(0, "y").of("text")}) == 3


def test_the_k_best_against_the_k_worst() -> None:
    texts = (("one", 4.0), ("two", 3.0), ("three", 2.0), ("four", 1.0), ("five", 0.0))
    made_pairs = pairs(plain(policy="top_k", k=2), *texts)
    assert set(made_pairs) == {(c, r) for c in ("one", "two") for r in ("four", "five")}
    assert pairs(plain(policy="top_k", k=1), *texts) == [("one", "five")]


def test_every_right_answer_against_every_wrong_one_and_not_more_than_asked_for() -> None:
    policy = Pair(policy="correctness", weights={"correctness": 1.0}, max_length_ratio=9.0)
    texts = (("Yes", 1.0), ("Yes, it is", 1.0), ("yes.", 1.0), ("No", 0.0), ("Never", 0.0))
    made_pairs = pairs(policy, *texts)
    assert {(normal_text(c), normal_text(r)) for c, r in made_pairs} == {
        (c, r) for c in ("yes", "yes it is") for r in ("no", "never")
    }
    assert len(pairs(policy.model_copy(update={"max_pairs": 3}), *texts)) == 3
    assert pairs(policy, ("Yes", 1.0), ("Sure", 1.0)) == ["tie"]


def several(*texts: tuple[str, str, int | None, float | None], model: str = "m") -> Row:
    """(text, origin, parent, score)"""
    return [
        ({"text": t, "finish_reason": "stop", "origin": origin, "parent": parent, "model": model}, value, None)
        for t, origin, parent, value in texts
    ]


def test_an_answer_to_the_image_against_the_same_models_answer_to_noise() -> None:
    policy = Pair(policy="corrupted_image")
    row = several(("a sun", "sampled", None, 1.0), ("a boat", "noised", None, 2.0), ("a cup", "given", None, 3.0))
    assert told(row, run(row, policy)) == [(("a sun", None), ("a boat", None))]
    row[1][0]["model"] = "another"
    assert told(row, run(row, policy)) == ["no_partner"]
    row[1][0]["parent"] = 0
    assert len(made(run(row, policy))) == 1, "a parent says which answer it belongs to"


def test_with_weights_a_noised_answer_that_is_no_worse_makes_no_pair() -> None:
    row = several(("a sun", "sampled", None, 1.0), ("a boat", "noised", None, 2.0))
    assert told(row, run(row, plain(policy="corrupted_image"))) == ["below_margin"]
    assert len(made(run(row, Pair(policy="corrupted_image")))) == 1


def test_an_answer_against_what_its_own_beginning_became() -> None:
    row = several(
        ("a sun and a boat", "sampled", None, 1.0),
        ("a cup and a horse", "sampled", None, 1.0),
        ("a sun and a king", "continued", 0, 0.0),
        ("a cup and a queen", "continued", 1, 0.0),
        ("a cup and a boat", "continued", None, 0.0),
    )
    pair_rows = run(row, Pair(policy="continuation"))
    assert {(pair["chosen"], pair["rejected"]) for pair in pair_rows} == {(0, 2), (1, 3)}


def test_a_text_against_what_was_made_from_it_and_not_across_families() -> None:
    sampled = [("A sun and a dog.", "sampled", None), ("A boat and a dog.", "sampled", None)]
    corrected = [("A sun there.", "corrected", 0)]
    injected = [("A boat, a dog and a cat.", "injected", 1), ("No parent is there.", "corrected", None)]
    row = [
        ({"text": text, "origin": origin, "parent": parent, "finish_reason": "stop", "model": "m"}, None, None)
        for text, origin, parent in (*sampled, *corrected, *injected)
    ]
    policy = Pair(policy="rewritten", weights={}, max_pairs=None, max_length_ratio=9.0)
    two = {tuple(text for text, _ in made_pair) for made_pair in told(row, run(row, policy))}
    assert two == {("A sun there.", "A sun and a dog."), ("A boat and a dog.", "A boat, a dog and a cat.")}


@pytest.mark.parametrize("name", sorted(set(POLICIES) - BY_ORIGIN))
def test_nothing_to_choose_from_is_a_reason(name: str) -> None:
    policy = plain(policy=name, weights={"correctness" if name == "correctness" else "a": 1.0})
    assert pairs(policy, ("a sun", 1.0)) == ["no_valid_candidate"]
    assert pairs(policy, ("a sun", 1.0), ("A sun!", 0.0)) == ["identical"]
    assert pairs(policy, ("a sun", 1.0), ("a boat", 1.0)) == ["tie"]
    assert pairs(policy, ("a sun", 1.0), ("a boat", 0.75)) == ["below_margin"]
    assert pairs(policy.model_copy(update={"max_length_ratio": 1.0}), ("a sun", 1.0), ("boat", 0.0)) == ["length_gap"]


@pytest.mark.parametrize("before", range(3))
@pytest.mark.parametrize("name", sorted(set(POLICIES) - BY_ORIGIN))
def test_copies_of_one_text_are_identical_however_many_rows_without_candidates_come_before(
    name: str, before: int
) -> None:
    policy = plain(policy=name, weights={"correctness" if name == "correctness" else "a": 1.0})
    copies: Row = [({"text": "a sun", "finish_reason": "stop"}, 1.0, None)] * 3
    samples, scores = (
        pa.Table.from_pylist(rows, schema=schema)
        for rows, schema in zip(tables([[]] * before + [copies], policy), (CANDIDATES, SCORES), strict=True)
    )
    reasons = pairs_of(samples, scores, policy)["reason"].to_pylist()
    assert reasons == ["no_valid_candidate"] * before + ["identical"]


def test_texts_of_other_models_can_be_left_out() -> None:
    texts = (("a sun", 2.0), ("a boat", 0.0))
    policy = plain(on_policy_only=True)
    assert pairs(policy, *texts, on_policy=True) == [("a sun", "a boat")]
    assert pairs(policy, *texts, on_policy=False) == pairs(policy, *texts, on_policy=None) == ["no_valid_candidate"]


def test_a_gated_text_is_no_side_of_a_pair_unless_its_gate_is_off() -> None:
    texts = (("a sun and a boat", 2.0), ("I'm sorry, but I can't assist with that.", 0.0))
    assert pairs(plain(), *texts) == ["no_valid_candidate"]
    assert pairs(plain(gates=Gates(refusal=False)), *texts) == [tuple(text for text, _ in texts)]


# ------------------------------------------------------------------------------------------- standardising and vetoes


@given(
    st.lists(st.integers(-50, 50).map(lambda i: i / 8), min_size=2, max_size=9), st.integers(1, 9), st.integers(-9, 9)
)
def test_standardised_scores_have_mean_0_and_deviation_1_whatever_the_scale(
    values: list[float], scale: int, shift: int
) -> None:
    scaled = standardise(values)
    if len(set(values)) == 1:
        assert scaled == [0.0] * len(values)
        return
    assert math.fsum(scaled) == pytest.approx(0, abs=1e-9)
    assert math.fsum(value * value for value in scaled) / len(scaled) == pytest.approx(1)
    assert standardise([scale * value + shift for value in values]) == pytest.approx(scaled)
    assert standardise([-value for value in values]) == [-score for score in scaled]


@pytest.mark.parametrize("values", [[1e308, -1e308], [1e-200, 2e-200, 0.0], [5.0], [1e308, 1e307, 0.0]])
def test_extreme_scores_standardise_to_finite_numbers(values: list[float]) -> None:
    assert all(map(math.isfinite, standardise(values)))


def test_standardised_scores_weigh_the_same_whatever_their_scale() -> None:
    row = [
        ({"text": t, "finish_reason": "stop"}, a, b)
        for t, a, b in (("one", 900.0, 3.0), ("two", 100.0, 0.0), ("three", 110.0, 1.0))
    ]
    policy = Pair(weights={"a": 1.0, "b": -3.0}, margin=0.1)
    assert told(row, run(row, policy))[0][0][0] == "one"
    assert told(row, run(row, policy.model_copy(update={"standardise": True})))[0][0][0] == "two"


def test_only_able_texts_count_for_the_mean() -> None:
    policy = plain(standardise=True, margin=0.1)
    texts = (("one", 1.0), ("two", 0.0))
    row = [({"text": t, "finish_reason": "stop"}, value, None) for t, value in (*texts, ("", 1000.0))]
    assert [pair["chosen_score"] for pair in run(row, policy)] == [1.0]


def test_a_score_that_is_equal_for_all_contributes_nothing() -> None:
    row = [({"text": t, "finish_reason": "stop"}, a, 0.1) for t, a in (("one", 1.0), ("two", 0.0), ("three", 0.0))]
    with_b = Pair(weights={"a": 1.0, "b": 5.0}, margin=0.1, standardise=True)
    without = Pair(weights={"a": 1.0}, margin=0.1, standardise=True)
    assert told(row, run(row, with_b)) == told(row, run(row, without))


def test_a_veto_bars_the_side_that_it_names() -> None:
    row = [
        ({"text": text, "finish_reason": "stop"}, worth, wrong)
        for text, worth, wrong in (("one", 3.0, 1.0), ("two", 2.0, 0.0), ("three", 0.0, 1.0))
    ]
    policy = plain(vetoes={"b": Veto(above=0)})
    assert told(row, run(row, policy)) == [(("two", 2.0), ("three", 0.0))]
    assert told(row, run(row, plain(vetoes={"b": Veto(above=0, bars="both")}))) == ["vetoed"]
    assert told(row, run(row, plain(vetoes={"b": Veto(below=1, bars="rejected")}))) == [(("one", 3.0), ("three", 0.0))]


def test_an_unknown_score_bars_nothing() -> None:
    assert not Veto(above=0, bars="both").bar("chosen", None)
    assert not Veto(below=0, bars="both").bar("chosen", math.nan)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"policy": "best_vs_worst"}, "weights needs a score"),
        ({"policy": "correctness", "weights": {"a": 1}}, r"weights: \{correctness: 1\}"),
        ({"weights": {"a": 1}, "max_pairs": 3}, "best_vs_worst gives one pair"),
        ({"weights": {"a": 1}, "vetoes": {"a": {"bars": "both"}}}, "needs above or below"),
        ({"weights": {"a": 1}, "vetoes": {"a": {"over": 1}}}, "unknown key over of a veto"),
        ({"weights": {"a": 1}, "longer_wins": [0.6, 0.9]}, "leaves out one half"),
    ],
)
def test_options_that_do_not_fit_together_are_an_error(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Pair.model_validate(values)


# ------------------------------------------------------------------------------------------------------- length balance


@given(st.lists(st.integers(-9, 9), max_size=60), st.sampled_from([(0.45, 0.55), (0.5, 0.5), (0.3, 0.6)]))
def test_balanced_pairs_are_balanced_and_the_widest_gaps_went(gaps: list[int], bound: tuple[float, float]) -> None:
    policy = plain(balance_length=True, longer_wins=bound)
    left = balance.surplus(gaps, policy)
    kept = [gap for i, gap in enumerate(gaps) if i not in left]
    longer, shorter = sum(gap > 0 for gap in kept), sum(gap < 0 for gap in kept)
    assert abs(longer - shorter) <= 1 or bound[0] <= longer / (longer + shorter) <= bound[1]
    out = [gaps[i] for i in left]
    assert all(gap * out[0] > 0 for gap in out), "only of the kind there was too much of"
    assert not out or min(map(abs, out)) >= max((abs(gap) for gap in kept if gap * out[0] > 0), default=0)
    assert not left or balance.surplus(kept, policy) == []
    assert balance.surplus(gaps, plain()) == []


@pytest.mark.parametrize("sign", [1, -1])
def test_a_share_that_just_reaches_the_bound_is_within_it(sign: int) -> None:
    policy = plain(balance_length=True, longer_wins=(0.45, 0.55))
    assert balance.surplus([sign] * 11 + [-sign] * 9, policy) == []
    assert balance.surplus([sign] * 12 + [-sign] * 9, policy) == [0]


def test_a_pair_that_is_left_out_stays_as_a_row_with_its_reason() -> None:
    rows = [
        [
            ({"text": "long " + "words here and", "finish_reason": "stop"}, 1.0, None),
            ({"text": "short", "finish_reason": "stop"}, 0.0, None),
        ]
    ] * 5
    policy = plain(balance_length=True)
    pair_rows = make_pairs(*tables(rows, policy), policy)
    assert [row.get("reason") for row in pair_rows] == ["length_balance"] * 4 + [None]


# -------------------------------------------------------------------------------------------------------- pairing again


def test_pairing_again_reads_neither_images_nor_models(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.base.images import image_files, pixels

    monkeypatch.setattr(image_files, "load", None)
    monkeypatch.setattr(pixels, "decode", None)
    row = several(("a sun", "sampled", None, 1.0), ("a boat", "sampled", None, 0.0))
    stage = PairStage(plain())
    samples, scores = tables([row], stage.spec)
    prompts = [{"id": "0", "prompt": [{"role": "user", "content": PROMPT}]}]
    table = stage.process(
        None,
        {
            "sample": pa.Table.from_pylist(samples, schema=CANDIDATES),
            "score": pa.Table.from_pylist(scores, schema=SCORES),
            "source": pa.Table.from_pylist(prompts, schema=pa.schema([PROMPTS.field("id"), PROMPTS.field("prompt")])),
        },
    )
    assert stage.worker is None and table["chosen"].to_pylist() == [0]


def test_prompts_are_an_input_only_if_a_gate_compares_with_them() -> None:
    off = Gates(wrong_script=False, wrong_language=False)
    assert PairStage(plain()).inputs == ("sample", "score", "source")
    assert PairStage(plain(gates=off)).inputs == ("sample", "score")


def test_the_seed_of_the_run_counts_only_where_there_is_chance() -> None:
    assert PairStage(plain(), 1).options() == PairStage(plain(), 2).options()
    drawn = plain(policy="best_vs_random")
    assert PairStage(drawn, 1).options() != PairStage(drawn, 2).options()


@pytest.mark.parametrize("module", [balance, rule, policies])
def test_examples_of_the_documentation_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_of_two_pairs_that_say_the_opposite_none_is_made() -> None:
    """The same answer at two worths, above another one and below it: which is the better one is not known."""
    texts = [("A sun.", -0.125), ("A sun and a boat.", -0.25), ("A sun and a boat.", 0.25)]
    made_of = pairs(plain(policy="top_k", k=2, margin=0.1), *texts)
    assert made_of == ["tie"]
    opposite = pairs(plain(policy="top_k", k=2, margin=0.1), *[(text, -value) for text, value in texts])
    assert opposite == ["tie"]


# ----------------------------------------------------------------------- what no policy can do; rounding is no margin


@dataclass(frozen=True)
class Everything:
    """Proposes every two texts, either way round."""

    def propose(self, able: Sequence[Able]) -> Iterator[tuple[Able, Able]]:
        return itertools.permutations(able, 2)


def test_a_policy_of_others_cannot_put_a_text_where_a_veto_bars_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pair, "plug_in", lambda self: Everything())
    row = [
        ({"text": text, "finish_reason": "stop"}, worth, made_up)
        for text, worth, made_up in (("A dog.", 9.0, 2.0), ("A cat.", 5.0, 0.0), ("A bird.", 1.0, 0.0))
    ]
    barred = plain(vetoes={"b": Veto(above=0.0, bars="chosen")})
    assert [(pair["chosen"], pair["rejected"]) for pair in run(row, barred)] == [(1, 2)]
    assert run(row[:2], barred)[0]["reason"] == "tie", "the better one is barred, the other is not better"
    both = [(*row[0][:2], 0.0), (*row[1][:2], 2.0)]
    monkeypatch.setattr(Everything, "propose", lambda self, able: [(able[1], able[0])])
    assert run(both, plain(vetoes={"b": Veto(above=0.0, bars="chosen")}))[0]["reason"] == "vetoed"


SUMS = [(0.1 + 0.2 + 0.3) / 3, (0.3 + 0.2 + 0.1) / 3]


@pytest.mark.parametrize("standardised", [True, False])
@pytest.mark.parametrize("name", [name for name in POLICIES if name not in BY_ORIGIN and name != "correctness"])
@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-12, 1e12])
def test_a_difference_of_rounding_is_a_tie(name: str, standardised: bool, scale: float) -> None:
    assert SUMS[0] != SUMS[1]
    policy = plain(policy=name, standardise=standardised, margin=1e-12)
    assert pairs(policy, *zip(("A dog.", "A cat."), (scale * value for value in SUMS), strict=True)) == ["tie"]


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6), st.floats(1e-3, 1e3), st.randoms(use_true_random=False))
def test_rounding_is_taken_out_alike_in_any_order_and_scale(values: list[float], scale: float, random: Any) -> None:
    out = without_rounding(values)
    order = list(range(len(values)))
    random.shuffle(order)
    assert [out[i] for i in order] == without_rounding([values[i] for i in order])
    assert without_rounding(out) == out
    for value, kept in zip(values, out, strict=True):
        assert kept is not None and 0 <= value - kept <= 1e-8 * max(map(abs, values))
    apart = [value for value in values if all(value == other or abs(value - other) > 1e-6 for other in values)]
    assert set(apart) <= set(out)


def test_a_margin_is_reached_whatever_the_unit() -> None:
    assert pairs(plain(margin=0.1), ("A dog.", 0.3), ("A cat.", 0.2)) == [("A dog.", "A cat.")]
    tenths = Pair(weights={"a": 0.1}, margin=0.1, max_length_ratio=9.0)
    assert pairs(tenths, ("A dog.", 3.0), ("A cat.", 2.0)) == [("A dog.", "A cat.")]
    assert pairs(plain(margin=0.1), ("A dog.", 0.3), ("A cat.", 0.2001)) == ["below_margin"]


def test_what_is_beyond_all_measure_is_not_compared() -> None:
    huge = Pair(weights={"a": 100.0}, margin=0.5)
    assert pairs(huge, ("A dog.", 1e308), ("A cat.", 1.0)) == ["no_valid_candidate"]
    (row,) = run([({"text": t, "finish_reason": "stop"}, v, None) for t, v in (("A", 1e300), ("B", -1e300))], plain())
    assert row["margin"] == 2e300


@pytest.mark.parametrize("name", ["all_above_margin", "top_k", "best_vs_random"])
@pytest.mark.parametrize("yes", ["Yes.", "Ja."])
def test_an_answer_that_is_better_in_one_spelling_and_worse_in_the_next_is_in_no_pair(name: str, yes: str) -> None:
    contradictory = [(yes, 9.0), ("No.", 5.0), (yes.lower()[:-1], 1.0)]
    assert pairs(plain(policy=name), *contradictory) in (["tie"], ["identical"])
    # What is beyond doubt stays.
    assert pairs(plain(policy="all_above_margin"), *contradictory, ("Maybe so.", -5.0))[0][1] == "Maybe so."
    agreeing = [(yes, 9.0), ("No.", 5.0), (yes.lower()[:-1], 8.0)]
    assert pairs(plain(policy=name), *agreeing) == [(yes, "No.")]
