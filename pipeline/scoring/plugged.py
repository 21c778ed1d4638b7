"""Scorers that need nothing of a recipe but their own options: other people's (``pipeline.base.plugins``), and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.base import plugins
from pipeline.base.errors import ConfigError
from reward.scorers.protocol import Row, Scorer, Scores, gives

KIND = "scorers"

#: Of ours, those without a group of their own in ``score``: a file in reward/scorers, and its line here. Imported when
#: a recipe opens them; their options are in ``score.options``.
OURS = {
    "correctness": "reward.scorers.correctness:CorrectnessScorer",
    "given": "reward.scorers.given:GivenScorer",
}


@dataclass(frozen=True)
class Plugged:
    """``in_worker``: it has a model, and runs in a worker of its own, with a GPU where there is one. Its version has
    its options in it, for another option gives other scores."""

    inner: Scorer
    name: str
    version: str
    in_worker: bool

    def score(self, rows: Sequence[Row]) -> Scores:
        """
        Raises:
            ValueError: a score has another name than its scorer, or not one value for each candidate.
        """
        scores = self.inner.score(rows)
        for name, values in scores.items():
            if not gives(self.name, name):
                raise ValueError(f"score {name!r} is none of {self.name}: call it {self.name} or {self.name}.{name}")
            wrong = [len(row) for row, of in zip(values, rows, strict=True) if len(row) != len(of["candidates"])]
            if wrong:
                raise ValueError(f"{name}: {wrong[0]} values for a row with another number of candidates")
        return scores


def ours(name: str, options: Mapping[str, Any]) -> Scorer:
    """
    Raises:
        ConfigError: an option is wrong.
    """
    scorer: Scorer = plugins.make(plugins.find(KIND, OURS[name]), options, name)
    return scorer


def plug_in(reference: str, options: Mapping[str, Any], built_in: Sequence[str]) -> Plugged:
    """
    Raises:
        ConfigError: there is no such scorer, or its options or what it says of itself is wrong.
    """
    scorer = plugins.plug(KIND, reference, options, "score(rows)", built_in)
    name = getattr(scorer, "name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in built_in:
        raise ConfigError(
            f"{reference} cannot be called {name!r}",
            'give the class name: ClassVar[str] = "..." of a-z, 0-9 and _, which none of ours has',
        )
    return Plugged(scorer, name, plugins.identity(scorer, reference), bool(getattr(scorer, "in_worker", False)))
