"""How sampled texts are rewritten: what is wrong in them, what becomes of that, and what is asked about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.base.config import Count, Fraction, Frozen
from pipeline.sampling.config import Temperature
from pipeline.scoring.config import Asked, Claims
from reward.text.types import KINDS, Kind


def _check(group: Asked, by: str, *without: str, asking: Iterable[str]) -> None:
    """Keys that are ``asking`` say nothing where ``by`` is one of ``without``; ``model`` is needed where they do."""
    asking = tuple(asking)
    if by in without:
        fields = type(group).model_fields
        # By value: a recipe that was written down names every key.
        own = [name for name in asking if getattr(group, name) != fields[name].default]
        if own:
            raise ValueError(f"by={by} does not read {', '.join(own)}; remove it, or change by")
    elif "model" in asking and not group.model:
        raise ValueError(f"by={by} asks a model; name it: {{by: {by}, model: ...}}")


class Detect(Claims):
    """Which sentences are wrong: by the ``facts`` of the prompts, by a ``judge`` that reads sentence by sentence, or by
    ``claims`` as ``score.claims`` makes them, each of which a model answers with yes or no.

    ``complete``: where facts have regions and no objects, what none of these names is not there. A judge sees the image
    unless ``blind``, and reads objects and regions of the prompt if ``facts``. A claim is wrong if P(yes) is below
    ``low``, right from ``high`` on.
    """

    by: Literal["facts", "judge", "claims"] = "facts"
    model: str = ""
    complete: bool = True
    blind: bool = False
    facts: bool = True
    low: Fraction = 0.5
    high: Fraction = 0.5

    @model_validator(mode="after")
    def _fits_together(self) -> Detect:
        of_claims = set(Claims.model_fields) - set(Asked.model_fields) | {"low", "high"}
        _check(self, self.by, "facts", asking=Asked.model_fields)
        _check(self, self.by, "facts", "judge", asking=of_claims)
        _check(self, self.by, "facts", "claims", asking=("blind", "facts"))
        _check(self, self.by, "judge", "claims", asking=("complete",))
        if self.blind and not self.facts:
            raise ValueError("a judge with blind=true and facts=false can only guess; change one of the two")
        if self.low > self.high:
            raise ValueError(f"low={self.low:g} is above high={self.high:g}; what lies between them is unclear")
        return self


class Correct(Asked):
    """Edits of what is wrong, by ``rules`` over the facts or by a ``model``, which may change flagged sentences only.

    By rules, an absent object goes (``absent: remove``), or a true one that the text does not name takes its place.
    A model sees the image unless ``blind``; it reads what is known of it in any case.
    """

    by: Literal["rules", "model"] = "rules"
    model: str = ""
    absent: Literal["remove", "replace"] = "remove"
    blind: bool = False
    max_tokens: Count = 512

    @model_validator(mode="after")
    def _fits_together(self) -> Correct:
        _check(self, self.by, "rules", asking=(*Asked.model_fields, "blind"))
        _check(self, self.by, "model", asking=("absent",))
        return self


class Inject(Frozen):
    """Of each text in which nothing is wrong (any more), ``per_text`` versions with ``faults`` of these ``kinds``.

    Objects that are put in go along with those that are there in the facts of the run.
    """

    per_text: Count = 1
    faults: Count = 1
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = KINDS


class Restyle(Asked):
    """Both sides of a pair in other words, ``paraphrases`` of each: by the ``grammar`` of the built-in world, or by a
    ``model``, which is told the same about both and sees no image."""

    by: Literal["grammar", "model"] = "grammar"
    model: str = ""
    paraphrases: Count = 3
    temperature: Temperature = 0.7
    max_tokens: Count = 512

    @model_validator(mode="after")
    def _fits_together(self) -> Restyle:
        _check(self, self.by, "grammar", asking=Asked.model_fields)
        if self.temperature == 0 and self.paraphrases > 1:
            raise ValueError(
                f"paraphrases={self.paraphrases} greedy answers are all the same; set temperature above 0, or 1"
            )
        return self


class Questions(Frozen):
    """Up to ``per_image`` questions about each described image, asked of the model that is to be trained.

    A question that it answers right is left out, but for a share ``keep_right`` of them, in which its answer is then
    the chosen one. ``short``: what, how many and where, beside yes or no.
    """

    per_image: Count = 4
    short: bool = False
    keep_right: Fraction = 0.0
    temperature: Temperature = 0.0
    max_tokens: Count = 16


class Rewrite(Frozen):
    """Descriptions are rewritten as the groups say; a group that is null is left out.

    ``vocabulary`` as for ``score.objects``; with another than ``scenes``, texts are read as general English about these
    objects.
    """

    vocabulary: str | None = None
    detect: Detect = Detect()
    correct: Correct | None = Correct()
    inject: Inject | None = None
    restyle: Restyle | None = None
    questions: Questions | None = None

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
