"""The starting model on several workers: the first one reads the weights, the others get them over the network.

Until then theirs has the shapes alone, on the device ``meta``, so that a model takes the main memory of one machine
once, and with ``sharding=fsdp`` no worker but the first ever holds all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from training.config import TrainConfig
from training.errors import ModelError, TrainingError
from training.forward.model import load_outline, load_weights
from training.loop.worker import Worker

T = TypeVar("T")


def load(config: TrainConfig, worker: Worker) -> nn.Module:
    """The starting model: with its weights in the first worker, on ``meta`` in the others (``fill`` ends that).

    4-bit weights are read by every worker, onto its own GPU. An error of the first worker is raised in all.
    """
    if worker.world == 1 or config.quantization is not None:
        return load_weights(config)
    models: list[nn.Module] = []
    by_first(lambda: models.append(load_weights(config)), worker)
    return models[0] if worker.main else load_outline(config)


def by_first(make: Callable[[], T], worker: Worker) -> T:
    """What ``make`` returns in the first worker; it is called in no other. Its ``TrainingError`` is raised in all."""
    outcome: Any = None
    if worker.main:
        try:
            outcome = make()
        except TrainingError as error:
            outcome = error
    shared = worker.gather([outcome])[0]
    if isinstance(shared, TrainingError):
        raise shared
    result: T = outcome if worker.main else shared
    return result


def hold(model: nn.Module, config: TrainConfig, worker: Worker) -> Mapping[str, Tensor] | None:
    """What ``fill`` hands out, by name, of the model that is prepared for training and not split yet; None if every
    worker has read the model itself. Empty in all workers but the first, whose model becomes an outline to the last.
    """
    if worker.world == 1 or config.quantization is not None:
        return None
    tensors = dict(_tensors(model))
    outline = worker.gather([{name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}])[0]
    if worker.main:
        return {name: value.detach() for name, value in tensors.items()}
    if (own := {name: tuple(value.shape) for name, value in tensors.items()}) != (
        first := {name: shape for name, (shape, _) in outline.items()}
    ):
        odd = sorted(name for name in own.keys() | first.keys() if own.get(name) != first.get(name))
        raise ModelError(
            f"model {config.model}: its weights make another model than its config.json ({', '.join(odd[:3])}); "
            "repair the folder, or train with workers=1"
        )
    for name, value in tensors.items():  # some parts stay in float32 whatever the dtype, and adapters are not on meta
        value.data = torch.empty(value.shape, dtype=outline[name][1], device="meta")
    return {}


@torch.no_grad()
def fill(model: nn.Module, weights: Mapping[str, Tensor] | None, worker: Worker) -> None:
    """Put the first worker's ``weights`` (of ``hold``) into every worker's model, on its device, split as it is."""
    if weights is None:
        model.to(worker.device)
        return
    if worker.main:
        model.to(worker.device)
    else:
        _materialise(model, worker.device)
    for name, target in _tensors(model):
        value = weights[name].to(worker.device) if worker.main else None
        if isinstance(target, DTensor):
            whole = value if value is not None else torch.empty(target.shape, dtype=target.dtype, device=worker.device)
            target.copy_(distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=0))
        else:
            sent = (target if value is None else value).detach().contiguous()
            dist.broadcast(sent, 0)
            target.copy_(sent)


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers, in an order that is the same everywhere; buffers that no checkpoint has among them."""
    return [*model.named_parameters(), *model.named_buffers()]


def _materialise(model: nn.Module, device: torch.device) -> None:
    """Memory for an outline. Parameters that are one stay one, which ``to_empty`` by itself does not see to."""
    slots: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            slots.setdefault(id(parameter), []).append((module, name))
    model.to_empty(device=device)
    for (first, first_name), *others in slots.values():
        for module, name in others:
            setattr(module, name, getattr(first, first_name))
