"""Sums by image, intervals over images, and whether two models differ."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.compare import as_json, compare
from training.evaluation.result import Provenance, differing, result
from training.evaluation.tally import Linear, Tally, mean_of

rows = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.fixed_dictionaries({"m": st.tuples(st.sampled_from([0, 0.1, 0.2, 0.7, 3]), st.integers(0, 3))}),
    ),
    max_size=12,
)


def right(*answers):
    """A tally of accuracy from (image, 0 or 1)."""
    return Tally.of((image, {"accuracy": (float(good), 1)}) for image, good in answers)


def provenance(**changes):
    values = {
        "suite": "pope@1", "model": "m", "model_revision": "r", "data": "POPE", "data_revision": "d", "prompt": "none",
        "decoding": {"temperature": 0}, "image_preprocessing": "as the processor", "parser": "official",
    }  # fmt: skip
    return Provenance(**{**values, **changes})


def test_answers_about_one_image_are_summed_before_they_are_divided():
    tally = Tally.of([("b", {"m": (1, 2)}), ("a", {"m": (0, 1)}), ("b", {"m": (2, 2)})])
    assert tally.images == ("a", "b")
    assert tally.sums["m"].tolist() == [[0, 1], [3, 4]]
    assert tally.values() == {"m": 3 / 5}


def test_a_metric_nobody_adds_to_is_none_and_so_is_what_is_made_of_it():
    tally = Tally.of([("a", {"m": (1, 1)})], names=["n"], linear={"mean": mean_of(["m", "n"])})
    assert tally.values() == {"n": None, "m": 1.0, "mean": None}
    assert tally.intervals(10)["mean"] is None
    assert Tally.of([], ["m"]).values() == {"m": None}
    assert Tally.of([], ["m"]).intervals() == {"m": None}


def test_a_linear_metric_is_made_in_every_sample():
    tally = Tally.of(
        [("a", {"x": (1, 1), "y": (0, 1)}), ("b", {"x": (0, 1), "y": (1, 1)})],
        linear={"score": Linear({"x": -1, "y": 1}, constant=1, divisor=2), "always": mean_of(["x", "y"])},
    )
    assert tally.values()["score"] == 0.5
    low, high = tally.intervals(200)["score"]
    assert (low, high) == (0.0, 1.0)
    assert tally.intervals(200)["always"] == [0.5, 0.5]  # x and y are never both high: drawn together


def test_one_image_says_nothing_of_how_sure_a_value_is():
    alone = right(("x", 1), ("x", 0))
    assert alone.values() == {"accuracy": 0.5} and alone.intervals(50) == {"accuracy": None}
    # Of three images one counts in "m", and so in what is made of it.
    rows = [("x", {"m": (1, 2), "n": (1, 1)}), ("y", {"n": (0, 1)}), ("z", {"m": (0, 0), "n": (1, 1)})]
    tally = Tally.of(rows, linear={"both": mean_of(["m", "n"]), "of n": mean_of(["n"])})
    ends = tally.intervals(50)
    assert ends["m"] is None and ends["both"] is None and ends["n"] is not None and ends["of n"] is not None
    other = Tally.of([*rows[:2], ("z", {"m": (1, 1), "n": (1, 1)})], linear=tally.linear)
    assert other.intervals(50)["m"] is not None
    for a, b in ((tally, other), (other, tally)):
        differences = compare(a, b, 50)
        assert differences["m"].difference is not None and differences["m"].interval is None
        assert differences["both"].interval is None and differences["n"].interval is not None
    assert compare(other, other, 50)["m"].interval is not None


def test_a_value_without_an_interval_has_a_dash_and_no_bar(tmp_path):
    from training.evaluation.session import markdown, plot

    suites = {"colours": result(right(("x", 1), ("x", 0)), provenance(), samples=10)}
    text = markdown.results({"suites": suites, "model": "m"})
    assert "| colours | accuracy | 0.500 | - |" in text
    plot.results({"suites": suites}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    differences = {"colours": as_json(compare(right(("x", 1)), right(("x", 0)), 10))}
    content = {"suites": differences, "a": "m", "b": "n", "not_compared": []}
    assert "| colours | accuracy | 1.000 | 0.000 | -1.000 | - | 1.000 |" in markdown.comparison(content)
    plot.comparison(content, tmp_path / "b.png")


@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_answers_does_not_matter(answers, rng):
    before = Tally.of(answers, ["m"])
    rng.shuffle(answers)
    after = Tally.of(answers, ["m"])
    assert after.values() == before.values() and after.intervals(20) == before.intervals(20)


def test_the_same_answers_differ_by_nothing():
    tally = right(*((str(i), i % 3 == 0) for i in range(30)))
    only = compare(tally, tally, samples=200)["accuracy"]
    assert (only.difference, only.interval, only.p_value) == (0.0, [0.0, 0.0], 1.0)


def test_a_clear_difference_is_significant_and_has_the_sign_of_the_second():
    worse = right(*((str(i), i % 2) for i in range(60)))
    better = right(*((str(i), True) for i in range(60)))
    up, down = compare(worse, better, 2000)["accuracy"], compare(better, worse, 2000)["accuracy"]
    assert up.difference == 0.5 and down.difference == -0.5
    assert up.p_value == down.p_value == pytest.approx(1 / 2001)
    assert 0.3 < up.interval[0] < 0.5 < up.interval[1] < 0.7


def test_pairing_sees_what_is_lost_in_the_noise_between_images():
    # The images differ in difficulty from 0 to 1, the second model gains 0.1 on each.
    easy = [(str(i), i / 40) for i in range(40)]
    a = Tally.of((image, {"m": (value, 1)}) for image, value in easy)
    b = Tally.of((image, {"m": (value + 0.1, 1)}) for image, value in easy)
    paired = compare(a, b, 500)["m"]
    assert paired.interval == pytest.approx([0.1, 0.1])
    low, high = a.intervals(500)["m"]
    assert high - low > 0.1  # alone, the interval is wider than the difference


def test_with_two_images_chance_does_as_well_in_half_of_the_cases():
    a, b = right(("x", 0), ("y", 0)), right(("x", 1), ("y", 1))
    assert compare(a, b, 4000)["accuracy"].p_value == pytest.approx(0.5, abs=0.05)


@settings(max_examples=40, deadline=None)
@given(rows, rows)
def test_swapping_the_models_turns_the_sign_alone(first, second):
    everywhere = [(image, {"m": (0, 0)}) for image in "abcd"]
    a, b = Tally.of([*first, *everywhere]), Tally.of([*second, *everywhere])
    there, back = compare(a, b, 50)["m"], compare(b, a, 50)["m"]
    assert there.p_value == back.p_value
    if there.difference is not None:
        assert there.difference == -back.difference and 0 < there.p_value <= 1
        low, high = there.interval or (math.nan, math.nan)
        assert (back.interval or [math.nan, math.nan]) == pytest.approx([-high, -low], nan_ok=True)


def test_false_alarms_are_as_rare_as_the_p_value_says():
    import random

    rng = random.Random(0)
    values = []
    for _ in range(200):
        a = right(*((str(i), rng.random() < 0.5) for i in range(20)))
        b = right(*((str(i), rng.random() < 0.5) for i in range(20)))
        values.append(compare(a, b, 100)["accuracy"].p_value)
    assert sum(value <= 0.1 for value in values) / len(values) < 0.17
    assert sum(value <= 0.5 for value in values) / len(values) > 0.25


def test_models_that_answered_other_questions_are_not_compared():
    with pytest.raises(ValueError, match="image 'y' is missing from the second"):
        compare(right(("x", 1), ("y", 1)), right(("x", 1)))
    with pytest.raises(ValueError, match="metric 'm' is missing from the first"):
        compare(right(("x", 1)), Tally.of([("x", {"accuracy": (1, 1), "m": (1, 1)})]))


def without(tally, *failed, **counts):
    return replace(tally, failed=tuple(failed), counts={"failed": len(failed), **counts})


def test_an_answer_that_failed_in_one_model_alone_is_no_difference_between_the_two():
    # Two answers about each image; the only wrong one of the first model failed in the second.
    whole = without(right(("x", 1), ("x", 0), ("y", 1), ("y", 1)))
    less = without(right(("x", 1), ("y", 1), ("y", 1)), "x0")
    with pytest.raises(ValueError, match="the answer to question 'x0' is missing from the second of the two"):
        compare(whole, less)
    with pytest.raises(ValueError, match=r"'x0' is missing from the first .*evaluate that model again"):
        compare(less, whole)
    other = without(right(("x", 1), ("x", 0), ("y", 1)), "y0")
    with pytest.raises(ValueError, match=r"'x0' is missing from the first of the two \(2 differ\)"):
        compare(less, other)
    assert compare(less, less, 20)["accuracy"].difference == 0.0


def test_of_results_of_before_only_the_number_of_failed_answers_is_known():
    whole, less = right(("x", 1), ("x", 0), ("y", 1)), right(("x", 1), ("y", 1))
    a, b = replace(whole, counts={"questions_failed": 0}), replace(less, counts={"questions_failed": 1})
    with pytest.raises(ValueError, match="questions_failed: 0 and 1 answers; evaluate that model again"):
        compare(a, b)
    with pytest.raises(ValueError, match="failed: 0 and 1 answers"):
        compare(without(whole), replace(less, counts={"failed": 1}))
    assert compare(replace(a, counts={"failed": 2}), replace(b, counts={"failed": 2}), 20)
    assert compare(whole, less, 20)  # of answers that somebody else has scored, nothing is known


def test_many_images_go_through_in_blocks(monkeypatch):
    from training.evaluation import compare as module

    a, b = right(*((str(i), i % 2) for i in range(50))), right(*((str(i), i % 3) for i in range(50)))
    monkeypatch.setattr(module, "_BLOCK", 500)  # ten samples a block
    only = compare(a, b, 1000)["accuracy"]
    as_large = only.p_value * 1001 - 1
    assert as_large == pytest.approx(round(as_large)) and only.interval[0] < only.difference
    assert round(as_large) % 100  # a hundred equal blocks would give a multiple


def test_a_result_carries_everything_it_depends_on():
    tally = right(("x", 1), ("y", 0))
    entry = result(tally, provenance(versions={"vocabulary": "coco80@1"}), samples=50)
    assert entry["metrics"]["accuracy"]["value"] == 0.5
    assert entry["metrics"]["accuracy"]["interval"] == [0.0, 1.0]
    assert entry["provenance"]["versions"] == {"vocabulary": "coco80@1"}
    assert set(entry["provenance"]) >= {"parser", "data_revision", "prompt", "decoding", "image_preprocessing", "judge"}
    assert entry["images"] == 2 and entry["bootstrap"]["samples"] == 50


def test_a_result_without_a_part_of_its_history_is_refused():
    with pytest.raises(ValueError, match="data_revision is empty"):
        provenance(data_revision=" ")
    with pytest.raises(ValueError, match="judge and judge_version"):
        provenance(judge="a-model")


def test_what_keeps_two_results_apart_is_named_and_the_model_is_not():
    assert differing(provenance(), provenance(model="other", model_revision="s")) == []
    assert differing(provenance(), provenance(parser="lmms_eval", decoding={"temperature": 1})) == [
        "decoding",
        "parser",
    ]


def test_a_comparison_is_plain_json():
    import json

    a, b = right(("x", 0), ("y", 0)), right(("x", 1), ("y", 0))
    assert json.loads(json.dumps(as_json(compare(a, b, 20))))["accuracy"]["difference"] == 0.5
