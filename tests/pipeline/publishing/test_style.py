"""How alike two sides are written: the classifier, its folds, and what is counted beside it."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.blindness.measure_blindness import LEAST_IMAGES, folds
from pipeline.blindness.text_features import ngrams
from pipeline.publishing.style import (
    MASK,
    TextPair,
    auc,
    decisions,
    edit_distance,
    levenshtein,
    masked,
    measure,
)
from pipeline.scenes.vocabulary import OBJECTS, VOCABULARY, article

CHANCE = random.Random(0)


def described(names: list[str], opening: str = "The image shows") -> str:
    return f"{opening} {' and '.join(f'{article(name)} {name}' for name in names)}."


def truths(number: int, opening: str = "The image shows") -> list[TextPair]:
    """Pairs that differ in their objects, and in ``opening``."""
    pairs = []
    for i in range(number):
        right, wrong = (CHANCE.sample(OBJECTS, 2) for _ in range(2))
        pairs.append(TextPair(f"image {i}", described(right), described(wrong, opening)))
    return pairs


# -------------------------------------------------------------------------------------------------------- classifier


def test_sides_that_differ_in_masked_words_alone_cannot_be_told_apart() -> None:
    style = measure(truths(60), VOCABULARY)
    assert style.auc == 0.5 and style.auc_ci == (0.5, 0.5) and style.no_auc is None
    assert style.masked == f"scenes@{VOCABULARY.version}"


def test_without_the_mask_the_objects_of_a_side_give_it_away() -> None:
    pairs = [
        TextPair(
            f"image {i}", described(["anchor", CHANCE.choice(OBJECTS)]), described(["skull", CHANCE.choice(OBJECTS)])
        )
        for i in range(60)
    ]
    assert (measure(pairs).auc or 0) > 0.95 and measure(pairs).masked is None
    assert measure(pairs, VOCABULARY).auc == 0.5


def test_another_style_is_told_at_once() -> None:
    style = measure(truths(60, "In this lovely picture one can see"), VOCABULARY)
    assert style.auc == 1.0 and style.auc_ci == (1.0, 1.0)


def test_half_of_the_pairs_in_another_style_lie_between_and_the_interval_holds_the_value() -> None:
    other = [TextPair(f"other {i}", p.chosen, p.rejected) for i, p in enumerate(truths(60, "I see"))]
    style = measure([*truths(60), *other], VOCABULARY)
    assert style.auc is not None and style.auc_ci is not None
    assert 0.6 < style.auc < 0.95 and style.auc_ci[0] < style.auc < style.auc_ci[1]


def test_neither_order_nor_repetition_of_the_measurement_changes_it() -> None:
    pairs = truths(40, "I see")
    assert measure(pairs, VOCABULARY) == measure(pairs[::-1], VOCABULARY) == measure(pairs, VOCABULARY)


def test_too_few_images_give_no_auc_and_the_reason() -> None:
    few = truths(LEAST_IMAGES - 1, "I see")
    style = measure([*few, *few], VOCABULARY, total=99)
    assert style.auc is None and style.auc_ci is None and style.no_auc == "19 images; 20 are needed"
    assert (style.pairs, style.measured, style.groups) == (99, 38, 19)


def test_without_pairs_there_is_nothing() -> None:
    style = measure([])
    assert style.pairs == style.groups == 0
    assert {style.auc, style.length_gap, style.edit_distance, style.logp_gap, style.longer_wins} == {None}


class Memory:
    """Knows the group of every text it was trained on by heart, and which side it was; of others it knows nothing."""

    def fit(self, features: Any, labels: Any) -> Memory:
        self.known = {(group, side): label for (group, side), label in zip(map(tuple, features), labels, strict=True)}
        return self

    def decision_function(self, features: Any) -> Any:
        return np.array([self.known.get(tuple(row), 0.5) for row in features], np.float64)


def test_what_is_known_of_a_group_by_heart_helps_nothing() -> None:
    groups = [f"image {i // 3}" for i in range(60)]
    number = {group: i for i, group in enumerate(groups)}
    # (group, side): three pairs of an image have the same two texts.
    features = np.array([[number[group], side] for side in (1, 0) for group in groups])
    scores = decisions(features, folds(groups), Memory)
    assert auc(scores[:60], scores[60:]) == 0.5
    # Control: with folds that cut through groups it would know every text.
    leaky = decisions(features, np.arange(60) % 5, Memory)
    assert auc(leaky[:60], leaky[60:]) == 1.0


@given(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40), st.integers(2, 5))
def test_no_group_is_in_two_folds_and_folds_are_even(groups: list[str], number: int) -> None:
    fold_of = folds(groups, number).tolist()
    of_group = {group: {fold for of, fold in zip(groups, fold_of, strict=True) if of == group} for group in groups}
    assert all(len(folds) == 1 for folds in of_group.values())
    sizes = [sum(fold in folds for folds in of_group.values()) for fold in range(number)]
    assert max(sizes) - min(sizes) <= 1


def test_ngrams_are_scikit_learns() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [described(CHANCE.sample(OBJECTS, 3)) for _ in range(20)] + ["Yes.", "a  b\nA b", "É, ß!"]
    plain = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4)).fit_transform(texts)
    ours = ngrams(texts)
    assert ours.shape == plain.shape
    assert (ours @ ours.T).toarray() == pytest.approx((plain @ plain.T).toarray())


VALUES = st.lists(st.integers(0, 4).map(float), min_size=1, max_size=8)


@given(VALUES, VALUES, st.data())
def test_the_auc_is_the_share_of_couples_in_the_right_order(a: list[float], b: list[float], data: Any) -> None:
    couples = [(x > y) + (x == y) / 2 for x in a for y in b]
    assert auc(np.array(a), np.array(b)) == pytest.approx(sum(couples) / len(couples))
    size = min(len(a), len(b))
    weights = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size).filter(any))
    many = [np.repeat(values[:size], weights) for values in (a, b)]
    assert auc(np.array(a[:size]), np.array(b[:size]), np.array(weights, float)) == pytest.approx(auc(*many))


# ------------------------------------------------------------------------------------------------------------- masks


def test_every_form_of_an_object_is_masked_and_its_article_with_it() -> None:
    words = masked("An anchor, two mice and a lightning bolt; AN  umbrella. An orange sun.", VOCABULARY)
    assert words == f"A {MASK}, two {MASK} and a {MASK}; A  {MASK}. An orange {MASK}."
    assert masked("An anchor.", None) == "An anchor."


@given(st.lists(st.sampled_from(OBJECTS), min_size=1, max_size=4), st.randoms())
def test_what_is_left_does_not_depend_on_the_objects(names: list[str], chance: random.Random) -> None:
    others = [chance.choice(OBJECTS) for _ in names]
    assert masked(described(names), VOCABULARY) == masked(described(others), VOCABULARY)


# ------------------------------------------------------------------------------------------------------------ counts


def by_rows(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]


WORDS = st.lists(st.sampled_from("abc"), max_size=70)


@given(WORDS, WORDS)
def test_the_edit_distance_is_that_of_the_textbook(a: list[str], b: list[str]) -> None:
    assert levenshtein(a, b) == by_rows(a, b)
    assert edit_distance(" ".join(a), " ".join(b)) == by_rows(a, b) / max(len(a), len(b), 1)


def test_gaps_and_shares_are_of_chosen_less_rejected() -> None:
    pairs = [
        TextPair("a", "a b c d", "a b", 0.5),
        TextPair("b", "a b", "a b", -0.25),
        TextPair("c", "a", "a b", None),
        TextPair("d", "a b c", "x y z", 1.0),
    ]
    style = measure(pairs)
    assert (style.length_gap, style.longer_wins) == (0.25, 0.5)
    assert (style.logp_pairs, style.logp_gap, style.likelier_wins) == (3, 0.4167, 0.6667)
    assert style.logp_gap_quartiles == (0.125, 0.5, 0.75)
    assert style.edit_distance == 0.5 and style.edit_distance_quartiles == (0.375, 0.5, 0.625)


def test_turned_round_every_gap_has_the_other_sign() -> None:
    pairs = [TextPair(p.group, p.chosen, p.rejected, 0.1 * i) for i, p in enumerate(truths(30, "There"))]
    turned = [TextPair(p.group, p.rejected, p.chosen, -(p.logp_gap or 0.0)) for p in pairs]
    straight, other = measure(pairs, VOCABULARY), measure(turned, VOCABULARY)
    assert (straight.length_gap, straight.logp_gap) == (-(other.length_gap or 0), -(other.logp_gap or 0))
    assert (straight.auc, straight.edit_distance) == (other.auc, other.edit_distance)


def test_the_module_alone_loads_no_scikit_learn() -> None:
    code = "import sys, pipeline.publishing.style_gate; print({'sklearn', 'scipy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
