"""HA-DPO's auxiliary stream: its loss, its order, and that nothing but the good answers is read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from typer.testing import CliRunner

from pipeline.recipe.load import make_recipe
from pipeline.recipe.plan import Plan
from pipeline.running.store import Run, make_record
from pipeline.scenes.models_build import good_answers
from reward.forward.token_logps import Forward
from training import formats, job
from training.config import TrainConfig, make_config
from training.data.pairs import PairDataset
from training.errors import DataError
from training.forward.batch import collate
from training.forward.logps import sequence_logps
from training.forward.policy import Policy, make_policy
from training.loop import trainer
from training.loop.trainer import train
from training.loss import sft
from training.run import app

Configure = Callable[..., TrainConfig]
Publish = Callable[[list[dict[str, Any]]], Any]
CPU = torch.device("cpu")


@pytest.fixture
def answers(rows: list[dict[str, Any]], publish: Publish, tmp_path: Path) -> Path:
    """Five rows that have no rejected answer."""
    folder = tmp_path / "answers"
    publish(rows[:5]).remove_columns("rejected").save_to_disk(str(folder))
    return folder


@pytest.fixture
def stream(answers: Path, processor: Any, configure: Configure) -> PairDataset:
    return sft.prepare(formats.open(str(answers), rejected=False), processor, configure())


def logged(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]


def plain_logps(model: Any, stream: PairDataset, rows: Sequence[int]) -> torch.Tensor:
    """log p of the answers, every row by itself."""
    return sequence_logps(model, collate(stream, rows, ("chosen",), share_prefix=False), Forward().naive)[0]


def test_rows_are_tokenised_as_the_chosen_side_of_pairs_is(stream: PairDataset, pairs: PairDataset) -> None:
    assert len(stream.pairs) == 5
    for mine, theirs in zip(stream.pairs, pairs.pairs, strict=False):
        assert mine.prompt == theirs.prompt
        assert mine.chosen_ids == theirs.chosen_ids


def test_they_have_no_rejected_answer_and_a_forward_pass_that_wants_one_fails(
    stream: PairDataset, make_model: Callable[..., Any]
) -> None:
    assert all(pair.rejected_ids == () and pair.corrupted is None for pair in stream.pairs)
    with pytest.raises(ValueError, match="a response each"):
        sequence_logps(make_model(), collate(stream, [0], ("chosen", "rejected")))


def test_a_long_answer_is_cut_and_keeps_its_own_tokens(
    stream: PairDataset, answers: Path, configure: Configure, processor: Any
) -> None:
    longest = max(len(pair.prompt.ids) for pair in stream.pairs)
    config = configure(max_length=longest + 2, too_long="cut")
    cut = sft.prepare(formats.open(str(answers), rejected=False), processor, config)
    assert not cut.skipped
    for short, whole in zip(cut.pairs, stream.pairs, strict=True):
        assert short.chosen_ids == whole.chosen_ids[: longest + 2 - len(whole.prompt.ids)]
    assert any(short.chosen_ids != whole.chosen_ids for short, whole in zip(cut.pairs, stream.pairs, strict=True))


def test_a_broken_row_is_an_error_naming_it(
    rows: list[dict[str, Any]], publish: Publish, processor: Any, configure: Configure
) -> None:
    rows[3]["chosen"] = [{"role": "assistant", "content": ""}]
    with pytest.raises(DataError, match=r"row 3 \(id pair-3\): the chosen response is empty"):
        sft.prepare(formats.read(publish(rows), rejected=False), processor, configure())


@given(rows=st.integers(1, 20), size=st.integers(1, 30), seed=st.integers(0, 5))
def test_steps_go_through_all_rows_before_any_comes_again(rows: int, size: int, seed: int) -> None:
    values = {
        "model": "m",
        "dataset": "d",
        "output_dir": "o",
        "seed": seed,
        "sft": {"dataset": "s", "batch_size": size},
    }
    config = make_config(values)
    steps = [sft.rows_of(step, rows, config) for step in range(2 * rows // size + 3)]
    assert all(len(step) == size for step in steps)
    order = [row for step in steps for row in step]
    assert [sorted(order[start : start + rows]) for start in range(0, len(order) - rows + 1, rows)] == [
        list(range(rows))
    ] * (len(order) // rows)
    assert steps[1] == sft.rows_of(1, rows, config)  # of (seed, step) alone


def test_another_seed_and_another_epoch_are_other_orders(configure: Configure) -> None:
    whole = [
        sft.rows_of(step, 20, configure(seed=seed, sft={"dataset": "s", "batch_size": 20}))
        for seed, step in ((0, 0), (0, 1), (1, 0))
    ]
    assert whole[0] != whole[1] != whole[2] != whole[0]


def test_a_step_takes_as_many_rows_as_pairs_unless_told(configure: Configure) -> None:
    assert len(sft.rows_of(0, 5, configure(batch_size=3, sft={"dataset": "s"}))) == 3
    assert len(sft.rows_of(0, 5, configure(batch_size=3, sft={"dataset": "s", "batch_size": 7}))) == 7


def test_the_first_step_logs_the_mean_over_answer_tokens_and_adds_it_with_its_weight(
    answers: Path, stream: PairDataset, configure: Configure, make_model: Callable[..., Any]
) -> None:
    config = configure(max_steps=1, sft={"dataset": str(answers), "weight": 0.25, "batch_size": 4})
    train(config)
    (line,) = logged(config)
    rows = sft.rows_of(0, 5, config)
    with torch.no_grad():
        negative = -plain_logps(make_model(), stream, rows).sum().item()
    expected = negative / sum(len(stream.pairs[row].chosen_ids) for row in rows)
    assert line["loss/sft"] == pytest.approx(expected, rel=1e-5)
    terms = line["loss/response"] + line["loss/image"] + line["loss/anchor"]
    assert line["loss"] == pytest.approx(terms + 0.25 * expected, rel=1e-5)


def test_its_gradient_is_that_of_the_logged_loss_however_it_is_cut_into_passes(
    answers: Path, stream: PairDataset, pairs: PairDataset, configure: Configure, make_model: Callable[..., Any]
) -> None:
    gradients = []
    for size in (1, 2, 3):
        config = configure(sft={"dataset": str(answers), "weight": 1e6}, micro_batch_size=size)
        model = make_model()
        rows = sft.rows_of(0, 5, config)
        policy = make_policy(model, CPU, config, pairs)
        trainer.backward(
            *(policy, trainer.Inputs(pairs, None, stream), _own_reference(policy, pairs, config), 0),
            *(
                trainer.Sums((*trainer.metric_names(config), sft.NAME), trainer.Worker(CPU)),
                config,
                trainer.Worker(CPU),
            ),
        )
        gradients.append(model.lm_head.weight.grad / 1e6)
    model = make_model()
    loss = -plain_logps(model, stream, rows).sum()
    (loss / sum(len(stream.pairs[row].chosen_ids) for row in rows)).backward()
    for gradient in gradients:
        torch.testing.assert_close(gradient, model.lm_head.weight.grad, atol=1e-4, rtol=1e-3)


def _own_reference(policy: Policy, pairs: PairDataset, config: TrainConfig) -> Any:
    return trainer.reference.live(policy, pairs, config)


def test_the_stream_raises_the_likelihood_of_its_answers(
    answers: Path, stream: PairDataset, configure: Configure, tmp_path: Path
) -> None:
    def likelihood(config: TrainConfig) -> float:
        from transformers import LlavaForConditionalGeneration

        model = LlavaForConditionalGeneration.from_pretrained(config.output_dir / "model")
        with torch.no_grad():
            return plain_logps(model, stream, range(5)).sum().item()

    options = {"objective": "dpo", "max_steps": 5}
    without = configure(output_dir=tmp_path / "without", **options)
    with_it = configure(output_dir=tmp_path / "with", **options, sft={"dataset": str(answers), "weight": 2.0})
    train(without)
    train(with_it)
    assert likelihood(with_it) > likelihood(without) + 1.0
    losses = [line["loss/sft"] for line in logged(with_it)]
    assert losses[-1] < losses[0]


def test_with_weight_0_a_run_ends_as_one_without_the_stream_and_its_loss_is_measured(
    answers: Path, configure: Configure, tmp_path: Path
) -> None:
    ends = []
    for name, stream in (("without", None), ("zero", 0.0), ("half", 0.5)):
        stream_options = {} if stream is None else {"sft": {"dataset": str(answers), "weight": stream}}
        config = configure(output_dir=tmp_path / name, objective="dpo", max_steps=2, **stream_options)
        train(config)
        ends.append((logged(config), load_file(config.output_dir / "model" / "model.safetensors")))
    (without, weights), (zero, same), (_, others) = ends
    assert [line.pop("loss/sft") for line in zero] and zero == without
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert not all(torch.equal(weights[name], others[name]) for name in weights)  # the control


def test_a_recipe_in_the_built_in_world_learns_from_its_right_descriptions(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``python -m pipeline.scenes.models_build.good_answers`` writes them, through the step of a run that trains."""

    def here(command: list[str]) -> int:
        """In this process, which has torch already."""
        assert command[1:3] == ["-m", "training.run"]
        return CliRunner().invoke(app, command[3:]).exit_code

    monkeypatch.setattr(job, "run_child", here)
    good = tmp_path / "good.parquet"
    good_answers.main(good, scenes=3, seed=good_answers.SEED)
    rows = list(good_answers.rows(4, seed=1))
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        row["rejected"] = other["chosen"]
    recipe = make_recipe(
        {
            "name": "run",
            "output_dir": str(tmp_path),
            "source": {"scenes": 2},
            "sample": {"model": "scenes-vlm"},
            "pair": {"weights": {"objects.hallucinated": -1}},
            "train": {
                "objective": "dpo",
                "tuning": "full",
                "max_steps": 1,
                "batch_size": 2,
                "micro_batch_size": 2,
                "logging_steps": 1,
                "sft": {"dataset": str(good), "weight": 0.5},
            },
        }
    )
    plan, run = Plan(recipe), Run(recipe.run_dir)
    publish(rows).save_to_disk(str(run.path / "dataset" / "pairs"))
    (run.path / "dataset" / "dataset_dict.json").write_text('{"splits": ["pairs"], "made": "a digest"}')
    run.save(replace(make_record("publish", 1, {"content": "abc"}, {}), finished=True, made="a digest"))
    job.check(plan)
    job.train(plan, run, run.path / "dataset", "if-possible")
    (line,) = [json.loads(text) for text in (run.path / "train" / "metrics.jsonl").read_text().splitlines()]
    assert line["loss/sft"] > 0
    # Before the first update policy and reference are one, so DPO's own loss is log 2.
    assert line["loss"] == pytest.approx(math.log(2) + 0.5 * line["loss/sft"], rel=1e-4)


def test_resuming_goes_on_in_the_same_order(
    answers: Path, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"sft": {"dataset": str(answers), "batch_size": 2}, "save_steps": 2, "logging_steps": 3}
    whole = configure(output_dir=tmp_path / "whole", **options)
    train(whole)
    resumed = configure(output_dir=tmp_path / "resumed", **options)
    real, steps = trainer.backward, iter(range(100))

    def killed(*args: Any) -> Any:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "backward", killed)
        train(resumed)
    train(resumed)
    assert logged(whole) == logged(resumed)
    first, other = (load_file(config.output_dir / "model" / "model.safetensors") for config in (whole, resumed))
    assert all(torch.equal(first[name], other[name]) for name in first)
