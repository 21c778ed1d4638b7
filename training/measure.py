"""What is logged for a batch of pairs, under TRL's metric names plus the image-conditional ones."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from training.config import TrainConfig
from training.objectives import dpo, mdpo, reward
from training.policy import PairLogps

_ALWAYS = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
)
_IMAGE = (
    "rewards/chosen_corrupted",
    "rewards/image_margins",
    "rewards/image_accuracies",
    "logps/chosen_corrupted",
    "loss/response",
    "loss/image",
    "loss/anchor",
)


def metric_names(config: TrainConfig) -> tuple[str, ...]:
    """The metrics that ``measure`` returns with this configuration, in order."""
    return _ALWAYS + _IMAGE if config.needs_corrupted else _ALWAYS


@dataclass(frozen=True, slots=True)
class Measured:
    """``loss`` [B], with gradient, is what is trained on. ``metrics`` [B] each, detached, one value per pair."""

    loss: Tensor
    metrics: dict[str, Tensor]


def measure(policy: PairLogps, ref: PairLogps, config: TrainConfig) -> Measured:
    """Loss and metrics per pair. Rewards carry beta; ``accuracies`` are 1.0 where the chosen side is ahead.

    ``rewards/image_margins`` is r(chosen | image) - r(chosen | corrupted image): whether the preference uses the image.
    """
    beta = config.beta
    chosen = reward(policy.chosen, ref.chosen, beta)
    rejected = reward(policy.rejected, ref.rejected, beta)
    metrics = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "rewards/margins": chosen - rejected,
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
    }
    loss = dpo(policy.chosen, policy.rejected, ref.chosen, ref.rejected, beta)
    if policy.corrupted is not None and ref.corrupted is not None:
        corrupted = reward(policy.corrupted, ref.corrupted, beta)
        terms = mdpo(
            policy.chosen,
            policy.rejected,
            policy.corrupted,
            ref.chosen,
            ref.rejected,
            ref.corrupted,
            beta,
            config.anchor_delta,
        )
        metrics |= {
            "rewards/chosen_corrupted": corrupted,
            "rewards/image_margins": chosen - corrupted,
            "rewards/image_accuracies": (chosen > corrupted).float(),
            "logps/chosen_corrupted": policy.corrupted,
            "loss/response": terms.response,
            "loss/image": terms.image,
            "loss/anchor": terms.anchor,
        }
        if config.objective == "mdpo":
            weights = config.weights
            loss = terms.total(weights.response, weights.image, weights.anchor)
    return Measured(loss, {"loss": loss.detach()} | {name: value.detach() for name, value in metrics.items()})
