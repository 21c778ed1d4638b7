"""Whatever stands in the tables, every page of it opens."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlencode

import fake_run
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from pipeline.base.tables import CANDIDATES, OK, PAIRS, PROMPTS, SCORES
from pipeline.browsing import app as pages
from pipeline.running.store import Run

IDS = ("a b", "a/b", "..", 'a"b', "a&b=c", "ä😀", "%2e", "a#b", "<a>", "?", "'", "x" * 300)


def text(words: str | None, **more: Any) -> dict[str, Any]:
    return {"text": words, "origin": None, "parent": None, "model": None, "finish_reason": None, "edits": None, **more}


def odd(row_id: str, number: int) -> dict[str, dict[str, Any]]:
    """A row of every table, odd in another way for each number."""
    prompt: Any = [
        [{"role": "user", "content": "Look."}],
        [],
        None,
        [{"role": "user", "content": None}, {"role": None, "content": "x"}],
        [{"role": "system", "content": "Be short."}, {"role": "user", "content": "A?\n\nB"},
         {"role": "assistant", "content": "C"}, {"role": "user", "content": "D <image>"}],
    ][number % 5]  # fmt: skip
    images: Any = [
        None,
        [],
        [{"bytes": None, "path": None}],
        [{"bytes": b"no image", "path": None}] * 5,
        [{"bytes": None, "path": "s3://b/a.png"}, {"bytes": None, "path": "tar:///a.tar#offset=0&size=9&name=x"}],
    ][number % 5]
    facts: Any = [
        None,
        {"objects": None, "regions": None, "captions": [None, "A sun."], "answer": None, "answers": None},
        {"objects": [{"name": "sun", "count": None, "attributes": None, "boxes": None}], "captions": None},
        {"objects": [], "answer": "yes", "question_type": "existence", "answers": ["yes", "yeah"]},
    ][number % 4]
    candidates: Any = [
        None,
        [],
        [text(None), text("")],
        [text("A sun.", temperature=math.nan, seed=-1), text("sun " * 3000), text("\0\u202e" + "x" * 5000)],
    ][number % 4]
    count = len(candidates or ())
    values = [[None] * count, [math.nan, math.inf, -math.inf][:count], [1e300] * count][number % 3]
    scores = [{"name": "objects.hallucinated", "version": None, "values": values}] if len(values) == count else []
    chosen, rejected = [(0, 1), (None, None), (7, 0), (1, 1)][(number // 4) % 4]
    return {
        "source": {"id": row_id, "images": images, "prompt": prompt, "facts": facts, "source": None, **OK},
        "sample": {"id": row_id, "candidates": candidates, **OK},
        "score": {"id": row_id, "scores": [None, scores][count > 0], **OK},
        "pair": {"id": row_id, "chosen": chosen, "rejected": rejected, "policy": None, "reason": None, **OK},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    run = Run(fake_run.make(tmp_path_factory.mktemp("runs") / "odd", prompts_count=4, shards=1))
    ids = [*IDS, *(f"n{i}" for i in range(48))]
    rows = [odd(row_id, number) for number, row_id in enumerate(ids)]
    for stage, schema in (("source", PROMPTS), ("sample", CANDIDATES), ("score", SCORES), ("pair", PAIRS)):
        run.write(stage, 0, pa.Table.from_pylist([row[stage] for row in rows], schema=schema))
    return run


def test_every_page_opens(run):
    http = TestClient(pages.app((run, run)), base_url="http://127.0.0.1:8765")
    for query in (
        "",
        "?page=2",
        "?page=3",
        "?sort=objects.hallucinated",
        "?score=objects.hallucinated&low=0",
        "?q=sun",
    ):
        answer = http.get(f"/{query}")
        assert answer.status_code == 200, (query, answer.text)
    for number, row_id in enumerate([*IDS, *(f"n{i}" for i in range(48))]):
        answer = http.get(f"/prompt?{urlencode({'id': row_id})}")
        assert answer.status_code == 200, (number, answer.text[:500])
        for place in range(5):
            query = urlencode({"run": "a", "shard": 0, "id": row_id, "n": place})
            assert http.get(f"/image?{query}").status_code == 404


@pytest.mark.parametrize(
    "query",
    ["?page=-1", "?page=99999999999", "?low=x&score=y", "?sort='; DROP TABLE entry; --", "?run=c&which=z", "?q=%00",
     "?q=%22", "?score=objects.hallucinated&low=1e999", "?order=up&side=left", "?reason=%27&policy=%22&model=%5C"],
)  # fmt: skip
def test_whatever_an_address_says_a_page_comes(run, query):
    http = TestClient(pages.app((run,)), base_url="http://127.0.0.1:8765")
    assert http.get(f"/{query}").status_code == 200
    assert http.get("/").text.count("data-card") == 25
