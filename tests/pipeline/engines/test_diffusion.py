"""Images by diffusion: how a pipeline is asked and read, with one made up; and a tiny real one, where diffusers is."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.errors import EngineError
from pipeline.engines import diffusion
from pipeline.engines.diffusion import DiffusersPainter, OpenDiffusers, batches
from pipeline.engines.painter import Wish


class Pipe:
    """Noise from each image's own generator, scaled by the guidance. Breaks at "break", is alarmed by "unsafe", and
    overflows at "blank"."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **options: Any) -> Any:
        import torch

        self.calls.append(options)
        if "break" in options["prompt"]:
            raise RuntimeError("out of\nmemory")
        images = []
        for text, generator in zip(options["prompt"], options["generator"], strict=True):
            noise = torch.rand(8, 8, 3, generator=generator).numpy() * options["guidance_scale"] * 20
            images.append(Image.fromarray((noise * (text not in ("blank", "unsafe"))).astype(np.uint8)))
        return SimpleNamespace(images=images, nsfw_content_detected=[text == "unsafe" for text in options["prompt"]])


def paint(wishes: list[Wish], **options: Any) -> tuple[list[Any], Pipe]:
    pipe = Pipe()
    return list(DiffusersPainter(pipe, OpenDiffusers("m", **options)).paint(wishes)), pipe


@given(st.lists(st.sampled_from([5.0, 7.0, 9.0]), max_size=20), st.integers(1, 5))
def test_batches_hold_every_image_once_and_one_guidance_scale_each(guidance: list[float], size: int) -> None:
    parts = batches(guidance, size)
    assert sorted(at for batch in parts for at in batch) == list(range(len(guidance)))
    assert all(len(batch) <= size and len({guidance[at] for at in batch}) == 1 for batch in parts)


def test_an_image_is_the_same_in_any_batch() -> None:
    wishes = [Wish(f"text {n}", n, (5.0, 9.0)[n % 2]) for n in range(7)]
    (alone, first), (four, _) = (paint(wishes, batch_size=size) for size in (1, 4))
    assert [picture.bytes for picture in alone] == [picture.bytes for picture in four]
    assert len({picture.bytes for picture in alone}) == 7 and len(first.calls) == 7
    assert all(Image.open(io.BytesIO(picture.bytes)).format == "PNG" for picture in alone)


def test_what_the_safety_checker_blacked_out_is_a_failure_and_so_is_a_blank_image() -> None:
    (good, unsafe, blank), _ = paint([Wish(text, 1, 5.0) for text in ("a", "unsafe", "blank")])
    assert good.error_type is None and good.bytes
    assert (unsafe.error_type, unsafe.bytes, blank.error_type, blank.bytes) == (
        "unsafe_image",
        None,
        "blank_image",
        None,
    )


def test_a_pipeline_without_a_safety_checker_is_believed() -> None:
    pipe = Pipe()
    silent = DiffusersPainter(
        lambda **options: SimpleNamespace(images=pipe(**options).images),
        OpenDiffusers("m"),  # type: ignore[arg-type]
    )
    assert next(iter(silent.paint([Wish("a", 1, 5.0)]))).bytes


def test_an_image_that_breaks_its_batch_fails_alone() -> None:
    pictures, _ = paint([Wish(text, 1, 5.0) for text in ("a", "break", "b")])
    assert [picture.error_type for picture in pictures] == [None, "RuntimeError", None]
    assert pictures[1].error == "out of memory"


def test_only_what_the_recipe_says_is_passed_on() -> None:
    _, plain = paint([Wish("a", 1, 5.0)], steps=3)
    (call,) = plain.calls
    assert call["num_inference_steps"] == 3 and call["guidance_scale"] == 5.0
    assert not {"negative_prompt", "width", "height"} & set(call)
    _, full = paint([Wish("a", 1, 5.0)], negative_prompt="blurry", size=(64, 32))
    assert {"negative_prompt": "blurry", "width": 64, "height": 32}.items() <= full.calls[0].items()


def folder(path: Path) -> Path:
    for part in ("unet", "vae"):
        (path / part).mkdir(parents=True)
        (path / part / "config.json").write_text("{}")
    (path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return path


def test_the_identity_of_a_pipeline_is_that_of_all_its_parts(tmp_path: Path) -> None:
    first, other = folder(tmp_path / "one"), folder(tmp_path / "other")
    assert diffusion.identity(str(first)) == diffusion.identity(str(other))
    (other / "unet" / "config.json").write_text('{"changed": 1}')
    assert diffusion.identity(str(first)) != diffusion.identity(str(other))
    assert diffusion.identity("org/model", "v2") == "org/model@v2"
    with pytest.raises(EngineError, match=r"model_index\.json"):
        diffusion.identity(str(first / "unet"))


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    diffusion.refuse_code(str(path))
    (path / "unet" / "mine.py").write_text("raise SystemExit")
    with pytest.raises(EngineError, match=r"code of its own \(mine\.py\)"):
        diffusion.refuse_code(str(path))


def tiny(path: Path) -> Path:
    """A Stable Diffusion pipeline of random weights that draws 16 x 16 pixels."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (path / "words").mkdir(parents=True)
    (path / "words" / "vocab.json").write_text(json.dumps({word: at for at, word in enumerate(words)}))
    (path / "words" / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(path / "words" / "vocab.json"), str(path / "words" / "merges.txt"), model_max_length=16
    )
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=16,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    shared: dict[str, Any] = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(
            latent_channels=4,
            sample_size=16,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            **shared,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
            **shared,
        ),
        scheduler=DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(path / "model", safe_serialization=True)
    return path / "model"


def test_a_real_pipeline_draws_the_same_image_for_the_same_wish_alone(tmp_path: Path) -> None:
    painter = OpenDiffusers(str(tiny(tmp_path)), steps=2, size=(16, 16))()
    wish, other = Wish("a red sun", 7, 5.0), Wish("a blue cup", 8, 5.0)
    (alone,) = painter.paint([wish])
    beside, between, guided, reseeded = painter.paint(
        [other, wish, Wish("a red sun", 7, 9.0), Wish("a red sun", 9, 5.0)]
    )
    pixels = [
        np.asarray(Image.open(io.BytesIO(picture.bytes or b""))).astype(int)
        for picture in (alone, between, beside, guided, reseeded)
    ]
    assert all(array.shape == (16, 16, 3) for array in pixels)
    assert np.abs(pixels[0] - pixels[1]).max() <= 1  # the last bit may depend on the batch
    assert all(np.abs(pixels[0] - array).max() > 1 for array in pixels[2:])


def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(EngineError, match=r"pip install -e '\.\[imagine\]'"):
        OpenDiffusers(str(folder(tmp_path / "model")))()


def test_a_folder_that_is_no_pipeline_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="save_pretrained"):
        OpenDiffusers(str(tmp_path))()
