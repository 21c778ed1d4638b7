"""Training: what is checked before the first update, what is logged, and that resuming changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reward.forward.token_logps import Forward
from training.config import TrainConfig
from training.config.steps import total_steps
from training.data.pairs import PairDataset
from training.data.schedule import window_of
from training.errors import CheckpointError, ModelError, StepZeroError
from training.forward import model as model_module
from training.forward.batch import collate
from training.forward.logps import sequence_logps
from training.forward.model import load_model, prepare_tuning
from training.loop import trainer
from training.loop.sums import Sums
from training.loop.trainer import train
from training.loop.worker import Worker

TRL_NAMES = {
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "learning_rate",
    "grad_norm",
    "epoch",
}
IMAGE_NAMES = {
    "rewards/chosen_corrupted",
    "rewards/image_margins",
    "rewards/image_accuracies",
    "logps/chosen_corrupted",
    "loss/response",
    "loss/image",
    "loss/anchor",
}

Configure = Callable[..., TrainConfig]


def logged(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    return load_file(config.output_dir / "model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Killed(Exception):
    pass


def kill_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Die while the gradients of step ``step`` (0-based) are being summed."""
    calls = iter(range(1000))

    def die(*_: Any) -> None:
        if next(calls) == step:
            raise Killed

    monkeypatch.setattr(trainer, "sum_gradients", die)


@pytest.mark.parametrize(("objective", "terms"), [("dpo", 1), ("mdpo", 3)])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_before_the_first_update_all_rewards_are_zero_and_the_loss_is_log_2_per_term(
    configure: Configure, objective: str, terms: int, tuning: str
) -> None:
    config = configure(objective=objective, tuning=tuning, max_steps=1)
    train(config)
    (first,) = logged(config)
    assert first["loss"] == pytest.approx(terms * math.log(2), abs=1e-5)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        assert abs(first[name]) < 1e-5


def test_a_reference_of_another_model_is_refused_before_the_first_update_naming_the_worst_pair(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.reference.load_or_compute

    def shifted(*args: Any) -> Any:
        look_up = real(*args)

        def ref(indices: list[int]) -> Any:
            logps = look_up(indices)
            logps["chosen"][indices.index(5)] += 3.0
            return logps

        return ref

    monkeypatch.setattr(trainer.reference, "load_or_compute", shifted)
    config = configure(batch_size=8, micro_batch_size=8, weigh_pairs=False)
    with pytest.raises(StepZeroError, match=r"log p of `chosen` of row 5 \(id pair-5\) is 0\.5 nats"):
        train(config)
    assert not (config.output_dir / "model").exists()


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_killed_and_resumed_run_ends_with_the_weights_and_metrics_of_an_uninterrupted_one(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning: str
) -> None:
    options = {"tuning": tuning, "save_steps": 2, "logging_steps": 3}
    whole = configure(output_dir=tmp_path / "whole", **options)
    train(whole)
    resumed = configure(output_dir=tmp_path / "resumed", **options)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, step=4)
        train(resumed)
    assert not (resumed.output_dir / "model").exists()
    train(resumed)
    assert same(weights(whole), weights(resumed))
    assert logged(whole) == logged(resumed)


def test_resuming_under_other_options_is_refused_and_names_them(configure: Configure) -> None:
    train(configure(max_steps=1))
    with pytest.raises(CheckpointError, match=r"beta was 0\.1 and is 0\.2.*resume=never"):
        train(configure(max_steps=1, beta=0.2))
    train(configure(max_steps=1, beta=0.2, resume=False))


def test_only_the_two_newest_checkpoints_are_kept(configure: Configure) -> None:
    config = configure(save_steps=1, max_steps=4)
    train(config)
    kept = sorted(path.name for path in (config.output_dir / "checkpoints").iterdir())
    assert kept == ["step-00000003", "step-00000004"]


def test_mdpo_logs_trls_names_and_the_image_conditional_ones(configure: Configure) -> None:
    config = configure(max_steps=2)
    train(config)
    for line in logged(config):
        assert set(line) == TRL_NAMES | IMAGE_NAMES | {"step"}
        terms = line["loss/response"] + line["loss/image"] + line["loss/anchor"]
        assert line["loss"] == pytest.approx(terms, rel=1e-6)
    assert list((config.output_dir / "tensorboard").iterdir())


def test_dpo_logs_the_image_conditional_metrics_only_if_asked_and_trains_alike_either_way(
    configure: Configure, tmp_path: Path
) -> None:
    plain = configure(objective="dpo", max_steps=3, output_dir=tmp_path / "plain")
    probed = configure(objective="dpo", max_steps=3, output_dir=tmp_path / "probed", probe_image=True)
    train(plain)
    train(probed)
    assert set(logged(plain)[0]) == TRL_NAMES | {"step"}
    assert set(logged(probed)[0]) == TRL_NAMES | IMAGE_NAMES | {"step"}
    assert same(weights(plain), weights(probed))


def test_what_a_checkpoint_does_not_know_of_is_no_zero(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line after it is over the pairs since then, in every metric."""
    whole = configure(max_steps=4, output_dir=tmp_path / "whole")
    train(whole)
    config = configure(max_steps=4, save_steps=1, logging_steps=4)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_after(patched, 2)
        train(config)
    path = config.output_dir / "checkpoints" / "step-00000002" / "state.pt"
    state = torch.load(path, weights_only=True)
    del state["sums"]["rewards/image_margins"]
    torch.save(state, path)
    train(config)
    (line,) = logged(config)
    counts = [len(window_of(step, 8, config)) for step in (2, 3)]
    for name in ("loss", "logps/chosen", "rewards/image_margins", "rewards/accuracies"):
        since = [entry[name] for entry in logged(whole)[2:]]
        mean = sum(value * count for value, count in zip(since, counts, strict=True)) / sum(counts)
        assert line[name] == pytest.approx(mean, rel=1e-5)


def test_sums_go_on_where_a_checkpoint_knows_all_of_them() -> None:
    worker = Worker(torch.device("cpu"))
    known = Sums(("a", "b"), worker, {"a": 3.0, "b": 1.0, "gone": 7.0}, 2)
    known.add({"a": torch.tensor([1.0]), "b": torch.tensor([0.0])}, 1)
    assert known.means() == {"a": 4 / 3, "b": 1 / 3}
    unknown = Sums(("a", "b"), worker, {"a": 3.0}, 2)
    unknown.add({"a": torch.tensor([1.0]), "b": torch.tensor([0.5])}, 1)
    assert unknown.means() == {"a": 1.0, "b": 0.5}


@pytest.mark.parametrize("objective", ["dpo", "mdpo"])
def test_training_raises_the_margins_of_the_training_pairs(configure: Configure, objective: str) -> None:
    config = configure(objective=objective, epochs=6, batch_size=4, micro_batch_size=4)
    result = train(config)
    assert result.metrics["rewards/margins"] > 0.05
    assert result.metrics["rewards/accuracies"] == 1.0
    if objective == "mdpo":
        assert result.metrics["rewards/image_margins"] > 0
        assert result.metrics["rewards/chosen"] > 0


def test_the_micro_batch_size_does_not_change_the_result(configure: Configure, tmp_path: Path) -> None:
    # 8 pairs in windows of 3, 3, 2: the loss must be divided by the pairs there are, not by a fixed number.
    runs = [
        configure(output_dir=tmp_path / f"micro{size}", micro_batch_size=size, epochs=1, max_grad_norm=1e9)
        for size in (1, 2, 3)
    ]
    for config in runs:
        train(config)
    first, *others = (weights(config) for config in runs)
    for other in others:
        for name in first:
            torch.testing.assert_close(other[name], first[name], atol=1e-4, rtol=0)
    losses = [[line["loss"] for line in logged(config)] for config in runs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0] == pytest.approx(losses[2], abs=1e-4)


def test_weighing_pairs_makes_passes_smaller_and_changes_no_gradient(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[str, list[int]] = {}
    real = trainer.passes

    def train_with(name: str, lose: int = 0, **options: Any) -> TrainConfig:
        sizes[name] = []

        def count(*args: Any) -> Any:
            result = real(*args)
            sizes[name] += [len(indices) for indices, _ in result]
            return result[: len(result) - lose]

        monkeypatch.setattr(trainer, "passes", count)
        changes = {"batch_size": 8, "micro_batch_size": 4, "epochs": 2, "max_grad_norm": 1e9, "adam_epsilon": 1e-3}
        config = configure(output_dir=tmp_path / name, **changes, **options)
        train(config)
        return config

    weighed, counted, killed = train_with("weighed"), train_with("counted", weigh_pairs=False), "killed"
    assert (sizes["weighed"], sizes["counted"]) == ([3, 3, 2] * 2, [4, 4] * 2)
    for mine, theirs in zip(logged(weighed), logged(counted), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5, rel=1e-5)
    for name, value in weights(counted).items():
        torch.testing.assert_close(weights(weighed)[name], value, atol=1e-5, rtol=0)
    # A run that is killed goes on in passes of the other size.
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, step=1)
        train_with(killed, weigh_pairs=False, save_steps=1)
    resumed = train_with(killed, save_steps=1)
    assert sizes[killed] == [3, 3, 2]
    assert logged(resumed)[-1] == pytest.approx(logged(counted)[-1], abs=1e-5, rel=1e-5)
    # Without the last pass of each window it would show.
    missing = train_with("missing", lose=1)
    assert logged(missing)[0]["grad_norm"] != pytest.approx(logged(counted)[0]["grad_norm"], rel=1e-3)


def test_frozen_parts_stay_and_every_other_parameter_moves(configure: Configure, model_folder: Path) -> None:
    config = configure(max_steps=3, warmup_ratio=0.0)
    train(config)
    before, after = load_file(model_folder / "model.safetensors"), weights(config)
    for name in before:
        frozen = name.startswith(("vision_tower.", "multi_modal_projector."))
        assert torch.equal(before[name], after[name]) == frozen, name


def test_gradient_checkpointing_and_the_feature_cache_leave_the_result_as_it_is(
    configure: Configure, tmp_path: Path
) -> None:
    plain = configure(output_dir=tmp_path / "plain", epochs=1)
    saving = configure(output_dir=tmp_path / "saving", epochs=1, gradient_checkpointing=True, cache_image_features=True)
    train(plain)
    train(saving)
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(saving)[name], value, atol=1e-4, rtol=0)


def test_bfloat16_training_passes_the_check_before_the_first_update_and_exports_bfloat16(configure: Configure) -> None:
    for tuning in ("full", "lora"):
        config = configure(dtype="bfloat16", tuning=tuning, max_steps=1, resume=False)
        train(config)
        assert {value.dtype for value in weights(config).values()} == {torch.bfloat16}


def test_an_epoch_visits_every_pair_once_in_an_order_of_its_own(configure: Configure) -> None:
    config = configure(batch_size=3, epochs=2)
    assert total_steps(8, config) == 6
    epochs = [[pair for step in steps for pair in window_of(step, 8, config)] for steps in (range(3), range(3, 6))]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_lora_trains_only_linear_layers_of_the_language_model_and_keeps_the_adapter(configure: Configure) -> None:
    config = configure(tuning="lora", max_steps=2, lora={"r": 2, "alpha": 4})
    train(config)
    adapter = load_file(config.output_dir / "adapter" / "adapter_model.safetensors")
    assert adapter
    assert all("language_model" in name for name in adapter)
    checkpoint = load_file(config.output_dir / "checkpoints" / "step-00000002" / "weights.safetensors")
    assert all("lora_" in name for name in checkpoint)


def test_a_window_of_fewer_pairs_than_the_batch_size_is_divided_by_its_own_number(
    configure: Configure, tmp_path: Path
) -> None:
    # Eight pairs are one full window of 8, or a short window of 16: the gradient is the same mean.
    full, short = (configure(output_dir=tmp_path / f"b{size}", batch_size=size, max_steps=1) for size in (8, 16))
    train(full)
    train(short)
    assert logged(short)[0]["grad_norm"] == pytest.approx(logged(full)[0]["grad_norm"], rel=1e-6)


def test_dropout_of_the_starting_model_is_switched_off(
    configure: Configure, make_model: Callable[..., Any], pairs: PairDataset
) -> None:
    model = make_model()
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    batch, plain = collate(pairs, range(4), ("chosen",), share_prefix=False), Forward().naive
    with torch.no_grad():
        noisy = [
            sequence_logps(model.train(), batch, Forward(share_prefix=False, share_images=False)) for _ in range(2)
        ]
        assert not torch.equal(*noisy)  # negative control
        prepared = prepare_tuning(model, configure())
        assert prepared.training
        assert torch.equal(*(sequence_logps(prepared, batch, plain) for _ in range(2)))


def symmpo_folder(
    rows: list[dict[str, Any]], publish: Callable[..., Any], draw: Callable[[int], Any], to: Path
) -> Path:
    """The rows with the next one's picture and right answer as the similar image's."""
    import datasets

    plain = publish(rows)
    similar = [{"similar_images": [draw((i + 1) % 8)], "similar_chosen": rows[(i + 1) % 8]["chosen"]} for i in range(8)]
    features = datasets.Features(
        {"similar_images": datasets.List(datasets.Image()), "similar_chosen": plain.features["chosen"]}
    )
    both = datasets.concatenate_datasets([plain, datasets.Dataset.from_list(similar, features=features)], axis=1)
    both.save_to_disk(str(to))
    return to


@pytest.mark.parametrize("branch", ["contrast", "similar", "similar_swapped"])
def test_a_wrong_reference_of_any_branch_of_symmpo_is_refused_too(
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[dict[str, Any]],
    publish: Callable[..., Any],
    draw: Callable[[int], Any],
    tmp_path: Path,
    branch: str,
) -> None:
    folder = symmpo_folder(rows, publish, draw, tmp_path / "similar")
    real = trainer.reference.load_or_compute

    def shifted(*args: Any) -> Any:
        look_up = real(*args)

        def ref(indices: list[int]) -> Any:
            logps = look_up(indices)
            logps[branch][indices.index(2)] -= 3.0
            return logps

        return ref

    options = {
        "dataset": str(folder),
        "objective": "symmpo",
        "batch_size": 8,
        "micro_batch_size": 8,
        "weigh_pairs": False,
        "max_steps": 1,
    }
    train(configure(**options))  # negative control
    monkeypatch.setattr(trainer.reference, "load_or_compute", shifted)
    with pytest.raises(StepZeroError, match=rf"log p of `{branch}` of row 2 \(id pair-2\)"):
        train(configure(**options, resume=False))


def test_each_part_of_the_model_moves_at_its_own_rate(configure: Configure, model_folder: Path) -> None:
    # Adam's first step is the rate itself for every weight that has a gradient well above epsilon.
    rates = {"language_model": 1e-3, "vision_tower": 1e-4, "multi_modal_projector": 1e-2}
    config = configure(
        learning_rate=rates["language_model"],
        vision_learning_rate=rates["vision_tower"],
        projector_learning_rate=rates["multi_modal_projector"],
        freeze_vision=False,
        freeze_projector=False,
        warmup_ratio=0.0,
        weight_decay=0.0,
        adam_epsilon=1e-12,
        max_steps=1,
    )
    train(config)
    before, after = load_file(model_folder / "model.safetensors"), weights(config)
    for part, rate in rates.items():
        moved = torch.cat([(after[name] - before[name]).abs().flatten() for name in before if name.startswith(part)])
        assert moved.max().item() == pytest.approx(rate, rel=1e-2), part
        assert moved.median().item() == pytest.approx(rate, rel=1e-2) or part == "language_model"


def test_parts_without_a_rate_of_their_own_have_the_common_one(make_model: Callable[..., Any]) -> None:
    from training.config import make_config
    from training.loop.optimise import make_optimizer

    config = make_config(
        {"model": "m", "dataset": "d", "output_dir": "o", "tuning": "full", "learning_rate": 0.5}
        | {"vision_learning_rate": 0.25, "freeze_vision": False, "freeze_projector": False, "weight_decay": 0.1}
    )
    model = make_model()
    groups = make_optimizer(prepare_tuning(model, config), config).param_groups
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    decay_of = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert rate_of[id(parameter)] == (0.25 if "vision_tower" in name else 0.5), name
        assert decay_of[id(parameter)] == (0.1 if parameter.ndim >= 2 else 0.0), name


def test_four_bits_without_a_gpu_are_refused_with_the_remedy(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(quantization="nf4", tuning="lora")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"needs an NVIDIA GPU and there is none; set quantization=null"):
        train(config)


def test_four_bits_without_bitsandbytes_are_refused_with_the_remedy(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(quantization="nf4", tuning="lora")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install -e '\.\[qlora\]'"):
        load_model(config)


def test_of_a_model_in_four_bits_only_the_language_models_layers_are_read_so(
    configure: Configure, make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.quantizers.quantizers_utils import should_convert_module

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    options = model_module._four_bits(configure(quantization="nf4", tuning="lora"))
    assert options["device_map"] == {"": 0}
    skipped = options["quantization_config"].llm_int8_skip_modules
    linears = [name for name, module in make_model().named_modules() if isinstance(module, torch.nn.Linear)]
    converted = {name for name in linears if should_convert_module(name, skipped)}
    assert converted == {name for name in linears if "language_model" in name}


def test_the_one_kernel_of_adamw_does_what_its_loop_does(make_model: Callable[..., Any]) -> None:
    from training.config import make_config
    from training.loop.optimise import make_optimizer

    config = make_config({"model": "m", "dataset": "d", "output_dir": "o", "tuning": "full", "weight_decay": 0.1})

    def trained(fused: bool, steps: int = 5) -> torch.Tensor:
        model = prepare_tuning(make_model(), config)
        optimizer = make_optimizer(model, config)
        assert all(group["fused"] for group in optimizer.param_groups)
        if not fused:
            optimizer = torch.optim.AdamW(optimizer.param_groups, fused=False, foreach=False)
            for group in optimizer.param_groups:
                group["fused"] = False
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator) if parameter.requires_grad else None
            optimizer.step()
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    torch.testing.assert_close(trained(fused=True), trained(fused=False), atol=1e-7, rtol=1e-5)
    assert (trained(fused=True) - trained(fused=False, steps=4)).abs().max() > 1e-6
