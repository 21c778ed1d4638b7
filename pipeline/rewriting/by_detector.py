"""What in a text is not true of its image, by a detector that is not ours (``pipeline.base.plugins``)."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from pipeline.base import plugins
from pipeline.base.errors import PipelineError
from reward.scorers.protocol import Row
from reward.text.fact_findings import at, whole
from reward.text.sentences import split
from reward.text.types import Finding, Problem

#: A worker has two shards at a time, and a detector's model may keep something between two calls.
_TURN = threading.Lock()


@dataclass(frozen=True)
class PluggedDetector:
    """``plugin`` has ``find(text, row)``; ``name`` is its own in a recipe."""

    name: str
    plugin: Any

    @property
    def in_worker(self) -> bool:
        """It has a model, and runs in a worker of its own, with a GPU where there is one."""
        return bool(getattr(self.plugin, "in_worker", False))

    @property
    def identity(self) -> str:
        return plugins.identity(self.plugin, self.name)

    def findings(self, text: str, row: Row) -> tuple[Finding, ...] | Problem:
        """What it finds, and that nothing is known of the sentences about which it says nothing.

        Refuses with the error that it raises, or with malformed_finding.
        """
        try:
            with _TURN:
                spans = list(self.plugin.find(text, row))
        except PipelineError:
            raise
        except Exception as error:  # one text's, and no reason to lose the others
            return Problem(type(error).__name__, str(error))
        try:
            located = [
                at(text, span.start, span.end, span.verdict, span.reason, span.kind, self.name) for span in spans
            ]
        except (AttributeError, TypeError, ValueError) as error:
            message = f"{self.name}: {error}; make findings with reward.text.fact_findings.at"
            return Problem("malformed_finding", message)
        silent = dict(enumerate(split(text)))
        for finding in located:
            silent.pop(finding.sentence, None)
        located += [
            whole(number, sentence, "nothing was found in it", self.name) for number, sentence in silent.items()
        ]
        return tuple(sorted(located, key=lambda entry: (entry.sentence, entry.start, entry.end)))


@dataclass(frozen=True)
class OpenDetector:
    """Gives the detector to a worker, which loads its model when it is first asked."""

    detector: PluggedDetector

    def __call__(self) -> PluggedDetector:
        return self.detector
