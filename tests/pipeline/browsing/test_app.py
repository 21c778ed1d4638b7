"""The pages, over HTTP: what they show, that every link of them leads somewhere, and who is kept out."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import fake_run
import pyarrow as pa
import pytest
from PIL import Image
from starlette.testclient import TestClient

from pipeline.base import marks
from pipeline.browsing import app as pages
from pipeline.running.store import Run

BASE = "http://127.0.0.1:8765"


def client(*runs: Path, raising: bool = True) -> TestClient:
    return TestClient(pages.app(tuple(map(Run, runs))), base_url=BASE, raise_server_exceptions=raising)


@pytest.fixture
def run(tmp_path) -> Path:
    return fake_run.make(tmp_path / "quickstart", prompts_count=60, shards=2, unfinished=3)


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.all.append((tag, dict(attrs)))

    def of(self, tag):
        return [attrs for name, attrs in self.all if name == tag]


def page(http: TestClient, path: str = "/") -> str:
    answer = http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


def form_of(text: str, mark: str = "reject") -> dict[str, str]:
    """The first form of a pair on a page, as a click on ``mark`` sends it."""
    form = re.search(r'<form action="/mark".*?</form>', text, re.S)
    assert form
    fields = {unescape(a): unescape(b) for a, b in re.findall(r'type="hidden" name="(.*?)" value="(.*?)"', form[0])}
    return {**fields, "mark": mark}


def test_all_prompts_are_there_page_by_page(run):
    http = client(run)
    ids = []
    for number in (1, 2, 3):
        ids += re.findall(r'href="/prompt\?id=(\d+)', page(http, f"/?page={number}" if number > 1 else "/"))
    assert ids == [f"{i:05d}" for i in range(60)]
    assert "page 1 of 3" in page(http) and "page 3 of 3" in page(http, "/?page=99")


def test_a_prompt_has_every_candidate_with_its_scores_and_what_kept_it_out(run):
    store = Run(run)
    record = store.record("pair")
    shutil.copytree(run, run.with_name("gated"))
    gated = Run(run.with_name("gated"))
    gated.save(type(record)(**{**vars(record), "options": {**record.options, "min_words": 6,
                               "vetoes.objects.hallucinated.above": 0}}))  # fmt: skip
    text = page(client(gated.path), "/prompt?id=00003")
    assert text.count('class="candidate') == 4
    assert len(re.findall(r"<dt>clip\.<wbr>cosine</dt><dd>[\d.-]+</dd>", text)) == 4
    assert len(re.findall(r"sampled · model scenes-vlm · revision main · seed \d+ · temperature 1\.0", text)) == 4
    texts = [page(client(gated.path), f"/prompt?id={i:05d}") for i in range(3, 15)]
    assert any("<b>gate too_short</b>: it has too few words" in text for text in texts)
    assert any("<b>veto objects.hallucinated</b>: 1 is above 0; it may not be chosen" in text for text in texts)


def test_chosen_and_rejected_differ_by_words_and_what_is_hallucinated_is_marked(run):
    text = page(client(run), "/?reason=paired&sort=objects.hallucinated&side=rejected")
    first = re.search(r'<div class="side rejected">.*?</p>', text, re.S)[0]
    assert "<ins>" in first and re.search(r'<mark title="\w+ is not there">\w+</mark>', first)
    assert "by its facts and the vocabulary scenes" in text


def test_prompts_without_a_pair_say_why(run):
    http = client(run)
    assert "unreadable_image: prompt 0: truncated PNG" in page(http, "/prompt?id=00000")
    assert "prompt too long: 5000 tokens" in page(http, "/prompt?id=00001")
    assert "Nothing has been sampled here yet" in page(http, "/prompt?id=00059")
    tie = re.search(r"/prompt\?id=(\d+)", page(http, "/?reason=tie"))[1]
    assert "No pair: <b>tie</b>: the best text is worth no more than the worst" in page(http, f"/prompt?id={tie}")
    assert '<a href="/?reason=not+finished">3 not finished</a>' in page(http)


def test_every_view_has_a_link_and_what_a_form_leaves_empty_makes_none(run):
    http = client(run)
    answer = http.get("/?q=image&reason=&sort=margin&order=desc&side=any&page=1", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?q=image&sort=margin")
    text = page(http, "/?q=image&sort=margin")
    link = unescape(re.findall(r'href="(/prompt\?id=[^"]*)"', text)[1])
    assert "q=image" in link and "sort=margin" in link
    detail = page(http, link)
    assert "2 of " in detail and 'rel="prev"' in detail and 'rel="next"' in detail
    assert 'href="/?q=image&amp;sort=margin' in detail


def test_every_link_and_picture_leads_somewhere_and_nothing_is_loaded_from_outside(run, tmp_path):
    other = fake_run.make(tmp_path / "other", prompts_count=40)
    http = client(run, other)
    waiting, seen = ["/", "/?which=differ&sort=clip.cosine", "/?q=nothing-is-so"], set()
    while waiting and len(seen) < 120:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = http.get(path)
        assert answer.status_code == 200, path
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        elements = Elements(answer.text)
        assert not re.search(r'(?i)https?://|(?:src|href|action)="//|url\(|@import', answer.text), path
        assert all(
            "style" not in attrs and not any(name.startswith("on") for name in attrs) for _, attrs in elements.all
        )
        assert elements.of("script") == [{"src": "/browse.js", "defer": None}] and not elements.of("style")
        for attrs in elements.of("a") + elements.of("link") + elements.of("img") + elements.of("script"):
            link = attrs.get("href") or attrs.get("src") or ""
            assert urlsplit(link)[:2] == ("", ""), link
            waiting.append(link.partition("#")[0])
    assert len(seen) > 100


def test_every_answer_has_the_headers_that_keep_others_out(run):
    http = client(run)
    for path in (
        "/",
        "/prompt?id=00003",
        "/nowhere",
        "/prompt?id=none",
        "/image?run=a&shard=0&id=x&n=0",
        "/browse.css",
    ):
        headers = http.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; img-src 'self'")
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert "unsafe" not in http.get("/").headers["content-security-policy"]


def test_another_host_name_is_refused(run):
    http = client(run)
    assert http.get("/", headers={"host": "evil.example"}).status_code == 400
    assert http.get("/", headers={"host": "127.0.0.1.evil.example:8765"}).status_code == 400
    assert http.get("/", headers={"host": "localhost:8765"}).status_code == 200


@pytest.mark.parametrize(
    ("changes", "headers", "status"),
    [
        ({"token": "other"}, {}, 403),
        ({}, {"origin": "http://evil.example"}, 403),
        ({}, {"origin": "null"}, 403),
        ({}, {"sec-fetch-site": "cross-site"}, 403),
        ({"mark": "destroy"}, {}, 400),
        ({"digest": "0" * 16}, {}, 409),
        ({"pair": "7"}, {}, 409),
        ({"id": "none"}, {}, 409),
        ({"back": "x" * 30_000}, {}, 413),
    ],
)
def test_a_mark_that_is_not_from_our_own_page_changes_nothing(run, changes, headers, status):
    http = client(run)
    form = {**form_of(page(http)), **changes}
    assert http.post("/mark", data=form, headers=headers, follow_redirects=False).status_code == status
    assert not (run / marks.FILE).exists()


def test_marks_are_kept_beside_the_run_shown_filtered_and_undone(run):
    http = client(run)
    form = form_of(page(http, "/?reason=paired"), "swap")
    answer = http.post("/mark", data=form, headers={"origin": BASE}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/?reason=paired#pair-a-")
    (line,) = (run / marks.FILE).read_text().splitlines()
    assert json.loads(line)["mark"] == "swap" and json.loads(line)["id"] == form["id"]
    text = page(http, "/?mark=swap")
    assert f"/prompt?id={form['id']}" in text and "<b>1</b>" in text
    assert "published as rejected" in text and 'aria-pressed="true">Swap' in text
    assert "1 marked" in page(client(run)), "another process reads it"
    http.post("/mark", data={**form, "mark": "reject"})
    http.post("/undo", data={"token": form["token"], "back": "/"})
    assert 'aria-pressed="true">Swap' in page(http, "/?mark=swap")
    http.post("/undo", data={"token": form["token"]})
    assert not (run / marks.FILE).exists()
    assert http.post("/undo", data={"token": form["token"]}).status_code == 409


def test_a_form_leads_back_to_our_own_pages_alone(run):
    http = client(run)
    for back in ("//evil.example", "http://evil.example", "/\\evil.example", ""):
        form = {**form_of(page(http)), "back": back}
        answer = http.post("/mark", data=form, follow_redirects=False)
        assert answer.headers["location"].startswith("/#pair-")


def test_images_are_those_of_the_row(run, tmp_path):
    store = Run(run)
    table = store.read("source", 0)
    rows = table.to_pylist()
    noise = random.Random(0).randbytes(900 * 600 * 3)
    Image.frombytes("RGB", (900, 600), noise).save(tmp_path / "big.png")
    (tmp_path / "secret.txt").write_text("a password")
    paths = [str(tmp_path / name) for name in ("big.png", "secret.txt", "gone.png")]
    paths.append("http://127.0.0.1:9/picture.png")
    for row, path in zip(rows[3:], paths, strict=False):
        row["images"] = [{"bytes": None, "path": path}]
    store.write("source", 0, pa.Table.from_pylist(rows, schema=table.schema.remove_metadata()))
    http = client(run)
    whole, small = (http.get(f"/image?run=a&shard=0&id=00003&n=0{more}") for more in ("", "&small=1"))
    assert Image.open(io.BytesIO(whole.content)).size == (900, 600)
    assert small.headers["content-type"] == "image/jpeg" and Image.open(io.BytesIO(small.content)).size[0] <= 640
    for row_id in ("00004", "00005", "00006"):
        answer = http.get(f"/image?run=a&shard=0&id={row_id}&n=0")
        assert answer.status_code == 404 and "password" not in answer.text
    assert "not fetched: http://127.0.0.1:9/picture.png" in page(http, "/prompt?id=00006")
    for query in ("shard=0&id=00003&n=1", "shard=0&id=/etc/passwd&n=0", "shard=x&id=00003&n=0", "shard=0&id=00003&n=-1",
                  "run=b&shard=0&id=00003&n=0"):  # fmt: skip
        assert http.get(f"/image?{query}").status_code == 404
    assert client(run, raising=False).get("/image?shard=9&id=00003&n=0").status_code == 409


def test_texts_cannot_inject_markup(run):
    store = Run(run)
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    for stage in ("source", "sample"):
        for shard in store.shards(stage):
            table = store.read(stage, shard)
            rows = table.to_pylist()
            for row in rows:
                row |= {"source": evil} if stage == "source" else {}
                for text in row.get("candidates") or ():
                    text |= {"text": evil + text["text"], "model": evil}
                for message in row.get("prompt") or ():
                    message["content"] += evil
            store.write(stage, shard, pa.Table.from_pylist(rows, schema=table.schema.remove_metadata()))
    http = client(run)
    for path in ("/", "/prompt?id=00003", "/?q=%22%3E%3Cscript%3E", "/?model=%22%3E%3Cscript%3E&source=%3Cimg"):
        elements = Elements(page(http, path))
        assert len(elements.of("script")) == 1
        assert not any("onerror" in attrs for _, attrs in elements.all)


def test_two_runs_beside_each_other(run, tmp_path):
    other = fake_run.make(tmp_path / "other", prompts_count=70, shards=1)
    http = client(run, other)
    text = page(http, "/?which=b")
    assert text.count("Only in other.") == 10 and "quickstart ⇄ other" in text
    detail = page(http, "/prompt?id=00005")
    assert detail.count('class="run-name"') == 2 and detail.count('class="candidate') == 8
    assert "This prompt is only in other." in page(http, "/prompt?id=00065")
    form = form_of(page(http, "/?run=b&which=b&reason=paired"))
    assert form["run"] == "b"
    http.post("/mark", data=form)
    assert (other / marks.FILE).exists() and not (run / marks.FILE).exists()


def test_a_damaged_file_of_marks_is_one_clear_line(run):
    (run / marks.FILE).write_text('{"id": "a"}\n')
    answer = client(run, raising=False).get("/")
    assert answer.status_code == 409 and "marks.jsonl, line 1: &#39;chosen&#39; is missing" in answer.text


def test_a_run_in_a_bucket(run):
    there = Run("memory://bucket/runs/quickstart")
    for stage in ("source", "sample", "score", "pair"):
        there.save(Run(run).record(stage))
        for shard in Run(run).shards(stage):
            there.write(stage, shard, Run(run).read(stage, shard))
    http = TestClient(pages.app((there,)), base_url=BASE)
    text = page(http, "/?reason=paired")
    http.post("/mark", data=form_of(text))
    assert "1 marked" in page(http) and "quickstart</a>" in text
    assert marks.read(there.path) and http.get("/image?run=a&shard=0&id=00003&n=0").status_code == 200


@pytest.mark.parametrize("stages", [("sample", "score", "pair"), ("score", "pair")])
def test_runs_that_have_only_begun_open(run, stages):
    for stage in stages:
        Run(run).clear(stage)
    http = client(run)
    assert "60</b>" in page(http)
    assert "00030" in page(http, "/prompt?id=00030")


def test_a_mark_of_a_pair_that_is_no_longer_made_counts_for_nothing_until_it_is_again(run):
    http = client(run)
    first = page(http, "/?reason=paired&mark=none")
    form = form_of(first)
    http.post("/mark", data=form)
    unmarked = int(re.search(r'class="found"><b>(\d+)', first)[1])
    assert f'class="found"><b>{unmarked - 1}</b>' in page(http, "/?reason=paired&mark=none")
    (key,) = marks.read(run)
    marks.write(run, {key._replace(chosen="What the pair was before."): "swap"})
    for text in (page(http, "/?reason=paired&mark=none"), page(client(run), "/?reason=paired&mark=none")):
        assert f'class="found"><b>{unmarked}</b>' in text and "1 marks of pairs that are no longer made" in text
    assert 'class="found"><b>0</b>' in page(http, "/?mark=swap")
    store = Run(run)
    shard = next(
        shard for shard in store.shards("source") if form["id"] in store.read("source", shard)["id"].to_pylist()
    )
    pairs, inputs = store.read("pair", shard), store.about("pair", shard).inputs
    marks.write(run, {key: "swap"})
    store.remove("pair", shard)
    assert "1 marks of pairs" in page(http)
    store.write("pair", shard, pairs.replace_schema_metadata(None), inputs=inputs)
    assert 'class="found"><b>1</b>' in page(http, "/?mark=swap")


def test_what_is_written_from_right_to_left_is_shown_so(run):
    text = page(client(run), "/prompt?id=00003")
    assert 'class="asked-text" dir="auto"' in text and text.count('class="written" dir="auto"') == 4
    assert 'dir="auto"><a href="/prompt' in page(client(run))
