"""The blindness of published pairs: measured while they are written, shown, and held against the recipe's gate."""

from __future__ import annotations

import html
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from datasets import load_from_disk
from fake_run import COMMAND, RECIPE
from stage_kit import recipe
from two_text_run import build

from pipeline.base.errors import ConfigError
from pipeline.blindness.measure_blindness import measure
from pipeline.blindness.pair_texts import Drawn
from pipeline.publishing import blindness_gate, card, report
from pipeline.publishing.blindness_gate import BlindnessGate
from pipeline.publishing.collect import collect
from pipeline.publishing.config import Publish
from pipeline.publishing.publish import Published, publish, record, rows
from pipeline.running.store import Run
from training.formats.unseen_pairs import UnseenPairs

WORDS = ["sun", "moon", "cat", "boat", "anchor", "horse", "cup", "tree"]


def texts(number: int = 60, opening: str = "", share: float = 1.0) -> list[dict[str, Any]]:
    """Chosen texts that begin with ``opening``, in a share of the rows, which come from another source."""
    chance = random.Random(0)
    made = []
    for i in range(number):
        chosen, rejected = (" ".join(chance.choices(WORDS, k=5)) for _ in range(2))
        given = i < share * number
        about = {"source": "given" if given else "test"}
        begin = opening if given else ""
        made.append({"image": b"%d" % i, "chosen": f"{begin}{chosen}", "rejected": rejected, "about": about})
    return made


def published(run: Run, **options: Any) -> Published:
    return publish(run, Publish(**options), lambda rows: card.render(run.path, RECIPE, COMMAND, content=rows))


@pytest.fixture
def given_away(tmp_path: Path) -> Run:
    return build(tmp_path / "run", texts(opening="In this picture: "), shards=3)


def test_card_header_report_and_summary_hold_the_numbers(given_away: Run) -> None:
    published(given_away)
    measured = blindness_gate.read(given_away)
    assert measured is not None and measured.value is not None and measured.value > 0.95
    shown = (given_away.path / "dataset" / "README.md").read_text()
    section = shown.split("## Blindness\n")[1].split("\n## ")[0]
    assert f"told in {100 * measured.value:.1f} % of the pairs" in section and "about 60 different images" in section
    assert f"| all | 60 | {measured.value:.3f} |" in section and "| 'picture' |" in html.unescape(section)
    header = yaml.safe_load(shown.split("---\n")[1])
    assert header["blindness"] == {"value": measured.value, "interval": list(measured.interval or ()), "pairs": 60}
    page = report.write(given_away.path, RECIPE, COMMAND).read_text()
    assert '<h3 id="blindness">' in page and f"<td>all</td><td>60</td><td>{measured.value:.3f}</td>" in page
    assert json.loads(json.dumps(report.blindness(given_away)))["value"] == measured.value
    (warning,) = blindness_gate.warnings(given_away)
    assert "most of the preference can be learned without looking" in warning


def test_the_part_that_gives_it_away_has_its_own_row(tmp_path: Path) -> None:
    run = build(tmp_path / "run", texts(120, "In this picture: ", 0.5))
    published(run)
    measured = blindness_gate.read(run)
    assert measured is not None
    parts = measured.parts["source"]
    assert (parts["given"].value or 0) > 0.95 > 0.75 > (parts["test"].value or 1) and "policy" not in measured.parts
    assert "| source: given | 60 |" in (run.path / "dataset" / "README.md").read_text()


def test_it_is_the_number_that_the_command_says_of_the_published_dataset(tmp_path: Path) -> None:
    run = build(tmp_path / "run", texts(90, "In this picture: ", 0.5), shards=4)
    published(run)
    pairs, total = UnseenPairs(str(run.path / "dataset")).drawn()
    assert total == 90 and measure(pairs, total) == blindness_gate.read(run)
    # The same ones are drawn of more.
    drawn = Drawn(40)
    tables = iter([load_from_disk(str(run.path / "dataset"))["pairs"].with_format("arrow")[:]])
    assert [table.num_rows for table in blindness_gate.watched(tables, drawn)] == [90]
    few = UnseenPairs(str(run.path / "dataset")).drawn(40)
    assert few[1] == 90 and len(few[0]) == 40
    assert {pair.chosen for pair in few[0]} == {pair.chosen for pair in drawn.pairs}


def test_shards_change_nothing(given_away: Run, tmp_path: Path) -> None:
    other = build(tmp_path / "other", texts(opening="In this picture: "), shards=1)
    published(given_away)
    published(other)
    assert blindness_gate.read(given_away) == blindness_gate.read(other)


# -------------------------------------------------------------------------------------------------------------- gate


def test_the_gate_stops_and_says_what_was_measured(given_away: Run) -> None:
    published(given_away)
    before = (given_away.path / "dataset" / "README.md").read_bytes()
    said = r"blindness is (0\.9\d*|1), beyond publish\.max_blindness=0\.9\. Without the image"
    with pytest.raises(BlindnessGate, match=said):
        published(given_away, max_blindness=0.9)
    assert (given_away.path / "dataset" / "README.md").read_bytes() == before
    assert not (given_away.path / "dataset.partial").exists()
    kept = blindness_gate.read(given_away)
    assert kept is not None and kept.high  # whoever wants to know which pairs it was
    assert published(given_away, max_blindness=1.0).pairs == 60


def test_what_is_not_known_stops_nothing(tmp_path: Path) -> None:
    run = build(tmp_path / "run", texts(5, "In this picture: "))
    assert published(run, max_blindness=0.5).pairs == 5
    assert "is not known (5 images; 20 are needed)" in (run.path / "dataset" / "README.md").read_text()
    header = yaml.safe_load((run.path / "dataset" / "README.md").read_text().split("---\n")[1])
    assert header["blindness"]["value"] is None and list(blindness_gate.warnings(run)) == []


def test_only_a_gate_that_is_set_is_recorded_and_no_row_depends_on_it(given_away: Run) -> None:
    plain, gated = record(given_away, Publish()), record(given_away, Publish(max_blindness=0.9))
    assert "max_blindness" not in plain.options and gated.options["max_blindness"] == 0.9
    assert rows(plain) == rows(gated) and plain.own != gated.own


def test_a_bound_below_chance_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_blindness"):
        recipe(tmp_path, publish={"max_blindness": 0.4})


# ---------------------------------------------------------------------------------------------------------- when not


def test_numbers_of_other_tables_are_not_shown(given_away: Run) -> None:
    assert collect(given_away.path).blindness is None and report.blindness(given_away) is None
    section = card.render(given_away.path, RECIPE, COMMAND).split("## Blindness\n")[1]
    assert section.strip().startswith("Not measured.")
    published(given_away)
    assert collect(given_away.path).blindness is not None
    given_away.write("pair", 0, given_away.read("pair", 0).slice(1), by=given_away.record("pair"))
    assert collect(given_away.path).blindness is None


def test_a_dataset_of_before_is_measured_when_its_card_is_written_anew(given_away: Run) -> None:
    def again(about: str) -> Published:
        return publish(given_away, Publish(), lambda rows: card.render(given_away.path, RECIPE, COMMAND), about)

    again("a recipe")
    kept = blindness_gate.read(given_away)
    (given_away.path / "publish" / "blindness.json").unlink()
    written = [path.stat().st_mtime_ns for path in (given_away.path / "dataset" / "pairs").glob("*.arrow")]
    assert again("another").reused and blindness_gate.read(given_away) == kept
    assert written == [path.stat().st_mtime_ns for path in (given_away.path / "dataset" / "pairs").glob("*.arrow")]


def test_memory_does_not_grow_with_what_is_added() -> None:
    table = pa.table({"id": ["0" * 32], "chosen": [[{"role": "assistant", "content": "a"}]]})
    table = table.append_column("rejected", pa.array([[{"role": "assistant", "content": "b"}]]))
    table = table.append_column("prompt", pa.array([[{"role": "user", "content": "?"}]]))
    for name in ("source", "policy", "chosen_model", "rejected_model"):
        table = table.append_column(name, pa.array([None], pa.string()))
    drawn = Drawn(3)
    tables = (table.set_column(0, "id", pa.array([f"{i:032x}"])) for i in range(50))
    assert sum(1 for _ in blindness_gate.watched(tables, drawn)) == 50
    assert drawn.total == 50 and len(drawn._kept) < 6 and len(drawn.pairs) == 3
    assert drawn.pairs[0].marks == {"written by": "no model over no model"}
