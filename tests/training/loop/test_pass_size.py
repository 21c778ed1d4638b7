"""How many pairs go through a pass: chosen by the GPU's memory, and halved where it runs out, which changes nothing."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from full_memory import FullMemory
from safetensors.torch import load_file

from training import formats
from training.config import TrainConfig, make_config
from training.data.dataset import prepare
from training.data.schedule import micro_batches
from training.errors import MemoryFullError
from training.forward.batch import collate
from training.loop import pass_size
from training.loop.pass_size import Room, choose, room_of
from training.loop.sums import Sums
from training.loop.trainer import train
from training.sizing.architecture import Architecture, read_architecture
from training.sizing.shapes import SHAPES
from training.sizing.train_memory import Lengths, pass_of, train_memory

Configure = Callable[..., TrainConfig]
GIB = 2**30
#: Pairs of docs/gpu.md's measurements, of 936 tokens.
PAIR = pass_of([(634, [151, 151])], share_prefix=True)


def a_config(**changes: Any) -> TrainConfig:
    return make_config({"model": "none", "dataset": "none", "output_dir": "none", **changes})


@functools.cache
def shape() -> Architecture:
    return read_architecture(SHAPES["LLaVA-1.5-7B"].config(), "LLaVA-1.5-7B")


def llava(card: float, **changes: Any) -> Room:
    """A card of so many GiB, of which LLaVA-1.5-7B with adapters has taken 13.2 and 2.5 (docs/gpu.md)."""
    held = train_memory(shape(), a_config(**BF16), Lengths(634, 151))
    free = int(card * GIB) - held.weights - held.gradients - held.moments
    return replace(Room(free, shape(), PAIR, PAIR), **changes)


BF16 = {"objective": "dpo", "dtype": "bfloat16", "batch_size": 32}


@pytest.mark.parametrize(
    ("card", "pairs", "again"),
    [
        (79.0, 8, False),  # an H100: measured 42 GiB with four pairs
        (140.0, 16, False),  # an H200: 15.7 of weights and 8 times the 12.5 GiB of two pairs
        (68.0, 4, False),
        (40.0, 16, True),  # four pairs without checkpointing need 42
        (24.0, 8, True),
        (16.5, 1, True),
    ],
)
def test_a_cards_memory_decides(card: float, pairs: int, again: bool) -> None:
    chosen = choose(a_config(**BF16), llava(card))
    assert (chosen.micro_batch_size, chosen.gradient_checkpointing) == (pairs, again)


def test_what_is_said_stays_and_only_the_rest_is_chosen() -> None:
    said = choose(a_config(**BF16, micro_batch_size=2, gradient_checkpointing=False), llava(16.5))
    assert (said.micro_batch_size, said.gradient_checkpointing) == (2, False)
    assert choose(a_config(**BF16, micro_batch_size=32), llava(79.0)).gradient_checkpointing is True
    assert choose(a_config(**BF16, gradient_checkpointing=True), llava(79.0)).micro_batch_size == 16


def test_a_pass_is_no_larger_than_a_workers_share_and_smaller_in_float32() -> None:
    assert choose(a_config(**BF16), llava(10_000.0), world=8).micro_batch_size == 4
    assert choose(a_config(**BF16), llava(56.0)).gradient_checkpointing is False
    assert choose(a_config(**{**BF16, "dtype": "float32"}), llava(56.0)).gradient_checkpointing is True


def test_a_model_that_sizing_has_no_formula_of_begins_with_few_pairs_and_keeps_nothing() -> None:
    chosen = choose(a_config(**BF16), llava(79.0, shape=None))
    assert (chosen.micro_batch_size, chosen.gradient_checkpointing) == (4, True)


@pytest.mark.parametrize("objective", ["dpo", "mdpo"])
@pytest.mark.parametrize("share_prefix", [True, False])
def test_no_pass_is_larger_than_what_is_foreseen_of_it(
    objective: str, share_prefix: bool, configure: Configure, processor: Any, make_model: Callable[..., Any]
) -> None:
    config = configure(objective=objective, batch_size=8, share_prefix=share_prefix)
    dataset = prepare(formats.open(config.dataset), processor, config)
    room = room_of(10 * GIB, make_model(), dataset, config)
    assert room.shape is not None and room.shape.layers == 2
    for pairs in (1, 2, 3, 5, 8):
        sized = config.model_copy(update={"micro_batch_size": pairs})
        tokens = []
        for indices in micro_batches(dataset, range(8), sized):
            batch = collate(dataset, indices, config.branches, share_prefix=share_prefix)
            answers = sum(len(row.ids) - row.prompt - share_prefix for rows in batch.groups for row in rows)
            tokens.append(sum(len(prompt.ids) for prompt in batch.prompts) + answers)
        foreseen = max(room.pair.tokens, pairs * room.unit.tokens)
        assert max(tokens) <= foreseen
        assert foreseen < 2 * max(tokens) or pairs > 2  # and is not far above


def test_without_a_gpu_it_is_as_it_was(configure: Configure) -> None:
    config = configure(max_steps=1, batch_size=8, micro_batch_size="auto")
    train(config)
    ran = json.loads((config.output_dir / pass_size.FILE).read_text())
    assert (ran["micro_batch_size"], ran["gradient_checkpointing"], ran["dtype"]) == (4, False, "float32")
    assert (ran["device"], ran["workers"], ran["lowered"]) == ("cpu", 1, [])


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    return load_file(config.output_dir / "model" / "model.safetensors")


def lines(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]


def assert_alike(first: TrainConfig, other: TrainConfig) -> None:
    for mine, theirs in zip(lines(first), lines(other), strict=True):
        assert theirs == pytest.approx(mine, abs=1e-5, rel=1e-5)
    for name, value in weights(first).items():
        torch.testing.assert_close(weights(other)[name], value, atol=1e-4, rtol=0)


@pytest.fixture
def plenty(configure: Configure, tmp_path: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """A run to compare with; every step has two passes of four pairs."""
    options = {
        "batch_size": 8, "micro_batch_size": 4, "epochs": 2, "adam_epsilon": 1e-3, "logging_steps": 1,
        "gradient_checkpointing": False, "weigh_pairs": False,
    }  # fmt: skip
    config = configure(**options, output_dir=tmp_path / "plenty")
    train(config)
    return config, options


@pytest.fixture
def full() -> Iterator[Callable[..., FullMemory]]:
    made: list[FullMemory] = []

    def fill(*args: Any, **options: Any) -> FullMemory:
        made.append(FullMemory(*args, **options).install())
        return made[-1]

    yield fill
    for memory in made:
        memory.remove()


@pytest.mark.parametrize("where", ["reference", "forward", "backward"])
def test_out_of_memory_halves_the_passes_and_changes_no_result(
    where: str,
    plenty: tuple[TrainConfig, dict[str, Any]],
    full: Callable[..., FullMemory],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, options = plenty
    # Of two passes of step zero and two of a step, the first of the step adds gradients and metrics, the second fails.
    memory = full(2, where, after=0 if where == "reference" else 3)
    config = configure(**options, output_dir=tmp_path / where)
    # Beside another copy no reference is stored yet.
    folder = shutil.copytree(config.dataset, tmp_path / "copy" / "dataset")
    config = config.model_copy(update={"dataset": str(folder)})
    train(config)
    memory.remove()
    assert memory.refused >= 1
    assert_alike(first, config)
    ran = json.loads((config.output_dir / pass_size.FILE).read_text())
    assert ran["micro_batch_size"] == 2
    assert ran["lowered"][0]["change"] == "2 instead of 4 pairs a pass"
    assert "CUDA out of memory. Tried to allocate 2.00 GiB." in ran["lowered"][0]["why"]
    said = capsys.readouterr().err
    at = "the reference" if where == "reference" else "step 1"
    assert f"out of memory in {at}: done again with 2 instead of 4 pairs a pass" in said


@pytest.mark.parametrize("part", ["gradients", "metrics"])
def test_what_a_failed_try_has_added_would_show(
    part: str,
    plenty: tuple[TrainConfig, dict[str, Any]],
    full: Callable[..., FullMemory],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control of the test above."""
    first, options = plenty
    # Metrics are means over pairs: those of a pass that counts twice weigh twice.
    key = "logps/chosen" if part == "metrics" else "grad_norm"
    if part == "metrics":
        monkeypatch.setattr(Sums, "restore", lambda *_: None)
    else:
        monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", _only_after_an_update(torch.optim.Optimizer.zero_grad))
    full(2, "backward", after=3)
    config = configure(**options, output_dir=tmp_path / part)
    train(config)
    assert lines(config)[0][key] != pytest.approx(lines(first)[0][key], rel=1e-4)


def _only_after_an_update(real: Any) -> Any:
    calls = iter(range(1000))

    def zero_grad(self: Any, set_to_none: bool = True) -> None:
        if next(calls):  # the first is that of the failed try
            real(self, set_to_none)

    return zero_grad


def test_checkpointing_comes_before_smaller_passes_where_it_was_left_open(
    plenty: tuple[TrainConfig, dict[str, Any]], full: Callable[..., FullMemory], configure: Configure, tmp_path: Path
) -> None:
    first, options = plenty
    memory = full(2, "backward", after=3)
    config = configure(**{**options, "gradient_checkpointing": "auto"}, output_dir=tmp_path / "auto")
    train(config)
    ran = json.loads((config.output_dir / pass_size.FILE).read_text())
    assert [step["change"].split()[0] for step in ran["lowered"]] == ["activations", "2"]
    assert ran["gradient_checkpointing"] is True and memory.refused == 2
    assert_alike(first, config)


def test_a_single_pair_that_does_not_fit_ends_the_run_with_the_remedies(
    full: Callable[..., FullMemory], configure: Configure
) -> None:
    full(0, "backward")
    config = configure(batch_size=8, micro_batch_size=4, gradient_checkpointing=False)
    with pytest.raises(MemoryFullError) as raised:
        train(config)
    assert "with one pair a pass" in str(raised.value)
    assert "set gradient_checkpointing=true, or dtype=bfloat16" in str(raised.value)


#: One process of two; that of rank 1 alone runs out of memory.
ONE = """
import json, os, sys, torch
sys.path.insert(0, sys.argv[2])
from full_memory import FullMemory
from training.config import make_config
from training.loop.trainer import train
torch.set_num_threads(1)
if os.environ["RANK"] == "1":
    FullMemory(1, sys.argv[3], after=int(sys.argv[4])).install()
try:
    train(make_config(json.loads(sys.argv[1])))
    said = "done"
except Exception as error:
    said = f"{type(error).__name__}: {error}"
print("SAID" + said, flush=True)
os._exit(0)
"""


def together(config: TrainConfig, where: str, after: int) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    kit = str(Path(__file__).parents[2] / "kit")
    members = [
        subprocess.Popen(
            [sys.executable, "-c", ONE, config.model_dump_json(), kit, where, str(after)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [member.communicate(timeout=150)[0] for member in members]
    finally:
        for member in members:
            member.kill()
    return [next((line[4:] for line in text.splitlines() if line.startswith("SAID")), "died") for text in outputs]


def test_all_workers_take_smaller_passes_where_one_runs_out_of_memory(
    plenty: tuple[TrainConfig, dict[str, Any]], configure: Configure, tmp_path: Path
) -> None:
    first, options = plenty
    # Rank 1 has four pairs of a step, in two passes: after those of step zero its second pass of step 1 fails.
    config = configure(**{**options, "micro_batch_size": 2}, output_dir=tmp_path / "two")
    assert together(config, "backward", after=3) == ["done", "done"]
    assert_alike(first, config)
    ran = json.loads((config.output_dir / pass_size.FILE).read_text())
    assert (ran["workers"], ran["micro_batch_size"]) == (2, 1)
    assert [step["why"] for step in ran["lowered"]] == ["on another worker"]
