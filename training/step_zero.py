"""Before the first update policy and reference are the same model; if they are not, every reward would be wrong."""

from __future__ import annotations

from collections.abc import Sequence

from training import reference
from training.batch import answer
from training.config import TrainConfig
from training.errors import StepZeroError
from training.pairs import PairDataset
from training.policy import Logps

#: How far the two may differ, in nats per response token: rounding between two batches of different padding stays two
#: orders below (float32: 1e-6), a wrong reference lies orders above (0.1).
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


def check_step_zero(
    policy: Logps, ref: Logps, dataset: PairDataset, indices: Sequence[int], config: TrainConfig
) -> None:
    """Every log-prob that the objective reads must be the reference's: |difference| <= tolerance * response tokens.

    Raises ``StepZeroError`` naming the worst pair: then the reference does not belong to this model.
    """
    pairs = [dataset.pairs[index] for index in indices]
    worst = (0.0, "", "")
    for branch, values in policy.items():
        for pair, difference in zip(pairs, (values.detach() - ref[branch]).tolist(), strict=True):
            off = abs(difference) / len(answer(pair, branch))
            if not off <= worst[0]:  # also true for NaN
                worst = (off, pair.name, branch)
    off, name, found = worst
    if not off <= TOLERANCE[config.dtype]:
        raise StepZeroError(
            f"before the first update log p of `{found}` of {name} is {off:.3g} nats per token away from the "
            f"reference's (at most {TOLERANCE[config.dtype]:g} in {config.dtype}): policy and reference are not the "
            f"same model. Delete {reference.folder_of(config)} to compute the reference again; if it stays, the "
            "model's forward is not deterministic"
        )
