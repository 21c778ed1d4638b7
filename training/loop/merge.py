"""Adapters merged into weights, so that what was learnt is in the result.

A bfloat16 weight has 8 significant bits: most updates of LoRA are smaller than half the distance to its neighbour, and
rounded to the nearest they vanish together. Here an update is added in float32, and rounded up or down with the
probability that keeps its mean (``pipeline.base.export.round_unbiased``): single weights are as coarse as before, their
sums are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.export import round_unbiased


@dataclass(frozen=True, slots=True)
class Merged:
    """Over all weights with an adapter. ``update_kept``: the share of the update that is in the result,
    <change, update> / <update, update>; 1 if nothing was lost. ``weights_changed``: the share of weights that are
    others than before. ``noise``: the norm of what rounding added, in norms of the update. Both ratios are None where
    the update is 0: nothing was learnt, so nothing was kept."""

    update_kept: float | None
    weights_changed: float
    noise: float | None

    def __str__(self) -> str:
        if self.update_kept is None or self.noise is None:
            return "adapters merged: their update is 0, so no weight has moved: the model is what training began with"
        return (
            f"adapters merged: {self.update_kept:.1%} of the update kept, {self.weights_changed:.1%} of the weights "
            f"changed, rounding noise {self.noise:.2g} times the update"
        )


def merge(model: nn.Module) -> tuple[nn.Module, Merged]:
    """The model below a ``PeftModel`` with its LoRA adapters in its weights, which keep their dtype."""
    from peft.tuners.lora import LoraLayer

    sums = torch.zeros(5, dtype=torch.float64)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                sums += _merge_layer(name, module)
    along, size, off, changed, weights = sums.tolist()
    kept, noise = (along / size, (off / size) ** 0.5) if size else (None, None)
    merged = Merged(kept, changed / max(weights, 1), noise)
    plain: Any = model
    return plain.unload(), merged


def _merge_layer(name: str, layer: Any) -> Tensor:
    """<change, update>, <update, update>, the square of what rounding added, weights that changed, weights."""
    weight = layer.get_base_layer().weight
    update = sum(layer.get_delta_weight(adapter).float() for adapter in layer.active_adapters)
    before = weight.detach().float()
    after = round_unbiased(before + update, weight.dtype, name)
    change = after.float() - before
    weight.copy_(after)
    terms = (change * update, update * update, (change - update) ** 2, change != 0)
    return torch.tensor([float(term.sum(dtype=torch.float64)) for term in terms] + [float(change.numel())])
