"""Reference log-probs: computed once, found again, refused when incomplete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from training.config import TrainConfig
from training.data.identity import Start
from training.data.pairs import PairDataset
from training.data.schedule import window_of
from training.errors import ReferenceCacheError
from training.forward.model import prepare_tuning
from training.forward.policy import Logps, Policy, make_policy, pair_logps
from training.loop import reference
from training.loop.trainer import train

Configure = Callable[..., TrainConfig]
CPU = torch.device("cpu")
START = Start("weights", "config", "processor")


@pytest.fixture
def policy(make_model: Callable[..., Any], pairs: PairDataset, configure: Configure) -> Policy:
    return make_policy(prepare_tuning(make_model(), configure()), CPU, configure(), pairs)


def load(policy: Policy, pairs: PairDataset, config: TrainConfig) -> Logps:
    """The values of all eight pairs."""
    return reference.load_or_compute(policy, pairs, config, START, config.output_dir)(range(8))


def stored(config: TrainConfig) -> Path:
    (path,) = config.output_dir.glob("*.arrow")
    return path


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    rows = table.to_pylist()
    change(rows)
    reference._write(rows, path, table.schema)


def test_values_are_the_models_own_log_probs_in_dataset_order(
    policy: Policy, pairs: PairDataset, configure: Configure
) -> None:
    config = configure()
    ref = load(policy, pairs, config)
    with torch.no_grad():
        expected = pair_logps(policy, pairs, range(8), config)
    assert ref.keys() == expected.keys() == {"chosen", "rejected", "corrupted"}
    for branch, values in expected.items():
        torch.testing.assert_close(ref[branch], values, atol=1e-4, rtol=0)
    assert (ref["corrupted"] - ref["chosen"]).abs().max() > 1e-3


def test_a_second_run_reads_the_file_and_runs_no_model(
    policy: Policy, pairs: PairDataset, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure()
    first = load(policy, pairs, config)
    monkeypatch.setattr(reference, "pair_logps", None)
    second = load(policy, pairs, config)
    assert torch.equal(first["chosen"], second["chosen"])


def test_with_lora_the_reference_is_the_model_without_its_adapters(
    make_model: Callable[..., Any], pairs: PairDataset, configure: Configure, tmp_path: Path
) -> None:
    config = configure(tuning="lora")
    adapted = prepare_tuning(make_model(), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    ref = load(make_policy(adapted, CPU, config, pairs), pairs, config)
    bare = configure(output_dir=tmp_path / "bare")
    base = make_policy(prepare_tuning(make_model(), bare), CPU, bare, pairs)
    expected = load(base, pairs, bare)
    torch.testing.assert_close(ref["chosen"], expected["chosen"], atol=1e-4, rtol=0)
    with torch.no_grad():  # negative control: the adapters do matter
        assert (
            pair_logps(make_policy(adapted, CPU, config, pairs), pairs, range(8), config)["chosen"] - ref["chosen"]
        ).abs().max() > 0.1


def test_a_missing_row_is_an_error_naming_the_pair(policy: Policy, pairs: PairDataset, configure: Configure) -> None:
    config = configure()
    load(policy, pairs, config)
    rewrite(stored(config), lambda rows: rows.pop(3))
    with pytest.raises(ReferenceCacheError, match=r"row 3 \(id pair-3\): .*`chosen` is missing.*delete the file"):
        load(policy, pairs, config)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), None])
def test_a_value_that_is_not_finite_is_an_error_naming_the_pair(
    policy: Policy, pairs: PairDataset, configure: Configure, value: float | None
) -> None:
    config = configure()
    load(policy, pairs, config)
    rewrite(stored(config), lambda rows: rows[2].update(corrupted=value))
    with pytest.raises(ReferenceCacheError, match=r"row 2 \(id pair-2\): .*`corrupted`"):
        load(policy, pairs, config)


def test_a_damaged_file_is_an_error_with_the_remedy(policy: Policy, pairs: PairDataset, configure: Configure) -> None:
    config = configure()
    load(policy, pairs, config)
    stored(config).write_bytes(b"broken")
    with pytest.raises(ReferenceCacheError, match="delete the file to compute it again"):
        load(policy, pairs, config)


def test_the_fingerprint_changes_with_everything_the_values_depend_on_and_nothing_else(
    pairs: PairDataset, configure: Configure
) -> None:
    base = reference.fingerprint(pairs, START, configure())
    fewer = replace(pairs, pairs=pairs.pairs[:-1])
    changed = [
        reference.fingerprint(pairs, replace(START, weights="others"), configure()),
        reference.fingerprint(fewer, START, configure()),
        reference.fingerprint(pairs, START, configure(seed=1)),
        reference.fingerprint(pairs, START, configure(corruption={"keep_area": [0.2, 0.5]})),
        reference.fingerprint(pairs, START, configure(dtype="bfloat16")),
        reference.fingerprint(pairs, START, configure(objective="dpo")),
        reference.fingerprint(pairs, START, configure(), share_prefix=False),
    ]
    assert len({base, *changed}) == 8
    assert base == reference.fingerprint(pairs, START, configure(learning_rate=1.0, beta=0.5, batch_size=8))


def test_it_lies_beside_a_local_dataset_so_that_other_runs_on_it_find_it(configure: Configure, tmp_path: Path) -> None:
    dataset = tmp_path / "data" / "dataset"
    dataset.mkdir(parents=True)
    assert reference.folder_of(configure(dataset=str(dataset))) == tmp_path / "data" / "dataset-reference"
    assert reference.folder_of(configure(dataset="someone/on-the-hub")) == tmp_path / "run" / "reference"


@pytest.mark.parametrize("name", [".", "./", "../dataset", "inside/..", "../../data/dataset/"])
def test_it_lies_beside_the_dataset_whatever_that_is_called_from_here(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    dataset = tmp_path / "data" / "dataset"
    (dataset / "inside").mkdir(parents=True)
    monkeypatch.chdir(dataset)
    assert reference.folder_of(configure(dataset=name)) == tmp_path / "data" / "dataset-reference"
    assert reference.folder_of(configure(), name) == tmp_path / "data" / "dataset-reference"


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_computed_live_it_stays_that_of_the_starting_weights(
    make_model: Callable[..., Any], pairs: PairDataset, configure: Configure, tuning: str
) -> None:
    config = configure(tuning=tuning)
    policy = make_policy(prepare_tuning(make_model(), config), CPU, config, pairs)
    stored_values = load(policy, pairs, config)
    look_up = reference.live(policy, pairs, config)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
        moved = pair_logps(policy, pairs, [5, 2], config)
    for branch, values in look_up([5, 2]).items():
        torch.testing.assert_close(values, stored_values[branch][[5, 2]], atol=1e-4, rtol=0)
        assert (moved[branch] - values).abs().max() > 1e-2  # negative control


def test_of_pairs_that_no_step_reads_nothing_is_computed(
    policy: Policy, pairs: PairDataset, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, computed, real = configure(), [], reference.pair_logps

    def counted(policy: Policy, dataset: PairDataset, part: list[int], config: TrainConfig) -> Logps:
        computed.extend(part)
        return real(policy, dataset, part, config)

    monkeypatch.setattr(reference, "pair_logps", counted)
    folder = config.output_dir
    some = reference.load_or_compute(policy, pairs, config, START, folder, places=[1, 4, 6])
    assert sorted(computed) == [1, 4, 6]
    every = reference.load_or_compute(policy, pairs, config, START, folder)
    torch.testing.assert_close(some([6, 1])["rejected"], every([6, 1])["rejected"], atol=1e-4, rtol=0)
    assert len(list(folder.glob("*.arrow"))) == 2
    with pytest.raises(KeyError):  # never another pair's value, and never nothing
        some([2])


def test_the_file_of_all_pairs_serves_for_some_and_not_the_other_way_round(
    policy: Policy, pairs: PairDataset, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure()
    every = load(policy, pairs, config)
    monkeypatch.setattr(reference, "pair_logps", None)
    some = reference.load_or_compute(policy, pairs, config, START, config.output_dir, places=[3, 5])
    assert torch.equal(some([5, 3])["chosen"], every["chosen"][[5, 3]])
    stored(config).unlink()
    with pytest.raises(TypeError):  # negative control: computed, by the None above
        reference.load_or_compute(policy, pairs, config, START, config.output_dir, places=[3, 5])


def test_a_missing_row_of_some_pairs_is_an_error(policy: Policy, pairs: PairDataset, configure: Configure) -> None:
    config = configure()
    reference.load_or_compute(policy, pairs, config, START, config.output_dir, places=[3, 5])
    rewrite(stored(config), lambda rows: rows.pop())
    with pytest.raises(ReferenceCacheError, match=r"`chosen` is missing.*delete the file"):
        reference.load_or_compute(policy, pairs, config, START, config.output_dir, places=[3, 5])


def test_a_training_that_ends_early_computes_what_its_steps_read(configure: Configure) -> None:
    config = configure(max_steps=1, batch_size=4, micro_batch_size=2)
    config = config.model_copy(update={"seed": 977})  # beside the dataset other trainings' files lie, too
    before = set(reference.folder_of(config).glob("*.arrow"))
    train(config)
    (path,) = set(reference.folder_of(config).glob("*.arrow")) - before
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    assert table.column("place").to_pylist() == sorted(window_of(0, 8, config))
