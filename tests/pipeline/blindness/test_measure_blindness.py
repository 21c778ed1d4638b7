"""What a reader without the image can tell of pairs: what moves the number, and what must not."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.blindness.contrasts import Clue
from pipeline.blindness.in_words import extent, meaning, page
from pipeline.blindness.measure_blindness import (
    HIGH,
    LEAST_IMAGES,
    OTHERS,
    Blindness,
    interval,
    measure,
    measure_by_values,
)
from pipeline.blindness.pair_texts import Drawn, PairTexts

WORDS = [
    "sun",
    "moon",
    "cat",
    "boat",
    "anchor",
    "horse",
    "cup",
    "tree",
    "key",
    "ball",
    "star",
    "fish",
    "bird",
    "drum",
    "leaf",
]
SEEDS = st.integers(0, 10_000)
few = settings(max_examples=8, deadline=None)


def said(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=6))


def plain(seed: int, number: int = 120, per_image: int = 2) -> list[PairTexts]:
    """Pairs that differ in what they say by chance alone."""
    chance = random.Random(seed)
    return [PairTexts(f"image {i // per_image}", "What is it?", said(chance), said(chance)) for i in range(number)]


def change(pairs: Sequence[PairTexts], rule: Callable[[str], str], share: float = 1.0) -> list[PairTexts]:
    """The chosen texts of so many of the pairs, after ``rule``."""
    return [replace(pair, chosen=rule(pair.chosen)) if i < share * len(pairs) else pair for i, pair in enumerate(pairs)]


def value(pairs: Sequence[PairTexts]) -> float:
    measured = measure(pairs).value
    assert measured is not None
    return measured


def renamed(pairs: Sequence[PairTexts], chance: random.Random) -> list[PairTexts]:
    """Every image in the place of another."""
    images = sorted({pair.images for pair in pairs})
    others = dict(zip(images, chance.sample(images, len(images)), strict=True))
    return [replace(pair, images=others[pair.images]) for pair in pairs]


# ------------------------------------------------------------------------------------------- what must not change it


@few
@given(SEEDS, st.randoms(use_true_random=False))
def test_shuffled_images_and_rows_give_the_same_number(seed: int, chance: random.Random) -> None:
    pairs = change(plain(seed), lambda text: f"{text} indeed", 0.4)
    before = measure(pairs)
    shuffled = renamed(pairs, chance)
    chance.shuffle(shuffled)
    assert measure(shuffled) == before and before.value is not None


@few
@given(SEEDS)
def test_images_dealt_out_anew_row_by_row_change_it_by_no_more_than_chance_does(seed: int) -> None:
    pairs = change(plain(seed, 300), lambda text: f"{text} indeed", 0.4)
    images = [pair.images for pair in pairs]
    random.Random(seed).shuffle(images)
    dealt = [replace(pair, images=name) for pair, name in zip(pairs, images, strict=True)]
    # Pairs come into other folds: three standard deviations of a share of 300, and less than a shortcut adds (below).
    assert value(dealt) == pytest.approx(value(pairs), abs=0.09)


@few
@given(SEEDS)
def test_all_labels_turned_give_the_same_number_and_the_clues_of_the_other_side(seed: int) -> None:
    pairs = change(plain(seed), lambda text: f"{text} indeed", 0.6)
    straight, turned = (
        measure(each) for each in (pairs, [replace(p, chosen=p.rejected, rejected=p.chosen) for p in pairs])
    )
    assert (turned.value, turned.interval) == (straight.value, straight.interval)
    assert [(c.word, c.rejected, c.chosen) for c in turned.clues] == [
        (c.word, c.chosen, c.rejected) for c in straight.clues
    ]


def test_pairs_that_differ_by_chance_alone_are_at_chance() -> None:
    values = [value(plain(seed, 400)) for seed in range(5)]
    assert sum(values) / 5 == pytest.approx(0.5, abs=0.03)
    measured = measure(plain(1, 400))
    assert measured.interval is not None and measured.interval[0] < 0.5 < measured.interval[1]
    assert measured.clues == () and "does not show in the texts" in meaning(measured)


# ---------------------------------------------------------------------------------------------------- what raises it

SHORTCUTS: dict[str, Callable[[str], str]] = {
    "a phrase": lambda text: f"In this picture, {text}",
    "length": lambda text: f"{text} {text}",
    "a line break": lambda text: text.replace(" ", "\n", 1),
    "capitals": str.title,
    "a full stop": lambda text: f"{text}.",
    "another script": lambda text: f"图中有{text}",
    "a right-to-left mark of its writer": lambda text: f"{text} في الصورة",
}


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_a_shortcut_raises_it_and_the_stronger_the_more(shortcut: str) -> None:
    rule = SHORTCUTS[shortcut]
    none, half, all_of_it = (value(change(plain(3, 240), rule, share)) for share in (0.0, 0.5, 1.0))
    assert none < half - 0.1 < half < all_of_it - 0.1 and all_of_it > 0.95


@few
@given(SEEDS, st.sampled_from(sorted(SHORTCUTS)))
def test_a_shortcut_raises_it_whatever_the_pairs(seed: int, shortcut: str) -> None:
    pairs = plain(seed, 200)
    assert value(change(pairs, SHORTCUTS[shortcut], 0.6)) > value(pairs) + 0.08


def test_what_only_the_question_gives_away_is_told() -> None:
    """Yes and no are chosen equally often; the words of the question say which."""
    asked = [("Are there exactly two cups?", "Yes", "No"), ("Is there a cup?", "No", "Yes")] * 60
    pairs = [PairTexts(f"image {i}", *texts) for i, texts in enumerate(asked)]
    measured = measure(pairs)
    assert measured.value == 1.0 and measured.high and "most of the preference" in meaning(measured)
    # Of all words that say the same, one.
    assert measured.clues == (Clue("yes", "exactly", 60, 0),)
    unasked = measure([replace(pair, prompt="?") for pair in pairs])
    assert unasked.value is not None and unasked.value <= 0.5


def test_what_is_known_of_an_image_by_heart_helps_nothing() -> None:
    chance = random.Random(0)
    # Each stands on one side of the pairs of one image.
    words = ["".join(chance.sample("abcdefghijklmnop", 8)) for _ in range(120)]
    pairs = [
        PairTexts(f"image {i // 4}", "What?", f"{words[i // 4]} {said(chance)}", f"{words[60 + i // 4]} {said(chance)}")
        for i in range(240)
    ]
    assert value(pairs) < 0.6
    # Control: were its pairs in several folds, it would know them.
    apart = [replace(pair, images=f"image {i}") for i, pair in enumerate(pairs)]
    assert value(apart) > 0.9


# ------------------------------------------------------------------------------------------------------------- edges


def test_equal_texts_are_told_in_half_of_the_cases() -> None:
    pairs = [replace(pair, rejected=pair.chosen) for pair in plain(0)]
    measured = measure(pairs)
    assert measured.value == 0.5 and measured.interval is not None
    assert measured.interval[0] < 0.5 < measured.interval[1]
    assert measure([replace(pair, chosen="", rejected="") for pair in pairs]).value == 0.5


@pytest.mark.parametrize("number", [0, 1, LEAST_IMAGES - 1])
def test_too_few_images_are_unknown_and_not_zero(number: int) -> None:
    measured = measure([*plain(0, number, 1)] * 3)
    assert measured.value is None and measured.interval is None and measured.clues == ()
    assert measured.unknown == f"{number} images; 20 are needed" and not measured.high
    assert "not known" in meaning(measured) and "–" in page(measured, {})


def test_duplicated_rows_change_nothing_but_the_number_of_pairs() -> None:
    pairs = change(plain(5), lambda text: f"{text} indeed", 0.5)
    once, twice = measure(pairs), measure([*pairs, *pairs])
    assert twice.pairs == 2 * once.pairs and twice.images == once.images
    assert twice.value == pytest.approx(once.value, abs=0.03)
    # Twice the same is no more certain.
    widths = [of.interval[1] - of.interval[0] for of in (once, twice) if of.interval is not None]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("图中有两只猫", "图中有三只狗"),
        ("في الصورة قطتان", "في الصورة ثلاثة كلاب"),
        ("猫が二匹います", "犬が三匹います"),
    ],
)
def test_other_scripts_are_read(right: str, wrong: str) -> None:
    chance = random.Random(0)
    pairs = [PairTexts(f"image {i}", "这是什么?", right, wrong) for i in range(40)]
    assert value(pairs) == 1.0
    balanced = [replace(p, chosen=p.rejected, rejected=p.chosen) if chance.random() < 0.5 else p for p in pairs]
    assert value(balanced) < 0.7


def test_odd_texts_are_read() -> None:
    odd = ["", " ", "\n", "\x00", "a" * 20_000, "😀", "|`<b>", "\ud800", "１２"]
    pairs = [PairTexts(f"image {i}", odd[-i % 9], odd[i % 9], odd[(i + 4) % 9]) for i in range(45)]
    measured = measure(pairs)
    assert measured.value is not None and Drawn().pairs == []
    kept = Drawn(10)
    kept.add(("", pair) for pair in pairs)
    assert len(kept.pairs) == 10 and kept.total == 45


# ------------------------------------------------------------------------------------------------------------- parts


def marked(seed: int = 0) -> list[PairTexts]:
    clean = [replace(pair, marks={"source": "clean"}) for pair in plain(seed, 120)]
    dirty = [replace(p, images=f"d {p.images}", marks={"source": "dirty"}) for p in plain(seed + 1, 120)]
    return [*clean, *change(dirty, lambda text: f"{text} indeed")]


def test_the_part_with_the_shortcut_is_found_and_the_whole_is_the_mean_of_the_parts() -> None:
    measured = measure(marked())
    clean, dirty = (measured.parts["source"][name] for name in ("clean", "dirty"))
    assert clean.value is not None and dirty.value is not None
    assert dirty.value > 0.95 and clean.value < 0.65
    assert measured.value == pytest.approx((clean.value + dirty.value) / 2, abs=1e-4)


def test_small_parts_are_unknown_one_part_is_none_and_many_are_counted_together() -> None:
    pairs = plain(0, 200, 1)
    one = measure([replace(pair, marks={"source": "all of it"}) for pair in pairs])
    assert one.parts == {}
    lonely = measure([replace(p, marks={"source": "a" if i else "b"}) for i, p in enumerate(pairs)]).parts["source"]
    assert lonely["b"].value is None and lonely["b"].unknown == "1 images; 20 are needed" and lonely["b"].pairs == 1
    many = measure([replace(p, marks={"source": f"{i % 50:02d}"}) for i, p in enumerate(pairs)]).parts["source"]
    assert len(many) == 21 and list(many)[-1] == OTHERS and many[OTHERS].pairs == 120
    half = measure([replace(p, marks={"source": f"{i % 2}"} if i > 99 else {}) for i, p in enumerate(pairs)])
    assert sum(part.pairs for part in half.parts["source"].values()) == 100


def test_json_holds_all_of_it() -> None:
    import json

    for pairs in (marked(), plain(0, 3)):
        measured = measure(pairs, 999)
        assert Blindness.of_json(json.loads(json.dumps(measured.as_json()))) == measured and measured.total == 999


# ---------------------------------------------------------------------------------------------------------- interval


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60), st.integers(1, 4))
def test_the_interval_holds_the_mean_and_has_a_width(outcomes: list[float], size: int) -> None:
    low, high = interval(np.array(outcomes), np.arange(len(outcomes)) // size)
    mean = sum(outcomes) / len(outcomes)
    assert 0 <= low <= mean + 1e-4 and mean - 1e-4 <= high <= 1 and low < high


def test_the_interval_holds_the_truth_in_about_95_of_100_cases_though_pairs_of_an_image_are_alike() -> None:
    chance, hits = np.random.default_rng(0), 0
    for _ in range(400):
        rates = np.clip(chance.normal(0.7, 0.25, 60), 0, 1)
        group = np.repeat(np.arange(60), 5)
        low, high = interval((chance.random(300) < rates[group]).astype(float), group)
        hits += low <= np.clip(np.random.default_rng(1).normal(0.7, 0.25, 100_000), 0, 1).mean() <= high
    assert 0.9 <= hits / 400 <= 0.985


# ----------------------------------------------------------------------------------------------------------- readers


def test_numbers_tell_what_they_know_whichever_sign_speaks_for_the_chosen_text() -> None:
    chance, pairs = np.random.default_rng(0), plain(0, 200)
    noise = chance.normal(size=(200, 1))
    knows = np.concatenate([np.full((200, 1), -2.0) + chance.normal(size=(200, 1)), noise], axis=1)
    told = measure_by_values(pairs, knows)
    assert told.value is not None and told.value > 0.95
    assert measure_by_values(pairs, -knows) == told
    order = chance.permutation(200)
    assert measure_by_values([pairs[i] for i in order], knows[order]) == told
    assert measure_by_values(pairs, np.zeros((200, 2))).value == 0.5
    assert measure_by_values(pairs[:3], knows[:3]).value is None


# ------------------------------------------------------------------------------------------------------------- words


def test_the_sentence_says_what_follows_and_the_warning_begins_half_way() -> None:
    part = replace(measure(change(plain(0, 200), lambda text: f"{text} indeed", 0.3)), total=900)
    assert part.value is not None and 0.55 < part.value < HIGH and "so much of the preference" in meaning(part)
    assert extent(part) == "200 of 900 pairs, drawn by a hash, about 100 different images"
    assert f"{100 * part.value:.1f} %" in meaning(part)


def test_the_room_alone_loads_no_scikit_learn() -> None:
    code = "import sys, pipeline.publishing.blindness_gate; print({'sklearn', 'scipy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
