"""The rejected image: a crop that keeps 1-20 % of the area, the same in every call."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from training.corrupt import ASPECT, corrupt, crop_box

sides = st.integers(2, 4000)


@given(sides, sides, st.integers(0, 2**32))
def test_the_crop_lies_inside_and_keeps_1_to_20_percent_of_the_area(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = crop_box(width, height, (0.01, 0.2), random.Random(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    share = (right - left) * (bottom - top) / (width * height)
    assert 0.01 - 1e-9 <= share <= 0.2 + 1e-9


@given(st.integers(50, 2000), st.integers(0, 2**32))
def test_on_a_square_image_the_aspect_is_between_three_quarters_and_four_thirds(side: int, seed: int) -> None:
    left, top, right, bottom = crop_box(side, side, (0.01, 0.2), random.Random(seed))
    assert ASPECT[0] - 1e-6 <= (right - left) / (bottom - top) <= ASPECT[1] + 1e-6


def test_the_kept_area_covers_the_whole_range() -> None:
    boxes = [crop_box(100, 100, (0.01, 0.2), random.Random(seed)) for seed in range(500)]
    shares = [(right - left) * (bottom - top) / 1e4 for left, top, right, bottom in boxes]
    assert min(shares) < 0.02
    assert max(shares) > 0.19


def picture(size: int) -> Image.Image:
    return Image.linear_gradient("L").convert("RGB").resize((30 + size, 20 + size))


@given(st.integers(0, 2**63), st.text(max_size=20), st.integers(0, 5))
def test_the_same_seed_pair_and_index_give_the_same_pixels(seed: int, pair: str, index: int) -> None:
    first = corrupt(picture(1), (0.01, 0.2), seed, pair, index)
    assert first.tobytes() == corrupt(picture(1), (0.01, 0.2), seed, pair, index).tobytes()
    assert first.size == picture(1).size
    assert first.mode == "RGB"


def test_another_seed_pair_or_index_gives_another_crop() -> None:
    gradient = Image.radial_gradient("L").convert("RGB")
    variants = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    assert len({corrupt(gradient, (0.01, 0.2), *variant).tobytes() for variant in variants}) == 4


def test_the_original_is_left_alone() -> None:
    image = picture(2)
    corrupt(image, (0.01, 0.2), 0, "a")
    assert image.tobytes() == picture(2).tobytes()
