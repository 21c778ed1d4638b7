"""PDS-DPO: how many pairs it takes, and what the reward model must see."""

from __future__ import annotations

from training.evidence.runs import Variant

#: Numbers of pairs, each twice the one before; a smaller set is part of every larger one. The last is the recipe's all.
SIZES = (
    *(Variant(f"pairs-{size}", f"{size} pairs", (f"train.limit={size}",)) for size in (75, 150, 300)),
    Variant("", "all pairs"),
)
#: Which reward model ranks the same answers. Another one scores, pairs and trains anew.
REWARDS = (
    Variant("", "reward model that sees the image"),
    Variant("blind", "reward model of text alone", ("score.reward_model.model=scenes-reward-blind",)),
)
