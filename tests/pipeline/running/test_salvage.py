"""What a later session asks for again, and what it takes over: whatever it does, the table is the one a fresh run
would have made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from salvage_kit import Seeded, sample, stage
from stage_kit import prompt_row, put_prompts

from pipeline.base.tables import CANDIDATES, OK, PROMPTS, error_status
from pipeline.running.store import Run
from pipeline.sampling.gather import GatherStage


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    put_prompts(run, shards=2, size=4)
    return run


def test_more_tokens_ask_again_for_the_cut_answers_only(run: Run, tmp_path: Path) -> None:
    before = sample(run, stage(), Seeded())
    cut = sum(c["finish_reason"] == "length" for row in before.to_pylist() for c in row["candidates"])
    again = Seeded()
    after = sample(run, stage(max_tokens=32), again)
    assert 0 < cut == len(again.requests) < before.num_rows * 6
    assert {(n, tokens) for _, n, tokens, _ in again.requests} == {(1, 32)}

    fresh = Run(tmp_path / "fresh")
    put_prompts(fresh, shards=2, size=4)
    assert sample(fresh, stage(max_tokens=32), Seeded()).equals(after)


@pytest.mark.parametrize("changes", [{"max_tokens": 2}, {"max_tokens": 32, "top_p": 0.5}, {"n": 5}, {"stop": ("x",)}])
def test_any_other_change_asks_for_everything_again(run: Run, changes: dict[str, Any]) -> None:
    sample(run, stage(), Seeded())
    again = Seeded()
    sample(run, stage(**changes), again)
    assert len(again.requests) == 8 and run.earlier("sample", 0) is None


def test_training_another_model_asks_for_nothing_again(run: Run) -> None:
    before = sample(run, stage(), Seeded()).to_pylist()
    again = Seeded()
    after = sample(run, replace(stage(), on_policy=True), again).to_pylist()
    assert again.requests == []
    assert [[{**c, "on_policy": True} for c in row["candidates"]] for row in before] == [r["candidates"] for r in after]


def test_answers_that_are_still_cut_are_not_asked_for_for_ever(run: Run) -> None:
    sample(run, stage(), Seeded())
    sample(run, stage(max_tokens=5), Seeded())
    again = Seeded()
    sample(run, stage(max_tokens=5), again)
    assert again.requests == []


def test_rows_that_failed_for_the_moment_are_asked_again_alone(run: Run) -> None:
    broken = sample(run, stage(), Seeded(refuse={"p1": "rate_limited", "p5": "content_filter"}))
    assert {row["id"] for row in broken.to_pylist() if row["status"] == "failed"} == {"p1", "p5"}
    again = Seeded(refuse={"p5": "content_filter"})
    mended = sample(run, stage(), again)
    assert [id for id, *_ in again.requests] == ["p1"]  # the other shard's error is not one that passes
    assert {row["id"] for row in mended.to_pylist() if row["status"] == "failed"} == {"p5"}
    assert run.about("sample", 0).retry is False  # type: ignore[union-attr]


def test_each_temperature_has_its_own_seeds_and_its_place(run: Run) -> None:
    engine = Seeded()
    row = sample(run, stage(n=2, temperature=(0.5, 1.0)), engine).to_pylist()[0]["candidates"]
    assert [c["temperature"] for c in row] == [0.5, 0.5, 1.0, 1.0]
    assert len({c["seed"] for c in row}) == 4 and row[1]["seed"] == row[0]["seed"] + 1
    assert {t for *_, t in engine.requests} == {0.5, 1.0}


def test_an_image_that_is_gone_fails_its_row_alone(tmp_path: Path) -> None:
    run = Run(tmp_path)
    gone = prompt_row("a", images=[{"bytes": None, "path": str(tmp_path / "gone.png")}])
    run.write("source", 0, pa.Table.from_pylist([gone, prompt_row("b")], schema=PROMPTS))
    rows = sample(run, stage(), Seeded()).to_pylist()
    assert [row["error_type"] for row in rows] == ["missing_image", None] and "gone.png" in rows[0]["error"]


def test_gathering_keeps_the_order_of_the_models_and_fails_only_where_all_did() -> None:
    def table(*rows: tuple[str, list[str] | None]) -> pa.Table:
        good = [
            {"id": id, **error_status("timeout", "late")}
            if texts is None
            else {"id": id, "candidates": [{"text": text} for text in texts], **OK}
            for id, texts in rows
        ]
        return pa.Table.from_pylist(good, schema=CANDIDATES)

    first = table(("p", ["a", "b"]), ("q", None), ("r", None))
    second = table(("p", ["c"]), ("q", ["d"]), ("r", None))
    out = GatherStage(("sample-x", "sample-y")).process(None, {"sample-x": first, "sample-y": second}).to_pylist()
    assert [[c["text"] for c in row["candidates"] or []] for row in out] == [["a", "b", "c"], ["d"], []]
    assert [row["status"] for row in out] == ["ok", "ok", "failed"]
