"""What a training costs is found out by some of its steps, and foretells one of any length."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.base.hardware import this_machine
from training.config import TrainConfig
from training.config.steps import total_steps
from training.loop import costs as module
from training.loop.train_costs import TrainCosts
from training.run import app

COSTS = TrainCosts(
    start=10.0, read=0.5, pairs_per_row=1.0, held_out=20, others=20, ready=5.0, reference=0.1, first=2.0, step=0.25,
    save=3.0, export=4.0, model_bytes=100, checkpoint_bytes=10, spent=60.0,
)  # fmt: skip


def test_every_part_of_a_training_counts(configure: Callable[..., TrainConfig]) -> None:
    config = configure(epochs=2, batch_size=8, micro_batch_size=8, save_steps=10, eval_steps=5, eval_dataset="held")
    assert total_steps(60, config) == 16
    read, steps, evaluations = 0.5 * (60 + 20), 0.25 * 120, 4 * 20
    expected = read + 5.0 + 2.0 + 0.1 * (60 + 20 + evaluations) + steps + 2 * 3.0 + 4.0
    assert COSTS.seconds(config, rows=60, pairs=60) == expected
    capped = config.model_copy(update={"max_steps": 4, "eval_dataset": None, "cache_reference": False})
    assert replace(COSTS, others=0, held_out=0).seconds(capped, 60, 60) == 30.0 + 5.0 + 2.0 + 0.25 * 32 + 3.0 + 4.0
    looked_up = capped.model_copy(update={"cache_reference": True})
    assert COSTS.seconds(looked_up, 60, 60) - COSTS.seconds(capped, 60, 60) == pytest.approx(0.1 * (32 + 20))
    assert COSTS.disk(config, 60) == 120 and COSTS.disk(capped, 60) == 110


def test_some_steps_are_taken_for_real_and_nothing_is_kept(
    configure: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEPS", 2)
    monkeypatch.setattr("pipeline.running.pool.hardware", this_machine)
    config = configure(batch_size=4, micro_batch_size=4)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    out = f"output_dir={tmp_path / 'out'}"
    there = sorted(tmp_path.iterdir())
    beside = sorted(Path(config.dataset).parent.iterdir())
    told = CliRunner().invoke(app, [str(path), out, "--plan", "--measure", "--json"])
    assert told.exit_code == 0, told.output
    measured = TrainCosts(**json.loads(told.stdout.splitlines()[-1]))
    assert measured.read > 0 and measured.step > 0 and measured.reference > 0 and measured.spent > measured.ready > 0
    assert measured.model_bytes > 100_000 and measured.checkpoint_bytes > 0 and measured.held_out == 0
    planned = CliRunner().invoke(app, [str(path), out, "--plan", "--measure"])
    assert planned.exit_code == 0 and "s a step of 4 pairs" in planned.stdout and "disk: " in planned.stdout
    assert sorted(tmp_path.iterdir()) == there
    assert sorted(Path(config.dataset).parent.iterdir()) == beside
    refused = CliRunner().invoke(app, [str(path), "--measure"])
    assert refused.exit_code == 2 and "--measure is for --plan" in refused.stderr


def test_whole_stretches_of_rows_are_read() -> None:
    chosen = module.blocks(10_000)
    assert len(chosen) == module.ROWS == len(set(chosen)) and chosen == sorted(chosen)
    assert sum(after - before == 1 for before, after in itertools.pairwise(chosen)) == module.ROWS - 8
