"""What is asked of a probe, and what makes its parts the same next time. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.base import model_names as models
from pipeline.base.errors import ConfigError
from training.config import Corruption
from training.evaluation.probes import TRUE

#: Raised whenever a value could come out differently for the same request.
VERSION = 1

#: What can be shown instead of a pair's own images.
CONDITIONS = ("swapped", "none", "corrupted")


@dataclass(frozen=True)
class ProbeRequest:
    """Which model on which pairs, under which ``conditions`` beside the true image.

    Of the pairs ``limit`` are probed, by chance from ``seed``; fewer are among more. ``corruption`` is the trainer's,
    with its ``seed``. ``batch_size`` is pairs per forward pass and changes nothing but rounding. The log-probs of
    ``reference`` lie in ``reference_logps`` (default: ``output/reference``), which several probes can share. Image
    paths are relative to ``image_root`` and may not leave it; by default that is the dataset's folder.
    ``dataset_format`` and ``split`` are those of ``training.formats.open``.

    Raises:
        ConfigError: a condition is unknown, or named twice.
    """

    model: str
    dataset: str
    output: Path
    reference: str | None = None
    conditions: tuple[str, ...] = CONDITIONS
    limit: int | None = None
    seed: int = 0
    corruption: Corruption = field(default_factory=Corruption)
    batch_size: int = 16
    reference_logps: Path | None = None
    image_root: str | None = None
    dataset_format: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.conditions) - set(CONDITIONS))
        if unknown:
            raise ConfigError(f"conditions: {', '.join(unknown)} is unknown; use some of {', '.join(CONDITIONS)}")
        if len(set(self.conditions)) < len(self.conditions):
            raise ConfigError("conditions names one twice; name each once")

    @property
    def all_conditions(self) -> tuple[str, ...]:
        """All conditions, the true image first."""
        return (TRUE, *self.conditions)

    @property
    def sides(self) -> tuple[tuple[str, Path], ...]:
        """Each model and where its log-probs lie: ``model`` first, then ``reference`` if there is one."""
        model = (self.model, self.output)
        return (model,) if self.reference is None else (model, (self.reference, self._of_reference))

    @property
    def _of_reference(self) -> Path:
        return self.reference_logps or self.output / "reference"


@dataclass(frozen=True)
class ProbeIdentity:
    """The content behind a request's names: both models' (None without a reference), and that of the pairs."""

    model: str
    reference: str | None
    data: str

    @property
    def models(self) -> tuple[str, ...]:
        """Those that there are, in the order of ``ProbeRequest.sides``."""
        return (self.model,) if self.reference is None else (self.model, self.reference)

    @classmethod
    def of(cls, request: ProbeRequest) -> ProbeIdentity:
        from training.formats.content import identity  # with it comes datasets

        reference = models.identity(request.reference) if request.reference is not None else None
        data = identity(request.dataset, request.dataset_format, request.split, request.image_root)
        return cls(models.identity(request.model), reference, data)


def logps_key(request: ProbeRequest, model: str, data: str, condition: str) -> str:
    """What the log-probs of one model under one condition depend on; ``model`` and ``data`` are identities."""
    parts: list[Any] = [VERSION, model, data, condition, request.limit, request.seed]
    if request.dataset_format is not None or request.split is not None:
        parts += [request.dataset_format, request.split]
    if request.image_root is not None:
        parts += ["image_root", request.image_root]
    if condition == "corrupted":
        from training.corruption import identity

        parts += [identity(request.corruption), request.corruption.model_dump(mode="json")]
    return _digest(parts)


def result_key(request: ProbeRequest, identities: ProbeIdentity) -> str:
    """What the result depends on."""
    return _digest(
        [
            logps_key(request, model, identities.data, shown)
            for model in identities.models
            for shown in request.all_conditions
        ]
    )


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
