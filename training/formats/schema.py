"""What a schema says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from training.formats.row import Preference


class Sign(NamedTuple):
    """Columns that tell a schema: all of ``has`` are there, none of ``lacks`` is."""

    has: frozenset[str]
    lacks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Schema:
    """How rows of one shape become ours.

    One of ``signs`` is enough. ``reads`` are the columns that ``convert`` looks at. ``repeats`` says that rows
    repeat ``images`` as ``rejected_images`` where they mean no other image. ``convert`` gets a row with those columns
    that the dataset has, and the row's number of images; it raises ``DataError`` without the row's name.
    ``ours`` is False for other people's (``training.formats.plugged``).
    """

    name: str
    signs: tuple[Sign, ...]
    reads: tuple[str, ...]
    convert: Callable[[Mapping[str, Any], int], Preference]
    repeats: bool = False
    ours: bool = True

    def fits(self, columns: frozenset[str]) -> bool:
        return any(sign.has <= columns and not sign.lacks & columns for sign in self.signs)

    def missing(self, columns: frozenset[str]) -> list[str]:
        """What it lacks at least; empty if all it needs is there."""
        return min((sorted(sign.has - columns) for sign in self.signs), key=len)
