"""Many prompts with their candidates as columns, for scorers that can look at all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Batch:
    """``facts`` is a struct array with one entry per prompt, the columns of ``pipeline.base.tables.FACTS``.

    ``texts`` is a string array of all candidates, ``prompt`` the index of each one's prompt, ascending. ``asked`` is a
    string array with the last message of each prompt, null where there is none.
    """

    facts: Any
    texts: Any
    prompt: Ints
    asked: Any


@runtime_checkable
class ColumnScorer(Protocol):
    """A scorer whose ``score_columns`` gives the very values of ``score``, as float64 arrays aligned to the texts."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def score_columns(self, batch: Batch) -> Mapping[str, Any]: ...
