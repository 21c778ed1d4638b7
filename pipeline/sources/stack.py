"""Two tables of equal columns as one: the shards of the first, then those of the second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.base.errors import InputError
from pipeline.running.store import Run


@dataclass(frozen=True)
class StackStage:
    """Shards of ``first`` keep their numbers, those of ``second`` follow with the next ones; rows are not touched.

    A source, for it has shards that no single table has. Columns that ``schema`` does not name stay behind.
    """

    name: str
    first: str
    second: str
    schema: pa.Schema

    version = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.first, self.second)

    def options(self) -> dict[str, Any]:
        return {"tables": list(self.inputs)}

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        """
        Raises:
            InputError: a table has no shards.
        """
        start = 0
        for name in self.inputs:
            numbers = run.shards(name)
            if not numbers:
                raise InputError(f"stage {self.name!r} reads {name!r}, which has no shards", "run `rewrite` first")
            for number in numbers:
                yield start + number, run.read(name, number).select(self.schema.names)
            start += numbers[-1] + 1

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}
