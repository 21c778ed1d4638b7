"""Losses and objectives that are not ours (``pipeline.base.plugins``): what they give is looked over in every pass.

That it is finite is not looked at here, which would wait for the device: ``training.loop.diverge`` finds out which
pairs a loss that is not finite comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.base import plugins
from training.config import TrainConfig
from training.errors import PluginError
from training.forward.policy import Logps
from training.loss.objectives import LOSSES, Loss, Responses


def losses(config: TrainConfig) -> Mapping[str, Loss]:
    """All that ``config.loss_type`` may name."""
    plug_ins = {name: config.plug_in(f"loss_type.{name}") for name in config.loss_type}
    return {**LOSSES, **{name: partial(_loss, name, loss) for name, loss in plug_ins.items() if loss is not None}}


def terms(rewards: Logps, config: TrainConfig) -> dict[str, Tensor]:
    """The terms of an objective that is not ours, each [B]; none for ours.

    Raises:
        PluginError: it raised something, or gave other terms than it has weights for, or no tensor [B] with a gradient.
    """
    objective = config.plug_in("objective")
    if objective is None:
        return {}
    name, wanted = config.objective, list(objective.weights)
    given = _call(name, objective, lambda: dict(objective.terms(rewards, config.beta)))
    if set(given) != set(wanted):
        raise PluginError(f"{name} has weights for {wanted} and gives the terms {list(given)}; make them the same")
    return {term: _check(given[term], rewards["chosen"], f"{name}, term {term}") for term in wanted}


def _loss(name: str, loss: Any, responses: Responses, beta: float, label_smoothing: float) -> Tensor:
    value = _call(name, loss, lambda: loss.loss(responses, beta, label_smoothing))
    return _check(value, responses.chosen, name)


def _call(name: str, plug_in: Any, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # whatever other people's code raises
        raise PluginError(f"{name} raised {plugins.failure(plug_in, error)}; correct it") from error


def _check(value: Any, like: Tensor, name: str) -> Tensor:
    """A tensor as ``like``: one value for each pair, with a gradient where that has one."""
    if not isinstance(value, Tensor):
        raise PluginError(f"{name} gives {value!r:.80}; give a tensor with one value for each of {len(like)} pairs")
    if value.shape != like.shape or value.device != like.device:
        raise PluginError(
            f"{name} gives a tensor of shape {list(value.shape)} on {value.device}; give one value for each pair, "
            f"{list(like.shape)} on {like.device}, neither summed nor averaged"
        )
    if like.requires_grad and torch.is_grad_enabled() and not value.requires_grad:
        raise PluginError(
            f"{name} gives a value without a gradient, so nothing is learnt from it; compute it from the tensors that "
            "it is given, without detach, item, numpy or no_grad"
        )
    return value
