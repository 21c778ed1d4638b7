"""The rule of a run's pairs, as the record of its stage tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.pairing.config import Gates, Pair


def recorded_rule(options: Mapping[str, Any]) -> Pair:
    """What decides whether a candidate may be in a pair, and what it is worth. The policy, which may be a plug-in that
    is not installed, is not read: of a rule from here, ``policy`` means nothing.

    ``options`` are flat, as in a stage record; the names of scores hold dots, too.

    >>> rule = recorded_rule({"weights.objects.covered": 1.0, "vetoes.clip.cosine.below": 0.2, "gates.refusal": False})
    >>> rule.weights, rule.vetoes["clip.cosine"].below, sorted(rule.gates.skip)
    ({'objects.covered': 1.0}, 0.2, ['refusal'])
    """
    plain = {name: options[name] for name in ("min_words", "max_repeated", "standardise", "on_policy_only")
             if name in options}  # fmt: skip
    gates = {name: options[f"gates.{name}"] for name in Gates.model_fields if f"gates.{name}" in options}
    vetoes: dict[str, dict[str, Any]] = {}
    for key, value in _below(options, "vetoes").items():
        name, _, bound = key.rpartition(".")
        vetoes.setdefault(name, {})[bound] = value
    return Pair(policy="continuation", weights=_below(options, "weights"), vetoes=vetoes, gates=Gates(**gates), **plain)


def _below(options: Mapping[str, Any], group: str) -> dict[str, Any]:
    prefix = f"{group}."
    return {key.removeprefix(prefix): value for key, value in options.items() if key.startswith(prefix)}
