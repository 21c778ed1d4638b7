"""SymMPO on pairs of which some have no similar image: what is read, what is learnt from them, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from training import formats
from training.config import TrainConfig
from training.config.objective import SIMILAR
from training.data import prepared
from training.data.dataset import prepare
from training.data.pairs import PairDataset
from training.errors import DataError
from training.forward.batch import collate
from training.forward.model import prepare_tuning
from training.forward.policy import make_policy, pair_logps, response_lengths
from training.loop.trainer import train
from training.loss import measure as measuring

Configure = Callable[..., TrainConfig]
Make = Callable[[Collection[int]], datasets.Dataset]
WITHOUT = (1, 2, 6)
CPU = torch.device("cpu")


@pytest.fixture
def make(rows: list[dict[str, Any]], publish: Callable[..., Any], draw: Callable[[int], Any]) -> Make:
    """The eight rows with the next one's picture and right answer as the similar image's, but for those ``without``."""

    def make(without: Collection[int]) -> datasets.Dataset:
        plain = publish(rows)
        features = {"similar_images": datasets.List(datasets.Image()), "similar_chosen": plain.features["chosen"]}
        similar = [
            {"similar_images": [], "similar_chosen": []}
            if number in without
            else {"similar_images": [draw((number + 1) % 8)], "similar_chosen": rows[(number + 1) % 8]["chosen"]}
            for number in range(8)
        ]
        columns = datasets.Dataset.from_list(similar, features=datasets.Features(features))
        return datasets.concatenate_datasets([plain, columns], axis=1)

    return make


@pytest.fixture
def tokenised(make: Make, configure: Configure, processor: Any) -> Callable[..., PairDataset]:
    def tokenised(without: Collection[int], **options: Any) -> PairDataset:
        return prepare(formats.read(make(without)), processor, configure(objective="symmpo"), **options)

    return tokenised


def logged(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_row_without_one_is_a_pair_without_one(tokenised: Callable[..., PairDataset], tmp_path: Path) -> None:
    pairs, full = tokenised(WITHOUT).pairs, tokenised(()).pairs
    assert [number for number, pair in enumerate(pairs) if pair.similar is None and not pair.similar_ids] == [*WITHOUT]
    for number, pair in enumerate(pairs):
        assert (pair == full[number]) == (number not in WITHOUT)

    def keep(key: Any, results: Any) -> prepared.Prepared:
        prepared.store(tmp_path / "kept.arrow", results())
        return prepared.load(tmp_path / "kept.arrow")

    assert tuple(tokenised(WITHOUT, keep=keep).pairs) == tuple(pairs)


def test_the_same_good_answer_is_no_answer_of_another_image(
    make: Make, rows: list[dict[str, Any]], configure: Configure, processor: Any
) -> None:
    """Neither image prefers its own: a tie, which is no pair of images."""
    rows[3]["chosen"] = rows[2]["chosen"]  # what is good for the image that is similar to row 2's
    config = configure(objective="symmpo")
    pairs = prepare(formats.read(make(())), processor, config).pairs
    assert [number for number, pair in enumerate(pairs) if pair.similar is None and not pair.similar_ids] == [2]


def test_nor_is_one_that_differs_only_in_what_is_cut_off(
    make: Make, rows: list[dict[str, Any]], configure: Configure, processor: Any
) -> None:
    said = rows[2]["chosen"][0]["content"]
    rows[3]["chosen"] = [{"role": "assistant", "content": f"{said} and nothing and nothing"}]
    whole = prepare(formats.read(make(())), processor, configure(objective="symmpo")).pairs[2]
    assert whole.similar is not None
    room = len(whole.chosen_ids) - 1  # without the end of the text
    limit = max(len(whole.prompt.ids), len(whole.similar.ids)) + room
    config = configure(objective="symmpo", max_length=limit, too_long="cut")
    cut = prepare(formats.read(make(())), processor, config).pairs[2]
    assert cut.chosen_ids == whole.chosen_ids[:-1] and cut.similar is None and not cut.similar_ids


def test_an_image_that_is_similar_to_itself_is_an_error(make: Make, configure: Configure, processor: Any) -> None:
    given = make(())
    itself = given.select_columns("images").rename_column("images", "similar_images")
    given = datasets.concatenate_datasets([given.remove_columns("similar_images"), itself], axis=1)
    with pytest.raises(DataError, match=r"row 0 .*similar_images show the same pixels as images"):
        prepare(formats.read(given), processor, configure(objective="symmpo"))


def test_not_one_is_an_error(tokenised: Callable[..., PairDataset], configure: Configure, make: Make) -> None:
    with pytest.raises(DataError, match=r"none of the 8 pairs has a similar image .* publish\.similar"):
        tokenised(range(8))
    assert tokenised(range(1, 8))  # negative control


def test_half_of_one_is_an_error(make: Make) -> None:
    rows = make(WITHOUT).remove_columns("similar_chosen").add_column("similar_chosen", [None] * 8)
    with pytest.raises(DataError, match="only one of similar_images and similar_chosen"):
        formats.read(rows)


@pytest.mark.parametrize("share_prefix", [True, False])
def test_the_others_log_probs_are_what_they_are_alone(
    tokenised: Callable[..., PairDataset], make_model: Callable[..., Any], configure: Configure, share_prefix: bool
) -> None:
    config = configure(objective="symmpo", share_prefix=share_prefix)
    some, full = tokenised(WITHOUT), tokenised(())
    policy = make_policy(prepare_tuning(make_model(), config), CPU, config, some)
    together = pair_logps(policy, some, range(8), config)
    wanted = pair_logps(policy, full, range(8), config)
    for branch, values in together.items():
        absent = [number for number in range(8) if branch in SIMILAR and number in WITHOUT]
        there = [number for number in range(8) if number not in absent]
        torch.testing.assert_close(values[there], wanted[branch][there], atol=1e-5, rtol=0)
        assert values[absent].tolist() == [0.0] * len(absent)
    batch = collate(some, range(8), config.branches, share_prefix=share_prefix)
    assert sum(map(len, batch.groups)) == 8 * 5 - 3 * len(WITHOUT)
    assert (batch.order < 0).sum() == 3 * len(WITHOUT)
    lengths = response_lengths(some, range(8), config, CPU)
    assert {branch: (length == 0).nonzero().flatten().tolist() for branch, length in lengths.items()} == {
        branch: [*WITHOUT] if branch in SIMILAR else [] for branch in config.branches
    }


def test_the_first_loss_is_that_of_the_terms_that_each_pair_has(
    configure: Configure, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(WITHOUT).save_to_disk(str(tmp_path / "some"))
    options = {"dataset": str(tmp_path / "some"), "objective": "symmpo", "batch_size": 8, "max_steps": 1}
    # Before any update every reward is 0: response 1, symmetric 0.5 x 2, anchors 2, each log 2; without one 1 and 1.
    right = (5 * 4 + 3 * 2) / 8 * math.log(2)
    config = configure(**options, micro_batch_size=3)
    train(config)
    (line,) = logged(config)
    assert line["loss"] == pytest.approx(right, abs=1e-6)
    assert line["loss/symmetric"] == pytest.approx(2 * 5 / 8 * math.log(2), abs=1e-6)
    again = configure(**options, micro_batch_size=1, cache_reference=False, output_dir=tmp_path / "again")
    train(again)
    assert logged(again)[0]["loss"] == pytest.approx(right, abs=1e-6)
    assert logged(again)[0]["grad_norm"] == pytest.approx(line["grad_norm"], rel=1e-4)
    # Negative control: all terms of all pairs.
    monkeypatch.setattr(measuring, "_where_similar", lambda tokens, config: lambda values: values)
    wrong = configure(**options, micro_batch_size=3, output_dir=tmp_path / "wrong")
    train(wrong)
    assert logged(wrong)[0]["loss"] == pytest.approx(4 * math.log(2), abs=1e-6)


def test_held_out_pairs_may_lack_it_too(configure: Configure, make: Make, tmp_path: Path) -> None:
    make(()).save_to_disk(str(tmp_path / "all"))
    make(WITHOUT).save_to_disk(str(tmp_path / "some"))
    config = configure(
        dataset=str(tmp_path / "all"),
        objective="symmpo",
        eval_dataset=str(tmp_path / "some"),
        eval_steps=1,
        max_steps=1,
    )
    train(config)
    assert math.isfinite(logged(config)[0]["eval/loss"])
