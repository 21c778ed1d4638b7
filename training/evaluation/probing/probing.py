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
from training.evaluation.probes import TRUE, PairLogps, conditional, drift
from training.evaluation.probing.request import VERSION, ProbeIdentity, Request, logps_key, result_key
from training.evaluation.result import Provenance, result
from training.evaluation.tally import Tally

if TYPE_CHECKING:
    from training.config import TrainConfig
    from training.data.pairs import PairDataset
    from training.evaluation.probing.condition_logps import Stored

RESULT = "probe.json"


def probe(request: Request, visible: bool = True) -> dict[str, Any]:
    """The content of ``output/probe.json``, computed unless it is there for the same request.

    ``conditional``, ``drift`` (with a reference) and ``reference`` (what ``conditional`` says of the reference alone)
    are results as ``training.evaluation.result`` writes them; ``pairs`` is how many were compared. A killed probe goes
    on with the conditions that are not stored yet. ``visible``: show progress.

    Raises:
        TrainingError: a model or the dataset cannot be used; names the row.
        EngineError: there is no such model.
        ValueError: a log-prob is not finite, or the models split the answers into other tokens.
    """
    known = ProbeIdentity.of(request)
    path, key = request.output / RESULT, result_key(request, known)
    if (old := _stored_result(path)) is not None and old.get("key") == key:
        return old
    measured = [
        _measured(request, name, owner, known.data, folder, visible)
        for (name, folder), owner in zip(request.sides, known.models, strict=True)
    ]
    found = {"key": key, **_summed(request, known, *measured)}
    files.write_text(path, json.dumps(found, indent=2) + "\n")
    return found


def _stored_result(path: Path) -> dict[str, Any] | None:
    text = files.read_text(path)
    try:
        found: dict[str, Any] | None = json.loads(text) if text is not None else None
    except ValueError:
        return None
    return found


# ---------------------------------------------------------------------------------------------------------- log-probs


def _measured(request: Request, model: str, identity: str, data: str, folder: Path, visible: bool) -> dict[str, Stored]:
    """Per condition the log-probs under one model."""
    from training.evaluation.probing import condition_logps as logps

    keys = {shown: logps_key(request, identity, data, shown) for shown in request.shown}
    paths = {shown: folder / f"{shown}.arrow" for shown in request.shown}
    missing = [shown for shown in request.shown if logps.read(paths[shown], keys[shown]) is None]
    if missing:
        for shown, rows, about in _computed(request, model, missing, visible):
            logps.write(paths[shown], rows, keys[shown], about)
    found = {shown: logps.read(paths[shown], keys[shown]) for shown in request.shown}
    return {shown: stored for shown, stored in found.items() if stored is not None}


def _computed(
    request: Request, model: str, conditions: list[str], visible: bool
) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """For each condition its name, the rows to store, and what is to be known of them."""
    import torch

    from pipeline.base.progress import ProgressBar
    from training import formats
    from training.data.dataset import prepare
    from training.evaluation.probing.condition_logps import compute
    from training.evaluation.probing.conditions import probed, shown
    from training.forward.check_features import check_features
    from training.forward.model import disable_dropout, load_model, positions
    from training.forward.policy import make_policy

    config = _config(request, model)
    network, processor = load_model(config)
    disable_dropout(network.eval())
    rows = formats.open(request.dataset, image_root=request.image_root)
    numbers = probed(rows, request.limit, request.seed)
    true = prepare(rows.select(numbers), processor, config, positions(network))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    policy = make_policy(network, device, config, true)
    check_features(policy.model, true, device)
    owners = _owners(true, numbers)
    with ProgressBar(f"probe {Path(model).name}", len(owners) * len(conditions), unit="pair", visible=visible) as bar:
        for condition in conditions:
            own = config if condition != "none" else config.model_copy(update={"use_images": False})
            dataset = true
            if condition != TRUE:
                dataset = prepare(shown(true, condition), processor, own, positions(network))
            about = {"image_preprocessing": _preprocessing(processor), "skipped": len(true.skipped)}
            yield condition, compute(policy, dataset, owners, own, bar.advance), about


def _config(request: Request, model: str) -> TrainConfig:
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
            "batch_size": request.batch_size,
            "micro_batch_size": request.batch_size,
        }
    )


def _owners(true: PairDataset, numbers: list[int]) -> Mapping[int, Any]:
    """By row; a row that says the same as an earlier one has none."""
    from training.evaluation.probing.condition_logps import Owner

    seen: set[str] = set()
    found: dict[int, Owner] = {}
    for pair in true.pairs:
        if pair.id not in seen:
            seen.add(pair.id)
            found[pair.row] = Owner(pair.id, "|".join(pair.prompt.images), numbers[pair.row])
    return found


def _preprocessing(processor: Any) -> str:
    image = processor.image_processor
    options = {name: getattr(image, name, None) for name in ("size", "crop_size", "do_center_crop", "do_pad")}
    return f"{type(image).__name__} " + json.dumps(options, sort_keys=True, default=str)


# ------------------------------------------------------------------------------------------------------------- result


def _summed(
    request: Request, known: ProbeIdentity, policy: Mapping[str, Stored], reference: Mapping[str, Stored] | None = None
) -> dict[str, Any]:
    """What of ``probe.json`` follows from the log-probs. Only pairs that could be read under every condition count."""
    sides = [side for side in (policy, reference) if side is not None]
    everywhere = set.intersection(*({one.id for one in found.pairs} for side in sides for found in side.values()))
    there = {one.id for found in policy.values() for one in found.pairs}
    left_out = len(there - everywhere) + policy[TRUE].about["skipped"]

    def logps(side: Mapping[str, Stored]) -> dict[str, list[PairLogps]]:
        return {shown: [one for one in found.pairs if one.id in everywhere] for shown, found in side.items()}

    def told(suite: str, tally: Tally, own: bool = True) -> dict[str, Any]:
        about = (policy if own or reference is None else reference)[TRUE].about["image_preprocessing"]
        counted = replace(tally, counts={"pairs": len(everywhere), "left_out": left_out})
        return result(counted, _provenance(request, known, suite, about, own))

    found: dict[str, Any] = {"pairs": len(everywhere)}
    if reference is None:
        return {**found, "conditional": told("conditional", conditional(logps(policy)))}
    return {
        **found,
        "conditional": told("conditional", conditional(logps(policy), logps(reference))),
        "drift": told("drift", drift(logps(reference)[TRUE], logps(policy)[TRUE])),
        "reference": told("conditional", conditional(logps(reference)), own=False),
    }


def _provenance(request: Request, known: ProbeIdentity, suite: str, preprocessing: str, own: bool) -> Provenance:
    """``own``: of the model, else of the reference alone."""
    asked = {"conditions": list(request.conditions), "limit": request.limit, "seed": request.seed}
    versions = {
        "pairs": json.dumps(asked),
        **{name: version(name) for name in ("torch", "transformers")},
    }
    if "corrupted" in request.conditions:
        versions["corruption"] = json.dumps(request.corruption.model_dump(mode="json"), sort_keys=True)
    if own and known.reference is not None:
        versions["reference"] = known.reference
    return Provenance(
        suite=f"{suite}@{VERSION}",
        model=str(request.model if own else request.reference),
        model_revision=str(known.model if own else known.reference),
        data=request.dataset,
        data_revision=known.data,
        prompt="as in the data",
        decoding={},
        image_preprocessing=preprocessing,
        parser="none",
        versions=versions,
    )
