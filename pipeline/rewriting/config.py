"""How sampled texts are rewritten: what is wrong in them, what becomes of that, and what is asked about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.base import plugins
from pipeline.base.config import Count, Fraction, Frozen, name_or_path
from pipeline.base.errors import PipelineError
from pipeline.rewriting.by_detector import PluggedDetector
from pipeline.sampling.config import Temperature
from pipeline.scoring.config import Asked, Claims
from reward.text.types import KINDS, Kind

#: Ours.
DETECTORS = ("facts", "judge", "claims")


def _check(group: Asked, by: str, reads: Iterable[str]) -> None:
    """Keys that are not among those that ``by`` ``reads`` would say nothing; it needs ``model`` where it reads that."""
    reads = {*reads, "by"}
    # By value: a recipe that was written down names every key.
    fields = {name: field for name, field in type(group).model_fields.items() if name not in reads}
    idle = [
        name for name, field in fields.items() if getattr(group, name) != field.get_default(call_default_factory=True)
    ]
    if idle:
        raise ValueError(f"by={by} does not read {', '.join(idle)}; remove it, or change by")
    if "model" in reads and not group.model:
        raise ValueError(f"by={by} asks a model; name it: {{by: {by}, model: ...}}")


class Detect(Claims):
    """Which sentences are wrong."""

    by: Annotated[str, name_or_path(DETECTORS)] = Field(
        "facts",
        description="facts of the prompts; a judge that reads sentence by sentence; or claims, as score.claims makes "
        "them, each of which a model answers with yes or no",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of a detector that is not ours")
    model: str = Field("", description="folder, built-in name or hub id; needed with judge and claims")
    complete: bool = Field(
        True, description="by facts that have regions and no objects: what no region names is not there"
    )
    blind: bool = Field(False, description="the judge does not see the image")
    facts: bool = Field(True, description="the judge reads objects and regions of the prompt")
    low: Fraction = Field(0.5, description="a claim is wrong if P(yes) is below")
    high: Fraction = Field(0.5, description="a claim is right from this P(yes) on; in between it is unclear")

    @model_validator(mode="after")
    def _fits_together(self) -> Detect:
        try:
            plug_in = self.plug_in()
        except PipelineError as error:
            raise ValueError(f"by: {error.message}; {error.remedy}") from error
        reads = {
            "facts": {"complete"},
            "judge": {*Asked.model_fields, "blind", "facts"},
            "claims": {*Claims.model_fields, "low", "high"},
        }
        _check(self, self.by, reads[self.by] if plug_in is None else {"options"})
        if self.blind and not self.facts:
            raise ValueError("a judge with blind=true and facts=false can only guess; change one of the two")
        if self.low > self.high:
            raise ValueError(f"low={self.low:g} is above high={self.high:g}; what lies between them is unclear")
        return self

    def plug_in(self) -> PluggedDetector | None:
        """The detector, if it is not one of ours."""
        if self.by in DETECTORS:
            return None
        plug_in = plugins.plug("detectors", self.by, self.options, "find(text, row)", DETECTORS)
        return PluggedDetector(self.by, plug_in)


class Correct(Asked):
    """Edits of what is wrong."""

    by: Literal["rules", "model"] = Field(
        "rules", description="rules over the facts, or a model, which may change flagged sentences only"
    )
    model: str = Field("", description="folder, built-in name or hub id; needed with by: model")
    absent: Literal["remove", "replace"] = Field(
        "remove",
        description="by rules: an object that is not there goes, or a true one that the text does not name takes its "
        "place",
    )
    blind: bool = Field(False, description="the model does not see the image; it reads the facts in any case")
    max_tokens: Count = Field(512, description="a corrected text is cut after so many tokens")

    @model_validator(mode="after")
    def _fits_together(self) -> Correct:
        _check(self, self.by, {"absent"} if self.by == "rules" else {*Asked.model_fields, "blind"})
        return self


class Inject(Frozen):
    """Plausible faults in texts in which nothing is wrong (any more). Objects that are put in occur together with those
    that are there in the facts of the run."""

    per_text: Count = Field(1, description="wrong versions of each text")
    faults: Count = Field(1, description="faults in each version")
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = Field(KINDS, description="which faults")


class Restyle(Asked):
    """Paraphrases of both sides of a pair by the same writer."""

    by: Literal["grammar", "model"] = Field(
        "grammar",
        description="the grammar of the built-in world, or a model, which gets the same instruction for both and sees "
        "no image",
    )
    model: str = Field("", description="folder, built-in name or hub id; needed with by: model")
    paraphrases: Count = Field(3, description="of each side")
    temperature: Temperature = Field(0.7, description="0 is greedy")
    max_tokens: Count = Field(512, description="a paraphrase is cut after so many tokens")

    @model_validator(mode="after")
    def _fits_together(self) -> Restyle:
        _check(self, self.by, {"paraphrases", *(Asked.model_fields if self.by == "model" else ())})
        if self.temperature == 0 and self.paraphrases > 1:
            raise ValueError(
                f"paraphrases={self.paraphrases} greedy answers are all the same; set temperature above 0, or 1"
            )
        return self


class Questions(Frozen):
    """Questions about each described image, which the model that is to be trained answers."""

    per_image: Count = Field(4, description="questions about an image, at most")
    short: bool = Field(False, description="also ask what, how many and where, beside yes or no")
    keep_right: Fraction = Field(
        0.0, description="share of the questions answered right that is kept; that answer is then the chosen one"
    )
    temperature: Temperature = Field(0.0, description="0 is greedy")
    max_tokens: Count = Field(16, description="an answer is cut after so many tokens")


class Rewrite(Frozen):
    """How descriptions are rewritten; a group that is null is left out."""

    vocabulary: str | None = Field(
        None, description="as in score.objects; with another than scenes, texts are read as general English"
    )
    detect: Detect = Field(Detect(), description="which sentences are wrong")
    correct: Correct | None = Field(Correct(), description="edits of what is wrong")
    inject: Inject | None = Field(None, description="faults that are put into right texts")
    restyle: Restyle | None = Field(None, description="paraphrases of both sides")
    questions: Questions | None = Field(None, description="questions about what was described")

    @model_validator(mode="after")
    def _does_something(self) -> Rewrite:
        if self.correct is None and self.inject is None and self.questions is None:
            raise ValueError("rewrite does nothing; add correct: {}, inject: {} or questions: {}")
        if self.restyle is not None and self.correct is None and self.inject is None:
            raise ValueError("restyle has no two sides; add correct: {} or inject: {}")
        return self.speaking(self.vocabulary)

    def speaking(self, vocabulary: str | None) -> Rewrite:
        """With this vocabulary. None leaves it open.

        Raises:
            ValueError: the texts cannot be rewritten in its words.
        """
        if self.restyle is not None and self.restyle.by == "grammar" and vocabulary not in (None, "scenes"):
            raise ValueError("restyle.by=grammar knows the built-in world only; use by: model")
        return self if vocabulary == self.vocabulary else self.model_copy(update={"vocabulary": vocabulary})
