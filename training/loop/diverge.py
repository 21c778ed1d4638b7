"""A training whose loss, gradient or weights are no longer numbers ends, before they reach a weight or a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.config import TrainConfig
from training.data.schedule import mean_chosen_tokens, passes, window_of
from training.errors import DivergedError
from training.forward.policy import Policy, pair_logps, response_lengths
from training.loop.inputs import Inputs
from training.loop.reference import Reference
from training.loop.worker import Worker
from training.loss import sft
from training.loss.measure import measure

#: Pairs that an error names, at most.
_NAMED = 8


def check_step(
    loss: Tensor,
    norm: Tensor,
    step: int,
    policy: Policy,
    data: Inputs,
    ref: Reference,
    config: TrainConfig,
    worker: Worker,
) -> None:
    """Before the update of a step (counted from 0): its loss, this worker's part of it, and the gradient's norm.

    Every worker calls it, and all raise or none does: the norm is that of all workers.

    Raises:
        DivergedError: either is not finite; names the step and its pairs.
    """
    total = worker.sum(loss.detach().double().reshape(()).clone()).item()
    if math.isfinite(total) and math.isfinite(norm.item()):
        return
    what = f"loss is {total}" if not math.isfinite(total) else f"gradient's norm is {norm.item()}"
    raise DivergedError(
        f"step {step + 1}: the {what}. {_where(step, policy, data, ref, config, worker)}{_remedy(config)}"
    )


def check_weights(parameters: Mapping[str, nn.Parameter], done: int, config: TrainConfig, worker: Worker) -> None:
    """After ``done`` steps, before the weights are kept. Every worker calls it, and all raise or none does.

    Raises:
        DivergedError: a weight is not finite.
    """
    broken = torch.zeros((), dtype=torch.float64, device=worker.device)
    for value in parameters.values():
        tensor = value.detach()
        broken += (~torch.isfinite(tensor.to_local() if isinstance(tensor, DTensor) else tensor)).sum()
    if worker.sum(broken).item():
        raise DivergedError(
            f"step {done}: weights are not finite after its update, so they are not kept. {_remedy(config)}"
        )


def _where(step: int, policy: Policy, data: Inputs, ref: Reference, config: TrainConfig, worker: Worker) -> str:
    """Which pairs of the step it comes from, told by running them again: those whose log-probs are not finite, or else
    those whose loss is not; all of them if both are."""
    window = window_of(step, len(data.train.pairs), config)
    mean_chosen = mean_chosen_tokens(data.train, window)
    broken: list[str] = []
    unfit: list[str] = []
    with torch.no_grad():
        for indices, counts in passes(data.train, window, config, worker.rank, worker.world):
            logps, ref_logps = pair_logps(policy, data.train, indices, config), ref(indices)
            lengths = response_lengths(data.train, indices, config, policy.device)
            loss = measure(logps, ref_logps, lengths, mean_chosen, config).loss
            for place, index in enumerate(indices if counts else ()):
                values = [side[branch][place].item() for side in (logps, ref_logps) for branch in logps]
                if not all(map(math.isfinite, values)):
                    broken.append(data.train.pairs[index].name)
                elif not math.isfinite(loss[place].item()):
                    unfit.append(data.train.pairs[index].name)
    if broken := worker.gather(broken):
        return f"Log-probs of {_some(broken)} are not finite. "
    others = [config.plugins[key] for key in config.plugins if key.startswith(("loss_type.", "objective"))]
    if unfit := worker.gather(unfit):
        return f"Log-probs of {_some(unfit)} are finite and their loss is not. {_suspect(others, step)}"
    told = f"Its pairs are {_some([data.train.pairs[index].name for index in window])}"
    if data.sft is not None and config.sft is not None:
        rows = sft.rows_of(step, len(data.sft.pairs), config)
        told += f"; its SFT rows {_some([data.sft.pairs[row].name for row in rows])}"
    return f"{told}. {_suspect(others, step)}"


def _suspect(others: Sequence[str], step: int) -> str:
    """Code that is not ours is the first to look at."""
    if not others:
        return ""
    at_zero = ", where all rewards are 0" if step == 0 else ""
    return f"Look at {' and '.join(others)}: its value or its slope may be infinite there{at_zero}. "


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _remedy(config: TrainConfig) -> str:
    return (
        f"The last checkpoint before it stays. Lower learning_rate (now {config.learning_rate:g}), raise warmup_ratio "
        f"(now {config.warmup_ratio:g}), or correct or drop such rows, and start over with resume=never"
    )
