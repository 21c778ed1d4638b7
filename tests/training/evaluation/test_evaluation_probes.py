"""Likelihood, length, and whether a preference looks at the image."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.probes import PairLogps, conditional, drift, lengths


def pair(id, chosen, rejected, tokens=(2, 4), image=None):
    return PairLogps(id, image or f"{id}.png", chosen, rejected, *tokens)


BEFORE = [pair("a", -10, -20), pair("b", -10, -20)]
AFTER = [pair("a", -14, -40), pair("b", -8, -22)]


def test_both_likelihoods_can_fall_while_the_margin_grows():
    assert drift(BEFORE, AFTER).values() == {
        "chosen": -1.0,
        "rejected": -11.0,
        "margin": 10.0,
        "chosen_per_token": -0.5,
        "rejected_per_token": -22 / 8,
        "chosen_fell": 0.5,
        "rejected_fell": 1.0,
    }


def test_a_model_that_has_not_moved_has_not_drifted():
    values = drift(BEFORE, BEFORE).values()
    assert set(values.values()) == {0.0}


def test_a_preference_from_the_text_alone_shows_in_the_gap():
    true = [pair("a", -5, -9), pair("b", -5, -9)]
    blind = conditional({"true": true, "none": [pair("a", -8, -9), pair("b", -8, -9)]}).values()
    assert (blind["accuracy_true"], blind["accuracy_none"], blind["accuracy_gap_none"]) == (1.0, 1.0, 0.0)
    looks = conditional({"true": true, "swapped": [pair("a", -11, -9), pair("b", -9, -9)]}).values()
    assert (looks["accuracy_swapped"], looks["accuracy_gap_swapped"]) == (0.25, 0.75)  # a tie counts half
    assert looks["chosen_gap_swapped"] == (6 + 4) / 2 and looks["chosen_gap_per_token_swapped"] == 10 / 4
    assert looks["prefers_image_swapped"] == 1.0


def test_with_a_reference_the_implicit_reward_decides():
    policy = {"true": [pair("a", -5, -4)], "none": [pair("a", -5, -4)]}
    reference = {"true": [pair("a", -8, -4)], "none": [pair("a", -4, -4)]}
    alone, against = conditional(policy).values(), conditional(policy, reference).values()
    assert (alone["accuracy_true"], alone["accuracy_none"]) == (0.0, 0.0)
    assert (against["accuracy_true"], against["accuracy_none"]) == (1.0, 0.0)
    assert alone["chosen_gap_none"] == against["chosen_gap_none"] == 0.0


def test_length_drift_in_words():
    values = lengths([("x", "a b c d", "a b"), ("y", "a b", "a b c d")]).values()
    assert values == {"before": 3.0, "after": 3.0, "change": 0.0, "ratio": 1.0, "shorter": 0.5}
    assert lengths([("x", "", "a")]).values()["ratio"] is None


def test_probes_have_intervals_over_images():
    drifts = drift([pair(str(i), -5, -5) for i in range(20)], [pair(str(i), -5 - i % 2, -6) for i in range(20)])
    low, high = drifts.intervals(200)["chosen"]
    assert low < -0.5 < high and drifts.intervals(200)["rejected"] == [-1.0, -1.0]


def test_what_cannot_be_compared_is_named():
    with pytest.raises(ValueError, match=r"pair 'b' is not in both \(after\)"):
        drift(BEFORE, AFTER[:1])
    with pytest.raises(ValueError, match="there twice"):
        drift([BEFORE[0], BEFORE[0]], [AFTER[0]])
    with pytest.raises(ValueError, match=r"pair 'a'.*one tokenizer"):
        drift(BEFORE, [pair("a", -1, -1, (3, 4)), BEFORE[1]])
    with pytest.raises(ValueError, match="condition 'true' is missing"):
        conditional({"none": BEFORE})
    with pytest.raises(ValueError, match="condition 'none' is not there for both"):
        conditional({"true": BEFORE, "none": BEFORE}, {"true": BEFORE})
    with pytest.raises(ValueError, match="pair 'x': a log-prob is not finite"):
        pair("x", -math.inf, -1)
    with pytest.raises(ValueError, match="without a token"):
        pair("x", -1, -1, (0, 1))


logps = st.lists(st.tuples(st.integers(-9, 0), st.integers(-9, 0)), min_size=1, max_size=8)


@given(logps, logps, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_turning_the_pairs_turns_the_preference(first, second, rng):
    count = min(len(first), len(second))
    true = [pair(str(i), *first[i]) for i in range(count)]
    none = [pair(str(i), *second[i]) for i in range(count)]
    values = conditional({"true": true, "none": none}).values()
    turned = [PairLogps(sums.id, sums.image, sums.rejected, sums.chosen, 4, 2) for sums in true]
    assert conditional({"true": turned}).values()["accuracy_true"] == pytest.approx(1 - values["accuracy_true"])
    rng.shuffle(true)
    assert conditional({"true": true, "none": none}).values() == values
    assert values["accuracy_gap_none"] == pytest.approx(values["accuracy_true"] - values["accuracy_none"])
    assert drift(true, none).values()["margin"] == pytest.approx(
        drift(true, none).values()["chosen"] - drift(true, none).values()["rejected"]
    )
