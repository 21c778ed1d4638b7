import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.scorers.objects import judge
from reward.text.object_vocabulary import Vocabulary
from training.evaluation.benchmarks.chair import METRICS, terms
from training.evaluation.ratio import pool

NAMES = ("sun", "boat", "cup", "star")
VOCABULARY = Vocabulary("demo", "1", {form: name for name in NAMES for form in (name, name + "s")})


def measure(captions):
    """The metrics of (verdict, words)."""
    rows = [terms(verdict, words) for verdict, words in captions]
    return {name: pool(row[name] for row in rows) for name in METRICS}


def captions(*pairs):
    return [(judge(text, frozenset(truth), VOCABULARY), len(text.split())) for text, truth in pairs]


def test_mentions_are_pooled_and_repeats_count():
    metrics = measure(captions(("sun sun sun cup", {"sun"}), ("boat", {"boat", "star"}), ("star", {"sun"})))
    assert metrics == {
        "chair_i": pytest.approx(2 / 6),
        "chair_s": pytest.approx(2 / 3),
        "cover": pytest.approx(2 / 4),  # pooled: sun and boat of sun; boat, star; sun
        "cover_per_image": pytest.approx((1 + 0.5 + 0) / 3),
        "mean_length": 2.0,
    }


def test_saying_nothing_is_not_perfect():
    metrics = measure(captions(("Nothing.", {"sun"})))
    assert metrics["chair_i"] is None
    assert (metrics["chair_s"], metrics["cover"]) == (0.0, 0.0)


def test_no_captions_no_truth():
    assert set(measure([]).values()) == {None}
    metrics = measure(captions(("a sun", set())))
    assert (metrics["cover"], metrics["cover_per_image"], metrics["chair_i"]) == (None, None, 1.0)


pairs = st.lists(
    st.tuples(st.lists(st.sampled_from([*NAMES, "a"]), max_size=5).map(" ".join), st.sets(st.sampled_from(NAMES))),
    max_size=6,
)


@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter_and_shares_are_shares(rows, rng):
    metrics = measure(captions(*rows))
    rng.shuffle(rows)
    assert measure(captions(*rows)) == pytest.approx(metrics)
    assert all(value is None or 0 <= value <= 1 for name, value in metrics.items() if name != "mean_length")


@given(pairs)
def test_doubling_every_caption_changes_nothing(rows):
    assert measure(captions(*rows, *rows)) == pytest.approx(measure(captions(*rows)))
