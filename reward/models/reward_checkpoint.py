"""Which kind of reward model a folder or hub id holds, told by its files alone; imports no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

#: ``classifier``: transformers' ``...ForSequenceClassification``. ``gating``: ArmoRM. ``head``: a language or
#: vision-language model with a scalar head in a file beside it. ``adapter``: the same as a LoRA adapter.
CheckpointKind = Literal["classifier", "gating", "head", "adapter"]

HEAD_FILE = "reward_head.safetensors"
#: The name that Skywork-VL-Reward gives to TRL's value head.
VALUE_HEAD_FILE = "value_head.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: What decides about a reward; documentation and training logs do not.
_IDENTITY_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt"})


@dataclass(frozen=True)
class Checkpoint:
    """``backbone`` is the folder or hub id of the network under the head, ``head`` the head's own file, if any.

    ``sees`` is whether the images of a prompt are read; ``identity`` is what its rewards depend on.
    """

    model: str
    revision: str | None
    kind: CheckpointKind
    backbone: str
    head: Path | None
    sees: bool
    config: dict[str, Any]

    @property
    def identity(self) -> str:
        digest = _identity(self.model, self.revision)
        return digest if self.backbone == self.model else f"{digest}+{_identity(self.backbone, None)}"

    @property
    def hub(self) -> dict[str, str]:
        """What ``from_pretrained`` takes beside the backbone's name."""
        return {"revision": self.revision} if self.revision and self.backbone == self.model else {}


def read_checkpoint(model: str, revision: str | None = None, base: str | None = None) -> Checkpoint:
    """
    Args:
        model: a folder or a hub id.
        base: for an adapter: the folder or hub id of the model it belongs to, if not the one its file names.

    Raises:
        ValueError: it is no reward model, lacks a file, or has weights that are not safetensors; the message says what
            is wanted.
    """
    head = find(model, HEAD_FILE, revision) or find(model, VALUE_HEAD_FILE, revision)
    if find(model, ADAPTER_CONFIG, revision) is not None:
        return _adapter(model, revision, base, head)
    if base is not None:
        raise ValueError(f"base={base!r} has no meaning for {model!r}, which is no adapter; remove it")
    config = _config(model, revision)
    architecture = (config.get("architectures") or [""])[0]
    kind: CheckpointKind
    if head is not None:
        kind = "head"
    elif architecture.endswith("ForSequenceClassification"):
        kind = "classifier"
    elif architecture == "LlamaForRewardModelWithGating":
        kind = "gating"
    else:
        raise ValueError(
            f"model={model!r} is {architecture or 'of no known architecture'}, which has no reward head; give a "
            f"...ForSequenceClassification, or a folder with {HEAD_FILE} or {VALUE_HEAD_FILE}"
        )
    return Checkpoint(model, revision, kind, model, head, _sees(config, head), config)


def find(model: str, name: str, revision: str | None = None) -> Path | None:
    """The file ``name`` of a folder or hub model, or None.

    Raises:
        ValueError: there is neither such a folder nor, as far as can be reached, such a hub model.
    """
    if Path(model).is_dir():
        path = Path(model) / name
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file

    try:
        cached = cached_file(model, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"model={model!r} is no folder, and no hub model that can be read ({reason})") from error
    return Path(cached) if cached else None


def _adapter(model: str, revision: str | None, base: str | None, head: Path | None) -> Checkpoint:
    missing = [name for name in (ADAPTER_WEIGHTS,) if find(model, name, revision) is None]
    missing += [HEAD_FILE] if head is None else []
    if missing:
        raise ValueError(f"adapter {model!r} lacks {' and '.join(missing)}; save it with python -m reward.train")
    path = find(model, ADAPTER_CONFIG, revision)
    assert path is not None
    named: str | None = base or json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    # Not a hub id, and no folder either: a name that only the caller can resolve.
    if not named or ("/" not in named and not Path(named).is_dir()):
        raise ValueError(f"adapter {model!r} belongs to the model {named!r}, which is no folder; pass it as base")
    config = _config(named, None)
    return Checkpoint(model, revision, "adapter", named, head, _sees(config, head), config)


def _config(model: str, revision: str | None) -> dict[str, Any]:
    path = find(model, "config.json", revision)
    if path is None:
        raise ValueError(
            f"model={model!r} has no config.json; give a folder that save_pretrained wrote, or a hub id in reach"
        )
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config


def _sees(config: dict[str, Any], head: Path | None) -> bool:
    if "vision_config" not in config:
        return False
    if head is None:
        return True
    from safetensors import safe_open

    with safe_open(head, framework="numpy") as file:
        return (file.metadata() or {}).get("blind") != "true"


def _identity(model: str, revision: str | None) -> str:
    folder = Path(model)
    if not folder.is_dir():
        return f"{model}@{revision or 'main'}"
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in _IDENTITY_SUFFIXES):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()[:16]}"
