"""Where a training runs, and in what: told by the GPUs that there are, and said where nobody would expect it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.hardware import Hardware, Node
from pipeline.running import pool
from training.config import TrainConfig
from training.data.schedule import pass_tokens
from training.loop import launch, on_cpu
from training.loop.trainer import TrainResult, train

Configure = Callable[..., TrainConfig]
HERE = Hardware((Node(96, 8, here=True),))
ELSEWHERE = Hardware((Node(8, here=True), Node(96, 8)))
OLD = Hardware((Node(8, 1, bfloat16=False, here=True),))


class Started:
    """What would have been started: in this ``process``, or ``together`` through Ray."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, there: Hardware, torch_sees: bool = True) -> None:
        self.process: list[TrainConfig] = []
        self.together: list[tuple[TrainConfig, int]] = []
        monkeypatch.setattr(pool, "hardware", lambda: there)
        monkeypatch.setattr(launch, "this_machine", lambda: there)
        monkeypatch.setattr(launch.torch.cuda, "is_available", lambda: torch_sees)
        monkeypatch.setattr(launch, "train", self._train)
        monkeypatch.setattr(launch, "finished_run", lambda config: TrainResult(config.output_dir, 0, {}))
        monkeypatch.setattr(pool, "run_together", self._together)

    def _train(self, config: TrainConfig) -> TrainResult:
        self.process.append(config)
        return TrainResult(config.output_dir, 0, {})

    def _together(
        self, function: Any, config: TrainConfig, workers: int, folder: Path, longest_wait: timedelta
    ) -> None:
        assert longest_wait > timedelta(hours=1)  # an export of the first worker takes longer than NCCL's ten minutes
        self.together.append((config, workers))


@pytest.fixture
def config(configure: Configure) -> TrainConfig:
    return configure(batch_size=32, micro_batch_size="auto")


def test_without_gpus_it_is_one_process_in_float32(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch, Hardware(), torch_sees=False)
    launch.run(config)
    (ran,) = started.process
    assert (ran.dtype, ran.workers) == ("float32", 1)


def test_a_machine_with_eight_gpus_uses_all_in_bfloat16(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch, HERE)
    launch.run(config)
    ((ran, workers),) = started.together
    assert (ran.dtype, workers) == ("bfloat16", 8)


def test_what_is_said_wins(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch, HERE)
    launch.run(configure(workers=1, dtype="float32"))
    (ran,) = started.process
    assert (ran.dtype, ran.workers) == ("float32", 1)


def test_a_gpu_without_bfloat16_trains_in_float32(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch, OLD)
    launch.run(config)
    assert started.process[0].dtype == "float32"


@pytest.mark.parametrize("workers", ["auto", 1])
def test_a_head_without_gpus_leaves_it_to_the_machines_that_have_some(
    workers: Any, configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = Started(monkeypatch, ELSEWHERE, torch_sees=False)
    launch.run(configure(batch_size=32, workers=workers))
    ((ran, count),) = started.together
    assert (ran.dtype, count) == ("bfloat16", 8 if workers == "auto" else 1)
    assert f"this machine has no GPU: training on {count} of the cluster's 8" in capsys.readouterr().err


def test_gpus_that_torch_cannot_use_are_no_secret(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = Started(monkeypatch, HERE, torch_sees=False)
    launch.run(config)
    assert (started.process[0].dtype, started.process[0].workers) == ("float32", 1)
    assert "this machine has 8 GPUs, and torch" in capsys.readouterr().err


def test_under_torchrun_the_processes_are_there(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch, HERE)
    monkeypatch.setenv("WORLD_SIZE", "8")
    launch.run(config)
    assert not started.together and started.process[0].dtype == "bfloat16"


def test_a_run_goes_on_in_the_dtype_that_it_was_begun_in_and_says_so(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(max_steps=1)
    train(config)
    started = Started(monkeypatch, HERE)
    launch.run(config)
    assert started.together[0][0].dtype == "float32"
    assert "was begun in float32 and goes on in it; begun here it would be bfloat16" in capsys.readouterr().err
    launch.run(config.model_copy(update={"resume": "never"}))
    assert started.together[1][0].dtype == "bfloat16"


def test_a_large_model_on_a_cpu_is_told_of_before_it_starts(
    configure: Configure, pairs: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(batch_size=8, epochs=1)
    assert on_cpu.notice(1_600_000, pairs, config, 1e11) is None
    told = on_cpu.notice(7_000_000_000, pairs, config, 1e11)
    tokens = sum(pass_tokens(pairs, index, config) for index in range(len(pairs.pairs)))
    hours = 8 * 7e9 * tokens / 1e11 / 3600
    assert told is not None and "7.0 billion parameters are trained on the CPU" in told
    assert f"about {hours:,.0f} hours" in told
    train(configure(max_steps=1))
    assert "no GPU is used" not in capsys.readouterr().err
    monkeypatch.setattr(on_cpu, "LARGE", 10)
    train(configure(max_steps=1, output_dir=config.output_dir.with_name("large")))
    assert "warning: no GPU is used" in capsys.readouterr().err


def test_what_an_earlier_version_recorded_still_holds(configure: Configure) -> None:
    """`dtype` was float32 where nobody said it, and checkpoints have it so."""
    assert configure().result_options()["dtype"] == "float32"
    assert "workers" not in configure().result_options()
