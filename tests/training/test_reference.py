"""Reference log-probs: computed once, found again, refused when incomplete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from training import reference
from training.config import TrainConfig
from training.data import PairDataset
from training.errors import ReferenceCacheError
from training.model import prepare_tuning
from training.policy import Policy, make_policy, pair_logps

Configure = Callable[..., TrainConfig]
CPU = torch.device("cpu")


@pytest.fixture
def policy(make_model: Callable[..., Any], configure: Configure) -> Policy:
    return make_policy(prepare_tuning(make_model(), configure()), CPU, configure())


def stored(config: TrainConfig) -> Path:
    (path,) = (config.output_dir / "reference").glob("*.arrow")
    return path


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    rows = pa.ipc.open_file(path.read_bytes()).read_all().to_pylist()
    change(rows)
    reference._write(rows, path)


def test_values_are_the_models_own_log_probs_in_dataset_order(
    policy: Policy, pairs: PairDataset, configure: Configure
) -> None:
    config = configure()
    ref = reference.load_or_compute(policy, pairs, config, "weights")
    with torch.no_grad():
        expected = pair_logps(policy, pairs, range(8), config)
    assert ref.corrupted is not None and expected.corrupted is not None
    torch.testing.assert_close(ref.chosen, expected.chosen, atol=1e-4, rtol=0)
    torch.testing.assert_close(ref.rejected, expected.rejected, atol=1e-4, rtol=0)
    torch.testing.assert_close(ref.corrupted, expected.corrupted, atol=1e-4, rtol=0)
    assert (ref.corrupted - ref.chosen).abs().max() > 1e-3


def test_a_second_run_reads_the_file_and_runs_no_model(
    policy: Policy, pairs: PairDataset, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure()
    first = reference.load_or_compute(policy, pairs, config, "weights")
    monkeypatch.setattr(reference, "pair_logps", None)
    second = reference.load_or_compute(policy, pairs, config, "weights")
    assert torch.equal(first.chosen, second.chosen)


def test_with_lora_the_reference_is_the_model_without_its_adapters(
    make_model: Callable[..., Any], pairs: PairDataset, configure: Configure, tmp_path: Path
) -> None:
    config = configure(tuning="lora")
    adapted = prepare_tuning(make_model(), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    ref = reference.load_or_compute(make_policy(adapted, CPU, config), pairs, config, "weights")
    bare = configure(output_dir=tmp_path / "bare")
    base = make_policy(prepare_tuning(make_model(), bare), CPU, bare)
    expected = reference.load_or_compute(base, pairs, bare, "weights")
    torch.testing.assert_close(ref.chosen, expected.chosen, atol=1e-4, rtol=0)
    with torch.no_grad():  # negative control: the adapters do matter
        assert (
            pair_logps(make_policy(adapted, CPU, config), pairs, range(8), config).chosen - ref.chosen
        ).abs().max() > 0.1


def test_a_missing_row_is_an_error_naming_the_pair(policy: Policy, pairs: PairDataset, configure: Configure) -> None:
    config = configure()
    reference.load_or_compute(policy, pairs, config, "weights")
    rewrite(stored(config), lambda rows: rows.pop(3))
    with pytest.raises(ReferenceCacheError, match=r"row 3 \(id pair-3\): .*`chosen` is missing.*delete the file"):
        reference.load_or_compute(policy, pairs, config, "weights")


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), None])
def test_a_value_that_is_not_finite_is_an_error_naming_the_pair(
    policy: Policy, pairs: PairDataset, configure: Configure, value: float | None
) -> None:
    config = configure()
    reference.load_or_compute(policy, pairs, config, "weights")
    rewrite(stored(config), lambda rows: rows[2].update(corrupted=value))
    with pytest.raises(ReferenceCacheError, match=r"row 2 \(id pair-2\): .*`corrupted`"):
        reference.load_or_compute(policy, pairs, config, "weights")


def test_a_damaged_file_is_an_error_with_the_remedy(policy: Policy, pairs: PairDataset, configure: Configure) -> None:
    config = configure()
    reference.load_or_compute(policy, pairs, config, "weights")
    stored(config).write_bytes(b"broken")
    with pytest.raises(ReferenceCacheError, match="delete the file to compute it again"):
        reference.load_or_compute(policy, pairs, config, "weights")


def test_the_fingerprint_changes_with_everything_the_values_depend_on_and_nothing_else(
    pairs: PairDataset, configure: Configure
) -> None:
    base = reference.fingerprint(pairs, "weights", configure())
    fewer = PairDataset(pairs.pairs[:-1], pairs.rows, pairs.processor, pairs.corruption, pairs.seed)
    changed = [
        reference.fingerprint(pairs, "other weights", configure()),
        reference.fingerprint(fewer, "weights", configure()),
        reference.fingerprint(pairs, "weights", configure(seed=1)),
        reference.fingerprint(pairs, "weights", configure(corruption={"keep_area": [0.2, 0.5]})),
        reference.fingerprint(pairs, "weights", configure(dtype="bfloat16")),
        reference.fingerprint(pairs, "weights", configure(objective="dpo")),
    ]
    assert len({base, *changed}) == 7
    assert base == reference.fingerprint(pairs, "weights", configure(learning_rate=1.0, beta=0.5, batch_size=8))


def test_the_weights_digest_sees_a_change_in_any_single_weight(make_model: Callable[..., Any]) -> None:
    model = make_model()
    before = reference.weights_digest(model)
    assert before == reference.weights_digest(make_model())
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-3
    assert before != reference.weights_digest(model)
