"""The trainer on one GPU, no downloads: ours on a 7B of random weights, and TRL's DPOTrainer on the same model.

    python benchmarks/gpu.py --family llava|qwen --json OUT [--tiny]      (--tiny: sizes for a CPU, to try it out)

Model, layers, batch (8) and micro-batch (4) are the same for both; all runs are in one process. No Ray, no vLLM, no
checkpoint, no export. Times are host seconds around synchronised regions, medians of the steps after the first two. A
part that fails writes ``PART/error`` into the JSON, and the others go on. Under four minutes a family on an H100.

What the JSON says, per run (``ours_dpo``, ``ours_mdpo``, ``ours_dpo_no_checkpointing_micro_1``,
``ours_dpo_float32_default_dtype``, ``trl_micro_4``; ``ours_over_trl`` is the first's pairs/s over the last's):

- ``pairs_per_s``, ``step_s``, ``loss``, ``peak_gib``; ours also ``prepare_ms_per_row`` (tokenising and checking),
  ``collate_s_per_step`` (reading images in line, within ``step_s``), ``reference_pairs_per_s``, ``tokens_per_pair_dpo``
- ``note``: whether prefixes are shared, and how far both ways are apart; ``shares``
- ``step_zero_refused``: whether the trainer refuses to start, with ``step_zero_said``
- ``step_zero_same_passes``: policy against reference in the same passes, nats a token (0 is foreseen)
- ``step_zero_stored`` against ``step_zero_allowed``: stored reference against it, in units of
  ``reward.forward.rounding.expected``; ``step_zero_worst_short``, ``_long``: the same in nats a token, of answers up
  to 3 tokens and of longer ones; ``step_zero_logits``: the largest

and of ``ours_dpo``'s model: ``noise`` (log-probs of the same pairs in passes of 1, 2 and 8, nats a token; ``ratio`` in
units of ``rounding.expected``), ``kernels`` (what ran in one pass of two pairs; ``math_attention_calls``:
of attention that no fast kernel took, 0 is wanted), ``tower`` (ms per image; Qwen's windows one by one, and in one
call).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gc
import io
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(os.environ.get("REPO", Path(__file__).parents[1])).resolve()
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "kit"), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from gpu_models import FAMILIES, build, save_pairs  # noqa: E402

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
BATCH, MICRO = 8, 4
#: Response tokens of what counts as a short answer, at most.
SHORT = 3
#: Our runs after the first, and what they change.
VARIANTS: dict[str, dict[str, Any]] = {
    "ours_mdpo": {"objective": "mdpo"},
    "ours_dpo_no_checkpointing_micro_1": {"gradient_checkpointing": False, "micro_batch_size": 1},
    "ours_dpo_float32_default_dtype": {"dtype": "float32", "micro_batch_size": 1},
}


@dataclass(frozen=True)
class Ran:
    """What a run of ours leaves for the parts that look at its model."""

    policy: Any
    data: Any
    config: Any


def synchronise() -> float:
    """Host seconds, with the device at rest."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def settled_median(seconds: Sequence[float]) -> float:
    """The median of the steps after the first two."""
    return statistics.median(seconds[2:] or seconds)


def peak_gib() -> float | None:
    return round(torch.cuda.max_memory_allocated() / 2**30, 1) if CUDA else None


def forget_peak() -> None:
    if CUDA:
        torch.cuda.reset_peak_memory_stats()


@contextlib.contextmanager
def part(result: dict[str, Any], name: str, keep: Path | None) -> Iterator[None]:
    """A part that fails is reported and does not take the others along; ``keep`` holds what was measured so far."""
    start = synchronise()
    try:
        yield
    except Exception as error:
        result[f"{name}/error"] = f"{type(error).__name__}: {error}"[:400]
        traceback.print_exc()
    result[f"{name}/wall_s"] = round(synchronise() - start, 1)
    outcome = result.get(f"{name}/error", "done")
    print(name, outcome, result[f"{name}/wall_s"], "s", file=sys.stderr, flush=True)
    if keep is not None:  # a machine that is taken away leaves what was measured until then
        keep.write_text(json.dumps(result, indent=1) + "\n")


def ours(
    model: Any, processor: Any, dataset: Path, folder: Path, steps: int, **changes: Any
) -> tuple[dict[str, Any], Ran]:
    """Some optimiser steps of the trainer's own parts; what they took."""
    from training.config import make_config
    from training.data.identity import Start
    from training.forward.model import positions, prepare_tuning, trainable
    from training.loop import inputs
    from training.loop.optimise import make_optimizer
    from training.loop.sharding import clip
    from training.loop.sums import Sums
    from training.loop.trainer import backward, make_reference, place
    from training.loop.worker import this_worker
    from training.loss.measure import metric_names

    values = {
        "model": "random",
        "dataset": str(dataset),
        "output_dir": str(folder / "out"),
        "objective": "dpo",
        "tuning": "lora",
        "lora": {"r": 64, "alpha": 128},
        "dtype": "bfloat16",
        "gradient_checkpointing": True,
        "batch_size": BATCH,
        "micro_batch_size": MICRO,
        "warmup_ratio": 0.0,
        "add_bos": "never",  # as TRL
    }
    config, worker = make_config(values | changes), this_worker()
    start = time.perf_counter()
    data = inputs.read(config, processor, positions(model), visible=False)
    report: dict[str, Any] = {
        "prepare_ms_per_row": round((time.perf_counter() - start) * 1e3 / len(data.train.pairs), 1)
    }
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        policy = place(prepare_tuning(model, config), data, config, worker)
    report |= {"note": told.getvalue().strip(), "shares": policy.forward.share_prefix}
    start = synchronise()
    ref = make_reference(policy, data.train, str(dataset), config, Start(config.objective, "random", "random"), worker)
    report["reference_pairs_per_s"] = round(len(data.train.pairs) / (synchronise() - start), 2)
    report |= step_zero(policy, data.train, ref, config, worker)

    optimizer, names = make_optimizer(policy.model, config), metric_names(config)
    parameters, sums = trainable(policy.model), Sums(names, worker)
    times: list[float] = []
    reading: list[float] = []
    forget_peak()
    with timed_collate() as spent:
        for step in range(steps):
            spent.clear()
            start = synchronise()
            backward(policy, data, ref, step, sums, config, worker)
            clip(parameters.values(), config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            times.append(synchronise() - start)
            reading.append(spent["collate"])
    pairs = data.train.pairs
    tokens = sum(len(pair.prompt.ids) + len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs) / len(pairs)
    report |= {
        "pairs_per_s": round(BATCH / settled_median(times), 3),
        "step_s": round(settled_median(times), 3),
        "collate_s_per_step": round(statistics.median(reading), 3),
        "tokens_per_pair_dpo": round(tokens),
        "loss": round(sums.means()["loss"], 4),
        "peak_gib": peak_gib(),
    }
    return report, Ran(policy, data, config)


def step_zero(policy: Any, dataset: Any, ref: Any, config: Any, worker: Any) -> dict[str, Any]:
    """How far the first step is from its reference, and whether the trainer refuses to start."""
    from reward.forward.rounding import judge
    from training.errors import StepZeroError
    from training.forward.model import DTYPES
    from training.loop.step_zero import check_step_zero, compare

    refusal = None
    try:
        step = check_step_zero(policy, dataset, ref, config, worker)
    except StepZeroError as error:
        refusal = str(error)
        step = compare(policy, dataset, ref, config, worker)
    judged = judge(step.stored, step.logits, DTYPES[config.dtype])
    short, long = ([gap.per_token for gap in step.stored if (gap.tokens <= SHORT) == few] for few in (True, False))
    return {
        "step_zero_refused": refusal is not None,
        "step_zero_said": refusal,
        "step_zero_same_passes": max(gap.per_token for gap in step.same),
        "step_zero_stored": round(judged.mean, 3),
        "step_zero_allowed": round(judged.allowed, 3),
        "step_zero_logits": round(step.logits, 1),
        "step_zero_worst_short": round(max(short, default=0.0), 4),
        "step_zero_worst_long": round(max(long, default=0.0), 4),
    }


@contextlib.contextmanager
def timed_collate() -> Iterator[collections.Counter[str]]:
    """Seconds that the trainer spends in reading and processing images, under ``collate``."""
    from training.forward import policy as module

    real, spent = module.collate, collections.Counter[str]()

    def timed_call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        batch = real(*args, **kwargs)
        spent["collate"] += time.perf_counter() - start
        return batch

    module.collate = timed_call
    try:
        yield spent
    finally:
        module.collate = real


def back_to_base(policy: Any) -> Any:
    """The model without its adapters, as it was before it was prepared for training."""
    model = policy.model.unload()
    model.gradient_checkpointing_disable()
    model.config.get_text_config()._attn_implementation = "sdpa"
    model.requires_grad_(False)
    return model.eval()


def noise(ran: Ran) -> dict[str, Any]:
    """Log-probs of the same sequences in passes of other sizes, in nats per response token."""
    from reward.forward.rounding import scale, watch
    from training.forward.batch import answer
    from training.forward.policy import pair_logps

    pairs, config = ran.data.train.pairs, ran.config
    count = min(8, len(pairs))
    runs: dict[int, dict[Any, Any]] = {}
    with torch.no_grad(), watch(ran.policy.model) as logits:
        for size in (1, 2, count):
            parts = [
                pair_logps(ran.policy, ran.data.train, list(range(at, min(at + size, count))), config)
                for at in range(0, count, size)
            ]
            runs[size] = {branch: torch.cat([logps[branch] for logps in parts]) for branch in config.branches}
    report: dict[str, Any] = {}
    for size in (2, count):
        off = [
            (abs(nats), len(answer(pairs[index], branch)))
            for branch, values in runs[1].items()
            for index, nats in enumerate((runs[size][branch] - values).tolist())
        ]
        for name, few in (("short", True), ("long", False)):
            gaps = [(nats, tokens) for nats, tokens in off if (tokens <= SHORT) == few]
            each = [nats / tokens for nats, tokens in gaps]
            ratios = [nats / scale(tokens, logits.largest, ran.policy.forward.dtype) for nats, tokens in gaps]
            report[f"1_vs_{size}_{name}"] = {
                "max": round(max(each), 4),
                "mean": round(statistics.mean(each), 4),
                "over_2e-2": sum(value > 2e-2 for value in each),
                "of": len(each),
                "ratio": {"mean": round(statistics.mean(ratios), 3), "max": round(max(ratios), 3)},
            }
    return report


def kernels(ran: Ran) -> dict[str, Any]:
    """What runs on the GPU in one forward and backward pass of two pairs."""
    from torch.profiler import ProfilerActivity, profile

    from training.forward.policy import pair_logps

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if CUDA else [])]
    with profile(activities=activities) as seen:
        start = synchronise()
        logps = pair_logps(ran.policy, ran.data.train, [0, 2], ran.config)
        torch.stack([values.sum() for values in logps.values()]).sum().backward()
        wall = synchronise() - start
    ran.policy.model.zero_grad()

    def device_time(event: Any) -> float:
        return getattr(event, "self_device_time_total", 0) or getattr(event, "self_cuda_time_total", 0)

    events = sorted(seen.key_averages(), key=device_time, reverse=True)
    words = ("flash", "fmha", "efficient_attention", "_softmax", "cudnn_attention")
    math = sum(op.count for op in events if "attention_math" in op.key)
    return {
        "wall_s": round(wall, 3),
        "math_attention_calls": math,
        "gpu_busy_s": round(sum(map(device_time, events)) / 1e6, 3),
        "attention": {op.key[:70]: op.count for op in events if any(word in op.key.lower() for word in words)},
        "top": [[op.key[:60], op.count, round(device_time(op) / 1e3, 1)] for op in events[:8]],
    }


def tower(ran: Ran) -> dict[str, Any]:
    """Milliseconds per image of the vision tower; of one with windows, with a call for each and with one for all."""
    from reward.forward.features import tower_features
    from reward.forward.parts import Parts
    from training.forward import towers
    from training.forward.batch import collate

    batch = collate(ran.data.train, [0, 1], ("chosen",))
    images = [image for image in batch.images if image is not None]
    base: Any = Parts.of(ran.policy.model).whole

    def run(times: int = 3) -> tuple[float, Any]:
        with torch.no_grad(), torch.autocast(DEVICE.type, torch.bfloat16):
            features = tower_features(base, images, DEVICE)
            start = synchronise()
            for _ in range(times):
                features = tower_features(base, images, DEVICE)
            seconds = synchronise() - start
        return seconds / times / len(images) * 1e3, torch.cat([feature.flatten(0, -2) for feature in features]).float()

    visual = getattr(base.model, "visual", None)
    if visual is not None:
        visual.config._attn_implementation = "sdpa"
    took, alone = run()
    report = {"tokens_per_image": alone.shape[0] // len(images)}
    if visual is None or not CUDA:  # there is no such kernel for a CPU
        return report | {"ms_per_image": round(took, 1)}
    towers.read_windows_in_one_call(ran.policy.model)
    together_took, together = run()
    apart = ((alone - together).norm() / alone.norm()).item()
    return report | {
        "window_by_window_ms_per_image": round(took, 1),
        "in_one_call_ms_per_image": round(together_took, 1),
        "relative_difference": round(apart, 4),
    }


def trl(model: Any, processor: Any, dataset: Path, folder: Path, steps: int) -> dict[str, Any]:
    """The same steps by TRL's DPOTrainer: LoRA on the same layers, its reference in every step."""
    import datasets
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".language_model." in f".{name}."
    ]
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            times.append(-synchronise())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times[-1] += synchronise()

    options = DPOConfig(
        output_dir=str(folder / "trl"),
        beta=0.1,
        max_length=None,
        bf16=True,
        use_cpu=not CUDA,
        gradient_checkpointing=True,
        report_to=[],
        learning_rate=1e-5,
        max_steps=steps,
        per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=BATCH // MICRO,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        seed=0,
    )
    rows = datasets.load_from_disk(str(dataset)).cast_column("images", datasets.List(datasets.Image()))
    adapters = LoraConfig(r=64, lora_alpha=128, target_modules=layers)
    forget_peak()
    trainer = DPOTrainer(
        model,
        args=options,
        train_dataset=rows,
        processing_class=processor,
        peft_config=adapters,
        callbacks=[Clock()],
    )
    trainer.train()
    return {
        "pairs_per_s": round(BATCH / settled_median(times), 3),
        "step_s": round(settled_median(times), 3),
        "loss": trainer.state.log_history[-2].get("loss"),
        "peak_gib": peak_gib(),
    }


def measure(options: argparse.Namespace, result: dict[str, Any], folder: Path) -> None:
    """All parts, one after the other, into ``result``."""
    with part(result, "build", options.json):
        model, processor, picture = build(options.family, DEVICE, options.tiny)
        result["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        dataset = save_pairs(folder, 16, picture, 20 if options.tiny else 150)
    ran: Ran | None = None
    with part(result, "ours_dpo", options.json):
        result["ours_dpo"], ran = ours(model, processor, dataset, folder, options.steps)
    looks: dict[str, Callable[[Ran], dict[str, Any]]] = {"noise": noise, "kernels": kernels, "tower": tower}
    if ran is not None:
        for name, look in looks.items():
            with part(result, name, options.json):
                result[name] = look(ran)
        model = back_to_base(ran.policy)
    for name, changes in VARIANTS.items():
        full = changes.get("dtype") == "float32"
        if options.short or (full and (options.family == "qwen" or not options.float32)):
            continue
        with part(result, name, options.json):
            if full:
                model = model.float()  # what a user gets who sets no dtype
            report, ran = ours(model, processor, dataset, folder, 3 if full else options.steps, **changes)
            result[name], model = report, back_to_base(ran.policy)
        if full:
            model = model.to(torch.bfloat16)
        ran = None
        gc.collect()
        if CUDA:
            torch.cuda.empty_cache()
    name = f"trl_micro_{MICRO}"
    with part(result, name, options.json):
        result[name] = trl(model, processor, dataset, folder, options.steps)
    if "ours_dpo" in result and name in result:
        result["ours_over_trl"] = round(result["ours_dpo"]["pairs_per_s"] / result[name]["pairs_per_s"], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, default="llava")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--float32", action=argparse.BooleanOptionalAction, default=True, help="that run too (llava)")
    parser.add_argument("--short", action="store_true", help="DPO and TRL alone: two minutes")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result into this file as well")
    options = parser.parse_args()
    import peft
    import transformers

    result: dict[str, Any] = {
        "family": options.family,
        "tiny": options.tiny,
        "device": torch.cuda.get_device_name() if CUDA else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "cpus": os.cpu_count(),
    }
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        measure(options, result, Path(folder))
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
