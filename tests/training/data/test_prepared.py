"""Pairs that are kept in a file are the pairs, and whatever changes them has another file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image
from transformers import AutoProcessor

from pipeline.base.model_names import BUILT_IN
from training import formats
from training.config import TrainConfig
from training.data import dataset as dataset_module
from training.data import prepared
from training.data.dataset import prepare
from training.data.identity import rows_of
from training.data.pairs import Pair, PairDataset, Skipped
from training.errors import DataError
from training.loop import inputs
from training.loop.trainer import train
from training.loop.worker import this_worker

Configure = Callable[..., TrainConfig]


def read(config: TrainConfig, processor: Any) -> inputs.Inputs:
    return inputs.read(config, processor, 128, visible=False, worker=this_worker())


def kept(config: TrainConfig) -> list[Path]:
    return sorted(Path(f"{config.dataset}-reference").glob("*.pairs"))


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows are tokenised."""
    calls: list[int] = []
    real = dataset_module._Reader.pairs

    def pairs(self: Any) -> Iterator[Any]:
        for pair in real(self):
            calls.append(1)
            yield pair

    monkeypatch.setattr(dataset_module._Reader, "pairs", pairs)
    return calls


@pytest.fixture
def here(configure: Configure, rows: list[dict[str, Any]], publish: Callable[..., Any], tmp_path: Path) -> Configure:
    """A dataset of its own, beside which nothing has been kept yet."""
    publish(rows).save_to_disk(str(tmp_path / "data" / "pairs"))
    return lambda **changes: configure(**{"dataset": str(tmp_path / "data" / "pairs"), **changes})


@pytest.mark.parametrize("options", [{}, {"objective": "dpo"}, {"corruption": {"kind": "other"}}, {"limit": 3}])
def test_what_was_kept_is_what_was_tokenised(
    here: Configure, processor: Any, anew: list[int], options: dict[str, Any]
) -> None:
    config = here(**options)
    first, tokenised = read(config, processor).train, len(anew)
    again = read(config, processor).train
    plain = prepare(formats.open(config.dataset), processor, config, 128)
    assert tokenised == 8 and len(anew) == 16  # the last eight are those of the plain way
    for dataset in (first, again):
        assert list(dataset.pairs) == list(plain.pairs)
        assert rows_of(dataset) == rows_of(plain)
        assert dataset.pairs[-1] == plain.pairs[-1] and tuple(dataset.pairs[1:3]) == tuple(plain.pairs[1:3])
    with pytest.raises(IndexError):
        again.pairs[len(plain.pairs)]


def test_skipped_rows_are_kept_with_their_reasons(here: Configure, processor: Any, anew: list[int]) -> None:
    config = here(objective="dpo", max_length=17, too_long="skip")
    first, again = read(config, processor).train, read(config, processor).train
    assert len(anew) == 8
    assert first.skipped == again.skipped != ()
    assert list(first.pairs) == list(again.pairs) and len(again.pairs) + len(again.skipped) == 8


OTHERS: dict[str, dict[str, Any]] = {
    "objective": {"objective": "dpo"},
    "corruption": {"corruption": {"kind": "other"}},
    "seed": {"corruption": {"kind": "other"}, "seed": 5},
    "limit of tokens": {"max_length": 100},
    "limit of pixels": {"max_image_pixels": 10_000},
    "first token": {"add_bos": "never"},
    "without images": {"objective": "dpo", "use_images": False},
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_options_are_another_file(what: str, here: Configure, processor: Any, anew: list[int]) -> None:
    before = {"corruption": {"kind": "other"}} if what == "seed" else {}
    read(here(**before), processor)
    read(here(**OTHERS[what]), processor)
    assert len(anew) == 16 and len(kept(here())) == 2


def test_the_newest_files_stay(here: Configure, processor: Any) -> None:
    for length in range(60, 66):
        read(here(max_length=length), processor)
    before = kept(here())
    read(here(max_length=65), processor)
    assert len(before) == 4 and kept(here()) == before


def test_options_that_change_no_pair_are_the_same_file(here: Configure, processor: Any, anew: list[int]) -> None:
    read(here(), processor)
    read(here(learning_rate=1e-6, beta=0.3, micro_batch_size=1, limit=2, logging_steps=5), processor)
    assert len(anew) == 8 and len(kept(here())) == 1


@pytest.mark.parametrize("what", ["answer", "pixels", "order"])
def test_other_rows_are_another_file(
    what: str, here: Configure, processor: Any, rows: list[dict[str, Any]], publish: Callable[..., Any], anew: list[int]
) -> None:
    config = here()
    read(config, processor)
    if what == "answer":
        rows[3]["chosen"][0]["content"] += " and nothing"
    elif what == "pixels":
        rows[3]["images"][0].putpixel((0, 0), (1, 2, 3))
    else:
        rows.reverse()
    publish(rows).save_to_disk(config.dataset + "-new")
    Path(config.dataset).rename(config.dataset + "-old")
    Path(config.dataset + "-new").rename(config.dataset)
    other = read(config, processor).train
    assert len(anew) == 16
    assert rows_of(other) == rows_of(prepare(formats.open(config.dataset), processor, config, 128))


def test_an_image_that_is_replaced_under_its_path_is_seen(
    tmp_path: Path, configure: Configure, processor: Any, draw: Callable[[int], Image.Image], anew: list[int]
) -> None:
    lines = []
    for number in range(2):
        draw(number).save(tmp_path / f"{number}.png")
        answers = {"chosen": "this is a red square", "rejected": "a blue square"}
        lines.append(json.dumps({"images": [f"{number}.png"], "question": "what is this", **answers}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    config = configure(dataset=str(tmp_path / "pairs.jsonl"), objective="dpo")
    first = read(config, processor).train.pairs[0].prompt.images
    draw(5).resize(draw(0).size).save(tmp_path / "0.png")
    assert read(config, processor).train.pairs[0].prompt.images != first
    assert len(anew) == 4


def test_another_tokenizer_template_or_processor_is_another_file(here: Configure, processor: Any) -> None:
    from copy import deepcopy

    config = here()
    rows = formats.open(config.dataset)

    def key(of: Any) -> str | None:
        return prepared.key_of(rows, of, config, 128, ("chosen", "rejected"))

    changed = [deepcopy(processor) for _ in range(6)]
    changed[0].tokenizer.add_tokens(["squares"])
    changed[1].chat_template += " "
    changed[2].image_processor.size = {"height": 64, "width": 64}
    changed[3].num_additional_image_tokens = 0
    # As a processor holds it that was read from files: an object, no dict.
    sizes = type(AutoProcessor.from_pretrained(BUILT_IN["scenes-vlm"]).image_processor.size)
    assert not issubclass(sizes, dict)
    changed[4].image_processor.size = sizes(height=48, width=48)
    changed[5].image_processor.size = sizes(height=56, width=56)
    keys = [key(processor), key(deepcopy(processor)), *map(key, changed)]
    assert None not in keys and keys[0] == keys[1] and len(set(keys)) == 7
    processor.tokenizer("a red square", padding="max_length", max_length=9, truncation=True)
    assert key(processor) == keys[0]  # what a call has left behind is no other tokenizer


def test_what_cannot_be_named_is_tokenised_every_time(
    here: Configure, processor: Any, anew: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(processor), "__module__", "transformers_modules.somebody")
    read(here(), processor)
    read(here(), processor)
    assert len(anew) == 16 and not kept(here())


@pytest.mark.parametrize("switch", [True, False])
def test_the_switch(switch: bool, here: Configure, processor: Any, anew: list[int]) -> None:
    config = here(keep_prepared=switch)
    read(config, processor)
    read(config, processor)
    assert len(anew) == (8 if switch else 16) and len(kept(config)) == switch


def test_a_rehearsal_writes_nothing(here: Configure, processor: Any) -> None:
    inputs.read(here(), processor, 128, visible=False)
    assert not kept(here())


def test_nothing_is_left_of_rows_that_cannot_be_used(
    here: Configure, processor: Any, rows: list[dict[str, Any]], publish: Callable[..., Any]
) -> None:
    rows[7]["rejected"] = rows[7]["chosen"]
    config = here(dataset=here().dataset + "-ties")
    publish(rows).save_to_disk(config.dataset)
    for _ in range(2):
        with pytest.raises(DataError, match="row 7"):
            read(config, processor)
    assert not kept(config) and not list(Path(f"{config.dataset}-reference").glob(".*"))


def test_a_damaged_file_is_named_with_what_to_do(here: Configure, processor: Any) -> None:
    config = here()
    read(config, processor)
    (path,) = kept(config)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"{path.name}: cannot be read .*delete the file"):
        read(config, processor)


def test_pairs_of_another_file_would_show(here: Configure, processor: Any) -> None:
    """The negative control: with the wrong file under the right name the run sees other rows."""
    config = here()
    right = rows_of(read(config, processor).train)
    (path,) = kept(config)
    pairs, _ = prepared.load(path)
    wrong: list[Pair | Skipped] = [replace(pair, chosen_ids=pair.chosen_ids[::-1]) for pair in pairs]
    prepared.store(path, iter(wrong))
    assert rows_of(read(config, processor).train) != right


def test_token_types_grids_and_similar_prompts_come_back(tmp_path: Path, pairs: PairDataset) -> None:
    prompt = replace(pairs.pairs[0].prompt, keys={"mm_token_type_ids": (0, 1, 1)}, grids=((1, 4, 6), (1, 2, 2)))
    wanted = [replace(pairs.pairs[0], similar=prompt, similar_ids=(5, 6)), replace(pairs.pairs[1], prompt=prompt)]
    prepared.store(tmp_path / "a.arrow", iter([*wanted, Skipped("row 9", "too long")]))
    stored, skipped = prepared.load(tmp_path / "a.arrow")
    assert list(stored) == wanted and skipped == (Skipped("row 9", "too long"),)


def test_a_run_on_kept_pairs_ends_as_one_that_tokenises(here: Configure, tmp_path: Path) -> None:
    logs = []
    for name, keep in (("first", True), ("again", True), ("plain", False)):
        config = here(output_dir=tmp_path / name, keep_prepared=keep, epochs=1)
        train(config)
        logs.append((config.output_dir / "metrics.jsonl").read_text())
    assert logs[0] == logs[1] == logs[2]


def test_encoded_images_are_read_and_not_decoded(here: Configure, processor: Any, monkeypatch: Any) -> None:
    config = here()
    rows: datasets.Dataset = formats.open(config.dataset)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was decoded"))
    assert prepared.key_of(rows, processor, config, 128, ("chosen", "rejected")) is not None
