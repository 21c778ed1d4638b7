"""Rewards through vLLM's pooling: text-only ``...ForSequenceClassification`` models, many conversations in flight.

Only what vLLM 0.32 reads as transformers does: the reward is its classifier's single logit at the last token. Vision
models with a head in a file of their own, adapters and ArmoRM are left to ``transformers``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.base.errors import EngineError
from pipeline.engines.vllm_start import CPU_CACHE, IMAGES_ONLY, opened, runs_on_cpu, turn_on_card
from reward.models.conversation import Conversation
from reward.models.reward_checkpoint import Checkpoint


def supports(checkpoint: Checkpoint) -> bool:
    return checkpoint.kind == "classifier" and not checkpoint.sees


@dataclass(frozen=True)
class OpenVllmRewards:
    """Opens a ``VllmRewards``; ``dtype="auto"`` is float32 on CPU. ``gpus`` is the share of a GPU that it has."""

    model: str
    revision: str | None = None
    dtype: str = "auto"
    max_num_seqs: int = 256
    gpu_memory_utilization: float = 0.9
    gpus: float = 1.0

    def __call__(self) -> VllmRewards:
        """
        Raises:
            EngineError: vLLM is not installed, or the model cannot be loaded.
        """
        on_cpu = runs_on_cpu()
        from vllm import LLM

        options: dict[str, Any] = {
            "model": self.model,
            "revision": self.revision,
            "runner": "pooling",
            "dtype": "float32" if on_cpu and self.dtype == "auto" else self.dtype,
            "max_num_seqs": self.max_num_seqs,
            "gpu_memory_utilization": self.gpu_memory_utilization * self.gpus,
            # Left to itself, vLLM falls back to pickled weights.
            "load_format": "safetensors",
            "disable_log_stats": True,
            "limit_mm_per_prompt": IMAGES_ONLY,
            **({"enforce_eager": True, "kv_cache_memory_bytes": CPU_CACHE} if on_cpu else {}),
        }
        try:
            with turn_on_card(self.gpus), opened(self.model):
                llm = LLM(**options)
        except EngineError as error:
            raise EngineError(error.message, f"{error.remedy}; or set backend: transformers") from error
        return VllmRewards(llm, self)


class VllmRewards:
    """A ``reward.models.conversation.RewardBackend``."""

    def __init__(self, llm: Any, spec: OpenVllmRewards) -> None:
        from transformers import AutoTokenizer

        from reward.models.conversation_reader import Reader

        self._llm = llm
        self._most: int = llm.llm_engine.model_config.max_model_len
        tokenizer = AutoTokenizer.from_pretrained(spec.model, revision=spec.revision)
        self._reader = Reader(tokenizer, sees=False, positions=self._most)

    def rewards(self, conversations: Sequence[Conversation]) -> list[float | None]:
        from vllm import PoolingParams

        logits: list[float | None] = [None] * len(conversations)
        ids = [self._reader.token_ids(conversation, index) for index, conversation in enumerate(conversations)]
        fits = [index for index, tokens in enumerate(ids) if len(tokens) <= self._most]
        outputs = self._llm.classify(
            [{"prompt_token_ids": ids[index]} for index in fits],
            # The raw logit; the default is a probability.
            pooling_params=PoolingParams(use_activation=False),
            use_tqdm=False,
        )
        for index, output in zip(fits, outputs, strict=True):
            (logits[index],) = output.outputs.probs
        return logits

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()
