"""What long work tells while it runs: a bar with rate and remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


#: What a source counts besides its rows: prompts of text only. That is what rows are and not how much work they were.
WITHOUT_IMAGE = "without_image"
#: What tells how fast a stage is; everything else that stages count is shown as the count that it is.
TOKENS = "tokens"

#: Seconds after which a bar that is no bar says again how far it is.
LINE_EVERY = 30.0

#: What ``--quiet`` and ``--verbose`` set for this process and all that it starts: nothing of how it goes, from our bars
#: and those of libraries; what Ray's workers write themselves.
QUIET = {"VLM_PREFERENCE_QUIET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
VERBOSE = {"PIPELINE_WORKER_LOGS": "1"}


def is_quiet() -> bool:
    return bool(os.environ.get("VLM_PREFERENCE_QUIET"))


def tell(text: str) -> None:
    """Say how it goes, on standard error; ``--quiet`` leaves it out. What a user must know is no such thing."""
    if not is_quiet():
        print(text, file=sys.stderr, flush=True)


class Progress:
    """Reports to ``stream``. ``every`` is the least number of seconds between two plain lines."""

    def __init__(self, stream: TextIO | None = None, every: float = 5.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every

    def say(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def tell(self, text: str) -> None:
        """``say`` it, but for ``--quiet``."""
        if not is_quiet():
            self.say(text)

    @contextmanager
    def wait(self, text: str) -> Iterator[None]:
        """Say what is waited for, and that it goes on: a spinner with seconds on a terminal, elsewhere how long it
        took. ``--quiet`` leaves it out."""
        start = time.monotonic()
        if not is_quiet() and self._stream.isatty():
            with _spinner(self._stream) as display:
                display.add_task(text, total=None)
                yield
            self.say(f"{text}: {time.monotonic() - start:.1f} s")
            return
        self.tell(text)
        yield
        self.tell(f"{text}: {time.monotonic() - start:.1f} s")

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Bar]:
        """``total`` rows (None if nobody knows yet), ``done`` of which an earlier run has made."""
        if is_quiet():
            yield Bar(name, total, done, lambda bar: None)
            return
        if self._stream.isatty():
            with _rich(self._stream) as display:
                task = display.add_task(name, total=total, completed=done, detail="")
                yield Bar(name, total, done, lambda bar: display.update(task, completed=bar.done, detail=bar.detail))
            return
        last = time.monotonic()

        def line(bar: Bar) -> None:
            nonlocal last
            if time.monotonic() - last >= self._every:
                last = time.monotonic()
                self.say(bar.line)

        bar = Bar(name, total, done, line)
        yield bar
        self.say(f"{bar.line}, {bar.seconds:.1f} s")


class Bar:
    """Counts of one stage; ``done`` and ``total`` are rows of what it reads, of which it may make more or fewer. Rates
    count only what this session did, so a resumed stage does not look fast."""

    def __init__(self, name: str, total: int | None, done: int, show: Any) -> None:
        self.name, self.total, self.done, self.failed = name, total, done, 0
        self._show = show
        self._stats: Mapping[str, int] = {}
        self._before, self._start = done, time.monotonic()
        self._extras: dict[str, int] = {}

    def advance(self, rows: int, failed: int, extras: Mapping[str, int]) -> None:
        self.done += rows
        self.failed += failed
        for key, value in extras.items():
            self._extras[key] = self._extras.get(key, 0) + value
        self._show(self)

    def live(self, stats: Mapping[str, int]) -> None:
        """What the workers say between two shards: ``running`` and ``waiting`` requests, ``tokens`` made so far."""
        self._stats = stats
        self._show(self)

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self._start, 1e-9)

    @property
    def detail(self) -> str:
        rate = (self.done - self._before) / self.seconds
        counts = dict(self._extras)
        tokens, without = self._stats.get("tokens") or counts.get(TOKENS), counts.pop(WITHOUT_IMAGE, 0)
        counts.pop(TOKENS, None)
        parts = [f"{rate:,.1f} rows/s"]
        parts += [f"{tokens / self.seconds:,.0f} tokens/s"] if tokens else []
        parts += [f"{count:,} {name}" for name, count in counts.items()]
        parts += [f"{without:,} without an image"] if without else []
        parts += [f"{self._stats[key]} {key}" for key in ("running", "waiting") if self._stats.get(key)]
        return ", ".join(parts + ([f"{self.failed} failed"] if self.failed else []))

    @property
    def line(self) -> str:
        rate = (self.done - self._before) / self.seconds
        if self.total is None:
            return f"{self.name}: {self.done} rows, {self.detail}"
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        return f"{self.name}: {self.done}/{self.total} rows, {self.detail}{left}"


class ProgressBar:
    """Rate and time left for ``total`` units of work of one kind, on standard error: a bar, or where that is no
    terminal a line whenever there was none for ``LINE_EVERY``. A context manager."""

    def __init__(self, title: str, total: int, done: int = 0, unit: str = "step", visible: bool = True) -> None:
        self.total, self.done = total, done
        self._title, self._unit, self._before = title, unit, done
        self._visible = visible and not is_quiet()
        self._start = self._told = time.monotonic()
        self._bar: RichProgress | None = None

    def __enter__(self) -> ProgressBar:
        if self._visible and sys.stderr.isatty():
            self._bar = _rich(sys.stderr)
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self.total, completed=self.done, detail="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, units: int = 1) -> None:
        """Count ``units`` more as done."""
        self.done += units
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, detail=f"{self.rate:.2f} {self._unit}/s")
        elif self._visible and time.monotonic() - self._told >= LINE_EVERY:
            self._line("")

    @property
    def rate(self) -> float:
        """Units per second since this bar was made."""
        return (self.done - self._before) / max(time.monotonic() - self._start, 1e-9)

    def note(self, text: str) -> None:
        """Show how it goes: above the bar, or as a plain line with rate and time left."""
        if self._bar is not None:
            self._bar.console.print(f"{self._unit} {self.done}  {text}", highlight=False)
        elif self._visible:
            self._line(f"{text}  ")

    def _line(self, text: str) -> None:
        self._told = time.monotonic()
        left = (self.total - self.done) / self.rate if self.rate > 0 else 0.0
        line = f"{self._title} {self._unit} {self.done}/{self.total}  {text}{self.rate:.2f} {self._unit}/s"
        print(f"{line}  {left:.0f} s left", file=sys.stderr, flush=True)


def _rich(stream: TextIO) -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )


def _spinner(stream: TextIO) -> RichProgress:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    return RichProgress(*columns, console=Console(file=stream), transient=True)
