"""A recipe that begins with texts, through the command line: its summary, and its preview."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from stage_kit import TEXTS, recipe
from typer.testing import CliRunner

from pipeline import run as module
from pipeline.running.store import Run

SOURCE: dict[str, Any] = {"kind": "imagine", "texts": {"scenes": 12}, "instruct": {"kind": "scenes"}}
runner = CliRunner()


def write(tmp: Path) -> Path:
    changes: dict[str, Any] = {
        "source": SOURCE,
        "sample": {"model": "m", "n": 8, "engine": {"kind": "scripted", "texts": TEXTS}},
        "score": {"scorers": ["objects", "correctness"]},
    }
    path = tmp / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp, **changes).model_dump(mode="json")))
    return path


def invoke(*arguments: object) -> str:
    result = runner.invoke(module.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_summary_says_what_the_ranking_brought(tmp_path: Path, ray_cluster: None) -> None:
    path = write(tmp_path)
    invoke(path)
    (summary_file,) = tmp_path.rglob("summary.json")
    summary = json.loads(summary_file.read_text())
    ranked = Run(summary_file.parent).table("rank").to_pylist()
    every = [shown for row in ranked for shown in row["faithful"]]
    kept = [row["faithful"][at] for row in ranked for at in row["kept"]]
    assert len(every) == 4 * len(kept) == 48
    assert summary["images"] == {
        "faithful_before": sum(every) / len(every),
        "faithful_after": sum(kept) / len(kept),
    }
    assert summary["stages"]["imagine"]["extras"]["images"] == 48
    assert summary["pairs"] > 0
    page = (summary_file.parent / "report.html").read_text()
    rejected = sum(reason is not None for row in ranked for reason in row["reasons"])
    assert page.count('<figure class="kept">') == 6 and page.count('<figure class="rejected">') == 18
    assert f"{rejected} outranked, {len(kept)} kept." in page
    assert f"{100 * sum(kept) / len(kept):.1f} % of those that the ranking kept" in page
    before = summary_file.read_text()
    invoke(path)
    assert summary_file.read_text() == before


def test_a_preview_draws_the_images_of_as_many_texts_as_it_shows_prompts(tmp_path: Path, ray_cluster: None) -> None:
    preview = invoke(write(tmp_path), "--preview", "3")
    assert "imagine: 3/3 rows" in preview and "source: 3 rows" in preview
    assert not list(tmp_path.rglob("texts"))
