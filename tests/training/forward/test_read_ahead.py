"""Images read ahead in threads, and decoded once for all views of them: the same pixels, the same training."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from training import formats
from training.config import Corruption, TrainConfig
from training.data import pairs as pairs_module
from training.data.dataset import prepare
from training.data.pairs import PairDataset
from training.data.schedule import Pass
from training.errors import DataError
from training.forward import views as views_module
from training.forward.batch import collate, views
from training.forward.policy import image_threads
from training.forward.read_ahead import ReadAhead
from training.forward.views import read_views
from training.loop.trainer import train

Configure = Callable[..., TrainConfig]
ALL = ("chosen", "rejected", "corrupted")
PASSES = [Pass([0, 1, 2], True), Pass([3, 4], True), Pass([5, 0], True), Pass([6, 7], True)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Names of rows as their images are decoded, and of the threads that do it."""
    calls: list[tuple[str, str]] = []
    real = pairs_module.decode

    def decode(item: Any, name: str, *rest: Any) -> Image.Image:
        calls.append((name, threading.current_thread().name))
        return real(item, name, *rest)

    monkeypatch.setattr(pairs_module, "decode", decode)
    return calls


@pytest.fixture
def ahead() -> Any:
    reader = ReadAhead(threads=2)
    yield reader
    reader.close()


def same(first: Any, other: Any) -> bool:
    return first.keys() == other.keys() and all(
        torch.equal(first[key][name], other[key][name]) for key in first for name in first[key]
    )


def images(batch: Any) -> dict[str, Any]:
    return dict(zip(batch.image_keys, batch.images, strict=True))


@pytest.mark.parametrize("kind", ["crop", "diffusion", "other"])
def test_an_image_is_decoded_once_for_both_of_its_views(
    kind: str, pairs: PairDataset, decoded: list[tuple[str, str]]
) -> None:
    pairs = replace(pairs, corruption=Corruption(kind=kind))
    wanted = views(pairs, range(4), ALL)
    decoded.clear()
    once = read_views(pairs, wanted)
    times = len(decoded)
    naive = read_views(pairs, wanted, decode_once=False)
    assert same(once, naive) and len(once) == 8
    # Another pair's picture is another original.
    assert (times, len(decoded) - times) == ((8, 8) if kind == "other" else (4, 8))


def test_a_view_that_is_drawn_from_another_picture_would_show(
    pairs: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: the comparison above sees which picture a view is drawn from."""
    wanted = views(pairs, range(4), ALL)
    naive = read_views(pairs, wanted, decode_once=False)
    mixed = {key: replace(view, original="the same") for key, view in wanted.items()}
    assert not same(read_views(pairs, mixed), naive)


def test_what_is_read_ahead_is_what_is_read_and_the_next_pass_is_read_meanwhile(
    pairs: PairDataset, decoded: list[tuple[str, str]], ahead: ReadAhead
) -> None:
    expected = [images(collate(pairs, indices, ALL)) for indices, _ in PASSES]
    decoded.clear()
    for number, (indices, _) in enumerate(ahead.over(pairs, PASSES, ALL)):
        if number + 1 < len(PASSES):  # as soon as this one is given out
            coming = views(pairs, PASSES[number + 1].indices, ALL)
            assert coming.keys() <= ahead._reading.keys()
        assert same(images(collate(pairs, indices, ALL, read=ahead.read)), expected[number])
    assert all(thread.startswith("images") for _, thread in decoded)
    # Eight pictures: that of the first pass is still there when the third, which shows it again, is the next.
    assert len(decoded) == 8


def test_what_two_neighbours_show_is_read_once(
    pairs: PairDataset, decoded: list[tuple[str, str]], ahead: ReadAhead
) -> None:
    share = [Pass([0, 1], True), Pass([1, 2], True)]
    for indices, _ in ahead.over(pairs, share, ALL, then=lambda: [Pass([2, 3], True)]):
        collate(pairs, indices, ALL, read=ahead.read)
    for indices, _ in ahead.over(pairs, [Pass([2, 3], True)], ALL):
        collate(pairs, indices, ALL, read=ahead.read)
    assert len(decoded) == 4


def test_images_whose_features_are_known_are_not_read(
    pairs: PairDataset, decoded: list[tuple[str, str]], ahead: ReadAhead
) -> None:
    known = dict.fromkeys(views(pairs, [0, 1], ALL))
    for indices, _ in ahead.over(pairs, [Pass([0, 1], True)], ALL, known):
        assert all(image is None for image in collate(pairs, indices, ALL, known, read=ahead.read).images)
    assert decoded == []


def test_an_image_that_cannot_be_read_is_told_where_it_is_wanted(
    pairs: PairDataset, ahead: ReadAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: PairDataset, pair: Any, index: int) -> Image.Image:
        if pair.row == 3:
            raise DataError(f"{pair.name}: image {index} cannot be read")
        return Image.new("RGB", (40, 36))

    monkeypatch.setattr(PairDataset, "image", broken)
    reads = ahead.over(pairs, PASSES, ("chosen",))
    collate(pairs, next(reads).indices, ("chosen",), read=ahead.read)
    with pytest.raises(DataError, match="row 3"):
        collate(pairs, next(reads).indices, ("chosen",), read=ahead.read)


def test_code_that_is_not_ours_is_called_by_the_trainers_own_thread(
    pairs: PairDataset, decoded: list[tuple[str, str]], ahead: ReadAhead
) -> None:
    pairs = replace(pairs, corruption=Corruption(kind="clip_mask", clip_model="scenes-clip"))
    for _ in ahead.over(pairs, PASSES, ("chosen",)):
        pass
    assert not ahead._reading


def test_training_with_threads_logs_and_ends_as_without_to_the_last_bit(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def logged(name: str, **options: Any) -> list[dict[str, float]]:
        config = configure(output_dir=tmp_path / name, eval_dataset=configure().dataset, eval_steps=2, **options)
        train(config)
        lines = (config.output_dir / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines]

    plain, threaded = logged("plain", image_threads=0), logged("threads", image_threads=2)
    assert plain == threaded
    # With another pair's pictures it would show.
    real = views_module.read_views

    def shifted(dataset: PairDataset, wanted: Any, decode_once: bool = True) -> Any:
        read = real(dataset, wanted, decode_once)
        return dict(zip(read, [*list(read.values())[1:], *list(read.values())[:1]], strict=True))

    monkeypatch.setattr("training.forward.read_ahead.read_views", shifted)
    assert logged("shifted", image_threads=2, cache_reference=False)[0]["logps/chosen"] != plain[0]["logps/chosen"]


def test_threads_are_for_gpus_unless_they_are_set(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16))
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert (image_threads(configure(), cuda), image_threads(configure(), cpu)) == (8, 0)
    assert image_threads(configure(workers=4), cuda) == 3
    assert [image_threads(configure(image_threads=threads), cpu) for threads in (0, 3)] == [0, 3]


def test_for_a_gpu_pixels_lie_where_it_copies_from(pairs: PairDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: Sequence[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)  # type: ignore[attr-defined]
    reader = ReadAhead(threads=1, pin=True)
    (this,) = reader.over(pairs, [Pass([0, 1], True)], ALL)
    reader.read(pairs, views(pairs, this.indices, ALL))
    reader.close()
    assert len(pinned) == 4


def test_prepared_pairs_are_shown_the_same_way(configure: Configure, processor: Any) -> None:
    config = configure(objective="dpo")
    dataset = prepare(formats.open(config.dataset), processor, config)
    assert list(views(dataset, range(8), ("chosen", "rejected"))) == [pair.prompt.images[0] for pair in dataset.pairs]
