"""Whether a run goes on with what lies in its folder, begins anew, or is refused: no model stands for other data."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pipeline.base import files
from pipeline.base.hardware import Dtype
from training.config import TrainConfig
from training.data.identity import Identity, Rows, Start
from training.errors import CheckpointError
from training.loop import checkpoint, log
from training.loop.export import MERGED
from training.loop.worker import Worker

#: What ``model/`` was made from; there if and only if the model is whole.
TRAINED = "trained.json"
#: Raised whenever what is compared, or a file of a checkpoint, means something else.
FORMAT = 3
#: Options that name a model or rows: their content is compared, and how rows are read shows in it.
_BY_CONTENT = (
    *("model", "model_revision", "dataset", "dataset_format", "dataset_split", "image_root"),
    *("eval_dataset", "eval_split"),
)
_START = {"weights": "weights", "config": "config.json", "processor": "image processor"}


def about(config: TrainConfig, identity: Identity) -> dict[str, Any]:
    """What the trained weights depend on, as JSON values: to be kept with every checkpoint and with the model."""
    return {"format": FORMAT, "options": config.result_options(), **identity.as_json()}


def settle(config: TrainConfig, identity: Identity, worker: Worker) -> bool:
    """Compare what lies in ``output_dir`` with this run, and clear it where the run begins anew.

    Returns whether the run has finished before, with these options and these rows. Every worker calls it.

    Raises:
        CheckpointError: something has changed, and ``resume`` is "always"; names each option and each dataset.
    """
    earlier, changed, finished = worker.gather([_look(config, identity) if worker.main else None])[0]
    if earlier is None:
        return False
    if config.resume == "never" or (changed and config.resume == "if-possible"):
        if worker.main:
            why = f"as {'; '.join(changed)}" if changed else "as resume=never says"
            print(f"training anew, {why}; what {earlier} was made from is dropped", file=sys.stderr, flush=True)
            clear(config.output_dir)
        finished = False
    elif changed:
        raise CheckpointError(
            f"{earlier} was made by another run: {'; '.join(changed)}. Use another output_dir, restore what it was, or "
            "start over with resume=never (or resume=if-possible, which starts over when something has changed)"
        )
    worker.wait()
    return finished


def clear(output_dir: Path) -> None:
    """Forget an earlier run: the model first, so that what is left never looks finished."""
    files.remove(output_dir / TRAINED)
    for name in ("model", "adapter"):
        files.remove_tree(output_dir / name)
    files.remove(output_dir / MERGED)
    checkpoint.clear(output_dir / "checkpoints")
    log.clear(output_dir)


def mark_trained(config: TrainConfig, identity: Identity) -> None:
    """Say that ``model/`` is whole, and what it was made from."""
    files.write_text(config.output_dir / TRAINED, json.dumps(about(config, identity), indent=2) + "\n")


def changes(was: Mapping[str, Any], config: TrainConfig, identity: Identity) -> list[str]:
    """What has changed since ``was`` (an earlier ``about``), in words.

    Options are compared by their values, the model and the rows by their content: where they lie is no change.
    """
    if was.get("format") != FORMAT:
        return ["it was written by another version of this trainer"]
    now = json.loads(json.dumps(about(config, identity)))
    before, after = (_comparable(record["options"]) for record in (was, now))
    keys = sorted(before.keys() | after.keys())
    lines = [
        f"{key} was {before.get(key)!r} and is {after.get(key)!r}" for key in keys if before.get(key) != after.get(key)
    ]
    lines += [
        f"the {name} of the starting model {config.model} changed"
        for key, name in _START.items()
        if was["start"][key] != now["start"][key]
    ]
    for key, rows in identity.data.items():
        # That there are SFT rows now, or none, shows in the options.
        if (
            key in was["data"]
            and (change := rows.change(was["data"][key])) is not None
            and not _only_measured(key, config)
        ):
            lines.append(f"{key} {change}")
    return lines


def begun_dtype(config: TrainConfig) -> Dtype | None:
    """The dtype of the run that this one would go on with; None where there is none, or it begins anew."""
    path, _ = _place(config)
    if path is None or config.resume == "never":
        return None
    try:
        dtype = json.loads(path.read_text())["options"]["dtype"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dtype if dtype in get_args(Dtype) else None


def expectation(config: TrainConfig, data: Mapping[str, Rows]) -> str:
    """What ``settle`` would do, as far as can be told without the weights of the starting model."""
    path, whole = _place(config)
    if path is None:
        return "nothing lies in output_dir: it trains from the start"
    try:
        start = Start(**json.loads(path.read_text())["start"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path} cannot be read: it trains anew"
    _, changed, _ = _look(config, Identity(start, dict(data)))
    if config.resume == "never" or changed:
        why = "; ".join(changed) or "resume=never"
        return f"refused: {why}" if config.resume == "always" else f"it trains anew: {why}"
    return "it has finished: nothing is trained" if whole else f"it goes on from {path.parent.name}"


def _only_measured(key: str, config: TrainConfig) -> bool:
    return key == "eval_dataset" and config.patience is None


def _look(config: TrainConfig, identity: Identity) -> tuple[Path | None, list[str], bool]:
    """What there is, what has changed since, and whether it is a whole model. Says what changes no weight."""
    path, whole = _place(config)
    if path is None:
        return None, [], False
    try:
        was = json.loads(path.read_text())
        changed = changes(was, config, identity)
        for key, rows in identity.data.items():
            change = rows.change(was["data"][key]) if key in was["data"] and _only_measured(key, config) else None
            if change is not None and not changed:
                print(f"{key} {change}: what was measured until now stands for the earlier ones", file=sys.stderr)
        return path.parent if path.name == checkpoint.META else path, changed, whole
    except (OSError, ValueError, KeyError, TypeError) as error:
        return path, [f"{path.name} cannot be read ({type(error).__name__}: {error})"], False


def _place(config: TrainConfig) -> tuple[Path | None, bool]:
    """The file that says what an earlier run was made from, and whether its model is whole."""
    trained = config.output_dir / TRAINED
    whole = trained.is_file() and (config.output_dir / "model" / "config.json").is_file()
    newest = checkpoint.newest(config.output_dir / "checkpoints")
    return (trained if whole else newest / checkpoint.META if newest is not None else None), whole


def _comparable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Without names of what is compared by its content, and without what an earlier version took for a change."""
    kept = {key: value for key, value in options.items() if key not in {*TrainConfig.neutral(), *_BY_CONTENT}}
    if kept.get("sft"):
        kept["sft"] = {key: value for key, value in kept["sft"].items() if key != "dataset"}
    return kept
