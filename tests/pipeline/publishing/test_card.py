import io
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import yaml
from fake_run import COMMAND, FAILED, RECIPE, make
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from pipeline.base import secrets
from pipeline.base.errors import ConfigError, InputError
from pipeline.publishing.card import histogram, model_rows, outcome_rows, render, trusted_models
from pipeline.publishing.card_pictures import files_beside
from pipeline.publishing.collect import OTHER_SOURCES, collect
from pipeline.publishing.config import Publish
from pipeline.publishing.findings import Spread
from pipeline.publishing.outcomes import PAIRED, UNFINISHED
from pipeline.publishing.value_counts import Tally
from pipeline.recipe.load import make_recipe
from pipeline.running import joined
from pipeline.running.store import Run, make_record

PAGE = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ATTACKS = [
    "a | b `c` \\| \\",
    "<img src=x onerror=alert(1)>",
    "</code></pre><script>alert(1)</script>",
    "![seen](http://evil.example/pixel.png)",
    "---\nlicense: mit\n---",
    "# heading\ntitle\n===",
    "```\n~~~\n````\n- item",
    "<!-- hidden",
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "quickstart")


@pytest.fixture(scope="module")
def card(run_dir):
    return render(run_dir, RECIPE, COMMAND)


def section(card, title):
    return re.split(r"\n#{2,3} ", card.split(f"\n{title}\n", 1)[1])[0]


def cells(text):
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]
    return [row for row in rows if not set("".join(row)) <= set("-:| ")]


def test_yaml_header_is_what_the_hub_reads(card):
    header = yaml.safe_load(card.split("---\n")[1])
    assert card.startswith("---\n")
    assert header["configs"] == [
        {"config_name": "pairs", "data_files": [{"split": "train", "path": "pairs/data-*.arrow"}], "default": True},
        {"config_name": "candidates", "data_files": [{"split": "train", "path": "candidates/data-*.arrow"}]},
    ]
    assert header["license"] == "apache-2.0" and header["size_categories"] == ["n<1K"]


def test_a_licence_is_only_claimed_for_the_projects_own_images(run_dir):
    card = render(run_dir, {**RECIPE, "source": {"kind": "jsonl", "path": "mine.jsonl"}}, COMMAND)
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "other"


def told_by(run_dir, recipe=RECIPE, **publish):
    """The card of a run with these options, and its header."""
    card = render(run_dir, {**recipe, "publish": Publish(**publish).model_dump(mode="json")}, COMMAND)
    return card, yaml.safe_load(card.split("---\n")[1])


MINE = {**RECIPE, "source": {"kind": "jsonl", "path": "/home/me/photos/mine.jsonl"}}


def test_licence_authors_citation_and_tags_are_on_the_card(run_dir):
    entry = "@misc{ann2026,\n  title = {Pairs ``` of photos},\n}"
    card, header = told_by(
        run_dir, MINE, license="CC-BY-4.0", authors=["Ann <ann@host>", "B|ob"], citation=entry, tags=["photos", "dpo"]
    )
    assert header["license"] == "cc-by-4.0" and "license_name" not in header
    assert header["tags"] == ["preference", "dpo", "trl", "vision-language", "hallucination", "synthetic", "photos"]
    page = PAGE.render(card.split("---\n", 2)[2])
    assert "<h2>Licence</h2>\n<p>cc-by-4.0</p>" in page
    assert "<li>Ann &lt;ann@host&gt;</li>\n<li>B|ob</li>" in page
    assert f'<code class="language-bibtex">{entry}\n</code>' in page


def test_a_licence_of_ones_own_has_a_name_and_a_link(run_dir):
    link = "https://host.example/licence"
    card, header = told_by(run_dir, MINE, license="other", license_name="Ours: 1", license_link=link)
    assert (header["license"], header["license_name"], header["license_link"]) == ("other", "Ours: 1", link)
    assert f"Ours: 1: <{link}>" in card


def test_a_card_without_them_says_nothing_of_them(run_dir, card):
    assert not {"## Authors", "## Citation"} & set(card.splitlines())
    assert "## Licence" in card.splitlines()  # that of the built-in world
    assert "## Licence" not in told_by(run_dir, MINE)[0].splitlines()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"license": "cc-by4"}, r"did you mean cc-by-\d"),
        ({"license": "apache"}, r"did you mean apache-2\.0\?"),
        ({"license": "ours"}, "license=other with license_name"),
        ({"license": "other"}, "license=other says nothing alone; add license_name"),
        ({"license": "mit", "license_name": "Ours"}, "are for license=other, and license is mit"),
        ({"license_link": "https://a"}, "are for license=other, and license is not given"),
        ({"tags": ["a\n---\nlicense: mit"]}, "is not one line"),
        ({"tags": [""]}, "at least 1 character"),
        ({"authors": ["Ann\n# Heading"]}, "is not one line"),
    ],
)
def test_what_a_card_cannot_say_is_refused(options, says):
    values = {"name": "x", "sample": {"model": "m"}, "pair": {"weights": {"correctness": 1}}, "publish": options}
    with pytest.raises(ConfigError, match=says):
        make_recipe(values)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_others_wrote_is_acted_on(tmp_path, attack):
    """In answers, prompts, names, reasons and options."""
    run_dir = make(tmp_path / "run", prompts_count=12)

    def spoil(row):
        for text in row["candidates"] or ():
            text.update(text=f"{attack}\n{text['text']} {attack}", model=attack, revision=attack, origin=attack)
        return row

    change(run_dir, "sample", spoil)
    prompt = [{"role": "user", "content": attack}]
    change(run_dir, "source", lambda row: {**row, "prompt": prompt, "source": attack, "error": attack})
    change(run_dir, "pair", lambda row: {**row, "reason": row["reason"] and attack, "policy": attack})
    options = {
        "citation": f"@a{attack}",
        "license": "other",
        "license_name": " ".join(attack.split()),
        "tags": ["a: b"],
    }
    recipe = {**MINE, "sample": {**RECIPE["sample"], "system_prompt": attack}}
    card, header = told_by(run_dir, recipe, **options)
    clean, _ = told_by(
        make(tmp_path / "clean", prompts_count=12), MINE, **{**options, "citation": "@a", "license_name": "a"}
    )
    page, expected = (PAGE.render(text.split("---\n", 2)[2]) for text in (card, clean))
    assert header["license_name"] == options["license_name"] and header["tags"][-1] == "a: b"
    assert set(re.findall(r"<(\w+)", page)) <= set(re.findall(r"<(\w+)", expected))
    for tag in ("h1", "h2", "table", "blockquote", "ul", "pre"):
        assert page.count(f"<{tag}>") == expected.count(f"<{tag}>"), tag


def test_no_folder_of_this_machine_is_on_the_card(run_dir):
    run = Run(run_dir)
    record = run.record("sample")
    at_home = {**record.options, "model": "/home/me/models/qwen", "engine.trust_remote_code": True}
    try:
        run.save(replace(record, options=at_home))
        recipe = {**MINE, "sample": {**RECIPE["sample"], "model": "/home/me/models/qwen"}}
        card = render(run_dir, recipe, "python -m pipeline.run mine.yaml source.path=/home/me/photos/mine.jsonl")
    finally:
        run.save(record)
    assert "/home/me" not in card and "source.path=mine.jsonl" in card
    assert "| sample.model | `qwen` |" in card and "model: qwen" in card and "the model qwen was run" in card


def test_the_pictures_beside_a_card_are_shown_in_it(run_dir):
    run, findings = Run(run_dir), collect(run_dir)
    beside = files_beside(run, findings, RECIPE)
    pictures = sorted(name for name in beside if name.startswith("pictures/"))
    assert pictures == [
        *(f"pictures/example-{n}-1.png" for n in (1, 2, 3)),
        "pictures/lengths.png",
        "pictures/scores.png",
    ]
    for name in pictures:
        Image.open(io.BytesIO(beside[name])).verify()
    assert beside["LICENSE"].startswith(b"This dataset is under the Apache License 2.0")
    assert files_beside(run, findings, RECIPE) == beside
    card = render(run_dir, RECIPE, COMMAND, findings, None, beside)
    page = PAGE.render(card.split("---\n", 2)[2])
    assert sorted(re.findall('<img src="([^"]*)"', page)) == pictures
    assert "LICENSE" not in files_beside(run, findings, MINE)


def test_outcomes_add_up_to_the_prompts(card, run_dir):
    rows = cells(section(card, "### What became of every prompt"))[1:]
    *parts, total = [(name, int(number.strip("*"))) for name, number, *_ in rows]
    assert total == ("**all**", 90)
    assert sum(number for _, number in parts) == 90
    findings = collect(run_dir)
    assert dict(parts)[PAIRED] == findings.outcomes[PAIRED] == findings.pairs
    assert {name for name, _ in parts} >= {
        PAIRED,
        "tie",
        "failed in source: unreadable_image",
        "failed in score: scorer",
    }


def test_a_failure_is_charged_to_the_first_stage_that_reports_it(run_dir):
    findings = collect(run_dir)
    assert {key: number for key, (number, _) in findings.failures.items()} == {
        ("source", "unreadable_image"): 1,
        ("sample", "engine"): 1,
        ("score", "scorer"): 1,
    }
    assert sum(number for name, number in findings.outcomes.items() if name.startswith("failed")) == FAILED


def test_an_unfinished_run_says_how_much_is_missing(tmp_path):
    findings = collect(make(tmp_path / "run", prompts_count=40, unfinished=10))
    assert findings.outcomes[UNFINISHED] == 10 and findings.completion == 0.75
    assert sum(number for _, number in outcome_rows(findings)) == findings.prompts == 40
    assert "75.0 %" in render(tmp_path / "run", RECIPE, COMMAND)


def test_no_secret_is_printed(card):
    assert "secret-0123456789" not in card and "hf_secret" not in card and "sk-hidden" not in card
    assert "HF_TOKEN=*** python -m pipeline.run quickstart sample.engine.api_key=***" in card
    assert "| sample.max_tokens | `96` |" in card


def test_text_cannot_break_out_of_its_table(card):
    assert r"row 2: \| cannot be &lt;decoded>" in card
    for table in re.findall(r"(?:^\|.*\n)+", card, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_scores_lengths_models_and_examples_are_there(card, run_dir):
    findings = collect(run_dir)
    for name in ("objects.hallucinated", "objects.recall", "correctness", "clip.cosine"):
        rows = cells(section(card, f"### {name}"))[1:]
        assert sum(int(row[1]) for row in rows) == len(findings.scores[name].every)
        assert sum(int(row[2]) for row in rows) == len(findings.scores[name].chosen)
    assert "### objects.hallucinated" in card and "Version `4:scenes@" in card
    assert "longer wins in" in card
    assert "| scenes-vlm | main |" in card and "sha256:0123456789abcdef" in card
    assert card.count("\nChosen:\n") == card.count("\nRejected:\n") == 3


def test_the_same_run_gives_the_same_card_whatever_it_took_and_came_after(run_dir, card):
    run = Run(run_dir)
    run.save(replace(run.record("pair"), stage="train", libraries={"torch": "0.0"}))
    run.save(replace(run.record("source"), seconds=99.0))
    assert render(run_dir, RECIPE, COMMAND) == card
    run.clear("train")
    assert "12.5" not in card.split("## Scores")[0]  # the stages' seconds


def test_no_run_no_card(tmp_path):
    with pytest.raises(InputError, match="has no source"):
        render(tmp_path, RECIPE, COMMAND)


def test_source_alone_is_enough_for_a_card(tmp_path):
    run_dir = make(tmp_path / "run", prompts_count=12, unfinished=0)
    for stage in ("sample", "score", "pair"):
        for path in (run_dir / stage).iterdir():
            path.unlink()
    card = render(run_dir, RECIPE, COMMAND)
    assert "No pairs." in card and "No scores yet." in card
    assert "| not finished | 11 |" in card


def test_histogram_counts_every_value_once():
    spread = Spread("1", every=Tally(i / 100 for i in range(101)), chosen=Tally([1.0]), rejected=Tally([0.0, 0.5]))
    bins = histogram(spread)
    assert len(bins) == 8
    assert sum(b.every for b in bins) == 101
    assert [b.chosen for b in bins] == [0] * 7 + [1]
    assert [b.rejected for b in bins] == [1, 0, 0, 0, 1, 0, 0, 0]
    assert [b.label for b in histogram(Spread("1", every=Tally([2.0, 0.0, 2.0])))] == ["0", "2"]


@pytest.mark.parametrize(
    ("key", "value", "hidden"),
    [
        ("api_key", "a", True),
        ("apiKey", "a", True),
        ("HF_TOKEN", "a", True),
        ("tokens", ["a"], True),
        ("password", 1234, True),
        ("client-secret", "a", True),
        ("max_tokens", 96, False),
        ("n_tokens", 96.0, False),
        ("tokenizer", "path", False),
        ("api_key", None, False),
        ("keyboard", "a", False),
    ],
)
def test_which_options_are_secret(key, value, hidden):
    assert (secrets.options({"a": {key: value}})["a"][key] == secrets.MASK) is hidden


def test_texts_are_masked_by_look():
    assert secrets.text("the key idea: use tokens wisely") == "the key idea: use tokens wisely"
    assert secrets.text("Authorization: Bearer abc.def") == "Authorization: *** ***" or "abc" not in secrets.text(
        "Authorization: Bearer abc.def"
    )
    assert "ghp_" not in secrets.text("clone with ghp_0123456789abcdef")


def change(run_dir, stage, of):
    """Write every row of a stage anew."""
    run = Run(run_dir)
    for shard in run.shards(stage):
        table = run.read(stage, shard)
        rows = [of(row) for row in table.to_pylist()]
        run.write(stage, shard, pa.Table.from_pylist(rows, schema=table.schema.remove_metadata()))


def by_rows(run_dir):
    """The plain definition of what ``collect`` counts."""
    tables = {name: {} for name in ("source", "sample", "score", "pair")}
    for name, rows in tables.items():
        rows.update((row["id"], row) for row in Run(run_dir).table(name).to_pylist())
    texts = [c for row in tables["sample"].values() for c in row["candidates"] or ()]
    scores, words = {}, []
    for id, row in tables["score"].items():
        pair = tables["pair"][id]
        for score in row["scores"] or ():
            every, chosen, rejected = scores.setdefault(score["name"], ([], [], []))
            every += score["values"]
            if pair["chosen"] is not None:
                chosen.append(score["values"][pair["chosen"]])
                rejected.append(score["values"][pair["rejected"]])
        if pair["chosen"] is not None:
            sides = (tables["sample"][id]["candidates"][pair[side]]["text"] for side in ("chosen", "rejected"))
            words.append(tuple(len(text.split()) for text in sides))
    truth = {name: tuple(sorted(v for v in values if v is not None) for values in of) for name, of in scores.items()}
    return texts, truth, {name: of[0].count(None) for name, of in scores.items()}, words


def all_values(tally):
    return np.repeat(tally.values, tally.counts).tolist()


def test_counts_are_those_of_all_rows_whatever_the_shards(tmp_path):
    every = [collect(make(tmp_path / str(n), prompts_count=60, shards=n, unfinished=5)) for n in (1, 4)]
    texts, scores, nulls, words = by_rows(tmp_path / "4")
    for findings in every:
        assert findings.candidates == len(texts) and findings.pairs == len(words)
        assert findings.seeds == len({text["seed"] for text in texts}) and findings.seeds_exact
        assert findings.finish_reasons == {"stop": len(texts)} and findings.origins == {"sampled": len(texts)}
        assert findings.scores.keys() == scores.keys()
        for name, spread in findings.scores.items():
            assert tuple(map(all_values, (spread.every, spread.chosen, spread.rejected))) == scores[name]
            assert spread.nulls == nulls[name]
        assert all_values(findings.lengths.difference) == sorted(a - b for a, b in words)
        assert findings.longer_wins == sum(a > b for a, b in words) / sum(a != b for a, b in words)
    assert every[0].outcomes == every[1].outcomes and every[0].failures == every[1].failures
    assert every[0].examples == every[1].examples and len(every[0].examples) == 24


def test_rows_are_joined_by_id_not_by_place(tmp_path, run_dir):
    turned = make(tmp_path / "turned")
    for stage in ("sample", "score", "pair"):
        for shard in Run(turned).shards(stage):
            table = Run(turned).read(stage, shard)
            Run(turned).write(stage, shard, table.take(list(range(len(table)))[::-1]))
    before, after = (re.sub("`[0-9a-f]{24}`", "", render(path, RECIPE, COMMAND)) for path in (run_dir, turned))
    assert before == after


def test_no_table_is_read_whole(run_dir, card, monkeypatch):
    monkeypatch.setattr(Run, "table", None)
    assert render(run_dir, RECIPE, COMMAND) == card


def test_a_pair_of_candidates_that_do_not_exist_is_an_error(tmp_path):
    run_dir = make(tmp_path / "run", prompts_count=12)
    change(run_dir, "pair", lambda row: {**row, "rejected": None if row["rejected"] is None else 9})
    with pytest.raises(InputError, match=r"pair, shard 0: id '0\d+' pairs candidates \d and 9 of 4"):
        collect(run_dir)


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """Every second text by another model, at two temperatures, not on-policy."""
    run_dir = make(tmp_path_factory.mktemp("models") / "run")

    def other(row):
        for i, text in enumerate(row["candidates"] or ()):
            text["on_policy"] = True
            if i % 2:
                text.update(model="other/vlm", revision="v2", temperature=0.5 + i / 2, on_policy=False)
        row["candidates"] and row["candidates"][1].update(finish_reason="length")
        return row

    change(run_dir, "sample", other)
    run = Run(run_dir)
    for name, options in (("sample-a", {"model": "scenes-vlm"}), ("sample-b", {"model": "other/vlm"})):
        engine = {"kind": "vllm", "trust_remote_code": name == "sample-b"}
        record = make_record(name, 1, {**options, "engine": engine}, {})
        run.save(replace(record, seconds=7.25, rows=90, failed=1, finished=True))
        for shard in run.shards("sample"):
            run.write(name, shard, run.read("sample", shard))
    return run_dir


def test_every_model_is_listed_with_what_it_wrote(two_models):
    findings = collect(two_models)
    rows = {row.model: row for row in model_rows(findings)}
    texts, *_ = by_rows(two_models)
    assert list(rows) == ["other/vlm", "scenes-vlm"]
    for name, row in rows.items():
        texts_of_model = [text for text in texts if text["model"] == name]
        assert row.candidates == len(texts_of_model) and row.revision == texts_of_model[0]["revision"]
        reasons = [text["finish_reason"] for text in texts_of_model]
        assert row.finish_reasons == {reason: reasons.count(reason) for reason in row.finish_reasons}
    assert (rows["scenes-vlm"].on_policy, rows["other/vlm"].on_policy) == (1.0, 0.0)
    assert sum(row.chosen for row in rows.values()) == sum(row.rejected for row in rows.values()) == findings.pairs
    card = render(two_models, RECIPE, COMMAND)
    half = rows["other/vlm"].candidates // 2
    line = next(line for line in card.splitlines() if line.startswith("| other/vlm"))
    assert line.startswith(f"| other/vlm | v2 | {2 * half} | 0.0 % | {rows['other/vlm'].chosen} |")
    assert line.endswith(f"| 1.0 ({half}), 2.0 ({half}) | length ({half}), stop ({half}) |")
    told = re.search(
        r"in (\d+) of\s+(\d+) pairs .*one in\s+(\d+), only the rejected one in (\d+), neither in (\d+)", card
    )
    both, of, *rest = map(int, told.groups())
    assert of == findings.pairs == both + sum(rest) and both and all(rest)


def test_code_that_came_with_a_model_is_named(two_models, card):
    told = render(two_models, RECIPE, COMMAND)
    assert "**Code that came with the model other/vlm was run** (`trust_remote_code: true`)" in told
    assert told.count("was run**") == 1 and "was run**" not in card
    assert "| sample-b | 1 |" in told


def test_every_step_that_made_the_data_is_listed_in_the_order_in_which_they_run(tmp_path):
    run_dir = make(tmp_path / "run", prompts_count=12)
    run = Run(run_dir)
    for name in ("score-clip", "ask-judge", "rank", "texts", "eval-before"):
        run.save(replace(make_record(name, 1, {"model": name}, {}), finished=True))
    listed = [row[0] for row in cells(section(render(run_dir, RECIPE, COMMAND), "## How the texts were made"))]
    order = ["texts", "rank", "source", "sample", "ask-judge", "score-clip", "score", "pair"]
    assert [name for name in listed if name in (*order, "eval-before")] == order


def test_what_was_not_read_or_is_not_known_is_on_the_card_with_its_share(tmp_path, card):
    run_dir = make(tmp_path / "run", prompts_count=12)
    run = Run(run_dir)
    title = "### What was not read, or is not known"
    before = section(render(run_dir, RECIPE, COMMAND), title)
    assert "Nothing." in before and title in card
    counted = {
        "score-clip": {"texts": 400, "cut": 100},
        "ask-claims": {"verdicts": 50, "unreadable": 5, "unanswered": 0},
        "detect": {"unread": 3, "correct": 9},
        "score": {"clip.timeout": 3},
    }
    for name, extras in counted.items():
        record = run.record(name) or make_record(name, 1, {}, {})
        run.save(replace(record, rows=12, extras=extras, finished=True))
    rows = cells(section(render(run_dir, RECIPE, COMMAND), title))
    assert [(row[0], row[-2], row[-1]) for row in rows if row[0] in counted] == [
        ("detect", "3", "–"),
        ("ask-claims", "5", "10.0 %"),
        ("score-clip", "100", "25.0 %"),
        ("score", "3", "25.0 %"),
    ]


def test_which_options_trust_a_model():
    assert list(trusted_models({"model": "a", "engine.trust_remote_code": True})) == ["a"]
    assert list(trusted_models({"model": "a", "engine": {"trust_remote_code": False}})) == []
    assert list(trusted_models({"model": "a", "clip": {"model": "b", "trust_remote_code": True}})) == ["b"]
    several = {"model": "a", "models": [{"model": "b", "engine": {"trust_remote_code": True}}, {"model": "c"}]}
    assert list(trusted_models(several)) == ["b"]
    assert list(trusted_models({"trust_remote_code": True})) == ["a model"]


def test_dropped_rows_are_counted_by_reason(tmp_path, card):
    run_dir = make(tmp_path / "run", prompts_count=12)
    schema = pa.schema([(name, pa.string()) for name in ("id", "source", "prompt", "reason", "detail")])
    for shard, reasons in enumerate((["duplicate", "too|small"], ["duplicate"])):
        rows = [{"id": str(i), "reason": reason, "detail": "d"} for i, reason in enumerate(reasons)]
        Run(run_dir).write("dropped", shard, pa.Table.from_pylist(rows, schema=schema))
    title = "### Rows dropped before sampling"
    told = cells(section(render(run_dir, RECIPE, COMMAND), title))
    assert told[1:] == [["duplicate", "2"], [r"too\|small", "1"]]
    assert section(card, title).strip() == "None."


def test_sources_of_single_rows_are_counted_together(tmp_path, monkeypatch):
    run_dir = make(tmp_path / "run", prompts_count=60)
    change(run_dir, "source", lambda row: {**row, "source": f"mine.jsonl:{int(row['id'])}"})
    findings = collect(run_dir)
    assert findings.sources == {"mine.jsonl": findings.pairs}
    change(run_dir, "source", lambda row: {**row, "source": f"{int(row['id']) // 2}.png"})
    monkeypatch.setattr("pipeline.publishing.collect.MOST_SOURCES", 3)
    findings = collect(run_dir)
    assert len(findings.sources) == 4 and findings.sources.total() == findings.pairs
    assert findings.sources[OTHER_SOURCES] > max(n for name, n in findings.sources.items() if name != OTHER_SOURCES)


def test_a_score_that_is_no_number_is_counted_as_null(tmp_path):
    run_dir = make(tmp_path / "run", prompts_count=12)

    def odd(row):
        for score in row["scores"] or ():
            score["values"][:1] = [float("nan")] * len(score["values"][:1])
        return row

    change(run_dir, "score", odd)
    spread = collect(run_dir).scores["clip.cosine"]
    assert spread.nulls == 10 and len(spread.every) == 30
    assert "### clip.cosine" in render(run_dir, RECIPE, COMMAND)


def test_findings_that_are_known_are_not_read_again(run_dir, card, monkeypatch):
    findings = collect(run_dir)
    monkeypatch.setattr(joined, "shards", None)
    assert render(run_dir, RECIPE, COMMAND, findings) == card
    with pytest.raises(TypeError):
        render(run_dir, RECIPE, COMMAND)


def test_stopped_texts_are_counted_by_gate(tmp_path, card):
    run_dir = make(tmp_path / "run", prompts_count=30)
    bad = {
        0: "I'm sorry, but I can't assist with that.",
        1: "A sun.</s>",
        2: "图片中有一只狗躺在红色的垫子上，旁边有一个碗。",
    }

    def spoil(row):
        for i, text in enumerate(row["candidates"] or ()):
            text["text"] = bad.get(i, text["text"])
        return row

    change(run_dir, "sample", spoil)
    findings = collect(run_dir)
    full = findings.candidates // 4
    assert findings.gates == {"refusal": full, "leaked_template": full, "wrong_script": full}
    told = cells(section(render(run_dir, RECIPE, COMMAND), "### Texts that a gate stopped"))
    assert told[1:] == [[gate, str(full), "25.0 %"] for gate in ("leaked_template", "refusal", "wrong_script")]
    assert section(card, "### Texts that a gate stopped").strip() == "None."
    run = Run(run_dir)
    record = run.record("pair")
    run.save(replace(record, options={**record.options, "gates.refusal": False, "gates.wrong_script": False}))
    assert collect(run_dir).gates == {"leaked_template": full}


def test_the_card_says_how_candidates_were_ranked_and_barred(run_dir, card):
    assert "Candidates are ranked by − 1 × `objects.hallucinated` + 0.25 × `objects.covered`." in card
    vetoes = {"objects.hallucinated": {"above": 0, "below": None, "bars": "both"}}
    other = {**RECIPE, "pair": {**RECIPE["pair"], "standardise": True, "vetoes": vetoes}}
    told = " ".join(render(run_dir, other, COMMAND).split())
    assert "`objects.covered`, each standardised among the able candidates of its prompt." in told
    assert "A candidate with `objects.hallucinated` above 0 is in no pair." in told
    assert "| pair.vetoes.objects.hallucinated.above | `0` |" in told


@pytest.fixture(scope="module")
def findings(run_dir):
    return collect(run_dir)


@given(prompts=st.integers(0, 9), questions=st.integers(0, 9), number=st.integers(1, 9))
def test_two_thirds_of_some_examples_are_open_prompts_if_there_are_enough(findings, prompts, questions, number):
    every = findings.examples
    prompt, question = (next(example for example in every if example.is_question is kind) for kind in (False, True))
    examples = [replace(prompt, id=f"p{i}") for i in range(prompts)]
    examples += [replace(question, id=f"q{i}") for i in range(questions)]
    taken = replace(findings, examples=examples).some(number)
    of_open = sum(not example.is_question for example in taken)
    assert len(taken) == min(number, prompts + questions)
    ids = [f"p{i}" for i in range(of_open)] + [f"q{i}" for i in range(len(taken) - of_open)]
    assert [example.id for example in taken] == ids
    assert of_open >= min(prompts, -(-2 * number // 3)) and len(taken) - of_open >= min(questions, number // 3)


def test_prompts_without_an_image_are_counted_on_the_card(tmp_path, card):
    assert "| of them without an image | 0 |" in card
    run_dir = make(tmp_path / "quickstart")
    change(run_dir, "source", lambda row: {**row, "images": []})
    counted = collect(run_dir)
    failed = sum(number for (stage, _), (number, _) in counted.failures.items() if stage == "source")
    assert counted.without_image == counted.prompts - failed > 0
    assert f"| of them without an image | {counted.without_image} |" in render(run_dir, RECIPE, COMMAND)
