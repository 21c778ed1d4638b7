"""Before the first update policy and reference are the same model; if they are not, every reward would be wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reward.forward.rounding import Difference, judge, watch
from training.config import TrainConfig
from training.data.pairs import PairDataset
from training.data.schedule import passes, window_of
from training.errors import StepZeroError
from training.forward.batch import answer, has
from training.forward.model import DTYPES
from training.forward.policy import Logps, Policy, pair_logps
from training.loop import reference
from training.loop.pass_size import Passes
from training.loop.reference import Reference
from training.loop.worker import Worker

#: How far policy and reference may differ in the very same forward pass, in nats per response token, whatever the
#: dtype: the same shapes are computed bit for bit alike, and sums whose order is left to chance stay two orders below.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class FirstStep:
    """The log-probs of the first step's pairs, compared over all workers.

    ``same``: the policy's minus those of the starting model in the same passes; ``stored``: those of the reference that
    is trained against minus the starting model's; ``logits``: the size of the largest.
    """

    same: Sequence[Difference]
    stored: Sequence[Difference]
    logits: float


def check_step_zero(
    policy: Policy,
    dataset: PairDataset,
    ref: Reference,
    config: TrainConfig,
    worker: Worker,
    sized: Passes | None = None,
) -> FirstStep:
    """Compare the policy with its reference before any update, in all that the objective reads.

    Two checks, as a stored reference was computed in passes of another shape, which rounds otherwise:

    1. the policy against the starting model (its adapters off; in full tuning itself) in the very same passes, each
       log-prob to ``TOLERANCE`` per token;
    2. the reference that is trained against, against the starting model: all log-probs together, by what the dtype
       and the size of the logits explain (``reward.forward.rounding``).

    Every worker calls it with a model that no update has changed, and all of them raise or none does.

    Raises:
        StepZeroError: naming the worst pair and what to do.
    """
    step = compare(policy, dataset, ref, config, worker, sized)
    worst = max(step.same, key=lambda difference: (math.isnan(difference.nats), difference.per_token))
    if not worst.per_token <= TOLERANCE:
        raise StepZeroError(
            f"before the first update {worst.name} is {worst.per_token:.3g} nats per token away from the reference's "
            f"in the same forward pass (at most {TOLERANCE:g}): the model computes something else each time it runs, "
            "or its adapters do not start at zero. "
            + (
                "Set dtype=float32, where sums in another order differ less; if it stays, the model draws random "
                "numbers as it runs and cannot be trained here"
                if config.precision != "float32"
                else "It draws random numbers as it runs (noise, a dropout that is no module): switch that off in its "
                "config.json"
            )
        )
    judged = judge(step.stored, step.logits, DTYPES[config.precision])
    if not judged.rounding:
        raise StepZeroError(
            f"before the first update {judged.worst.name} is {judged.worst.per_token:.3g} nats per token away from the "
            f"stored reference's, and the {len(step.stored)} answers of the first step are off by {judged.mean:.3g} "
            f"times what rounding in {config.precision} explains with logits of {step.logits:.3g} (at most "
            f"{judged.allowed:.3g} on average): the stored values are of another model or of other data. Delete "
            f"{reference.folder_of(config)} to compute them again, or set cache_reference=false"
        )
    return step


def compare(
    policy: Policy,
    dataset: PairDataset,
    ref: Reference,
    config: TrainConfig,
    worker: Worker,
    sized: Passes | None = None,
) -> FirstStep:
    """Run the first step's passes with the starting model and with the policy, the latter as training does."""
    start = reference.starting_model(policy, dataset, config)
    window = window_of(0, len(dataset.pairs), config)

    def share(config: TrainConfig) -> tuple[list[Difference], list[Difference]]:
        same: list[Difference] = []
        stored: list[Difference] = []
        each = passes(dataset, window, config, worker.rank, worker.world)
        for indices, counts in policy.over(dataset, each, config.branches):
            again = start(indices)
            policy_logps = {
                branch: values.detach() for branch, values in pair_logps(policy, dataset, indices, config).items()
            }
            ref_logps = ref(indices)  # a live reference runs the model, which FSDP's workers do together
            if counts:
                same += _differences(policy_logps, again, dataset, indices)
                stored += _differences(ref_logps, again, dataset, indices)
        return same, stored

    with watch(policy.model) as logits:
        same, stored = sized.run(share, "step zero") if sized is not None else share(config)
    return FirstStep(worker.gather(same), worker.gather(stored), max(worker.gather([logits.largest])))


def _differences(logps: Logps, other: Logps, dataset: PairDataset, indices: Sequence[int]) -> list[Difference]:
    pairs = [dataset.pairs[index] for index in indices]
    return [
        Difference(f"log p of `{branch}` of {pair.name}", len(answer(pair, branch)), nats)
        for branch, values in other.items()
        for pair, nats in zip(pairs, (logps[branch] - values).tolist(), strict=True)
        if has(pair, branch)
    ]
