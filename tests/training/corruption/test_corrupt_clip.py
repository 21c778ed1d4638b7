"""The mask of PEA-DPO: of several random ones, the one that leaves the picture least like the text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.model_names import BUILT_IN
from pipeline.scenes import grammar, raster
from pipeline.scenes.world import Scene, scene
from training.config import Corruption
from training.corruption import clip_mask, corrupt, identity
from training.corruption.mask import blacken
from training.errors import DataError, ModelError

CONFIG = Corruption(kind="clip_mask", clip_model="scenes-clip")
HELD_OUT = 20_000


def caption(shown: Scene) -> str:
    return grammar.describe(grammar.reading_order(shown), random.Random(0))


class Scorer:
    """Gives the similarities it was told, and remembers what it was asked."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.calls = list(scores), list[tuple[str, list[Image.Image], str]]()

    def __call__(self, model: str, pictures: Sequence[Image.Image], text: str) -> list[float]:
        self.calls.append((model, list(pictures), text))
        return self.scores


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> type[Scorer]:
    class Told(Scorer):
        def __init__(self, *scores: float) -> None:
            super().__init__(*scores)
            monkeypatch.setattr(clip_mask, "similarities", self)

    return Told


@pytest.mark.parametrize("lowest", range(4))
def test_the_least_similar_candidate_is_taken(told: type[Scorer], lowest: int) -> None:
    scorer = told(*(0.1 if i == lowest else 0.1 + (i + 1) / 10 for i in range(4)))
    config = CONFIG.model_copy(update={"candidates": 4})
    chosen = corrupt(Image.new("RGB", (96, 64), "white"), config, 0, "a", 0, "a red sun")
    ((model, pictures, text),) = scorer.calls
    assert (model, len(pictures), text) == ("scenes-clip", 4, "a red sun")
    assert chosen.tobytes() == pictures[lowest].tobytes()
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_negative_similarities_count_as_lower_and_of_equals_the_first_is_taken(told: type[Scorer]) -> None:
    scorer = told(0.0, -0.5, -0.5, 0.3)
    config = CONFIG.model_copy(update={"candidates": 4})
    chosen = corrupt(Image.new("RGB", (96, 64), "white"), config, 0, "a", 0, "text")
    assert chosen.tobytes() == scorer.calls[0][1][1].tobytes()


@settings(max_examples=50, deadline=None)
@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), st.floats(0.01, 1.5), st.integers(0, 2**32))
def test_a_mask_lies_inside_and_has_the_stated_share_of_the_area(
    size: tuple[int, int], share: float, seed: int
) -> None:
    for left, top, right, bottom in clip_mask.masks(size, share, 5, np.random.default_rng(seed)):
        assert 0 <= left < right <= 1 + 1e-9
        assert 0 <= top < bottom <= 1 + 1e-9
        assert (right - left) * (bottom - top) == pytest.approx(min(share, 1))


def test_by_default_there_are_30_candidates_of_9_percent(told: type[Scorer]) -> None:
    scorer = told(*range(30))
    masked = np.asarray(corrupt(Image.new("RGB", (400, 300), "white"), CONFIG, 0, "a", 0, "text"))
    assert len(scorer.calls[0][1]) == 30
    assert (masked == 0).mean() == pytest.approx(0.09, rel=0.02)
    assert set(np.unique(masked)) == {0, 255}


def test_a_large_picture_is_compared_small_and_masked_in_full(told: type[Scorer]) -> None:
    scorer = told(*range(30))
    masked = corrupt(Image.new("RGB", (2000, 1000), "white"), CONFIG, 0, "a", 0, "text")
    assert {picture.size for picture in scorer.calls[0][1]} == {(512, 256)}
    assert masked.size == (2000, 1000)
    small = np.asarray(masked.resize((512, 256)), int)
    assert np.abs(small - np.asarray(scorer.calls[0][1][0], int)).mean() < 3  # the same place
    assert (np.asarray(masked) == 0).mean() == pytest.approx(0.09, rel=0.01)


@pytest.mark.parametrize("text", ["", " \n"])
def test_without_a_text_there_is_nothing_to_compare_with(text: str) -> None:
    with pytest.raises(DataError, match=r"pair a, image 2: .*chosen response, and that has no text"):
        corrupt(Image.new("RGB", (9, 9)), CONFIG, 0, "a", 2, text)


def test_without_a_model_the_error_names_the_key() -> None:
    with pytest.raises(ValueError, match=r"needs corruption\.clip_model, for instance scenes-clip"):
        corrupt(Image.new("RGB", (9, 9)), Corruption(kind="clip_mask"), 0, "a", 0, "text")


@pytest.mark.parametrize("model", ["./no-such-folder", "ViT-B-32", "scenes-clop"])
def test_a_model_that_cannot_be_opened_names_the_key_and_the_forms_it_takes(model: str) -> None:
    with pytest.raises(ModelError, match=rf"corruption\.clip_model='{model}': .*; it takes scenes-clip, a folder"):
        identity(CONFIG.model_copy(update={"clip_model": model}))


def test_broken_weights_are_a_model_error(tmp_path: Path) -> None:
    for file in BUILT_IN["scenes-clip"].iterdir():
        (tmp_path / file.name).write_bytes(b"nothing" if file.suffix == ".safetensors" else file.read_bytes())
    config = CONFIG.model_copy(update={"clip_model": str(tmp_path)})
    with pytest.raises(ModelError, match=r"corruption\.clip_model=.* cannot be used"):
        corrupt(Image.new("RGB", (9, 9)), config, 0, "a", 0, "text")


def test_an_architecture_carries_its_pretrained_tag_after_an_at() -> None:
    assert identity(CONFIG.model_copy(update={"clip_model": "ViT-B-32@openai"})) == "1:2:ViT-B-32@openai"


def test_the_identity_follows_the_content_of_the_model(tmp_path: Path) -> None:
    for name, weights in (("one", b"1"), ("same", b"1"), ("other", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "open_clip_config.json").write_text("{}")
        (tmp_path / name / "open_clip_model.safetensors").write_bytes(weights)
    first, same, other = (
        identity(CONFIG.model_copy(update={"clip_model": str(tmp_path / name)})) for name in ("one", "same", "other")
    )
    assert first == same != other


# With the CLIP model that ships with the package


@pytest.mark.parametrize("index", range(3))
def test_the_chosen_mask_is_less_like_the_caption_than_random_masks_are(index: int) -> None:
    shown = scene(HELD_OUT, index)
    image, text = Image.fromarray(raster.pixels(shown)), caption(shown)
    chosen = corrupt(image, CONFIG, 0, str(index), 0, text)
    boxes = clip_mask.masks(image.size, 0.09, 30, np.random.default_rng(0))
    scores = clip_mask.similarities("scenes-clip", [chosen, *(blacken(image, box) for box in boxes)], text)
    assert scores[0] < np.mean(scores[1:])
    assert scores[0] <= np.quantile(scores[1:], 0.2)
    assert chosen.tobytes() == corrupt(image, CONFIG, 0, str(index), 0, text).tobytes()


def test_another_text_can_be_hidden_by_another_mask() -> None:
    shown = scene(HELD_OUT, 0)
    image = Image.fromarray(raster.pixels(shown))
    texts = [f"There is {entry.phrase}." for entry in grammar.reading_order(shown)] + ["There is a blue anchor."]
    assert len({corrupt(image, CONFIG, 0, "a", 0, text).tobytes() for text in texts}) > 1


def test_similarities_are_those_of_the_pictures_one_by_one() -> None:
    pictures = [Image.fromarray(raster.pixels(scene(HELD_OUT, i))) for i in range(3)]
    together = clip_mask.similarities("scenes-clip", pictures, "There is a red sun.")
    alone = [clip_mask.similarities("scenes-clip", [picture], "There is a red sun.")[0] for picture in pictures]
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_model_is_loaded_once_per_process() -> None:
    assert clip_mask._scorer("scenes-clip") is clip_mask._scorer("scenes-clip")
