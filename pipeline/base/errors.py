"""The errors a user of ``pipeline`` can meet: what is wrong, and what to do about it."""

from __future__ import annotations

#: Characters of a message; of a longer one the middle is left out.
LONGEST = 2_000


class UserError(Exception):
    """Says what is wrong, where, and what to do about it. A command line prints that and ends with ``exit_code``."""

    exit_code = 2
    #: Characters of its message, at most.
    longest = LONGEST

    def __str__(self) -> str:
        return shorten(super().__str__(), self.longest)


def shorten(text: str, most: int = LONGEST) -> str:
    """
    >>> shorten("x" * 50 + "end", 40)
    'xxxxxxxxxx ... (38 characters) ... xxend'
    """
    if len(text) <= most:
        return text
    # The beginning says what and where, the end what to do.
    room = most - len(f" ... ({len(text)} characters) ... ")
    head = room * 2 // 3
    tail = room - head
    return f"{text[:head]} ... ({len(text) - head - tail} characters) ... {text[-tail:]}"


class PipelineError(UserError):
    """Root of the tree. Raised inside a worker it ends the run at once: it says that trying again gives the same
    answer."""

    def __init__(self, message: str, remedy: str = "") -> None:
        # Both go to Exception's args, so the error survives pickling on its way back from a worker process.
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return shorten(f"{self.message}\n  -> {self.remedy}" if self.remedy else self.message, self.longest)


class ConfigError(PipelineError):
    """The recipe or an override is wrong."""


class SeveralProblems(PipelineError):
    """A list with a line for each of them: all are said, however many they are."""

    longest = 50 * LONGEST


class InputError(PipelineError):
    """The prompts, images or earlier tables that a stage reads are missing or malformed."""


class StoreError(PipelineError):
    """A run directory cannot be read or written."""


class EngineError(PipelineError):
    """A model is missing or cannot be opened."""


class TooManyFailures(PipelineError):
    """More rows of a stage failed than ``max_failure_rate`` allows; everything finished is kept."""

    exit_code = 3
