"""Checkpoints: complete or not there, of this run or refused, and in place down to the optimiser's moments."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from training.loop import checkpoint
from training.loop.checkpoint import Progress
from training.loop.evaluate_loss import Best
from training.loop.optimise import cosine_with_warmup


class Toy:
    """Two parameters, their optimiser and schedule."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.parameters = {"a": nn.Parameter(torch.randn(3, 2)), "b": nn.Parameter(torch.randn(4))}
        groups = [{"params": [self.parameters["a"]], "lr": 0.1}, {"params": [self.parameters["b"]], "lr": 0.01}]
        self.optimizer = torch.optim.AdamW(groups)
        self.scheduler = cosine_with_warmup(self.optimizer, 10, 0.1)

    def step(self, times: int) -> None:
        for _ in range(times):
            loss = sum((value**2).sum() for value in self.parameters.values())
            assert isinstance(loss, torch.Tensor)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()

    def save(self, folder: Path, progress: Progress) -> None:
        checkpoint.save(folder, progress, self.parameters, self.optimizer, self.scheduler, {"format": 0})

    def restore(self, folder: Path) -> Progress:
        return checkpoint.restore(folder, self.parameters, self.optimizer, self.scheduler)


def test_a_restored_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    first = Toy()
    first.step(4)
    progress = Progress(4, {"loss": 1.5}, 3, Best(2, 0.5, 1))
    first.save(tmp_path, progress)
    other = Toy(seed=1)
    assert other.restore(tmp_path) == progress
    first.step(3)
    other.step(3)
    for name in first.parameters:
        assert torch.equal(first.parameters[name], other.parameters[name])
    assert [group["lr"] for group in first.optimizer.param_groups] == [
        group["lr"] for group in other.optimizer.param_groups
    ]


def test_without_the_moments_it_would_not(tmp_path: Path) -> None:
    first = Toy()
    first.step(4)
    first.save(tmp_path, Progress(4))
    state = torch.load(tmp_path / "step-00000004" / "state.pt")
    torch.save({**state, "moments": {}}, tmp_path / "step-00000004" / "state.pt")
    other = Toy(seed=1)
    other.restore(tmp_path)
    first.step(1)
    other.step(1)
    assert not torch.equal(first.parameters["a"], other.parameters["a"])


def test_no_checkpoint_is_the_beginning(tmp_path: Path) -> None:
    assert Toy().restore(tmp_path / "nothing") == Progress()


def test_a_half_written_one_does_not_count_and_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    toy = Toy()
    for step in (1, 2, 3):
        toy.save(tmp_path, Progress(step))
    (tmp_path / "step-00000009.partial").mkdir()
    assert toy.restore(tmp_path).step == 3
    newest = checkpoint.newest(tmp_path)
    assert newest is not None and json.loads((newest / checkpoint.META).read_text()) == {"step": 3, "format": 0}
    assert {path.name for path in tmp_path.glob("step-*")} == {
        "step-00000002",
        "step-00000003",
        "step-00000009.partial",
    }


def test_the_best_weights_are_kept_until_a_checkpoint_knows_better_ones(tmp_path: Path) -> None:
    toy = Toy()
    best = {name: value.detach().clone() for name, value in toy.parameters.items()}
    checkpoint.save_best(tmp_path, 1, toy.parameters)
    toy.save(tmp_path, Progress(1, best=Best(1, 0.9)))
    toy.step(1)
    checkpoint.save_best(tmp_path, 2, toy.parameters)  # killed here, the run goes back to step 1, whose best is 1
    assert len(list(tmp_path.glob("best-*"))) == 2
    checkpoint.load_best(tmp_path, 1, toy.parameters)
    assert all(torch.equal(toy.parameters[name], value) for name, value in best.items())
    toy.save(tmp_path, Progress(2, best=Best(2, 0.8)))
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-00000002.safetensors"]
