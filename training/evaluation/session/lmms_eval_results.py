"""What lmms-eval has written, as results of ours.

``DATE_results.json`` has the metrics of each task, ``DATE_samples_TASK.jsonl`` beside it what each sample was worth. A
metric that is the mean of its samples (or a hundred times that) becomes a tally over them, so that two models can be
compared sample by sample. Any other stays as it is, with its standard error if there is one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from pipeline.base.errors import ConfigError
from training.errors import DataError
from training.evaluation import benchmark_files
from training.evaluation.benchmarks import OF_LMMS_EVAL
from training.evaluation.compare import NORMAL
from training.evaluation.result import Provenance
from training.evaluation.session.lmms_eval_call import result_files
from training.evaluation.session.stored import RESULTS
from training.evaluation.tally import Tally

#: What a mean may be multiplied by.
_SCALES = (1.0, 100.0)
#: Some tasks round what they report to five digits.
_EQUAL = 1e-4
_NAMES = ("model", "pretrained", "model_version", "peft")


@dataclass(frozen=True)
class TaskResult:
    """``tally`` has the metrics that are known of every sample, ``pooled`` the others."""

    tally: Tally
    pooled: Mapping[str, Mapping[str, Any]]
    provenance: Provenance


def read(path: Path, model: str, build: str, version: str | None = None) -> dict[str, TaskResult]:
    """By suite, what a file of results holds, or the newest in a folder.

    Args:
        model, build: what answered; see ``Provenance``.
        version: of lmms-eval; None if only the file can tell.

    Raises:
        DataError: there is none, or it is malformed or without a metric.
    """
    if not path.is_file():
        files = result_files(path)
        if not files:
            raise DataError(f"{path} holds no DATE_results.json; give the --output_path of an lmms-eval call")
        path = files[-1]
    content = benchmark_files.whole(path)
    results, configs, config = benchmark_files.take(content, ("results", "configs", "config"), str(path))
    tables = [table for table in (results, configs, config) if isinstance(table, dict)]
    if len(tables) < 3 or not all(isinstance(entry, dict) for table in tables[:2] for entry in table.values()):
        raise DataError(f"{path} is not laid out as lmms-eval does it; run it again")
    made_by = version or str(content.get("lmms_eval_version") or content.get("git_hash") or "unknown")
    found = {}
    for task, values in results.items():
        metrics = _metrics(values)
        if metrics:
            samples = _samples(path, task)
            about = configs.get(task, {})
            tally = _tally(metrics, samples, str(about.get("score_key", "score")))
            pooled = {name: metric for name, metric in metrics.items() if name not in tally.sums}
            provenance = _provenance(task, content, config, about, samples, model, build, made_by)
            found[f"{OF_LMMS_EVAL}{task}"] = TaskResult(tally, pooled, provenance)
    if not found:
        raise DataError(f"{path} holds no metric; run lmms-eval without --predict_only")
    return found


def check_place(folder: Path) -> None:
    """
    Raises:
        ConfigError: ``folder`` has results of other suites, which those of lmms-eval would replace.
    """
    path = folder / RESULTS
    suites = benchmark_files.whole(path).get("suites", {}) if path.is_file() else {}
    others = [name for name in suites if not name.startswith(OF_LMMS_EVAL)]
    if others:
        raise ConfigError(f"{path} has results of {others[0]}", "give an --output of its own")


def _metrics(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Value, interval and standard error of each metric; "acc,none" is called "acc", other filters keep their name."""
    metrics = {}
    for key, value in values.items():
        name, _, of_filter = key.partition(",")
        if not of_filter or "_stderr" in name or not _is_number(value):
            continue
        error = values.get(f"{name}_stderr,{of_filter}")
        error = error if _is_number(error) else None
        interval = None if error is None else [value - NORMAL * error, value + NORMAL * error]
        metrics[name if of_filter == "none" else key] = {"value": value, "interval": interval, "stderr": error}
    return metrics


def _samples(path: Path, task: str) -> list[dict[str, Any]]:
    """Those of a task, by ``doc_id``; none where they were not logged, or one is there twice."""
    log = path.with_name(f"{path.name.removesuffix('_results.json')}_samples_{task}.jsonl")
    if not log.is_file():
        return []
    samples: dict[str, dict[str, Any]] = {}
    for number, sample in benchmark_files.lines(log):
        (id,) = benchmark_files.take(sample, ("doc_id",), f"{log}, line {number}")
        if str(id) in samples:  # one for each filter: nobody knows which is which
            return []
        samples[str(id)] = sample
    return list(samples.values())


def _tally(metrics: Mapping[str, Mapping[str, Any]], samples: Sequence[Mapping[str, Any]], key: str) -> Tally:
    """The metrics that are a mean of the samples, each its own unit."""
    rows: dict[str, dict[str, tuple[float, float]]] = {f"sample {sample['doc_id']}": {} for sample in samples}
    for name, metric in metrics.items():
        values = [_value(sample.get(name.partition(",")[0]), key) for sample in samples]
        numbers = [value for value in values if value is not None]
        if not numbers or len(numbers) < len(values):
            continue
        mean = math.fsum(numbers) / len(numbers)
        scales = [scale for scale in _SCALES if abs(mean * scale - metric["value"]) <= _EQUAL * scale]
        if scales:
            for row, value in zip(rows.values(), numbers, strict=True):
                row[name] = (value * scales[0], 1.0)
    return Tally.of(rows.items(), counts={"asked": len(samples)})


def _value(value: Any, key: str) -> float | None:
    """What a sample is worth: a number, or the one that a task's own record has under ``key``."""
    if isinstance(value, dict):
        value = value.get(key)
    return float(value) if _is_number(value) else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _provenance(
    task: str,
    content: Mapping[str, Any],
    config: Mapping[str, Any],
    about: Mapping[str, Any],
    samples: Iterable[Mapping[str, Any]],
    model: str,
    build: str,
    version: str,
) -> Provenance:
    data = "/".join(str(about[key]) for key in ("dataset_path", "dataset_name") if about.get(key)) or f"group {task}"
    arguments = [part for part in _arguments(config.get("model_args")) if part.partition("=")[0] not in _NAMES]
    size = _of_task(content, "n-samples", task)
    size = size.get("effective", "?") if isinstance(size, dict) else size or "?"
    settings = about.get("generation_kwargs") or {}
    settings = settings if isinstance(settings, dict) else {"generation_kwargs": settings}
    more = {name: config[name] for name in ("gen_kwargs", "system_instruction") if config.get(name)}
    return Provenance(
        suite=f"{OF_LMMS_EVAL}{task}@{_task_version(about, _of_task(content, 'versions', task))}",
        model=model,
        model_revision=build,
        data=data,
        data_revision=_digest(samples) or f"unknown, {size} samples",
        prompt=f"lmms-eval's, {_of_task(content, 'n-shot', task) or 0} examples before it",
        decoding={**settings, **more},
        image_preprocessing=", ".join([f"that of lmms-eval's {config.get('model')}", *arguments]),
        parser="lmms-eval's",
        versions={"lmms_eval": version},
    )


def _of_task(content: Mapping[str, Any], key: str, task: str) -> Any:
    """What a file says of a task under ``key``; None where it does not."""
    table = content.get(key)
    return table.get(task) if isinstance(table, dict) else None


def _arguments(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}={of}" for key, of in value.items()]
    return [part for part in str(value or "").split(",") if part]


def _task_version(about: Mapping[str, Any], version: Any) -> str:
    metadata = about.get("metadata") or {}
    for entry in metadata if isinstance(metadata, list) else [metadata]:
        if isinstance(entry, dict) and "version" in entry:
            return str(entry["version"])
    return str(version)


def _digest(samples: Iterable[Mapping[str, Any]]) -> str | None:
    """16 hexadecimal digits of what was asked; its own hashes are the same for all samples of a task."""
    asked = sorted(json.dumps([str(sample.get(key)) for key in ("doc_id", "input", "target")]) for sample in samples)
    return hashlib.sha256("\n".join(asked).encode()).hexdigest()[:16] if asked else None
