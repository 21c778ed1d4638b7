"""How many rows' images are in memory at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.base.tables import IMAGE
from pipeline.publishing import final_images
from pipeline.publishing.final_images import FinalImages


def pictures(*rows: list[dict[str, Any]]) -> pa.Array:
    return pa.array(list(rows), pa.list_(IMAGE))


def test_small_images_are_looked_at_together_and_large_ones_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_images, "_HELD", 1000)
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 400)
    inside = [{"bytes": b"x" * 100, "path": "a.png"}]
    outside = [{"bytes": None, "path": str(path)}]
    final = FinalImages(embed=True)
    assert final.step(pictures(inside, inside), 500) == 10
    assert final.step(pictures(outside, outside), 500) == 2
    assert final.step(pictures(inside, [*outside, *outside]), 500) == 2
    assert final.step(pictures([], []), 500) == 500
    assert final.step(pictures([{"bytes": None, "path": None}], inside), 500) == 20  # a row that failed
    assert final.step(pictures([{"bytes": None, "path": "s3://bucket/a.png"}]), 500) == 1
