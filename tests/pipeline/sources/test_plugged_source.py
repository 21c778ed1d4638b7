"""Rows of other people's code are checked as those of a file are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plugin_kit import BROKEN
from source_kit import source

from pipeline.base.errors import ConfigError, InputError
from pipeline.running.executor import Executor
from pipeline.running.store import Run, flat_options
from pipeline.sources.readers.protocol import entries
from pipeline.sources.stage import SourceStage


def plugged(**keys: Any) -> Any:
    return source(kind="plugin_kit:Rows", **keys)


def written(folder: Path, **keys: Any) -> list[dict[str, Any]]:
    run = Run(folder)
    with Executor(run, max_failure_rate=1.0) as executor:
        executor.write(SourceStage(plugged(**keys), 0, 8))
    rows: list[dict[str, Any]] = run.table("source").to_pylist()
    return rows


def options(**keys: Any) -> dict[str, Any]:
    return flat_options(SourceStage(plugged(**keys), 0, 8).options())


def test_rows_become_prompts_with_what_is_known_of_them(tmp_path: Path) -> None:
    rows = written(tmp_path)
    assert {row["prompt"][0]["content"] for row in rows} == {"Is there a sun?", "Is there a cup?"}
    assert {row["source"] for row in rows} == {"plugin_kit:Rows:1", "plugin_kit:Rows:2"}
    assert all(row["status"] == "ok" and row["facts"]["answer"] == "Yes" for row in rows)


def test_a_broken_row_is_a_failed_row_and_harms_no_other(tmp_path: Path) -> None:
    rows = written(tmp_path, mode="broken", root=str(tmp_path))
    failed = sorted(row["error_type"] for row in rows if row["status"] == "failed")
    assert failed == sorted(kind for _, kind in BROKEN) and len(rows) == len(BROKEN) + 2
    assert all(row["error"] for row in rows if row["status"] == "failed")
    assert {row["source"] for row in rows} >= {"plugin_kit:Rows:3", "a:1", "a:2", "a:3"}


def test_duplicates_are_merged_and_limits_hold(tmp_path: Path) -> None:
    assert len(written(tmp_path / "a", mode="twice")) == 2 and len(written(tmp_path / "b", limit=1)) == 1
    assert len(Run(tmp_path / "a").table("dropped")) == 2


def test_what_read_raises_ends_the_run_with_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plugin_kit:Rows: read\(\) failed after 2 rows: KeyError: 'the third'"):
        list(entries(plugged(mode="raise")))
    with pytest.raises(InputError, match=r"plugin_kit:Rows: stamp\(\) failed: OSError: gone"):
        options(mode="raise")


def test_version_and_options_and_what_it_stamps_are_what_it_is() -> None:
    usual = options()
    assert usual["content.identity"].startswith("plugin_kit:Rows@1 {") and usual["content.stamp.rows"] == 2
    assert json.loads(usual["content.identity"].partition(" ")[2])["frame"] == {"width": 8}
    assert options(mode="twice") != usual and options(limit=3) != usual and options(frame={"width": 9}) != usual
    # Neither where images lie, nor an option that changes no result, says anything.
    assert options(root="elsewhere", note="by hand") == usual


def test_a_recipe_may_be_written_down_and_read_again() -> None:
    made = plugged(mode="twice", names={"a": [1]}, dedup={"exact": True})
    told = made.model_dump(mode="json")
    assert told["names"] == {"a": [1]} and source(**told) == made


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"mod": "good"}, "has no option 'mod'; did you mean mode?"),
        ({"limt": 3}, "has no option 'limt'; did you mean limit?"),
        ({"frame": {"widht": 3}}, "has no option 'frame.widht'; did you mean frame.width?"),
        ({"frame": {"width": "wide"}}, "option frame.width: Input should be a valid integer"),
        ({"names": {"a": 3}}, "option names.a: Input should be a valid list"),
        ({"limit": 0}, "source.limit: input should be greater than or equal to 1"),
        ({"kind": "plugin_kit:WithoutVersion"}, "has no version"),
        ({"kind": "plugin_kit:WithoutMethod"}, "has no method read()"),
        ({"kind": "plugin_kit:Limited"}, "has an option limit, which stands for something else here"),
        ({"kind": "plugin_kit:good"}, "is no frozen dataclass"),
        ({"kind": "plugin_kit.Rows"}, "unknown (value 'plugin_kit.Rows'); did you mean plugin_kit:Rows?"),
        ({"kind": "jsnol"}, "source.kind: unknown (value 'jsnol'); did you mean jsonl?"),
        ({"kind": "plugn_kit:Rows"}, "there is no module plugn_kit; did you mean plugin_kit?"),
        ({"kind": "plugin_kit:"}, "plugin_kit has no ''"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_line(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        source(**{"kind": "plugin_kit:Rows", **keys})
    assert line in str(caught.value) and "\n" not in str(caught.value)
