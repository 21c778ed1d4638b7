import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline import mask
from pipeline.card import histogram, outcome_rows, render
from pipeline.errors import InputError
from pipeline.findings import PAIRED, UNFINISHED, Spread, collect
from pipeline.store import Run

# pytest's importlib mode puts no folder of tests on the path, so a module beside this one is loaded by its file.
_spec = importlib.util.spec_from_file_location("fake_run", Path(__file__).with_name("fake_run.py"))
fake_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_run)
COMMAND, FAILED, RECIPE, make = fake_run.COMMAND, fake_run.FAILED, fake_run.RECIPE, fake_run.make


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
    assert "### objects.hallucinated" in card and "Version `1:scenes@" in card
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
    spread = Spread("1", every=[i / 100 for i in range(101)], chosen=[1.0], rejected=[0.0, 0.5])
    bins = histogram(spread)
    assert len(bins) == 8
    assert sum(b.every for b in bins) == 101
    assert [b.chosen for b in bins] == [0] * 7 + [1]
    assert [b.rejected for b in bins] == [1, 0, 0, 0, 1, 0, 0, 0]
    assert [b.label for b in histogram(Spread("1", every=[2.0, 0.0, 2.0]))] == ["0", "2"]


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
    assert (mask.options({"a": {key: value}})["a"][key] == mask.MASK) is hidden


def test_texts_are_masked_by_look():
    assert mask.text("the key idea: use tokens wisely") == "the key idea: use tokens wisely"
    assert mask.text("Authorization: Bearer abc.def") == "Authorization: *** ***" or "abc" not in mask.text(
        "Authorization: Bearer abc.def"
    )
    assert "ghp_" not in mask.text("clone with ghp_0123456789abcdef")
