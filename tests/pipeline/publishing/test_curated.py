"""What a person marked is what is published: rejected pairs are left out, swapped ones swapped, all of it counted."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from stage_kit import generated

from pipeline.base import marks
from pipeline.base.errors import InputError
from pipeline.base.marks import FILE, PairKey
from pipeline.publishing import card, report, style_gate
from pipeline.publishing.collect import collect
from pipeline.publishing.config import Publish
from pipeline.publishing.curated import REJECTED
from pipeline.publishing.outgoing import outgoing
from pipeline.publishing.publish import Published, publish, reasons
from pipeline.running.store import Run


def done(run: Run) -> Published:
    return publish(run, Publish(), lambda rows: card.render(run, {}, "python -m pipeline.run", content=rows))


def rows(run: Run) -> list[dict[str, Any]]:
    pairs = datasets.load_from_disk(str(run.path / "dataset" / "pairs"))
    return pairs.remove_columns("images").to_list()


def key(row: dict[str, Any]) -> PairKey:
    return PairKey(row["id"], row["chosen"][0]["content"], row["rejected"][0]["content"])


@pytest.fixture
def run(tmp_path) -> Run:
    run = generated(tmp_path / "run")
    done(run)
    return run


def test_rejected_pairs_are_left_out_and_swapped_ones_are_swapped_with_their_scores(run):
    before = rows(run)
    first, second, third = before[:3]
    marks.write(run.path, {key(first): "reject", key(second): "swap", key(third): "accept"})
    published = done(run)
    assert not published.reused and published.pairs == len(before) - 1
    after = rows(run)
    swapped = after[0]
    assert key(swapped) == PairKey(second["id"], *key(second)[:0:-1])
    assert swapped["margin"] == -second["margin"] and swapped["policy"] == f"{second['policy']}:swapped"
    for name in ("score", "scores", "model", "seed", "on_policy"):
        assert swapped[f"chosen_{name}"] == second[f"rejected_{name}"], name
        assert swapped[f"rejected_{name}"] == second[f"chosen_{name}"], name
    assert after[1:] == before[2:]
    text = (run.path / "dataset" / "README.md").read_text()
    assert f"| preference pairs | {len(before) - 1} |" in text
    for meaning in ("accepted", "left out", "swapped"):
        assert f"| pairs that a person {meaning} | 1 |" in text
    assert f"| {REJECTED} | 1 |" in text or f"| {REJECTED.replace('_', chr(92) + '_')} | 1 |" in text


def test_style_and_findings_are_those_of_the_pairs_that_are_left(run):
    before = collect(run)
    assert sum(style.pairs for style in style_gate.read(run).values()) == before.pairs
    marks.write(run.path, {key(row): "reject" for row in rows(run)[:5]})
    done(run)
    after = collect(run)
    assert after.pairs == before.pairs - 5 == sum(style.pairs for style in style_gate.read(run).values())
    assert after.outcomes[REJECTED] == 5 and after.outcomes.total() == before.outcomes.total()


def test_marks_taken_back_give_the_same_rows_as_before(run):
    before = rows(run)
    folder = run.path / "dataset" / "pairs"
    plain = {path.name: path.read_bytes() for path in folder.iterdir()}
    marks.put(run.path, key(before[0]), "reject")
    assert any(reason.startswith("marks:") for reason in reasons(run, Publish()))
    done(run)
    marks.put(run.path, key(before[0]), None)
    assert not (run.path / FILE).exists()
    done(run)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == plain
    assert done(run).reused


def test_a_pair_that_is_only_accepted_changes_the_card_and_no_row(run):
    written = (run.path / "dataset" / "pairs" / "data-00000.arrow").stat().st_mtime_ns
    marks.put(run.path, key(rows(run)[0]), "accept")
    assert done(run).reused
    assert (run.path / "dataset" / "pairs" / "data-00000.arrow").stat().st_mtime_ns == written
    assert "| pairs that a person accepted | 1 |" in (run.path / "dataset" / "README.md").read_text()


def test_a_mark_of_a_pair_that_is_no_more_changes_no_row(run):
    before = rows(run)
    first = before[0]
    marks.write(run.path, {PairKey(first["id"], "another text", first["rejected"][0]["content"]): "reject",
                           PairKey("none", "a", "b"): "swap"})  # fmt: skip
    done(run)
    assert rows(run) == before
    assert collect(run).curated.total() == 0


def test_the_report_is_written_anew_when_marks_change(run):
    command = ({}, "python -m pipeline.run")
    report.write(run, *command)
    assert report.holds(run, *command)
    marks.put(run.path, key(rows(run)[0]), "swap")
    assert not report.holds(run, *command)


def test_if_everything_is_rejected_that_is_said(run):
    marks.write(run.path, {key(row): "reject" for row in rows(run)})
    with pytest.raises(InputError, match=rf"not one of the prompts gave a pair .*{REJECTED}: \d+"):
        done(run)


def test_what_goes_to_others_is_what_was_marked(run):
    row = rows(run)[0]
    assert outgoing(run)
    marks.put(run.path, key(row), "reject")
    with pytest.raises(InputError, match="was changed since the dataset was published"):
        outgoing(run)
    done(run)
    assert outgoing(run)
    marks.put(run.path, key(row), None)
    with pytest.raises(InputError, match="was changed since"):
        outgoing(run)


def test_a_damaged_file_of_marks_publishes_nothing(run):
    (run.path / FILE).write_text("{}\n")
    with pytest.raises(InputError, match=r"marks\.jsonl, line 1"):
        done(run)
