"""The last decoder layer on the positions that are read: nothing looks at what it makes of the prompt and the image.

Keys and values of all positions are still needed, as answers attend to them; queries, the output projection and the
feed-forward part are not. Skipped positions leave the layer with a hidden state of no meaning, which nobody reads, so
log-probs and gradients are what they were. Worth 1 / layers of the language model times the share of the prompt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from reward.forward.parts import Parts


def can_skip(model: nn.Module) -> bool:
    """Whether the last layer is built as the hooks expect. Not with gradient checkpointing: the layer runs again in the
    backward pass, when the hooks are gone."""
    parts = Parts.of(model)
    if not parts.layers or getattr(parts.whole, "is_gradient_checkpointing", False):
        return False
    last = parts.layers[-1]
    attention = getattr(last, "self_attn", None)
    return isinstance(getattr(last, "mlp", None), nn.Module) and all(
        isinstance(getattr(attention, name, None), nn.Module) for name in ("q_proj", "o_proj")
    )


@contextlib.contextmanager
def only(model: nn.Module, positions: Tensor) -> Iterator[None]:
    """Within this, the last layer works on ``positions`` (int64 [R], of a packed row) alone."""
    last: Any = Parts.of(model).layers[-1]
    handles = []

    def narrow(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0].index_select(1, positions), *given[1:])

    def widen(length: int) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> Tensor:
            full = result.new_zeros(1, length, result.shape[-1])
            return full.index_copy(1, positions, result)

        return hook

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        length = (args[0] if args else kwargs["hidden_states"]).shape[1]
        for part in (last.self_attn.q_proj, last.self_attn.o_proj, last.mlp):
            handles.append(part.register_forward_pre_hook(narrow))
            handles.append(part.register_forward_hook(widen(length)))

    handles.append(last.register_forward_pre_hook(enter, with_kwargs=True))
    last.self_attn.answers_only = True
    try:
        yield
    finally:
        last.self_attn.answers_only = False
        for handle in handles:
            handle.remove()
