"""What libraries warn of in a worker, whose output nobody sees: kept until the driver asks for it.

open_clip, transformers and vLLM say by a warning or a line in a log that a model is opened otherwise than it was
trained. Most models are opened when they are first used, so it is listened for as long as the worker lives.
"""

from __future__ import annotations

import logging
import threading
import warnings
from typing import Any

#: Different warnings of one worker that are kept, and how long each may be.
MOST, LONGEST = 50, 300
#: Loggers whose warnings say nothing of models: Ray's own, and asyncio's about slow callbacks.
_OTHERS = ("ray", "asyncio")

#: How warnings begin that follow from what this project sets on purpose (one process, eager, whole prompts, a CPU) or
#: speak of speed or of the library's own future: among them, one about the model would not be seen.
_EXPECTED = (
    "CPU backend doesn't allow",
    "DeprecationWarning:",
    "Enforce eager set",
    "FutureWarning:",
    "Inductor compilation was disabled",
    "Model Runner V2 requires Triton",
    "No CUDA runtime is found",
    "Reset SSM cache type",
    "The global random seed is set",
    "This model does not officially support disabling chunked prefill",
    "Triton is",
    "libiomp is not found",
    "libtcmalloc is not found",
)


class Heard:
    """State: the warnings that nobody has taken yet, and all that there were, each once."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._new: list[str] = []
        self._lock = threading.Lock()

    def listen(self) -> None:
        """From now on, in this process, to ``warnings.warn`` and to every logger's warnings and errors.

        Records are caught where they are made: the loggers of libraries have handlers of their own, which do not pass
        them on and are replaced on import.
        """
        make, show = logging.getLogRecordFactory(), warnings.showwarning

        def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
            made = make(*args, **kwargs)
            if made.levelno >= logging.WARNING and made.name.partition(".")[0] not in _OTHERS:
                try:
                    self.add(made.getMessage())
                except Exception:  # a record whose arguments do not fit its text is the library's affair
                    self.add(str(made.msg))
            return made

        def shown(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
            self.add(f"{category.__name__}: {message}")
            show(message, category, *args, **kwargs)

        logging.setLogRecordFactory(record)
        warnings.showwarning = shown

    def add(self, text: str) -> None:
        line = " ".join(text.split())[:LONGEST]
        with self._lock:
            if line and not line.startswith(_EXPECTED) and line not in self._known and len(self._known) < MOST:
                self._known.add(line)
                self._new.append(line)

    def take(self) -> list[str]:
        """What is new since the last time."""
        with self._lock:
            new, self._new = self._new, []
        return new
