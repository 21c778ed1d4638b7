"""The loss of reward models: comparisons, as log-likelihoods of a Bradley-Terry model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reward.models.conversation import Conversation
from reward.models.preference_pairs import Pair

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Comparison:
    """``better`` should have the higher reward, by at least ``margin``; ``pair`` is the row it comes from."""

    better: Conversation
    worse: Conversation
    margin: float
    pair: int


def loss(better: Tensor, worse: Tensor, margin: Tensor, center: float = 0.0) -> Tensor:
    """Of each comparison, [B] -> [B]: -log sigmoid(better - worse - margin) + center * (better + worse)^2.

    Ouyang et al. 2022 (arXiv 2203.02155), margin: Llama 2 (arXiv 2307.09288), centre: Eisenstein et al. 2023 (arXiv
    2312.09244); TRL's ``RewardTrainer`` has the same three.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(better - worse - margin) + center * (better + worse).square()


def comparisons(
    pairs: Sequence[Pair], places: Sequence[int], mix_images: float, mix_words: int, seed: int, epoch: int
) -> list[Comparison]:
    """The pairs at ``places``, and with probability ``mix_images`` for each another comparison: its chosen text with
    its own images over the same text with those of another of these pairs, so that the reward cannot do without
    looking.

    Left alone are texts of fewer than ``mix_words`` words ("Yes" may be true of another image as well), pairs without
    images, and those for which 20 draws find no other images of the same number.
    """
    made = []
    for place in places:
        pair = pairs[place]
        good = pair.conversation(pair.chosen)
        made.append(Comparison(good, pair.conversation(pair.rejected, pair.rejected_images), pair.margin or 0.0, place))
        rng = random.Random(f"mix:{seed}:{epoch}:{place}")
        if not pair.images or len(pair.chosen.split()) < mix_words or rng.random() >= mix_images:
            continue
        drawn = (pairs[rng.choice(places)].images for _ in range(20))
        other = next((images for images in drawn if len(images) == len(pair.images) and images != pair.images), None)
        if other is not None:
            made.append(Comparison(good, pair.conversation(pair.chosen, other), 0.0, place))
    return made
