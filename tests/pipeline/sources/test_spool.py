"""Sorting on disk: the same shards as sorting in memory, without holding the rows."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_kit import content_id, layout, png

from pipeline.base.errors import StoreError
from pipeline.base.tables import OK, PROMPTS
from pipeline.sources.admission.admit import admit
from pipeline.sources.admission.shards import cut
from pipeline.sources.admission.sift import names, sift
from pipeline.sources.admission.spool import Blobs, Spool
from pipeline.sources.admission.verdicts import Verdicts
from pipeline.sources.readers.protocol import Entry, user_turn

PICTURES = [png(index) for index in range(3)]
PROMPT = st.tuples(st.integers(0, 40), st.integers(0, 2), st.booleans())


def entry(number: int, text: int, image: int, facts: bool) -> Entry:
    captions = {"captions": [f"caption {number}"]} if facts else None
    return Entry([{"bytes": PICTURES[image], "path": f"{image}.png"}], user_turn(str(text)), captions, str(number))


def in_memory(entries: list[Entry], size: int, before: dict[int, list[str]]) -> dict[int, pa.Table]:
    """The definition: the first row of every id, sorted, cut by ``layout``."""
    rows: dict[str, dict[str, Any]] = {}
    for item in entries:
        made = {"images": item.images, "prompt": item.prompt, "facts": item.facts, "source": item.source, **OK}
        id = content_id([image["bytes"] for image in item.images], item.prompt)
        rows.setdefault(id, {"id": id, **made})
    return {
        shard: pa.Table.from_pylist([rows[id] for id in ids], schema=PROMPTS)
        for shard, ids in layout(list(rows), size, before).items()
    }


def streamed(entries: list[Entry], size: int, before: dict[int, list[str]], memory: int) -> dict[int, pa.Table]:
    with tempfile.TemporaryDirectory() as folder, Spool(Path(folder) / "spool.tmp", memory) as spool:
        for batch in admit(iter(entries), Verdicts(10**6, 10**6, hashed=False), spool.blobs):
            for start in range(0, batch.num_rows, 7):  # batches of the size of a small memory
                spool.add(batch.slice(start, 7))
        spool.finish()
        kept = sift(spool, None, lambda row: None)
        old = ((shard, names(pa.chunked_array([pa.array(ids, pa.string())]))) for shard, ids in before.items())
        return dict(cut(spool, kept, size, old))


@settings(max_examples=40)
@given(
    st.lists(PROMPT, min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(0, 60),
    st.sampled_from([1, 3000, 1 << 20]),
)
def test_streamed_shards_equal_those_in_memory(made: list[Any], size: int, first: int, memory: int) -> None:
    entries = [entry(number, *example) for number, example in enumerate(made)]
    before = {shard: table["id"].to_pylist() for shard, table in in_memory(entries[:first], size, {}).items()}
    expected, shards = in_memory(entries, size, before), streamed(entries, size, before, memory)
    assert list(shards) == list(expected)
    for shard, table in expected.items():
        assert shards[shard].equals(table)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.admission.admit._ROWS", 128)

    def entries(count: int) -> Iterator[Entry]:
        return (Entry([], user_turn(f"{number} " + "x" * 500), None, "s") for number in range(count))

    def peak(count: int) -> tuple[int, int]:
        arrow = 0
        tracemalloc.start()
        with Spool(tmp_path / "spool.tmp", memory=1 << 18) as spool:
            for batch in admit(entries(count), Verdicts(1, 1, hashed=False), spool.blobs):
                spool.add(batch)
                arrow = max(arrow, pa.total_allocated_bytes())
            spool.finish()
            rows = 0
            for _, table in cut(spool, sift(spool, None, lambda row: None), 100, ()):
                rows += table.num_rows
                arrow = max(arrow, pa.total_allocated_bytes())
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert rows == count
        return python, arrow

    peak(10)  # imports
    small, large = peak(1500), peak(4500)
    assert large[0] < 1.25 * small[0] and large[1] < 1.25 * small[1], (small, large)
    assert not (tmp_path / "spool.tmp").exists()


def test_blobs_come_back_and_repeated_ones_are_written_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "x" / "blobs", kept=2)
    places = [blobs.put(key, data) for key, data in [(b"a", b"one"), (b"a", b"one"), (b"b", b""), (b"c", b"three")]]
    again = blobs.put(b"a", b"one")  # forgotten by then
    blobs.finish()
    assert places[0] == places[1] and again[0] == 8
    assert [blobs.get(*place) for place in (*places, again)] == [b"one", b"one", b"", b"three", b"one"]
    blobs.close()


def test_a_full_disk_is_a_clean_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with Spool(tmp_path / "file" / "spool.tmp", memory=1) as spool:
        (batch,) = admit([Entry([], user_turn("x"), None, "s")], Verdicts(1, 1, hashed=False), spool.blobs)
        with pytest.raises(StoreError, match="cannot write"):
            spool.add(batch)
