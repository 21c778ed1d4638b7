"""The rejected image: every kind keeps the size, is the same in every call, and takes away what it says."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from pipeline.base import noise
from training.config import Corruption
from training.config.objective import CorruptionKind
from training.corruption import augment, corrupt, gallery, identity, mask, other_index
from training.corruption.crop import ASPECT, crop_box
from training.errors import DataError

sides = st.integers(2, 4000)
sizes = st.tuples(st.integers(1, 60), st.integers(1, 60))
#: ``clip_mask`` needs a model and has its own file; ``other`` and ``data`` are pictures that only the dataset has.
KINDS = ("crop", "black", "gaussian", "diffusion", "block_mask", "augment")
RANDOM_KINDS = tuple(kind for kind in KINDS if kind != "black")


def kind(name: str, **options: Any) -> Corruption:
    return Corruption.model_validate({"kind": name, **options})


def waves(width: int, height: int) -> Image.Image:
    """A picture without two equal regions; no pixel is 0, so what is 0 afterwards was blackened."""
    y, x = np.mgrid[:height, :width]
    channels = np.stack([x * 2 % 250, y * 4 % 250, x * y % 250], -1) + 1
    return Image.fromarray(channels.astype(np.uint8))


def correlation(first: Image.Image, other: Image.Image) -> float:
    return float(np.corrcoef(np.asarray(first, float).ravel(), np.asarray(other, float).ravel())[0, 1])


# Every kind


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None)
@given(size=sizes, seed=st.integers(0, 2**63), pair=st.text(max_size=20), index=st.integers(0, 5))
def test_size_and_mode_stay_and_the_same_call_gives_the_same_pixels(
    name: str, size: tuple[int, int], seed: int, pair: str, index: int
) -> None:
    image = waves(*size)
    first = corrupt(image, kind(name), seed, pair, index)
    assert (first.size, first.mode) == (size, "RGB")
    assert first.tobytes() == corrupt(image, kind(name), seed, pair, index).tobytes()


@pytest.mark.parametrize("name", RANDOM_KINDS)
def test_another_seed_pair_or_index_gives_other_pixels(name: str) -> None:
    variants = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    assert len({corrupt(waves(96, 64), kind(name), *variant).tobytes() for variant in variants}) == 4


@pytest.mark.parametrize("name", KINDS)
def test_the_original_and_every_global_generator_are_left_alone(name: str) -> None:
    image, states = waves(96, 64), (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state())
    corrupt(image, kind(name), 0, "a")
    assert image.tobytes() == waves(96, 64).tobytes()
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tobytes() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize("name", KINDS)
def test_global_seeds_have_no_say(name: str) -> None:
    seen = set()
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        seen.add(corrupt(waves(96, 64), kind(name), 3, "a").tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["other", "data"])
def test_a_picture_of_the_dataset_is_the_callers_to_choose(name: str) -> None:
    with pytest.raises(ValueError, match=f"corruption.kind={name} takes a picture of the dataset"):
        corrupt(waves(9, 9), kind(name), 0, "a")


def test_an_image_that_is_not_rgb_is_refused() -> None:
    with pytest.raises(ValueError, match="pair a, image 2: mode is L; convert it to RGB"):
        corrupt(Image.new("L", (9, 9)), kind("gaussian"), 0, "a", 2)


def test_without_a_clip_model_the_pixels_depend_on_the_code_alone() -> None:
    assert {identity(kind(name)) for name in KINDS} == {"1"}


# Crop


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


@pytest.mark.parametrize(
    ("where", "digest"), [((0, "a", 0), "dccc76ff6ce914dc"), ((7, "pair-3", 2), "859a20099efa2476")]
)
def test_the_default_crop_has_the_pixels_it_always_had(where: tuple[int, str, int], digest: str) -> None:
    y, x = np.mgrid[:64, :96]
    image = Image.fromarray(np.stack([x * 2, y * 4, x * y % 256], -1).astype(np.uint8))
    assert hashlib.sha256(corrupt(image, Corruption(), *where).tobytes()).hexdigest()[:16] == digest


def test_keep_area_decides_how_much_of_the_picture_is_left() -> None:
    wide = Image.linear_gradient("L").convert("RGB")  # its range of grey is the height that was kept
    for low, high in ((0.01, 0.02), (0.2, 0.25), (0.999, 1.0)):
        kept = np.ptp(np.asarray(corrupt(wide, kind("crop", keep_area=(low, high)), 0, "a"))) / 255
        assert 0.85 * (low * 3 / 4) ** 0.5 <= kept <= min(1, 1.05 * (high * 4 / 3) ** 0.5)


# Noise


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 0.1), st.integers(0, 2**32))
def test_gaussian_noise_has_mean_0_and_the_stated_deviation(strength: float, seed: int) -> None:
    grey = Image.new("RGB", (64, 48), (128, 128, 128))
    added = np.asarray(corrupt(grey, kind("gaussian", strength=strength), seed, "a"), float) / 255 - 128 / 255
    assert added.std() == pytest.approx(strength, rel=0.05)
    assert abs(added.mean()) < 5 * strength / 96  # five standard errors


def test_gaussian_noise_of_the_default_strength_leaves_almost_nothing() -> None:
    noised = corrupt(waves(96, 64), kind("gaussian"), 0, "a")
    assert noised.tobytes() == corrupt(waves(96, 64), kind("gaussian", strength=1.0), 0, "a").tobytes()
    assert correlation(noised, waves(96, 64)) < 0.35
    assert np.isin(np.asarray(noised), (0, 255)).mean() > 0.5  # clipped


@pytest.mark.parametrize("name", ["gaussian", "diffusion"])
def test_each_channel_has_its_own_noise(name: str) -> None:
    noised = np.asarray(corrupt(Image.new("RGB", (64, 64), (128, 128, 128)), kind(name), 0, "a"), float)
    assert abs(np.corrcoef(noised.reshape(-1, 3).T)[0, 1]) < 0.1


def test_alpha_bar_is_the_product_of_the_ddpm_schedule() -> None:
    kept = 1.0
    for step in range(1, 1001):
        kept *= 1 - (1e-4 + (0.02 - 1e-4) * (step - 1) / 999)
        assert noise.signal(step) == pytest.approx(kept, rel=1e-9)


def test_diffusion_goes_from_almost_the_image_to_almost_noise() -> None:
    image = waves(96, 64)
    alike = [correlation(image, corrupt(image, kind("diffusion", steps=t), 0, "a")) for t in (1, 100, 300, 500, 1000)]
    assert alike == sorted(alike, reverse=True)
    assert alike[0] > 0.999
    assert abs(alike[-1]) < 0.05


def test_diffusion_mixes_picture_and_noise_with_the_roots_of_alpha_bar() -> None:
    bright = Image.new("RGB", (96, 96), (166, 166, 166))  # 0.3 on -1..1, so at step 50 nothing is clipped
    pixels = np.asarray(corrupt(bright, kind("diffusion", steps=50), 0, "a"), float) / 127.5 - 1
    assert pixels.mean() == pytest.approx(0.302 * noise.signal(50) ** 0.5, abs=0.01)
    assert pixels.std() == pytest.approx((1 - noise.signal(50)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("size", [(1344, 1008), (500, 1200)])
def test_noise_on_a_large_picture_outlives_being_shrunk_to_what_a_model_sees(size: tuple[int, int]) -> None:
    noised = corrupt(Image.new("RGB", size, (128, 128, 128)), kind("gaussian", strength=0.1), 0, "a")
    assert np.asarray(noised, float).std() / 255 == pytest.approx(0.1, rel=0.05)
    noised.thumbnail((336, 336), Image.Resampling.BOX)
    assert np.asarray(noised, float).std() / 255 > 0.06  # noise of its own in every pixel would leave 0.03


# Masks


def test_black_is_black() -> None:
    assert not np.asarray(corrupt(waves(31, 17), kind("black"), 0, "a")).any()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.001, 1.0), st.integers(0, 2**32))
def test_block_mask_blackens_exactly_its_share_of_the_64_squares(
    across: int, down: int, share: float, seed: int
) -> None:
    image = waves(8 * across, 8 * down)
    masked = np.asarray(corrupt(image, kind("block_mask", strength=share), seed, "a"))
    squares = masked.reshape(8, down, 8, across, 3)
    gone = (squares == 0).all(axis=(1, 3, 4))
    assert gone.sum() == (64 if share >= 1 else min(max(round(64 * share), 1), 63))
    assert (masked[masked > 0] == np.asarray(image)[masked > 0]).all()
    assert ((squares == 0).any(axis=(1, 3, 4)) == gone).all()  # nothing outside the chosen squares


@given(sizes, st.integers(0, 2**32))
def test_block_mask_takes_and_leaves_something_on_any_size(size: tuple[int, int], seed: int) -> None:
    masked = np.asarray(corrupt(waves(*size), kind("block_mask", strength=0.999), seed, "a"))
    assert (masked == 0).any()
    assert masked.any() or size == (1, 1)


def test_block_mask_takes_half_by_default_and_every_square_at_times() -> None:
    images = [np.asarray(corrupt(waves(64, 64), kind("block_mask"), seed, "a")) for seed in range(40)]
    assert {float((image == 0).mean()) for image in images} == {0.5}
    often = np.mean([image[::8, ::8, 0] == 0 for image in images], axis=0)
    assert often.min() > 0.1 and often.max() < 0.9


@given(sizes, st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)), st.floats(0.0001, 1), st.floats(0.0001, 1))
def test_a_blackened_rectangle_is_the_stated_one_to_the_pixel(
    size: tuple[int, int], corner: tuple[float, float], across: float, down: float
) -> None:
    left, top = corner
    right, bottom = min(left + across, 1), min(top + down, 1)
    gone = (np.asarray(mask.blacken(waves(*size), (left, top, right, bottom))) == 0).all(axis=2)
    rows, columns = np.flatnonzero(gone.any(axis=1)), np.flatnonzero(gone.any(axis=0))
    assert gone.sum() == len(rows) * len(columns) > 0
    assert abs(len(columns) - (right - left) * size[0]) <= 1
    assert abs(len(rows) - (bottom - top) * size[1]) <= 1


# Augmentation


def test_augment_greys_a_fifth_mirrors_half_and_keeps_the_colours_of_a_fifth() -> None:
    """On two flat halves the crop changes no colour inside a half, so grey, mirror and jitter can be read off."""
    image = Image.new("RGB", (64, 64), (200, 40, 40))
    image.paste((40, 40, 200), (32, 0, 64, 64))
    grey, kept, mirrored, both = 0, 0, 0, 0
    for seed in range(400):
        pixels = np.asarray(corrupt(image, kind("augment"), seed, "a"), int)
        left, right = pixels[32, 0], pixels[32, -1]
        grey += bool((pixels.max(axis=2) == pixels.min(axis=2)).all())
        colours = {tuple(left), tuple(right)}
        kept += colours <= {(200, 40, 40), (40, 40, 200)}
        if colours == {(200, 40, 40), (40, 40, 200)}:
            both += 1
            mirrored += tuple(left) == (40, 40, 200)
    assert 0.13 < grey / 400 < 0.28
    assert 0.08 < kept / 400 < 0.24  # neither jittered (0.2) nor grey (0.8)
    assert 0.3 < mirrored / both < 0.7


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Switch off every part of the augmentation, except those whose value is given."""

    def only(**values: float) -> None:
        off = dict.fromkeys(("JITTER", "HUE", "GREY_SHARE", "BLUR_SHARE", "FLIP_SHARE"), 0.0)
        for name, value in {**off, "JITTER_SHARE": 1.0, **values}.items():
            monkeypatch.setattr(augment, name, value)

    return only


def test_augment_keeps_20_to_100_percent_of_the_area(only: Callable[..., None]) -> None:
    only()
    gradient = Image.linear_gradient("L").convert("RGB")  # its range of grey is the height that was kept
    kept = [np.ptp(np.asarray(corrupt(gradient, kind("augment"), seed, "a"))) / 255 for seed in range(200)]
    assert (0.2 * 3 / 4) ** 0.5 - 0.02 <= min(kept) < 0.5
    assert max(kept) > 0.98


def test_augment_turns_the_hue_by_a_tenth_either_way_at_most(only: Callable[..., None]) -> None:
    only(HUE=augment.HUE)
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    turned = [corrupt(red, kind("augment"), seed, "a").convert("HSV").getpixel((0, 0))[0] / 256 for seed in range(200)]
    turns = [turn - (turn > 0.5) for turn in turned]
    assert -0.105 < min(turns) < -0.08
    assert 0.08 < max(turns) < 0.105


def test_augment_scales_brightness_by_six_to_fourteen_tenths(only: Callable[..., None]) -> None:
    only(JITTER=augment.JITTER)
    grey = Image.new("RGB", (8, 8), (100, 100, 100))  # contrast and saturation leave a flat grey alone
    seen = [corrupt(grey, kind("augment"), seed, "a").getpixel((0, 0))[0] for seed in range(200)]
    assert 59 <= min(seen) < 65
    assert 135 < max(seen) <= 141


@pytest.mark.parametrize(("side", "factor"), [(64, 1), (224, 1), (448, 2)])
def test_augment_blurs_half_of_the_pictures_by_a_sigma_that_grows_with_large_ones(
    side: int, factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sigmas: list[float] = []

    def record(sigma: float) -> ImageFilter.Filter:
        sigmas.append(sigma)
        return ImageFilter.BoxBlur(0)

    monkeypatch.setattr(augment.ImageFilter, "GaussianBlur", record)
    for seed in range(100):
        corrupt(Image.new("RGB", (side, side + 8)), kind("augment"), seed, "a")
    assert 35 < len(sigmas) < 65
    assert 0.1 * factor <= min(sigmas) < 0.4 * factor
    assert 1.7 * factor < max(sigmas) <= 2 * factor


def test_augment_blurs_as_strongly_as_it_says() -> None:
    board = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    contrast = [float(np.asarray(corrupt(board, kind("augment"), seed, "a"), float).std()) for seed in range(60)]
    assert min(contrast) < 10  # a sigma of 2 pixels leaves nothing of squares of 1
    assert max(contrast) > 60


# Other


@settings(deadline=None)
@given(st.integers(2, 60), st.data())
def test_attempts_name_every_other_pair_once_and_never_its_own(count: int, data: st.DataObject) -> None:
    pair_image = data.draw(st.integers(0, count - 1))
    seed, pair = data.draw(st.integers(0, 2**32)), data.draw(st.text(max_size=5))
    tried = [other_index(seed, pair, 0, count, pair_image, attempt) for attempt in range(count - 1)]
    assert sorted(tried) == [i for i in range(count) if i != pair_image]
    assert tried == [other_index(seed, pair, 0, count, pair_image, attempt) for attempt in range(count - 1)]
    with pytest.raises(DataError, match=r"image 0: every other pair shows the same picture.*choose another kind"):
        other_index(seed, pair, 0, count, pair_image, count - 1)


def test_the_other_pair_is_drawn_evenly_and_depends_on_seed_pair_and_index() -> None:
    drawn = [other_index(0, str(pair), 0, 11, row=5) for pair in range(2000)]
    often = np.bincount(drawn, minlength=11)
    assert often[5] == 0
    assert all(140 < often[i] < 260 for i in range(11) if i != 5)
    assert len({other_index(*where, count=10**6, row=0) for where in [(0, "a", 0), (1, "a", 0), (0, "a", 1)]}) == 3


def test_a_dataset_of_one_pair_has_no_other_image() -> None:
    with pytest.raises(DataError, match="there is no other pair"):
        other_index(0, "a", 0, count=1, row=0)


# The picture of the documentation


def test_the_gallery_shows_every_kind_that_needs_no_column_of_the_dataset() -> None:
    kinds = {config.kind for _, config in gallery.PANELS}
    assert kinds == set(get_args(CorruptionKind)) - {"data"}
