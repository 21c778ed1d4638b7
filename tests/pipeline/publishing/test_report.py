import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import fake_run
import pyarrow as pa
import pytest

from pipeline.base.errors import InputError
from pipeline.publishing.collect import collect
from pipeline.publishing.evaluation_rows import METRICS, Comparison, comparison, headline
from pipeline.publishing.report import write
from pipeline.running import joined
from pipeline.running.store import Run, make_record
from reward.text.object_vocabulary import Vocabulary


class Page(HTMLParser):
    """Collects what the tests ask about, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "img", "br", "hr", "input", "link", "path", "use", "rect", "stop"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.marked = [], [], []
        self.feed(text)
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if "mark" in self.open:
            self.marked.append(data)

    def of(self, tag, kind=None):
        return [attrs for name, attrs in self.tags if name == tag and kind in (None, attrs.get("class"))]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = fake_run.make(tmp_path_factory.mktemp("runs") / "quickstart")
    fake_run.add_training(path)
    return path


@pytest.fixture(scope="module")
def text(run_dir):
    path = write(run_dir, fake_run.RECIPE, fake_run.COMMAND)
    assert path == run_dir / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_nothing_is_loaded_from_outside(text, page):
    assert not re.search(r"(?i)https?:|//[a-z0-9-]+\.[a-z]|@import|url\((?!#)", text)
    assert not page.of("script") and not page.of("link") and not page.of("iframe")
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.of("img"))
    assert all(link["href"].startswith("#") for link in page.of("a"))
    assert "default-src 'none'" in text


def test_24_pairs_with_images_texts_and_origins(text, page):
    cards = page.of("article", "pair")
    assert len(cards) == 24
    images = page.of("img", "small")
    assert len(images) == 24  # the scenes are small: shown pixel by pixel
    assert all(image["alt"].startswith("In the picture: ") for image in images)
    assert len(page.of("div", "side chosen")) == len(page.of("div", "side rejected")) == 24
    assert text.count("sampled by scenes-vlm, temperature 1.0, seed ") == 48


def test_marked_words_are_the_hallucinated_ones(text):
    for card in re.findall(r'<article class="pair">.*?</article>', text, re.S):
        there = {name.split(" × ")[0] for name in re.search(r'alt="In the picture: (.*?)\."', card)[1].split(", ")}
        marked = re.findall(r'<mark title="\w+ is not there">(.*?)</mark>', card)
        assert not there & set(marked)
        if "Describe the image." in card:
            sides = re.findall(r'<b>\w+</b>\n<p dir="auto">(.*?)</p>', card, re.S)
            texts = [re.sub(r"<.*?>", "", part) for part in sides]
            mentioned = {word for part in texts for word in re.findall(r"an? (\w+)", part)}
            assert mentioned - there == set(marked)
        else:
            assert not marked


def test_before_and_after_with_intervals_and_change(text):
    assert "Hallucinated mentions fall from 13.0 % to 7.5 %." in text
    row = re.search(r"<tr><td[^>]*>CHAIRi.*?</tr>", text, re.S)[0]
    cells = [re.sub(r"<.*?>", "", cell).strip() for cell in re.findall(r"<td.*?>(.*?)</td>", row, re.S)]
    assert cells[1:] == ["13.0 %", "11.0 – 15.2", "7.5 %", "5.5 – 9.7", "−5.5 *"]
    assert 'class="change better"' in row
    assert 'class="change worse"' in re.search(r"<tr><td[^>]*>Cover.*?</tr>", text, re.S)[0]


def test_every_plot_is_there_with_a_text_alternative(page):
    figures = [attrs for tag, attrs in page.tags if tag == "div" and attrs.get("role") == "img"]
    assert len(figures) == 5  # comparison, training, outcomes, scores, lengths
    assert all(len(figure["aria-label"]) > 20 for figure in figures)
    assert len(page.of("svg")) == 5
    ids = [attrs["id"] for tag, attrs in page.tags if tag not in ("path", "clippath", "g", "defs") and "id" in attrs]
    assert len(set(ids)) == len(ids)


def test_stages_command_and_recipe_without_secrets(text):
    assert "HF_TOKEN=*** python -m pipeline.run quickstart sample.engine.api_key=***" in text
    assert "secret-0123456789" not in text and "hf_secret" not in text and "sk-hidden" not in text
    assert text.count("<td>finished</td>") == 4
    assert not re.search(r"\d of \d+ shards", text), "the same rows may lie in other shards"
    assert "<td>50.0</td>" in text  # all stages' seconds
    assert "max_tokens: 96" in text


def test_left_to_itself_it_shows_the_options_that_the_stages_recorded(tmp_path):
    run_dir = fake_run.make(tmp_path / "run", prompts_count=12)
    record = Run(run_dir).record("pair")
    Run(run_dir).save(replace(record, stage="train", seconds=9.0))
    text = write(run_dir).read_text()
    assert "The command is in dataset/README.md." in text
    assert "engine.api_key: &#39;***&#39;" in text and "sk-very" not in text
    assert "<tr><td>train</td><td>" in text and "<td>59.0</td>" in text
    (run_dir / "recipe.yaml").write_text("name: mine\nseed: 3\n")
    assert "<h1>mine</h1>" in write(run_dir).read_text()


def test_without_training_and_evaluation_it_says_so(tmp_path):
    text = write(fake_run.make(tmp_path / "bare", prompts_count=30)).read_text()
    page = Page(text)
    assert "This run has no training" in text and "This run has no evaluation" in text
    assert len(page.of("svg")) == 3
    assert len(page.of("article", "pair")) == text.count('<div class="side chosen">') > 0


def test_a_run_that_has_only_started(tmp_path):
    run_dir = fake_run.make(tmp_path / "started", prompts_count=10)
    for stage in ("sample", "score", "pair"):
        shutil.rmtree(run_dir / stage)
    text = write(run_dir).read_text()
    Page(text)
    assert "There are no pairs yet." in text
    with pytest.raises(InputError, match="has no source"):
        write(tmp_path / "nothing")


def test_how_far_a_stage_is_that_has_not_finished(tmp_path):
    run = Run(fake_run.make(tmp_path / "half", prompts_count=100))
    shards = run.shards("pair")
    run.remove("pair", shards[-1])
    run.save(replace(run.record("pair"), finished=False))
    text = write(run.path).read_text()
    assert re.search(rf"<tr><td>pair</td>.*<td>{len(shards) - 1} of {len(shards)} shards</td>", text)


def test_an_evaluation_alone_is_shown_without_a_change(tmp_path):
    run_dir = fake_run.make(tmp_path / "one", prompts_count=12)
    (run_dir / "summary.json").write_text(json.dumps({"before": {"chair_i": 0.13, "cover": None}}))
    text = write(run_dir).read_text()
    Page(text)
    assert ">13.0 %</td>" in text and ">change</th>" not in text


def test_texts_cannot_inject_markup(tmp_path):
    run_dir = fake_run.make(tmp_path / "evil", prompts_count=12)
    run = Run(run_dir)
    for shard in run.shards("sample"):
        table = run.read("sample", shard)
        rows = table.to_pylist()
        for row in rows:
            for candidate in row["candidates"] or ():
                candidate["text"] = "<script src=//evil.example>a star</script>"
        run.write("sample", shard, type(table).from_pylist(rows, schema=table.schema))
    page = Page(write(run_dir).read_text())
    assert not page.of("script") and page.of("article", "pair")


def test_any_vocabulary_can_mark(run_dir, tmp_path):
    copy = shutil.copytree(run_dir, tmp_path / "copy")
    vocabulary = Vocabulary("verbs", "1", {"shows": "shows"})
    page = Page(write(copy, vocabulary=vocabulary).read_text())
    assert set(page.marked) == {"Marked", "shows"}


def test_findings_from_before_the_training_give_the_same_report(tmp_path, monkeypatch):
    run_dir = fake_run.make(tmp_path / "run", prompts_count=12)
    findings = collect(run_dir)
    run = Run(run_dir)
    run.save(replace(run.record("pair"), stage="train", seconds=9.0))
    fake_run.add_training(run_dir)
    alone = write(run_dir).read_text()
    assert "<tr><td>train</td>" in alone
    monkeypatch.setattr(joined, "shards", None)
    assert write(run_dir, findings=findings).read_text() == alone


def test_comparison_knows_better_from_worse():
    before = {"chair_i": 0.2, "cover": 0.9, "pope_yes_ratio": 0.6, "chair_i_ci": [0.18, 0.22]}
    after = {"chair_i": 0.1, "cover": 0.8, "pope_yes_ratio": 0.5, "chair_i_ci": [0.08, 0.18], "chair_s": float("nan")}
    rows = {row.metric.key: row for row in comparison([before, after])}
    assert {key: row.verdict for key, row in rows.items()} == {
        "chair_i": "better",
        "cover": "worse",
        "pope_yes_ratio": "",
    }
    assert not rows["chair_i"].apart  # the intervals touch
    assert rows["chair_i"].delta == pytest.approx(-0.1)


def test_the_headline_says_what_was_paid():
    chair = Comparison(METRICS[0], 0.13, 0.05, None, None)
    assert "saying less" in headline([chair, Comparison(METRICS[2], 0.9, 0.8, None, None)], None)
    kept = Comparison(METRICS[2], 0.91, 0.88, (0.88, 0.94), (0.85, 0.91))
    assert "saying less" not in headline([chair, kept], None)


def test_card_and_report_import_no_torch():
    code = (
        "import sys, pipeline.publishing.card, pipeline.publishing.report, pipeline.publishing.plots; "
        "print({'torch', 'ray', 'vllm'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_the_sampling_of_every_model_and_what_was_dropped_are_shown(tmp_path, text):
    run_dir = fake_run.make(tmp_path / "run", prompts_count=12)
    run = Run(run_dir)
    run.save(replace(make_record("sample-b", 1, {"model": "b"}, {}), seconds=7.25, rows=12, failed=1, finished=True))
    run.write("dropped", 0, pa.table({"id": ["x"], "reason": ["same <image>"]}))
    shown = write(run_dir).read_text()
    assert re.search(r"<tr><td>source</td>.*\s+<tr><td>sample-b</td><td>12</td><td>1</td><td>7.2", shown)
    assert "<tr><td>same &lt;image&gt;</td><td>1</td></tr>" in shown and "rows dropped" not in text


def test_images_may_lie_in_files_or_be_gone(tmp_path):
    run_dir = fake_run.make(tmp_path / "run", prompts_count=30)
    run = Run(run_dir)
    for shard in run.shards("source"):
        table = run.read("source", shard)
        rows = table.to_pylist()
        for row in rows:
            file = tmp_path / f"{row['id']}.png"
            if int(row["id"]) % 2:
                file.write_bytes(row["images"][0]["bytes"])
            row["images"][0].update(bytes=None, path=str(file))
        run.write("source", shard, pa.Table.from_pylist(rows, schema=table.schema.remove_metadata()))
    shown = write(run_dir).read_text()
    cards = re.findall(r'<article class="pair">.*?</article>', shown, re.S)
    for card in cards:
        there = int(re.search(r"prompt <code>(\d+)</code>", card)[1]) % 2
        assert ("data:image/png;base64," in card) == bool(there) == ("no image" not in card)
    assert len(cards) > 3
