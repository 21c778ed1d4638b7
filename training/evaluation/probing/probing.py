"""A probe from end to end: what is not stored yet is computed, condition by condition, then summed up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base import files
from pipeline.base import model_names as models
from pipeline.base.model_files import require_model
from pipeline.base.openmp import sharing_cpus
from training.evaluation.probes import TRUE, PairLogps, conditional, drift
from training.evaluation.probing.request import VERSION, ProbeIdentity, ProbeRequest, logps_key, result_key
from training.evaluation.result import Provenance, result
from training.evaluation.tally import Tally

if TYPE_CHECKING:
    from training.config import TrainConfig
    from training.data.pairs import PairDataset
    from training.evaluation.probing.condition_logps import ConditionLogps

RESULT = "probe.json"


@sharing_cpus()
def probe(request: ProbeRequest, visible: bool = True) -> dict[str, Any]:
    """The content of ``output/probe.json``, computed unless it is there for the same request.

    ``conditional``, ``drift`` (with a reference) and ``reference`` (what ``conditional`` says of the reference alone)
    are results as ``training.evaluation.result`` writes them; ``pairs`` is how many were compared. A killed probe goes
    on with the conditions that are not stored yet. ``visible``: show progress.

    Raises:
        TrainingError: a model or the dataset cannot be used; names the row.
        EngineError: there is no such model.
        ValueError: a log-prob is not finite, or the models split the answers into other tokens.
    """
    identity = ProbeIdentity.of(request)
    path, key = request.output / RESULT, result_key(request, identity)
    if (old := _stored_result(path)) is not None and old.get("key") == key:
        return old
    measured = [
        _measure(request, name, owner, identity.data, folder, visible)
        for (name, folder), owner in zip(request.sides, identity.models, strict=True)
    ]
    content = {"key": key, **_summary(request, identity, *measured)}
    files.write_text(path, json.dumps(content, indent=2) + "\n")
    return content


def _stored_result(path: Path) -> dict[str, Any] | None:
    text = files.read_text(path)
    try:
        content: dict[str, Any] | None = json.loads(text) if text is not None else None
    except ValueError:
        return None
    return content


# ---------------------------------------------------------------------------------------------------------- log-probs


def _measure(
    request: ProbeRequest, model: str, identity: str, data: str, folder: Path, visible: bool
) -> dict[str, ConditionLogps]:
    """Per condition the log-probs under one model."""
    from training.evaluation.probing import condition_logps as logps

    keys = {shown: logps_key(request, identity, data, shown) for shown in request.all_conditions}
    paths = {shown: folder / f"{shown}.arrow" for shown in request.all_conditions}
    missing = [shown for shown in request.all_conditions if logps.read(paths[shown], keys[shown]) is None]
    if missing:
        require_model(model, images=True)
        for shown, rows, about in _compute(request, model, missing, visible):
            logps.write(paths[shown], rows, keys[shown], about)
    tables = {shown: logps.read(paths[shown], keys[shown]) for shown in request.all_conditions}
    return {shown: stored for shown, stored in tables.items() if stored is not None}


def _compute(
    request: ProbeRequest, model: str, conditions: list[str], visible: bool
) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """For each condition its name, the rows to store, and what is to be known of them."""
    import torch

    from pipeline.base.progress import ProgressBar
    from training import formats
    from training.data.dataset import prepare
    from training.evaluation.probing.condition_logps import compute
    from training.evaluation.probing.conditions import select_rows, show
    from training.forward.check_features import check_features
    from training.forward.model import disable_dropout, load_model, positions
    from training.forward.policy import make_policy

    config = _config(request, model)
    network, processor = load_model(config)
    disable_dropout(network.eval())
    rows = formats.open(request.dataset, request.dataset_format, request.split, request.image_root)
    numbers = select_rows(rows, request.limit, request.seed)
    true = prepare(rows.select(numbers), processor, config, positions(network))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    policy = make_policy(network, device, config, true)
    check_features(policy.model, true, device)
    owners = _owners(true, numbers)
    with ProgressBar(f"probe {Path(model).name}", len(owners) * len(conditions), unit="pair", visible=visible) as bar:
        for condition in conditions:
            variant = config if condition != "none" else config.model_copy(update={"use_images": False})
            dataset = true
            if condition != TRUE:
                dataset = prepare(show(true, condition), processor, variant, positions(network))
            about = {"image_preprocessing": _preprocessing(processor), "skipped": len(true.skipped)}
            yield condition, compute(policy, dataset, owners, variant, bar.advance), about


def _config(request: ProbeRequest, model: str) -> TrainConfig:
    from training.config import make_config

    return make_config(
        {
            "model": models.resolve(model),
            "dataset": request.dataset,
            "output_dir": request.output,
            "objective": "dpo",
            "corruption": request.corruption.model_dump(),
            "seed": request.seed,
            # Weights as they are, without adapters.
            "tuning": "full",
            "dtype": "float32",
            "too_long": "skip",
            "ties": "skip",
            "batch_size": request.batch_size,
            "micro_batch_size": request.batch_size,
        }
    )


def _owners(true: PairDataset, numbers: list[int]) -> Mapping[int, Any]:
    """By row; a row that says the same as an earlier one has none."""
    from training.evaluation.probing.condition_logps import Owner

    seen: set[str] = set()
    owners: dict[int, Owner] = {}
    for pair in true.pairs:
        if pair.id not in seen:
            seen.add(pair.id)
            owners[pair.row] = Owner(pair.id, "|".join(pair.prompt.images), numbers[pair.row])
    return owners


def _preprocessing(processor: Any) -> str:
    image = processor.image_processor
    options = {name: getattr(image, name, None) for name in ("size", "crop_size", "do_center_crop", "do_pad")}
    return f"{type(image).__name__} " + json.dumps(options, sort_keys=True, default=str)


# ------------------------------------------------------------------------------------------------------------- result


def _summary(
    request: ProbeRequest,
    identity: ProbeIdentity,
    policy: Mapping[str, ConditionLogps],
    reference: Mapping[str, ConditionLogps] | None = None,
) -> dict[str, Any]:
    """What of ``probe.json`` follows from the log-probs. Only pairs that could be read under every condition count."""
    sides = [side for side in (policy, reference) if side is not None]
    everywhere = set.intersection(*({pair.id for pair in stored.pairs} for side in sides for stored in side.values()))
    there = {pair.id for stored in policy.values() for pair in stored.pairs}
    left_out = len(there - everywhere) + policy[TRUE].about["skipped"]

    def logps(side: Mapping[str, ConditionLogps]) -> dict[str, list[PairLogps]]:
        return {shown: [pair for pair in stored.pairs if pair.id in everywhere] for shown, stored in side.items()}

    def suite_result(suite: str, tally: Tally, of_model: bool = True) -> dict[str, Any]:
        about = (policy if of_model or reference is None else reference)[TRUE].about["image_preprocessing"]
        counted = replace(tally, counts={"pairs": len(everywhere), "left_out": left_out})
        return result(counted, _provenance(request, identity, suite, about, of_model))

    content: dict[str, Any] = {"pairs": len(everywhere)}
    if reference is None:
        return {**content, "conditional": suite_result("conditional", conditional(logps(policy)))}
    return {
        **content,
        "conditional": suite_result("conditional", conditional(logps(policy), logps(reference))),
        "drift": suite_result("drift", drift(logps(reference)[TRUE], logps(policy)[TRUE])),
        "reference": suite_result("conditional", conditional(logps(reference)), of_model=False),
    }


def _provenance(
    request: ProbeRequest, identity: ProbeIdentity, suite: str, preprocessing: str, of_model: bool
) -> Provenance:
    """``of_model``: of the model, else of the reference alone."""
    selection = {"conditions": list(request.conditions), "limit": request.limit, "seed": request.seed}
    versions = {
        "pairs": json.dumps(selection),
        **{name: version(name) for name in ("torch", "transformers")},
    }
    if "corrupted" in request.conditions:
        versions["corruption"] = json.dumps(request.corruption.model_dump(mode="json"), sort_keys=True)
    if of_model and identity.reference is not None:
        versions["reference"] = identity.reference
    return Provenance(
        suite=f"{suite}@{VERSION}",
        model=str(request.model if of_model else request.reference),
        model_revision=str(identity.model if of_model else identity.reference),
        data=request.dataset,
        data_revision=identity.data,
        prompt="as in the data",
        decoding={},
        image_preprocessing=preprocessing,
        parser="none",
        versions=versions,
    )
