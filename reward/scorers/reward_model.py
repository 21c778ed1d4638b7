"""What a reward model says each response is worth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from reward.models.conversation import RewardBackend
from reward.models.reward_checkpoint import Checkpoint, read_checkpoint
from reward.scorers.by_conversation import check_options, score_each
from reward.scorers.protocol import Row, Scores


class RewardModelScorer:
    """Score ``reward_model``: the raw reward of (images, prompt, response). Only differences within a prompt mean
    something. Null where the conversation has more tokens than the model's context: nothing is cut.

    Every distinct conversation is scored once. A model that reads no images (``version`` ends with ``:blind``) gets the
    prompt's text alone.

    Args:
        model: a folder or hub id; see ``docs/reward_models.md`` for the forms.
        base: for a LoRA adapter: the folder or hub id of its model, if not the one the adapter names.
        dtype: ``"auto"`` is float32.
        device: ``"auto"`` takes a GPU when there is one.
        share_prompt: run images and prompt once for all answers, where the model can.
        backend: what gives the rewards instead of ``transformers``, such as vLLM.

    Raises:
        ValueError: the folder holds no reward model, or an option is out of range.
    """

    name = "reward_model"

    def __init__(
        self,
        model: str | Path,
        revision: str | None = None,
        batch_size: int = 8,
        dtype: str = "auto",
        device: str = "auto",
        backend: RewardBackend | None = None,
        base: str | None = None,
        share_prompt: bool = True,
    ) -> None:
        self.model, self.revision, self.base, self.share_prompt = str(model), revision, base, share_prompt
        self.batch_size, self.dtype, self.device = batch_size, dtype, device
        self._given = backend
        check_options(batch_size, dtype)
        if Path(self.model).is_dir():
            _ = self.checkpoint  # a wrong folder is found out now, not when the first row comes

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return read_checkpoint(self.model, self.revision, self.base)

    @cached_property
    def version(self) -> str:
        """What the values depend on. Local folders count by their content, not by where they lie."""
        dtype = "" if self.dtype == "auto" else f":{self.dtype}"
        # Since 2, prompts are shared: the last digits are others.
        return f"2:{self.checkpoint.identity}{dtype}{'' if self.checkpoint.sees else ':blind'}"

    def score(self, rows: Sequence[Row]) -> Scores:
        """
        Raises:
            ValueError: a row cannot be scored; the message names row and candidate.
        """
        return {self.name: score_each(rows, lambda given: self._backend.rewards(given), "reward", self.checkpoint.sees)}

    @cached_property
    def _backend(self) -> RewardBackend:
        if self._given is not None:
            return self._given
        from reward.models.backend import TransformersRewards  # imports torch

        return TransformersRewards.open(self.checkpoint, self.batch_size, self.dtype, self.device, self.share_prompt)
