"""What a format says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.exporting.fit import EVERYWHERE, Check
from pipeline.exporting.published_pairs import PublishedPair


@dataclass(frozen=True)
class ExportFormat:
    """How pairs become the files of one project.

    ``write`` fills an empty folder with pairs that pass ``checks`` and gives the number of images in it; the second
    argument is what the dataset is called. ``use`` is the command or the code that trains on it, given the folder and
    that name.
    """

    name: str
    title: str
    write: Callable[[Path, str, Iterator[PublishedPair]], int]
    use: Callable[[str, str], str]
    checks: tuple[Check, ...] = ()

    def misfit(self, pair: PublishedPair) -> str | None:
        """Why the pair cannot be said in this format; None if it can."""
        return next((reason for check in (*EVERYWHERE, *self.checks) if (reason := check(pair)) is not None), None)
