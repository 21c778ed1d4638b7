"""Every file of ours that a page names is there."""

from __future__ import annotations

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
