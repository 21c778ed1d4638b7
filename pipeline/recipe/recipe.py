"""A recipe: a whole run as typed, frozen data.

Every error names the key, the value and the remedy, and all errors are reported at once. Imports no torch, Ray or vLLM.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from pipeline.base.config import AT_HOME, NEUTRAL, Count, Fraction, Frozen, NotNegative, Whole
from pipeline.base.files import locate
from pipeline.base.hardware import Auto, Dtype
from pipeline.pairing.config import Pair
from pipeline.publishing.config import Publish
from pipeline.rewriting.config import Rewrite
from pipeline.sampling.config import GivenOptions, Sample
from pipeline.scoring.config import Score
from pipeline.scoring.run_dtype import with_dtype
from pipeline.sources.kinds import Source

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def run_name(text: str) -> str:
    """What a run is called after a file or a folder; empty where nothing of it can stand in a name.

    >>> run_name("my recipe (2)"), run_name("猫")
    ('my-recipe-2', '')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-").rstrip("-")


def _a_name(value: Any) -> Any:
    if isinstance(value, str) and not re.match(_NAME, value):
        like = f"name: {run_name(value) or 'mine'}"
        raise ValueError(f"{value!r} cannot be the run's folder; use A-Z, a-z, 0-9, '.', '_' and '-', as in {like}")
    return value


class Recipe(Frozen):
    """A whole run, from images and prompts to a published dataset. ``training.config.recipe.WholeRecipe`` also knows
    the keys of ``train`` and ``evaluate``, which are kept as they were written."""

    name: Annotated[str, Field(pattern=_NAME), BeforeValidator(_a_name)] = Field(
        description="of the run, and of its folder in output_dir; default: that of the file"
    )
    seed: Whole = Field(0, description="of everything that is drawn")
    output_dir: Annotated[str, AT_HOME] = Field(
        "runs", description="folder or URL that the run's folder is in", json_schema_extra=NEUTRAL
    )
    max_failure_rate: Fraction = Field(
        0.01, description="share of a stage's rows that may fail", json_schema_extra=NEUTRAL
    )
    shard_size: Count = Field(128, description="prompts of a shard, which is what a worker does at a time")
    shard_retries: NotNegative = Field(
        2, description="how often a shard whose worker died is tried again", json_schema_extra=NEUTRAL
    )
    dtype: Dtype | Auto = Field(
        "auto",
        description="of all models of the run that say none themselves, but those that draw images; auto: what the run "
        "was begun in, else bfloat16 where all GPUs of the cluster have it and float32 elsewhere",
    )
    source: Source = Field(description="images and prompts")
    sample: Sample = Field(description="the models that answer")
    rewrite: Rewrite | None = Field(None, description="correcting, injecting, paraphrasing, asking; null: nothing")
    score: Score = Field(Score(), description="what a candidate is worth")
    pair: Pair = Field(description="which candidates become pairs")
    publish: Publish = Field(Publish(), description="how the dataset is written, and what stops it")
    train: dict[str, Any] | None = Field(None, description="training on the pairs; null: none")
    evaluate: dict[str, Any] | None = Field(
        None, description="the model is measured, before and after training; null: not"
    )

    @model_validator(mode="after")
    def _scores_exist(self) -> Recipe:
        for key in ("weights", "vetoes"):
            unknown = sorted(name for name in getattr(self.pair, key) if name.split(".")[0] not in self.score.names)
            if unknown:
                have = ", ".join(self.score.names)
                raise ValueError(f"pair.{key}: no scorer gives {', '.join(unknown)}; score.scorers has {have}")
        return self

    @model_validator(mode="after")
    def _candidates_of_the_origin_exist(self) -> Recipe:
        specs = self.sample.each()
        plain = {spec.model for spec in specs if spec.noise is None}
        if self.pair.policy == "corrupted_image" and not any(spec.noise and spec.model in plain for spec in specs):
            raise ValueError(
                "pair.policy=corrupted_image needs a model's answers to the images and to the noised images; add an "
                f"entry to sample.models: {{model: {specs[0].model}, noise: {{}}}} beside {{model: {specs[0].model}}}"
            )
        if self.pair.policy == "continuation" and self.sample.continuation is None:
            raise ValueError("pair.policy=continuation needs continued answers; add sample.continue: {share: 0.5}")
        if self.pair.policy == "rewritten" and self.rewrite is None:
            raise ValueError("pair.policy=rewritten needs rewritten texts; add rewrite: {detect: {by: facts}}")
        if self.pair.policy == "rewritten" and not any(self.pair.weights.values()):
            raise ValueError(
                "pair.policy=rewritten needs scores that confirm which text is better; add pair.weights such as "
                "{objects.hallucinated: -1}"
            )
        return self

    @model_validator(mode="after")
    def _given_answers_exist(self) -> Recipe:
        specs = self.sample.each()
        given = [spec for spec in specs if isinstance(spec.engine, GivenOptions)]
        if given and self.source.kind != "pds":
            raise ValueError(
                "sample.engine.kind=given takes the answers that come with the prompts, and those of "
                f"source.kind={self.source.kind} come without; use source.kind=pds, or name a model"
            )
        if given and self.rewrite is not None and self.rewrite.questions is not None:
            raise ValueError(
                "rewrite.questions asks the sampled model, and sample.engine.kind=given has none; set "
                "rewrite.questions=null, or name a model"
            )
        if self.sample.continuation is not None and self.rewrite is not None and self.rewrite.questions is not None:
            raise ValueError("sample.continue does not go with rewrite.questions; set one of them to null")
        trains = self.train is not None or self.evaluate is not None
        if len(given) == len(specs) and trains and not (self.train or {}).get("model"):
            raise ValueError("train.model: missing; with sample.engine.kind=given there is no sampled model to train")
        return self

    @model_validator(mode="after")
    def _log_probs_exist(self) -> Recipe:
        if self.publish.style.max_logp_gap is not None and "likelihood" not in self.score.scorers:
            raise ValueError(
                f"publish.style.max_logp_gap={self.publish.style.max_logp_gap:g} needs log-probs; add likelihood to "
                "score.scorers"
            )
        return self

    @model_validator(mode="after")
    def _follows_from_the_rest(self) -> Recipe:
        """The vocabularies, and what ``score.likelihood`` and ``publish.style`` leave open."""
        self._speak()
        likelihood, style = self.score.likelihood, self.publish.style
        if "likelihood" in self.score.scorers and likelihood.model is None:
            filled = likelihood.model_copy(update=self._trained_model())
            self._set("score", self.score.model_copy(update={"likelihood": filled}))
        if style.vocabulary is None:
            named = style.model_copy(update={"vocabulary": self._vocabulary()})
            self._set("publish", self.publish.model_copy(update={"style": named}))
        sampled = {(spec.model, spec.revision) for spec in self.sample.each()}
        for key in ("source", "sample", "rewrite", "score"):
            if (group := getattr(self, key)) is not None:
                self._set(key, with_dtype(group, self.dtype, sampled))
        return self

    def _speak(self) -> None:
        """The objects of the source are called as its kind calls them, where nobody says otherwise."""
        vocabulary = "coco" if self.source.kind == "coco" else "scenes"
        if self.source.kind == "visual_genome":
            self._refuse_silent_words()
        if self.rewrite is not None and self.rewrite.vocabulary is None:
            self._set("rewrite", self.rewrite.speaking(vocabulary))
        named = {
            name: group.model_copy(update={"vocabulary": vocabulary})
            for name in ("objects", "facts")
            if (group := getattr(self.score, name)).vocabulary is None
        }
        if named:
            self._set("score", self.score.model_copy(update=named))

    def _refuse_silent_words(self) -> None:
        """Regions say in any words what is there, and what a vocabulary does not find in them would not be there."""
        asks = {"score.facts": self.score.facts if "facts" in self.score.scorers else None, "rewrite": self.rewrite}
        for key, group in asks.items():
            if group is not None and group.vocabulary is None:
                raise ValueError(f"{key}.vocabulary: missing; name words for source.kind=visual_genome, such as coco")

    def _trained_model(self) -> dict[str, str | None]:
        """The model that is to be trained, and its revision where it is sampled as well."""
        specs = (spec for spec in self.sample.each() if not isinstance(spec.engine, GivenOptions))
        sampled = {spec.model: spec.revision for spec in specs}
        model = (self.train or {}).get("model") or next(iter(sampled), None)
        if model is None:
            raise ValueError("score.likelihood.model: missing; with sample.engine.kind=given there is no sampled model")
        return {"model": model, "revision": sampled.get(model)}

    def _vocabulary(self) -> str | None:
        """Of rewriting, else of the first scorer that has one."""
        if self.rewrite is not None:
            return self.rewrite.vocabulary
        groups = (getattr(self.score, name, None) for name in self.score.scorers)
        return next((words for group in groups if (words := getattr(group, "vocabulary", None)) is not None), None)

    def _set(self, key: str, value: Frozen) -> None:
        object.__setattr__(self, key, value)  # nobody has seen the recipe yet

    @property
    def run_dir(self) -> Path:
        return locate(self.output_dir) / self.name
