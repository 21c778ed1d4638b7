"""The scenes world: deterministic, exact, fast."""

from __future__ import annotations

import io
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.scenes import grammar, prompts, raster
from pipeline.scenes.vocabulary import COLOURS, GLYPHS, OBJECTS, THEMES, VOCABULARY, plural
from pipeline.scenes.world import CELL, GRID, SIZE, Scene, above, left_of, scene

indices = st.integers(0, 10_000)


def of(theme: str) -> Scene:
    pictures = (scene(5, i) for i in range(1000))
    return next(picture for picture in pictures if picture.theme == theme and len(picture.objects) > 2)


def test_there_are_thirty_objects_in_six_themes_and_each_has_a_glyph() -> None:
    assert len(set(OBJECTS)) == 30
    assert len(THEMES) == 6
    assert len(set(GLYPHS.values())) == 30


@given(indices)
def test_a_scene_is_the_same_every_time(index: int) -> None:
    assert scene(1, index) == scene(1, index)
    assert np.array_equal(raster.pixels(scene(1, index)), raster.pixels(scene(1, index)))


def test_a_scene_is_the_same_in_another_process() -> None:
    code = (
        "import hashlib; from pipeline.scenes import raster, world; "
        "print(hashlib.sha256(raster.pixels(world.scene(3, 4)).tobytes()).hexdigest())"
    )
    prints = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(prints) == 1
    assert prints.pop().strip()


def test_streams_of_different_seeds_differ() -> None:
    assert [scene(1, i) for i in range(20)] != [scene(2, i) for i in range(20)]


@given(indices)
def test_no_two_objects_share_a_cell_and_each_lies_within_its_own(index: int) -> None:
    shown = scene(2, index)
    cells = [cell for thing in shown.objects for cell in thing.cells]
    assert len(cells) == len(set(cells)) <= GRID * GRID
    for thing in shown.objects:
        for cell, x, y, size in thing.places:
            row, column = divmod(cell, GRID)
            assert column * CELL <= x <= x + size <= (column + 1) * CELL
            assert row * CELL <= y <= y + size <= (row + 1) * CELL


@given(indices)
def test_the_picture_has_ink_exactly_where_the_facts_have_boxes(index: int) -> None:
    shown = scene(2, index)
    inked = (np.abs(raster.pixels(shown).astype(int) - np.array(shown.background)).sum(axis=2) > 30).copy()
    for thing in prompts.facts(shown)["objects"]:
        assert thing["count"] == len(thing["boxes"])
        for box in thing["boxes"]:
            x0, y0, x1, y1 = (round(value * SIZE) for value in box)
            assert inked[y0:y1, x0:x1].any()
            inked[y0:y1, x0:x1] = False
    assert not inked.any()


def test_png_is_an_encoded_image_of_the_pixels() -> None:
    shown = scene(0, 7)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(raster.png(shown)))), raster.pixels(shown))


@given(indices)
def test_a_description_names_every_object_once_and_nothing_else(index: int) -> None:
    shown = scene(4, index)
    text = grammar.describe(grammar.reading_order(shown), random.Random(index))
    assert sorted(mention.name for mention in VOCABULARY.mentions(text)) == sorted(shown.names)
    assert 1 <= text.count(".") <= 4


def test_descriptions_come_in_several_wordings() -> None:
    picture = of("sky")
    assert len({grammar.describe(grammar.reading_order(picture), random.Random(i)) for i in range(50)}) >= 10


@given(indices)
def test_an_imagined_object_is_not_there_and_belongs_to_the_theme(index: int) -> None:
    shown = scene(4, index)
    extra = grammar.imagine(shown, random.Random(index))
    if extra is None:
        assert set(THEMES[shown.theme]) <= shown.names
    else:
        assert extra.name not in shown.names
        assert extra.name in THEMES[shown.theme]


@given(indices)
def test_existence_answers_are_exact(index: int) -> None:
    shown = scene(6, index)
    question = grammar.question(shown, "existence", random.Random(index))
    (mention,) = VOCABULARY.mentions(question.text)
    assert question.answer == ("yes" if mention.name in shown.names else "no")


@given(indices)
def test_attribute_answers_are_exact(index: int) -> None:
    shown = scene(6, index)
    question = grammar.question(shown, "attribute", random.Random(index))
    (mention,) = VOCABULARY.mentions(question.text)
    (colour,) = [word for word in question.text.split() if word in COLOURS]
    truth = next(thing.colour for thing in shown.objects if thing.name == mention.name)
    assert question.answer == ("yes" if colour == truth else "no")


@given(indices)
def test_count_answers_are_exact(index: int) -> None:
    shown = scene(6, index)
    question = grammar.question(shown, "count", random.Random(index))
    (mention,) = VOCABULARY.mentions(question.text)
    count = next(i for i, word in enumerate(("zero", "one", "two", "three")) if f" {word} " in question.text)
    truth = next(thing.count for thing in shown.objects if thing.name == mention.name)
    assert question.answer == ("yes" if count == truth else "no")


@given(indices)
def test_relation_answers_are_exact(index: int) -> None:
    shown = scene(6, index)
    question = grammar.question(shown, "relation", random.Random(index))
    if question.kind != "relation":  # no two kinds of objects of this scene stand in a clear order
        return
    first, second = (next(t for t in shown.objects if t.name == m.name) for m in VOCABULARY.mentions(question.text))
    holds = (above if " above " in question.text else left_of)(first, second)
    assert question.answer == ("yes" if holds else "no")


@pytest.mark.parametrize("kind", ["existence", "attribute", "count", "relation"])
def test_questions_are_balanced(kind: str) -> None:
    answers = [grammar.question(scene(8, i), kind, random.Random(i)).answer for i in range(600)]
    assert 0.42 < answers.count("yes") / len(answers) < 0.6


def test_an_unknown_kind_of_question_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="existence, attribute, count, relation"):
        grammar.question(scene(0, 0), "colour", random.Random(0))


def test_every_word_form_is_found_and_means_its_object() -> None:
    for name in OBJECTS:
        for text in (f"a {name}.", f"Two {plural(name)}, there"):
            assert [mention.name for mention in VOCABULARY.mentions(text)] == [name]


def test_prompts_are_one_description_and_up_to_k_questions_per_scene() -> None:
    rows = list(prompts.build(scenes=20, questions_per_scene=3, seed=9))
    opened = [row for row in rows if row["facts"]["answer"] is None]
    assert len(opened) == 20
    assert 40 <= len(rows) - 20 <= 60
    assert all(row["prompt"][0]["role"] == "user" and row["images"][0]["bytes"] for row in rows)
    assert rows == list(prompts.build(scenes=20, questions_per_scene=3, seed=9))
