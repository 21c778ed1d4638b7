"""Checkpoints: complete or not there, of this run or refused, and in place down to the optimiser's moments."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from pipeline.base import files
from training.errors import CheckpointError
from training.loop import checkpoint, tensor_files
from training.loop.checkpoint import Progress
from training.loop.evaluate_loss import Best
from training.loop.optimise import cosine_with_warmup
from training.loop.sharding import whole
from training.loop.worker import Worker

ALONE = Worker(torch.device("cpu"))


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
            loss = sum((put_together(value) ** 2).sum() for value in self.parameters.values())
            assert isinstance(loss, torch.Tensor)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()

    def save(self, folder: Path, progress: Progress) -> None:
        checkpoint.save(folder, progress, self.parameters, self.optimizer, self.scheduler, {"format": 0}, ALONE)

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
    checkpoint.save_best(tmp_path, 1, toy.parameters, ALONE)
    toy.save(tmp_path, Progress(1, best=Best(1, 0.9)))
    toy.step(1)
    checkpoint.save_best(tmp_path, 2, toy.parameters, ALONE)  # killed here, it goes back to step 1, whose best is 1
    assert len(list(tmp_path.glob("best-*"))) == 2
    checkpoint.load_best(tmp_path, 1, toy.parameters)
    assert all(torch.equal(toy.parameters[name], value) for name, value in best.items())
    checkpoint.save_best(tmp_path, 2, toy.parameters, ALONE)
    toy.save(tmp_path, Progress(2, best=Best(2, 0.8)))
    toy.save(tmp_path, Progress(2, best=Best(2, 0.8)))  # in the place of what is there
    assert checkpoint.newest(tmp_path) == tmp_path / "step-00000002"
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-00000002"]


def test_the_best_weights_of_a_run_from_before_are_a_file(tmp_path: Path) -> None:
    toy = Toy()
    best = {name: value.detach().clone() for name, value in toy.parameters.items()}
    save_file(best, tmp_path / "best-00000001.safetensors")
    toy.step(1)
    checkpoint.load_best(tmp_path, 1, toy.parameters)
    assert all(torch.equal(toy.parameters[name], value) for name, value in best.items())


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    """A process group of one: that of an engine in this process, where a test before has started it, or our own."""
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    if ours:
        dist.destroy_process_group()


class Split(Toy):
    """The first parameter is split over workers."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        mesh = init_device_mesh("cpu", (1,))
        self.parameters["a"] = nn.Parameter(distribute_tensor(self.parameters["a"].detach(), mesh, (Shard(0),)))
        groups = [{"params": [self.parameters["a"]], "lr": 0.1}, {"params": [self.parameters["b"]], "lr": 0.01}]
        self.optimizer = torch.optim.AdamW(groups)
        self.scheduler = cosine_with_warmup(self.optimizer, 10, 0.1)


@pytest.mark.parametrize("kind", [Toy, Split])
def test_killed_between_any_two_writes_a_run_has_a_whole_checkpoint(
    kind: type[Toy], group: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = [
        *((tensor_files, "save_file"), (torch, "save"), (Path, "write_text")),
        *((files, "sync_tree"), (files, "remove_tree"), (files, "move")),
    ]
    for fatal in itertools.count():
        folder, toy = tmp_path / str(fatal), kind()
        toy.step(1)
        toy.save(folder, Progress(1))
        states = {1: weights(toy)}
        toy.step(1)
        states[2] = weights(toy)
        left = iter(range(fatal))
        with monkeypatch.context() as patch:
            for place, name in writes:
                patch.setattr(place, name, mortal(getattr(place, name), left))
            with contextlib.suppress(KeyboardInterrupt):
                toy.save(folder, Progress(2))
                left = None  # type: ignore[assignment]
        other = kind(seed=1)
        step = other.restore(folder).step
        assert all(torch.equal(value, states[step][name]) for name, value in weights(other).items())
        if left is None:
            break
    assert step == 2 and fatal >= 6


def mortal(write: Callable[..., Any], left: Iterator[int]) -> Callable[..., Any]:
    """``write``, which kills where no more are ``left``."""

    def call(*args: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return write(*args, **options)

    return call


def put_together(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def weights(toy: Toy) -> dict[str, Tensor]:
    return {name: whole(value).clone() for name, value in toy.parameters.items()}


def test_what_is_split_goes_on_whole_and_the_other_way_round(group: None, tmp_path: Path) -> None:
    for first, second in ((Split, Toy), (Toy, Split)):
        toy, other = first(), second(seed=1)
        toy.step(3)
        toy.save(tmp_path / first.__name__, Progress(3))
        other.restore(tmp_path / first.__name__)
        toy.step(2)
        other.step(2)
        for name, value in weights(toy).items():
            torch.testing.assert_close(weights(other)[name], value)


def test_parts_of_any_number_of_workers_are_read_by_rows_and_a_missing_one_is_told(tmp_path: Path) -> None:
    whole = torch.arange(20.0).reshape(10, 2)
    rows = ((0, 4), (4, 4), (4, 9), (9, 10))  # one worker had none
    for rank, (first, end) in enumerate(rows):
        save_file({"a": whole[first:end].clone()}, tmp_path / f"part-{rank:05d}-of-00004.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / tensor_files.WHOLE)
    with tensor_files.stored(tmp_path) as tensors:
        assert torch.equal(tensors.read("a", whole), whole)
        for first, end in ((0, 10), (3, 5), (5, 10), (10, 10)):
            monkey = pytest.MonkeyPatch()
            monkey.setattr(tensor_files, "_rows", lambda like, first=first, end=end: (first, end))
            assert torch.equal(tensors.read("a", whole), whole[first:end])
            monkey.undo()
    (tmp_path / "part-00002-of-00004.safetensors").unlink()
    with tensor_files.stored(tmp_path) as tensors, pytest.raises(CheckpointError, match="5 of 10 rows of a are there"):
        tensors.read("a", whole)
