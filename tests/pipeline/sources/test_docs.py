from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from source_kit import source

from pipeline.sources.admission.filter import REASONS
from pipeline.sources.readers.protocol import READERS

PAGE = (Path(__file__).parents[3] / "docs/sources.md").read_text()
SNIPPETS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_is_a_source(snippet: str) -> None:
    keys = yaml.safe_load(snippet)["source"]
    assert source(**keys).kind == keys["kind"]


def test_every_kind_and_reason_is_on_the_page() -> None:
    assert {yaml.safe_load(snippet)["source"]["kind"] for snippet in SNIPPETS} == {"scenes", *READERS}
    assert all(f"`{reason}`" in PAGE for reason in REASONS)
