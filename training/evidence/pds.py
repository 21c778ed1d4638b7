"""PDS-DPO: how many pairs it takes, what the reward model must see, and what the lengths of its pairs do."""

from __future__ import annotations

from training.evidence.runs import Variant

#: Numbers of pairs, each twice the one before; a smaller set is part of every larger one. The last is the recipe's all.
SIZES = (
    *(Variant(f"pairs-{size}", f"{size} pairs", (f"train.limit={size}",)) for size in (125, 250, 500)),
    Variant("", "all pairs"),
)
#: Which reward model ranks the same answers, and with the paper's pairs, whatever their lengths.
REWARDS = (
    Variant("", "reward model that sees the image"),
    Variant("blind", "reward model of text alone", ("score.reward_model.model=scenes-reward-blind",)),
    Variant("unbalanced", "sees the image, no length balance", ("pair.balance_length=false",)),
)
