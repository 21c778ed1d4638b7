"""From log-probs to the loss, and what is logged for a batch of pairs: TRL's metric names plus those of the terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from training.config import Branch, TrainConfig
from training.config.objective import OBJECTIVES, SIMILAR
from training.forward.policy import Logps
from training.loss import plugged
from training.loss.objectives import (
    Responses,
    anchor_term,
    image_term,
    lower_anchor_term,
    margin_term,
    preference,
    reward,
    symmetric_term,
)

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
)


def metric_names(config: TrainConfig) -> tuple[str, ...]:
    """The metrics that ``measure`` returns with this configuration, in order."""
    image = _IMAGE if config.needs_corrupted else ()
    # What probe_image measures is what mDPO trains on.
    terms = dict.fromkeys((*config.addition.terms, *(OBJECTIVES["mdpo"].terms if config.probes else ())))
    losses = ("loss/response", *(f"loss/{name}" for name in terms)) if terms else ()
    symmetric = ("rewards/symmetric_accuracies",) if _compares_images(config) else ()
    return (*_ALWAYS, *image, *losses, *symmetric)


@dataclass(frozen=True, slots=True)
class Measured:
    """``loss`` [B], with gradient, is what is trained on. ``metrics`` [B] each, detached, one value per pair."""

    loss: Tensor
    metrics: dict[str, Tensor]


def measure(
    policy: Logps, ref: Logps, tokens: Mapping[Branch, Tensor], mean_chosen_tokens: float, config: TrainConfig
) -> Measured:
    """Loss and metrics per pair, on the device of the log-probs.

    ``policy`` and ``ref`` hold log-probs [B] of ``config.branches``; others are not read, a missing one is a
    ``KeyError``. ``tokens`` holds the response tokens [B] of chosen and rejected, and of the branches of the similar
    image where they are read. Where those are 0 the pair has no such image, and what compares with it is 0 in loss and
    metrics. ``mean_chosen_tokens`` is the tokens of chosen averaged over the pairs of the whole step.

    Rewards carry beta; accuracies are 1.0 where the preferred side is ahead. ``rewards/image_margins`` is
    r(chosen | image) - r(chosen | corrupted image): whether the preference uses the image.
    ``rewards/symmetric_accuracies`` is the share of the two images that prefer their own answer: 0, 0.5 or 1.
    ``loss/*`` are terms before their weights.
    """
    responses = Responses(
        chosen=policy["chosen"],
        rejected=policy["rejected"],
        ref_chosen=ref["chosen"],
        ref_rejected=ref["rejected"],
        chosen_tokens=tokens["chosen"],
        rejected_tokens=tokens["rejected"],
        mean_chosen_tokens=mean_chosen_tokens,
    )
    rewards = {branch: reward(policy[branch], ref[branch], config.beta) for branch in config.branches}
    chosen, rejected = rewards["chosen"], rewards["rejected"]
    losses, where_similar = plugged.losses(config), _where_similar(tokens, config)
    terms = {
        "response": preference(
            responses, config.loss_type, config.loss_weights, config.beta, config.label_smoothing, losses
        )
    }
    metrics = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "rewards/margins": chosen - rejected,
        "logps/chosen": policy["chosen"],
        "logps/rejected": policy["rejected"],
    }
    if "corrupted" in rewards:
        corrupted = rewards["corrupted"]
        terms |= {"image": image_term(chosen, corrupted), "anchor": _anchors(rewards, config, where_similar)}
        metrics |= {
            "rewards/chosen_corrupted": corrupted,
            "rewards/image_margins": chosen - corrupted,
            "rewards/image_accuracies": (chosen > corrupted).float(),
            "logps/chosen_corrupted": policy["corrupted"],
        }
    if _compares_images(config):
        margin, similar_margin = chosen - rewards["contrast"], rewards["similar"] - rewards["similar_swapped"]
        terms |= {
            "symmetric": where_similar(symmetric_term(margin, similar_margin)),
            "anchor": _anchors(rewards, config, where_similar),
            "margin": where_similar(margin_term(margin, similar_margin, config.beta)),
        }
        accuracies = ((margin > 0).float() + (similar_margin > 0).float()) / 2
        metrics["rewards/symmetric_accuracies"] = where_similar(accuracies)
    terms |= {name: where_similar(term) for name, term in plugged.terms(rewards, config).items()}

    loss = sum((weight * terms[name] for name, weight in config.term_weights.items()), start=torch.zeros_like(chosen))
    metrics |= {"loss": loss} | {f"loss/{name}": term for name, term in terms.items()}
    return Measured(loss, {name: metrics[name].detach() for name in metric_names(config)})


def _compares_images(config: TrainConfig) -> bool:
    return set(SIMILAR) <= set(config.branches)


def _where_similar(tokens: Mapping[Branch, Tensor], config: TrainConfig) -> Callable[[Tensor], Tensor]:
    """What makes a tensor [B] 0 for the pairs without a similar image; of the others it changes no bit."""
    read = [tokens[branch] > 0 for branch in config.branches if branch in SIMILAR]
    return (lambda values: torch.where(read[0], values, 0.0)) if read else (lambda values: values)


def _anchors(rewards: Logps, config: TrainConfig, where_similar: Callable[[Tensor], Tensor]) -> Tensor:
    """The sum over ``config.anchors``. SymMPO holds the good answers of both images, so ``similar`` with ``chosen``."""
    total = torch.zeros_like(rewards["chosen"])
    for anchor in config.anchors:
        if anchor == "chosen":
            held = anchor_term(rewards["chosen"], config.anchor_delta)
            if "similar" in rewards:
                held = held + where_similar(anchor_term(rewards["similar"], config.anchor_delta))
            total = total + held
        else:
            total = total + lower_anchor_term(rewards[anchor], config.anchor_delta)
    return total
