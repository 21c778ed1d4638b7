"""Images from text in the scenes world: what is drawn, with which faults, and what is known of it."""

from __future__ import annotations

import io
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.tables import FACTS
from pipeline.engines.painter import Wish
from pipeline.scenes import drawn, grammar, prompts, raster
from pipeline.scenes.generator import ScenePainter, arrange
from pipeline.scenes.grammar import Item
from pipeline.scenes.parse import parse
from pipeline.scenes.world import scene

indices = st.integers(0, 10_000)
rates = st.floats(0, 0.5)


def text(index: int) -> str:
    return grammar.describe(grammar.reading_order(scene(4, index)), random.Random(index))


@given(indices)
def test_a_description_is_read_back_item_by_item_with_the_places_it_names(index: int) -> None:
    items = grammar.reading_order(scene(4, index))
    read = parse(text(index))
    assert [(i.name, i.colour, i.count) for i in read] == [(i.name, i.colour, i.count) for i in items]
    assert all(a.cell in (None, b.cell) for a, b in zip(read, items, strict=True))


def test_places_are_read_where_they_are_named() -> None:
    assert parse("There is a red sun. In the bottom left corner is an orange cup.")[1] == Item("cup", "orange", 1, 6)
    assert any(item.cell is not None for index in range(50) for item in parse(text(index)))


@pytest.mark.parametrize(
    ("description", "wrong"),
    [
        ("A photo of a dog.", "A photo of a dog"),
        ("There is a red sun", "There is a red sun"),
        ("There is a red dog.", "red dog"),
        ("There is a grey sun.", "grey sun"),
        ("There are two red sun.", "two red sun"),
        ("There is a orange sun.", "a orange sun"),
        ("There is a red sun. There is also a blue sun.", "twice"),
        ("In the centre is a red sun and a blue cup.", "one place"),
        ("", "no object"),
    ],
)
def test_what_the_grammar_cannot_say_is_an_error_that_names_it(description: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        parse(description)


@given(indices, st.integers(0, 2**62))
def test_without_faults_the_image_is_faithful_and_its_facts_are_the_picture(index: int, seed: int) -> None:
    (picture,) = ScenePainter().paint([Wish(text(index), seed, 5.0)])
    assert picture.facts is not None and picture.bytes is not None
    assert drawn.faithful(parse(text(index)), picture.facts)
    inked = np.asarray(Image.open(io.BytesIO(picture.bytes))).astype(int)
    inked = np.abs(inked - inked[0, 0]).sum(axis=2) > 30
    for thing in picture.facts["objects"]:
        assert thing["count"] == len(thing["boxes"])
        for box in thing["boxes"]:
            x0, y0, x1, y1 = (round(value * 96) for value in box)
            assert inked[y0:y1, x0:x1].any()
            inked[y0:y1, x0:x1] = False
    assert not inked.any()


@given(indices, st.integers(0, 2**62), rates, rates, rates)
def test_facts_say_what_was_drawn_and_not_what_was_asked_for(
    index: int, seed: int, drop: float, swap: float, add: float
) -> None:
    """Drawn again from the facts alone, the picture is the same but for its background."""
    (picture,) = ScenePainter(drop, swap, add).paint([Wish(text(index), seed, 5.0)])
    assert picture.facts is not None and picture.bytes is not None
    stored = pa.array([picture.facts], FACTS).to_pylist()[0]
    again = raster.pixels(drawn.scene(stored))
    before = np.asarray(Image.open(io.BytesIO(picture.bytes)))
    bare = (before == before[0, 0]).all(axis=2)
    assert (bare == (again == again[0, 0]).all(axis=2)).all()
    assert stored["objects"] and drawn.shows(text(index), stored) is not None


@given(indices)
def test_a_scene_is_read_back_from_its_facts(index: int) -> None:
    shown = scene(2, index)
    again = drawn.scene(pa.array([prompts.facts(shown)], FACTS).to_pylist()[0])
    assert again.objects == shown.objects


def test_each_fault_comes_at_its_rate_and_alone() -> None:
    items = [Item("sun", "red", 1), Item("cup", "blue", 2), Item("king", "green", 1)]
    names = {item.name for item in items}
    for rate in (0.1, 0.3):
        missing = {"drop": 0, "swap": 0, "add": 0}
        more = dict(missing)
        for fault in missing:
            painter = ScenePainter(**{fault: rate})
            for seed in range(2000):
                got = {item.name for item in painter.spoil(items, random.Random(seed))}
                missing[fault] += len(names - got)
                more[fault] += len(got - names)
        assert missing["drop"] / 6000 == pytest.approx(rate, abs=0.03) and more["drop"] == 0
        assert missing["swap"] / 6000 == pytest.approx(rate, abs=0.03) and more["swap"] == missing["swap"]
        assert more["add"] / 2000 == pytest.approx(rate, abs=0.03) and missing["add"] == 0


@given(indices, st.integers(0, 99))
def test_a_picture_depends_on_its_wish_alone(index: int, seed: int) -> None:
    painter = ScenePainter(0.2, 0.2, 0.2)
    wish, other = Wish(text(index), seed, 5.0), Wish(text(index + 1), seed + 1, 7.0)
    assert next(painter.paint([wish])) == list(painter.paint([other, wish, other]))[1]


def test_seeds_decide_about_the_faults() -> None:
    painter = ScenePainter(0.3, 0.3, 0.3)
    pictures = painter.paint([Wish(text(3), seed, 5.0) for seed in range(20)])
    assert len({picture.bytes for picture in pictures}) > 10


def test_faithful_means_neither_less_nor_more_nor_otherwise() -> None:
    wanted = [Item("sun", "red", 1, 4), Item("cup", "blue", 2)]

    def shown(*items: Item) -> bool:
        return drawn.faithful(wanted, prompts.facts(arrange(items, random.Random(0))))

    sun, cups = wanted
    assert shown(sun, cups) and shown(cups, sun)
    assert not shown(sun)
    assert not shown(sun, cups, Item("king", "red", 1))
    assert not shown(sun, Item("cup", "blue", 1))
    assert not shown(sun, Item("cup", "red", 2))
    assert not shown(Item("sun", "red", 1, 0), cups)


def test_what_cannot_be_drawn_fails_with_a_reason_and_nothing_is_known_of_it() -> None:
    crowd = "There are three red suns, three blue cups, three green kings and three pink cats."
    strange, full = ScenePainter().paint([Wish("a dog", 1, 5.0), Wish(crowd, 1, 5.0)])
    assert (strange.error_type, strange.bytes, strange.facts) == ("not_in_grammar", None, None)
    assert full.error_type == "too_many_objects" and "12" in (full.error or "")
    assert drawn.shows("a dog", prompts.facts(scene(0, 0))) is None and drawn.shows(text(0), None) is None
