"""``sharding: fsdp``: weights, gradients and optimiser state of the language model, split over the workers (FSDP2).

Vision tower and projector stay whole on every worker: they are small beside a language model, and a row of text alone
never calls them, so that workers would wait for each other there. Names of parameters stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from reward.forward.parts import Parts
from training.errors import ModelError
from training.forward.saved_model import part_of
from training.loop.worker import Worker


def shard(model: nn.Module, worker: Worker, dtype: torch.dtype) -> None:
    """Split the language model in place: one unit per decoder layer, embeddings, head, and the rest.

    A unit is gathered when it is called. ``reward.forward.token_logps`` calls ``model`` and ``lm_head``, so these two
    are the roots. Where head and embeddings are one tensor it stays whole, as two units cannot own it. With bfloat16
    the gathered weights are bfloat16, gradients are added up in float32.

    Raises:
        ModelError: the model has no list of decoder layers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    parts = Parts.of(model)
    if not parts.layers or parts.head is None:
        raise ModelError(f"{parts.name} is not built of a text model with layers and an lm_head; use sharding=ddp")
    options: dict[str, Any] = {
        "mesh": init_device_mesh(worker.device.type, (worker.world,)),
        "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        if dtype != torch.float32
        else MixedPrecisionPolicy(),
        "reshard_after_forward": True,
    }
    embeddings = parts.language.get_input_embeddings()
    tied = embeddings.weight is parts.head.weight
    units = [*parts.layers, *(() if tied else (embeddings, parts.head))]
    for unit in units:
        fully_shard(unit, **options)
    ours = {value for name, value in parts.language.named_parameters() if part_of(name) == "language"}
    ours -= {embeddings.weight} if tied else set()
    fully_shard(parts.backbone, **options, ignored_params=set(parts.backbone.parameters()) - ours)
    for unit in (*units, parts.backbone):
        assert isinstance(unit, FSDPModule)
        # The trainer divides by the pairs of the step; gradients are summed here. Sums are all that gloo can do.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)


def is_sharded(parameters: Mapping[str, Tensor]) -> bool:
    """Whether any of the tensors is split over the workers."""
    return any(isinstance(value, DTensor) for value in parameters.values())


def whole(value: Tensor, keep: bool = True) -> Tensor:
    """The tensor on the CPU, put together if it is split: then all workers must call it.

    Without ``keep`` the result may be on any device; it is only there to be dropped.
    """
    full = value.detach()
    if isinstance(full, DTensor):
        full = full.full_tensor()
    return full.cpu().contiguous() if keep else full


def like(part: Tensor, parameter: Tensor) -> Tensor:
    """What this worker holds of a tensor, all of it or its rows, placed as ``parameter``: on its device, split as it is
    split."""
    part = part.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return part
    place = (parameter.device_mesh, parameter.placements)
    return DTensor.from_local(part, *place, run_check=False, shape=parameter.shape, stride=parameter.stride())


def sum_gradients(parameters: Iterable[nn.Parameter], worker: Worker) -> None:
    """Add up gradients over workers; those of split parameters were added up in the backward pass.

    By hand rather than by DDP, as the workers' pairs may be unequal in number. What no worker has a gradient of stays
    without, as on a single one: of a gradient of 0 AdamW would decay it.
    """
    plain = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
    if worker.world == 1 or not plain:
        return
    read = worker.sum(torch.tensor([float(parameter.grad is not None) for parameter in plain], device=worker.device))
    for parameter in (parameter for parameter, workers in zip(plain, read.tolist(), strict=True) if workers):
        if parameter.grad is None:  # this worker had no pair that reads it
            parameter.grad = torch.zeros_like(parameter)
        worker.sum(parameter.grad)


def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients, split or whole, by one factor so that their joint norm is at most ``max_norm``.

    Returns the norm before that, on the device.
    """
    moved = [parameter for parameter in parameters if parameter.grad is not None]
    split = [parameter for parameter in moved if isinstance(parameter, DTensor)]
    plain = [parameter for parameter in moved if not isinstance(parameter, DTensor)]
    norms = []
    for group in (split, plain):
        if group:
            norm = nn.utils.get_total_norm([parameter.grad for parameter in group if parameter.grad is not None])
            norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    total = torch.linalg.vector_norm(torch.stack(norms)) if len(norms) > 1 else norms[0]
    for group in (split, plain):
        if group:
            nn.utils.clip_grads_with_norm_(group, max_norm, total)
    return total
