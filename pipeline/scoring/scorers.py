"""The scorers of a recipe: from its ``score`` section to objects that score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base import model_names as models
from pipeline.base.errors import ConfigError
from pipeline.scoring.config import BUILT_IN, Clip, Score
from pipeline.scoring.plugged import OURS, ours
from pipeline.scoring.vocabularies import vocabulary
from reward.asking.protocol import Asker
from reward.scorers.protocol import Scorer

if TYPE_CHECKING:
    from reward.models.conversation import Conversation, RewardBackend
    from reward.scorers.clip import ClipScorer
    from reward.scorers.reward_model import RewardModelScorer
    from reward.text.lexicon import Lexicon

#: Scorers with a model in their process, and those that ask one through an engine. All others are formulas.
MODELS = ("clip", "reward_model", "likelihood")
ASKED = ("judge", "claims")


def in_worker(name: str, spec: Score) -> bool:
    """Whether a scorer has a model in its process."""
    return name in MODELS or (name not in BUILT_IN and spec.plug_in(name).in_worker)


@dataclass(frozen=True)
class OpenScorers:
    spec: Score

    def __call__(self) -> list[Scorer]:
        return open_scorers(self.spec)


def open_scorers(spec: Score) -> list[Scorer]:
    """The scorers of a recipe, in its order, but for those that ask a model. Models are loaded when they are first
    used.

    Raises:
        PipelineError: a model, a vocabulary or a file is missing or wrong.
    """
    return [_open(name, spec) for name in spec.scorers if name not in ASKED]


def _open(name: str, spec: Score) -> Scorer:
    try:
        if name in OURS:
            return ours(name, spec.options.get(name, {}))
        return _OPEN[name](spec) if name in _OPEN else spec.plug_in(name)
    except (ValueError, OSError) as error:
        raise ConfigError(f"score.{name}: {error}") from error


def _objects(spec: Score) -> Scorer:
    options = spec.objects
    words = vocabulary(options.vocabulary)
    if options.detections is None:
        from reward.scorers.objects import ObjectScorer

        return ObjectScorer(words)
    from reward.scorers.detections import DetectedObjectScorer, Detections

    detections = Detections.read(options.detections, options.threshold, options.classes)
    return DetectedObjectScorer(words, detections, options.always)


def _facts(spec: Score) -> Scorer:
    from reward.scorers.facts import FactScorer

    return FactScorer(lexicon(spec.facts.vocabulary, "score.facts.vocabulary"), spec.facts.complete)


def _clip(spec: Score) -> Scorer:
    return open_clip_scorer(spec.clip)


def open_clip_scorer(options: Clip) -> ClipScorer:
    """A CLIP model, which is loaded when it is first used.

    Raises:
        EngineError: there is no such model.
        ValueError: its options do not go together.
    """
    from reward.scorers.clip import ClipScorer

    # An architecture is told by its weights; everything else is a folder or a built-in name.
    model = options.model if options.pretrained else models.resolve(options.model)
    return ClipScorer(*(model, options.pretrained, options.batch_size, "auto", options.processor, options.dtype))


def _reward_model(spec: Score) -> Scorer:
    from reward.scorers.reward_model import RewardModelScorer

    options = spec.reward_model
    assert options is not None  # or the recipe would not have been accepted
    folder = models.resolve(options.model)
    base = models.resolve(options.base) if options.base is not None else _built_in_base(Path(folder))

    def scorer(backend: RewardBackend | None) -> RewardModelScorer:
        return RewardModelScorer(
            *(folder, options.revision, options.batch_size, options.dtype),
            backend=backend,
            base=base,
            share_prompt=options.share_prompt,
        )

    plain = scorer(None)
    checkpoint = plain.checkpoint  # also of a hub model, so that what is wrong with it is found out before the run
    if options.backend == "transformers":
        return plain
    from pipeline.engines.vllm_rewards import supports

    if supports(checkpoint):
        return scorer(_VllmRewards(plain, only=options.backend == "vllm", gpus=options.gpus))
    if options.backend == "vllm":
        raise ValueError(f"backend=vllm does not support {options.model!r}; use backend: transformers")
    return plain


def _likelihood(spec: Score) -> Scorer:
    from reward.scorers.likelihood import LikelihoodScorer

    options = spec.likelihood
    if options.model is None:
        raise ValueError("model is missing; name the model that is to be trained")
    how = (options.batch_size, options.dtype, "auto", options.share_prompt)
    return LikelihoodScorer(models.resolve(options.model), options.revision, *how)


def _built_in_base(adapter: Path) -> str | None:
    """The folder of the model that an adapter names, if it is one of ours; others are named by folder or hub id."""
    config = adapter / "adapter_config.json"
    named = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path") if config.is_file() else None
    return models.resolve(named) if named in models.BUILT_IN else None


_OPEN = {
    "objects": _objects,
    "facts": _facts,
    "clip": _clip,
    "reward_model": _reward_model,
    "likelihood": _likelihood,
}


class _VllmRewards:
    """A ``RewardBackend`` that is opened when it is first asked, for that happens in the worker. Unless ``only`` vLLM
    will do, a machine without a GPU uses transformers."""

    def __init__(self, plain: RewardModelScorer, only: bool, gpus: float) -> None:
        self._plain, self._only, self._gpus = plain, only, gpus
        self._opened: RewardBackend | None = None

    def rewards(self, conversations: Sequence[Conversation]) -> list[float | None]:
        if self._opened is None:
            self._opened = self._open()
        return self._opened.rewards(conversations)

    def _open(self) -> RewardBackend:
        import torch

        plain = self._plain
        if self._only or torch.cuda.is_available():
            from pipeline.engines.vllm_rewards import OpenVllmRewards

            dtype = "float32" if plain.dtype == "auto" else plain.dtype
            return OpenVllmRewards(plain.model, plain.revision, dtype, gpus=self._gpus)()
        from reward.models.backend import TransformersRewards

        return TransformersRewards.open(
            plain.checkpoint, plain.batch_size, plain.dtype, plain.device, plain.share_prompt
        )


def open_asker(name: str, spec: Score) -> Asker:
    """The judge or the claim scorer of a recipe."""
    return _judge(spec) if name == "judge" else _claims(spec)


def _judge(spec: Score) -> Asker:
    from reward.asking.judge import JudgeScorer

    options = spec.judge
    assert options is not None
    return JudgeScorer(
        options.mode, options.questions, options.pairs_per_prompt, options.blind, options.facts, options.max_tokens
    )


def _claims(spec: Score) -> Asker:
    from reward.asking.claims import ClaimScorer

    options = spec.claims
    assert options is not None
    words = vocabulary(options.vocabulary, "score.claims.vocabulary") if options.vocabulary is not None else None
    return ClaimScorer(
        options.splitter, words, options.template, options.template_many, options.max_tokens, options.min_mass
    )


def lexicon(name: str | None, key: str) -> Lexicon:
    """``vocabulary`` with the words for attributes, numbers and places: the built-in world's own, or English."""
    from pipeline.scenes.scene_words import scenes
    from reward.text.lexicon import general

    return scenes() if name in (None, "scenes") else general(vocabulary(name, key))
