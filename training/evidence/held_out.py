"""Probes of trained models on pairs that they have not seen: those of another seed's run, whose scenes are others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.evidence.runs import folder

#: As many show a difference of a few points of accuracy, and take seconds.
PAIRS = 300


def held_out_seed(seed: int, seeds: Sequence[int]) -> int | None:
    """Whose pairs a model of ``seed`` is probed on: the next one's; None where there is no other.

    >>> held_out_seed(0, [0, 1, 2]), held_out_seed(2, [0, 1, 2]), held_out_seed(0, [0])
    (1, 0, None)
    """
    other = seeds[(list(seeds).index(seed) + 1) % len(seeds)]
    return other if other != seed else None


def probe(
    run: Path, recipe: str, base: str, seed: int, seeds: Sequence[int], variant: str = ""
) -> dict[str, Any] | None:
    """What ``training.probing`` finds for the model of ``run`` on pairs of ``variant``, kept in ``run/probe``; ``base``
    is the model before training, whose log-probs lie beside that variant's own run. None where no pairs are held out.

    Raises:
        TrainingError: a model or the pairs cannot be read.
    """
    other = held_out_seed(seed, seeds)
    if other is None:
        return None
    from training.evaluation.probing import probing
    from training.evaluation.probing.request import ProbeRequest

    return probing.probe(
        ProbeRequest(
            model=str(run / "train" / "model"),
            dataset=str(folder(recipe, other, variant) / "dataset"),
            output=run / "probe",
            reference=base,
            conditions=("swapped", "none"),
            limit=PAIRS,
            batch_size=32,
            reference_logps=folder(recipe, seed, variant) / "probe" / "reference",
        )
    )
