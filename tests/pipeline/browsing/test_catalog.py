"""What a view finds is what a loop over the tables finds, in the same order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import fake_run
import pyarrow as pa
import pytest

from pipeline.base.errors import InputError
from pipeline.browsing.catalog import Catalog
from pipeline.browsing.view import View
from pipeline.publishing.collect import collect
from pipeline.running import prompt_rows
from pipeline.running.prompt_rows import PromptRow
from pipeline.running.store import Run, make_record


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return Run(fake_run.make(tmp_path_factory.mktemp("runs") / "a", prompts_count=90, shards=3, unfinished=7))


@pytest.fixture(scope="module")
def catalog(run) -> Catalog:
    return Catalog([run])


@pytest.fixture(scope="module")
def rows(run) -> list[PromptRow]:
    read = []
    for shard in run.shards("source"):
        ids = run.read("source", shard)["id"].to_pylist()
        by_id = prompt_rows.read(run, shard, ids)
        read += [by_id[row_id] for row_id in ids]
    return read


def found(catalog: Catalog, **view: Any) -> list[str]:
    return [entry.id for entry in catalog.entries(catalog.search(View(**view)))]


def values(row: PromptRow, score: str, side: str) -> list[float]:
    every = row.scores.get(score, [])
    places = range(len(every)) if side == "any" else [p[side] for p in row.pairs if p[side] is not None]
    return [every[place] for place in places if every and every[place] is not None]


def test_everything_in_the_order_of_the_run(catalog, rows):
    assert found(catalog) == [row.id for row in rows]


@pytest.mark.parametrize("side", ["any", "chosen", "rejected"])
@pytest.mark.parametrize("bounds", [{"low": "1"}, {"high": "0"}, {"low": "0.5", "high": "2"}])
def test_a_score_between_bounds(catalog, rows, side, bounds):
    low, high = float(bounds.get("low", "-inf")), float(bounds.get("high", "inf"))
    wanted = [r.id for r in rows if any(low <= v <= high for v in values(r, "objects.hallucinated", side))]
    assert found(catalog, score="objects.hallucinated", side=side, **bounds) == wanted
    assert len(wanted) < len(rows) and (wanted or side == "chosen")


@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize("side", ["any", "chosen"])
def test_sorted_by_any_score_with_those_without_one_last(catalog, rows, side, order):
    best, sign = (max, -1) if order == "desc" else (min, 1)

    def key(entry):
        place, row = entry
        told = values(row, "clip.cosine", side)
        return (not told, sign * best(told) if told else 0, place)

    wanted = [row.id for _, row in sorted(enumerate(rows), key=key)]
    assert found(catalog, sort="clip.cosine", side=side, order=order) == wanted


def test_sorted_by_margin(catalog, rows):
    margins = {row.id: [p["margin"] for p in row.pairs if p["margin"] is not None] for row in rows}
    ids = found(catalog, sort="margin")
    told = [max(margins[row_id]) for row_id in ids if margins[row_id]]
    assert told == sorted(told, reverse=True) and not any(margins[row_id] for row_id in ids[len(told) :])


@pytest.mark.parametrize("q", ["sun", "SUN boat", '"a sun"', "describe kite", "nothing says this", "%", "a'b"])
def test_full_text_over_prompts_and_candidates(catalog, rows, q):
    words = [q[1:-1]] if q.startswith('"') else q.lower().split()
    wanted = [
        row.id
        for row in rows
        if all(
            any(word in text.lower() for text in (row.prompt, *(c["text"] for c in row.candidates))) for word in words
        )
    ]
    assert found(catalog, q=q) == wanted


def test_a_prompt_is_found_by_its_id(catalog):
    assert found(catalog, q="00042") == ["00042"]


def test_outcomes_are_those_of_the_report(catalog, run):
    outcomes = collect(run).outcomes
    assert catalog.search(View()) is not None
    assert catalog.facets[0].outcomes == {name: number for name, number in outcomes.items() if number}
    for name, number in outcomes.items():
        assert len(found(catalog, reason=name)) == number
    assert len(found(catalog, reason="failed in sample: engine")) == 1


def test_source_model_policy_and_mark(catalog, rows):
    source = next(iter(catalog.facets[0].sources))
    assert len(found(catalog, source=source)) == catalog.facets[0].sources[source] > 0
    assert found(catalog, model="scenes-vlm") == [row.id for row in rows if row.candidates]
    assert found(catalog, model="another") == []
    assert len(found(catalog, policy="best_vs_worst")) == sum(bool(row.pairs) for row in rows)
    marked = {"swap": {"00005", "00002"}}
    assert [e.id for e in catalog.entries(catalog.search(View(mark="swap"), marked))] == ["00002", "00005"]
    assert len(catalog.search(View(mark="reject"), marked)) == 0


def test_pairs_that_nobody_has_marked(catalog):
    paired = found(catalog, reason="paired")
    marked = {"swap": {paired[0]}, "accept": {paired[2]}}
    entries = catalog.entries(catalog.search(View(mark="none"), marked))
    assert [entry.id for entry in entries] == [paired[1], *paired[3:]]


def test_filters_go_together(catalog):
    both = found(catalog, reason="paired", q="kite", score="objects.covered", low="1", sort="margin")
    assert set(both) == set(found(catalog, reason="paired")) & set(found(catalog, q="kite")) & set(
        found(catalog, score="objects.covered", low="1")
    )


def test_two_runs_side_by_side(run, tmp_path):
    other = Run(fake_run.make(tmp_path / "b", prompts_count=100, shards=2))
    table = other.read("pair", 0)
    pairs = [{**row, "chosen": None, "reason": "tie"} for row in table.to_pylist()]
    other.write("pair", 0, pa.Table.from_pylist(pairs, schema=table.schema.remove_metadata()))
    catalog = Catalog([run, other])
    assert len(found(catalog)) == 100
    assert found(catalog, which="b") == [f"{i:05d}" for i in range(90, 100)]
    assert found(catalog, which="a") == [] and len(found(catalog, which="both")) == 90
    entries = catalog.entries(catalog.search(View(which="differ")))
    assert entries and all(entry.outcomes[0] != entry.outcomes[1] for entry in entries)
    assert entries[0].shards[0] is not None
    assert len(found(catalog, run="b", reason="tie")) > len(found(catalog, run="a", reason="tie"))


def test_a_run_that_goes_on_is_read_anew(tmp_path):
    run = Run(fake_run.make(tmp_path / "run", prompts_count=20, shards=2))
    catalog = Catalog([run])
    shard = run.read("pair", 1)
    run.remove("pair", 1)
    assert len(found(catalog, reason="not finished")) == 10
    run.write("pair", 1, shard)
    assert found(catalog, reason="not finished") == []


def test_of_a_run_that_is_made_anew_only_what_fits_together_is_shown(tmp_path):
    run = Run(fake_run.make(tmp_path / "run", prompts_count=20, shards=2))
    record = run.record("pair")
    anew = replace(make_record("pair", 1, {**record.options, "margin": 2.0}, {}), unsigned=False)
    pairs = run.read("pair", 1)
    run.save(anew)
    run.write("pair", 1, pairs, by=anew)
    catalog = Catalog([run])
    assert len(found(catalog, reason="not finished")) == 7  # three failed before
    run.write("score", 1, run.read("score", 1), {"sample": "another digest"})
    run.write("pair", 1, pairs, {"score": run.digest("score", 1)}, by=anew)
    assert len(found(catalog, reason="not finished")) == 17
    assert set(found(catalog, score="clip.cosine", low="-9")) < set(found(catalog)[:10])


@pytest.mark.parametrize("stages", [("sample", "score", "pair"), ("score", "pair"), ("pair",)])
def test_unfinished_runs_open(tmp_path, stages):
    run = Run(fake_run.make(tmp_path / "run", prompts_count=12))
    for stage in stages:
        run.clear(stage)
    catalog = Catalog([run])
    assert len(found(catalog)) == 12 and len(found(catalog, q="image")) == 12
    assert found(catalog, sort="objects.covered") and found(catalog, model="none") == []


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(InputError, match="has no source"):
        Catalog([Run(tmp_path)]).refresh()


def test_equal_views_are_asked_once(run):
    catalog = Catalog([run])
    first = catalog.search(View(q="sun", page=1))
    assert catalog.search(View(q="sun", page=3)) is first
    assert catalog.search(replace(View(), q="moon")) is not first
