"""LoRA's product with fewer kernels: the same adapters of PEFT, computed in the dtype of the forward pass.

PEFT casts a layer's input to the adapters' float32 and back again under autocast, and scales and adds the adapter's
output in steps of their own, each the size of the layer's output. Here the second product is added onto the layer's
output with its scale (``addmm``): two kernels a layer beside the base's instead of seven.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor


class AddedLinear(Linear):
    """PEFT's LoRA linear layer in all but how a single plain adapter is computed."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Base output plus ``scaling * B(A(x))``; [..., in] to [..., out]."""
        active = self.active_adapters
        if args or kwargs or self.disable_adapters or self.merged or len(active) != 1 or self.lora_variant:
            return super().forward(x, *args, **kwargs)
        down: Any = self.lora_A[active[0]].weight
        up: Any = self.lora_B[active[0]].weight
        dtype = x.dtype
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        elif down.dtype != dtype:
            return super().forward(x)
        # Of two axes, so that the layer's output is no view and can be added to in place.
        rows = x.flatten(0, -2).to(dtype)
        base: Any = self.base_layer
        result: Tensor = base(rows)
        inner = torch.mm(rows, down.to(dtype).t())
        result = result.addmm_(inner, up.to(dtype).t(), alpha=self.scaling[active[0]])
        return result.view(*x.shape[:-1], result.shape[-1])
