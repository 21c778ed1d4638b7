"""Reward models: what a network that was trained on preferences says a response is worth.

``checkpoint`` says what a folder holds, ``inputs`` turns conversations into tensors, ``network`` gives one number for
each, ``backend`` runs it in batches, and ``scorer`` applies it to rows.
"""

from __future__ import annotations

from reward.reward_model.scorer import RewardModelScorer

__all__ = ["RewardModelScorer"]
