"""Every file of ours that a page names is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: A path from the root, and a module that a command line runs.
FILE = re.compile(r"(?<![\w/.])((?:pipeline|reward|training|tests|benchmarks|docs|data_cards)/[\w./-]*\w/?)")
MODULE = re.compile(r"python -m ((?:pipeline|reward|training)[\w.]*\w)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = set(FILE.findall(text))
    assert {name for name in names if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_is_there(page: Path) -> None:
    modules = {name: ROOT / name.replace(".", "/") for name in MODULE.findall(page.read_text(encoding="utf-8"))}
    lost = {
        name
        for name, path in modules.items()
        if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists())
    }
    assert lost == set()


def test_figures_of_the_page_on_scale_are_those_that_the_benchmark_printed() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    result = json.loads((ROOT / "benchmarks" / "results" / "scale_cpu.json").read_text(encoding="utf-8"))
    for name, about in result["gpu"].items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
        best, worst = (float(cell) for cell in row.split("|")[2:4])
        assert [best, worst] == pytest.approx(about["hours"], rel=0.02, abs=0.05)
    driver, cluster = result["driver"], result["cluster"]
    for figure in (f"| {driver['far_look_one_by_one']} s | {driver['far_look_s_per_1000']} s |",
                   f"{driver['look_cpu_us_per_shard']} µs", f"busy {cluster['workers_busy']:.0%}".replace("%", " %"),
                   f"{result['images']['processor_cpu_ms']} ms"):  # fmt: skip
        assert figure in page
