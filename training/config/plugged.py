"""Where a training configuration may name code that is not ours (``pipeline.base.plugins``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.base import plugins
from pipeline.base.errors import ConfigError, PipelineError

#: The schemas of ``training.formats``.
SCHEMAS = ("trl", "rlaif_v", "mdpo", "llamafactory", "swift", "pds_dpo")


@dataclass(frozen=True)
class Slot:
    """One place: a ``kind`` of plug-in, the ``name`` that is given there (None: none), its options, the names that are
    ours, the ``method`` that others need, and what else their objects must be (``check``)."""

    kind: str
    name: str | None
    options: Mapping[str, Any]
    built_in: tuple[str, ...]
    method: str
    check: Callable[[Any, str], None] = lambda plug_in, name: None

    def open(self) -> Any:
        """The object that is named; None if it is one of ours, or none.

        Raises:
            ConfigError: as ``plugins.plug``, or there are options for what is not another's.
        """
        if self.name is not None and self.name not in self.built_in:
            plug_in = plugins.plug(self.kind, self.name, self.options, self.method, self.built_in)
            try:
                self.check(plug_in, self.name)
            except PipelineError:
                raise
            except Exception as error:  # what it says of itself is code, too
                raise ConfigError(f"{self.name} raised {plugins.failure(plug_in, error)}", "correct it") from error
            return plug_in
        if self.options:
            named = f"{self.name} is" if self.name else "none is named"
            raise ConfigError(f"options are those of {self.kind} that are not ours, and {named}", "remove them")
        return None

    def identity(self) -> str | None:
        """Path, version and options; None as ``open``."""
        plug_in = self.open()
        return plugins.identity(plug_in, str(self.name)) if plug_in is not None else None

    def problem(self) -> str | None:
        """Why ``open`` raises, in one line."""
        try:
            self.open()
        except PipelineError as error:
            return f"{error.message}; {error.remedy}"
        return None


def schema_slot(name: str | None, options: Mapping[str, Any]) -> Slot:
    """Where a dataset's schema is named."""
    return Slot("schemas", name, options, SCHEMAS, "convert(row, images)", _check_schema)


def _check_schema(schema: Any, name: str) -> None:
    """``reads`` are the columns that it may look at, ``needs`` those that must be there, by default all of them.

    Raises:
        ConfigError: they are no columns.
    """
    reads = getattr(schema, "reads", None)
    if not isinstance(reads, tuple) or not reads or not all(isinstance(column, str) for column in reads):
        raise ConfigError(f"{name}: reads is {reads!r}", "give a tuple of the columns that convert looks at")
    needs = getattr(schema, "needs", reads)
    if not isinstance(needs, tuple) or any(column not in reads for column in needs):
        raise ConfigError(f"{name}: needs is {needs!r}", f"give some of what it reads, {', '.join(reads)}")
