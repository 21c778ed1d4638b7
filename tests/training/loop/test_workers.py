"""Several workers: the same losses as one, split or not, started by Ray Train or by torchrun, and the same errors."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from training.config import TrainConfig
from training.loop.resume import TRAINED
from training.loop.trainer import train
from training.loop.worker import Worker
from training.run import app

Configure = Callable[..., TrainConfig]

#: Seconds that a run of the crew may take, the imports of the first one included.
LIMIT = 180.0

#: One process of a crew: trains every configuration that it is told, one JSON a line.
_ONE = """
import json, os, sys, torch
from training.config import make_config
from training.loop import spread
from training.loop.trainer import train
if os.environ["RANK"] != "0":
    spread.load_weights = None  # weights are read by the first alone
torch.set_num_threads(1)
for line in sys.stdin:
    try:
        train(make_config(json.loads(line)))
        said = "done"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print("SAID" + json.dumps(said), flush=True)
"""


class Crew:
    """Two processes of one gloo group, as torchrun would start them, kept for all tests of this file."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        self.members = [
            subprocess.Popen(
                [sys.executable, "-c", _ONE],
                env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]

    def train(self, config: TrainConfig) -> list[str]:
        """What each of them said: "done", or its error."""
        for member in self.members:
            assert member.stdin is not None
            member.stdin.write(config.model_dump_json() + "\n")
            member.stdin.flush()
        # Workers that wait for each other in vain must fail a test, not hang it.
        watch = threading.Timer(LIMIT, self.close)
        watch.start()
        try:
            return [self._answer(member) for member in self.members]
        finally:
            watch.cancel()

    @staticmethod
    def _answer(member: subprocess.Popen[str]) -> str:
        assert member.stdout is not None
        for line in member.stdout:
            if line.startswith("SAID"):
                answer: str = json.loads(line.removeprefix("SAID"))
                return answer
        return "died"

    def close(self) -> None:
        for member in self.members:
            member.kill()
            member.wait()


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.close()


def logged(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]


def assert_same_lines(first: list[dict[str, float]], other: list[dict[str, float]], tolerance: float = 1e-5) -> None:
    assert [line["step"] for line in first] == [line["step"] for line in other]
    for mine, theirs in zip(first, other, strict=True):
        assert mine == pytest.approx(theirs, abs=tolerance, rel=tolerance), f"step {mine['step']}"


def assert_same_weights(first: TrainConfig, other: TrainConfig, tolerance: float = 1e-4) -> None:
    mine, theirs = (load_file(config.output_dir / "model" / "model.safetensors") for config in (first, other))
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(theirs[name], value, atol=tolerance, rtol=0)


@pytest.fixture
def two_runs(configure: Configure, tmp_path: Path) -> Callable[..., tuple[TrainConfig, TrainConfig]]:
    """The same run twice, in folders ``one`` and ``two``; ``cache`` keeps them from sharing a stored reference."""

    def two(second: Mapping[str, Any] | None = None, **options: Any) -> tuple[TrainConfig, TrainConfig]:
        # Windows of 3, 3 and 2 pairs over two workers: shares are unequal, and so are forward passes. A rate small
        # enough for rounding not to grow, as Adam's first steps turn a gradient near 0 into a step of full size.
        values = {"batch_size": 3, "micro_batch_size": 1, "adam_epsilon": 1e-3, "save_steps": 2, **options}
        return (
            configure(output_dir=tmp_path / "one", **values),
            configure(output_dir=tmp_path / "two", **values, **(second or {})),
        )

    return two


Two = Callable[..., tuple[TrainConfig, TrainConfig]]


@pytest.mark.parametrize(
    "second",
    [
        {"sharding": "ddp"},
        {"sharding": "fsdp"},
        # Of 5 response tokens or 12 these would be 1 or 3 calls of the head, which workers must call equally often.
        {"sharding": "fsdp", "gradient_checkpointing": True, "head_chunk": 5},
    ],
)
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_two_workers_log_and_learn_what_one_does(
    two_runs: Two, crew: Crew, second: dict[str, Any], tuning: str
) -> None:
    alone, two = two_runs(second, tuning=tuning)
    train(alone)
    assert crew.train(two) == ["done", "done"]
    assert_same_lines(logged(alone), logged(two))
    assert_same_weights(alone, two)


def test_what_no_pair_reads_is_left_alone_on_any_number_of_workers(two_runs: Two, crew: Crew) -> None:
    """LLaVA reads the tower's last layer but one: the last has no gradient, and one of 0 would decay its weights."""
    options = {"tuning": "full", "freeze_vision": False, "weight_decay": 1.0, "epochs": 1}
    alone, two = two_runs({"sharding": "ddp"}, **options)
    train(alone)
    assert crew.train(two) == ["done", "done"]
    assert_same_weights(alone, two)
    start, end = (load_file(Path(folder) / "model.safetensors") for folder in (two.model, two.output_dir / "model"))
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    tower = {name for name in start if name.startswith("vision_tower")}
    assert {name for name in tower if "layers.1." in name}.isdisjoint(moved)
    assert any("layers.0." in name for name in tower & moved)


def test_a_wrong_sum_of_gradients_would_show(two_runs: Two, tmp_path: Path, configure: Configure) -> None:
    """The negative control of the test above: a gradient half as large is another line of the log."""
    alone, _ = two_runs()
    train(alone)
    half = configure(**{**alone.model_dump(mode="json"), "output_dir": tmp_path / "half", "beta": 0.05})
    train(half)
    with pytest.raises(AssertionError):
        assert_same_lines(logged(alone), logged(half))


def test_fsdp_with_everything_on_is_the_same_run(
    two_runs: Two, crew: Crew, dataset_folder: Path, rows: list[dict[str, Any]], publish: Any, tmp_path: Path
) -> None:
    # The reference live, prefixes not shared (nothing runs before the reference), parts of the tower moving, SFT rows
    # and evaluations: every kind of forward pass must be met by both workers.
    held_out = tmp_path / "held-out"
    publish(rows[:3]).save_to_disk(str(held_out))
    options = {
        "tuning": "full",
        "freeze_vision": False,
        "freeze_projector": False,
        "share_prefix": False,
        "sft": {"dataset": str(dataset_folder), "batch_size": 3},
        "eval_dataset": str(held_out),
        "eval_steps": 2,
    }
    alone, two = two_runs({"sharding": "fsdp"}, **options)
    train(alone)
    assert crew.train(two) == ["done", "done"]
    assert_same_lines(logged(alone), logged(two))
    assert_same_weights(alone, two)
    assert {"eval/loss", "loss/sft"} <= set(logged(two)[1])


def test_fsdp_computes_the_reference_of_adapters_live_and_trains_them(two_runs: Two, crew: Crew) -> None:
    alone, two = two_runs({"sharding": "fsdp"}, tuning="lora", share_prefix=False, cache_reference=False, epochs=1)
    train(alone)
    assert crew.train(two) == ["done", "done"]
    assert_same_lines(logged(alone), logged(two))
    assert (two.output_dir / "adapter" / "adapter_model.safetensors").exists()


def test_fsdp_in_bfloat16_learns_alike_and_keeps_float32_weights(two_runs: Two, crew: Crew) -> None:
    alone, two = two_runs({"sharding": "fsdp"}, dtype="bfloat16", tuning="full", epochs=1)
    train(alone)
    assert crew.train(two) == ["done", "done"]
    # Autocast rounds other values than gathered bfloat16 weights do; an accuracy can turn on that.
    for mine, theirs in zip(logged(alone), logged(two), strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], abs=0.05)
        assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], rel=0.1)
    parts = sorted((two.output_dir / "checkpoints" / "step-00000003").glob("part-*"))
    assert [path.name for path in parts] == [f"part-0000{rank}-of-00002.safetensors" for rank in range(2)]
    assert {value.dtype for path in parts for value in load_file(path).values()} == {torch.float32}
    exported = load_file(two.output_dir / "model" / "model.safetensors")
    assert {value.dtype for value in exported.values()} == {torch.bfloat16}


def test_fsdp_keeps_tied_embeddings_whole(
    two_runs: Two, crew: Crew, make_model: Callable[..., Any], processor: Any, tmp_path: Path
) -> None:
    from pipeline.base.export import save_for_vllm

    model = make_model()
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    folder = save_for_vllm(model, processor, tmp_path / "tied")
    assert not any("lm_head" in name for name in load_file(folder / "model.safetensors"))
    alone, two = two_runs({"sharding": "fsdp"}, model=str(folder), epochs=1)
    train(alone)
    assert crew.train(two) == ["done", "done"]
    assert_same_lines(logged(alone), logged(two))


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_run_of_two_workers_goes_on_with_one_and_back(two_runs: Two, crew: Crew, sharding: str) -> None:
    # The checkpoint of step 4 holds the metrics of four steps that no line has told yet, of both workers.
    whole, parts = two_runs({"sharding": sharding}, logging_steps=5)
    train(whole)
    crew.train(parts)
    _back_to_step_4(parts)
    train(parts)
    assert_same_lines(logged(whole), logged(parts))
    assert_same_weights(whole, parts)
    _back_to_step_4(parts)
    assert crew.train(parts) == ["done", "done"]
    assert_same_lines(logged(whole), logged(parts))
    assert_same_weights(whole, parts)


def _back_to_step_4(config: TrainConfig) -> None:
    """As if the run had been killed before its last checkpoint."""
    (config.output_dir / TRAINED).unlink()
    shutil.rmtree(config.output_dir / "checkpoints" / "step-00000006")
    assert (config.output_dir / "checkpoints" / "step-00000004").exists()


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_all_workers_end_where_a_run_diverges_and_none_waits(two_runs: Two, crew: Crew, sharding: str) -> None:
    _, two = two_runs({"sharding": sharding, "learning_rate": 1e30, "warmup_ratio": 0.0}, save_steps=1)
    answers = crew.train(two)
    assert answers[0] == answers[1] and re.match(r"DivergedError: step \d: ", answers[0])
    assert not (two.output_dir / "model").exists()


def test_an_error_is_the_same_on_every_worker(two_runs: Two, crew: Crew) -> None:
    _, two = two_runs(model="/nowhere")
    assert all(answer.startswith("ModelError: model /nowhere: cannot be loaded") for answer in crew.train(two))


def test_weights_that_the_first_worker_cannot_read_are_an_error_of_all_and_none_waits(
    two_runs: Two, crew: Crew, model_folder: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(model_folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    _, two = two_runs({"sharding": "fsdp", "model": str(broken)})
    assert all(answer.startswith(f"ModelError: model {broken}: cannot be loaded") for answer in crew.train(two))


def test_ray_train_starts_the_workers_and_what_they_say_is_repeated(
    two_runs: Two, ray_cluster: None, tmp_path: Path
) -> None:
    alone, two = two_runs({"workers": 2}, epochs=1)
    train(alone)
    file = tmp_path / "two.yaml"
    file.write_text(two.model_dump_json())
    result = CliRunner().invoke(app, [str(file)])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(two.output_dir / "model")
    assert "train step 3/3" in result.stderr
    assert_same_lines(logged(alone), logged(two))
    assert_same_weights(alone, two)
    assert not (two.output_dir / "ray").exists()


def test_an_error_inside_a_ray_worker_is_one_message_and_status_2(
    two_runs: Two, ray_cluster: None, tmp_path: Path, rows: list[dict[str, Any]], publish: Any
) -> None:
    published = publish(rows).cast_column("images", datasets.List(datasets.Image(decode=False)))
    table = published.to_list()
    table[2]["images"] = [{"bytes": b"broken", "path": None}]
    folder = tmp_path / "broken"
    datasets.Dataset.from_list(table, features=published.features).save_to_disk(str(folder))
    _, two = two_runs({"workers": 2, "dataset": str(folder)})
    file = tmp_path / "two.yaml"
    file.write_text(two.model_dump_json())
    result = CliRunner().invoke(app, [str(file)])
    assert result.exit_code == 2
    assert f"error: dataset {folder}: row 2 (id pair-2): image 0 cannot be read" in result.stderr
    assert "Traceback" not in result.stderr


def test_more_workers_than_the_cluster_holds_are_refused_with_the_remedy(
    two_runs: Two, ray_cluster: None, tmp_path: Path
) -> None:
    _, two = two_runs({"workers": 1000})
    file = tmp_path / "two.yaml"
    file.write_text(two.model_dump_json())
    result = CliRunner().invoke(app, [str(file)])
    assert result.exit_code == 2
    assert "1000 workers of training need 1000 CPUs" in result.stderr
    assert "lower `workers`" in result.stderr


def test_one_worker_alone_needs_no_process_group() -> None:
    alone = Worker(torch.device("cpu"))
    assert alone.main
    assert alone.sum(torch.tensor(2.0)) == 2.0
    assert alone.gather([1, 2]) == [1, 2]
    alone.wait()
