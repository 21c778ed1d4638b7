from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.running.store import Run
from pipeline.sources.stage import SourceStage

sys.path.insert(0, str(Path(__file__).parent))

from source_kit import source

Make = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


@pytest.fixture
def make(run: Run) -> Make:
    """All rows that a source makes, by ``source``, through the stage itself."""

    def rows(**keys: Any) -> list[dict[str, Any]]:
        stage = SourceStage(source(**keys), 0, 3)
        stage.options()
        tables = [table for _, table in stage.shards(run)]
        for table in tables:
            table.validate(full=True)
        return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["source"])

    return rows
