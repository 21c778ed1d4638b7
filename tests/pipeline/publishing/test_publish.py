from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from stage_kit import generated

from pipeline.base.errors import InputError, StoreError
from pipeline.publishing import by_id, card, dataset_folder, published_rows
from pipeline.publishing import publish as module
from pipeline.publishing.config import Publish, StyleGates
from pipeline.publishing.no_pairs import few_pairs
from pipeline.publishing.publish import Published, publish
from pipeline.running.store import Run

HEADER = """---
configs:
- config_name: pairs
  data_files: [{split: train, path: pairs/data-*.arrow}]
  default: true
- config_name: candidates
  data_files: [{split: train, path: candidates/data-*.arrow}]
---
A card.
"""


def done(run: Run, spec: Publish = Publish()) -> Published:
    return publish(run, spec, lambda _: HEADER)


def tree(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = generated(tmp_path_factory.mktemp("publish"))
    done(run)
    return run


def test_it_opens_in_every_way_without_code_of_ours(run: Run, tmp_path: Path) -> None:
    import datasets

    folder = run.path / "dataset"
    pairs = datasets.load_from_disk(str(folder / "pairs"))
    both = datasets.load_from_disk(str(folder))
    by_card = datasets.load_dataset(str(folder), "pairs", split="train", cache_dir=str(tmp_path))
    candidates = datasets.load_dataset(str(folder), "candidates", split="train", cache_dir=str(tmp_path))
    assert set(both) == {"pairs", "candidates"}
    assert len(pairs) == len(both["pairs"]) == len(by_card) > 0
    assert pairs.features == by_card.features and pairs[0].keys() == by_card[0].keys()
    assert len(candidates) == len(both["candidates"]) == run.table("source").num_rows


def test_load_dataset_never_gives_the_rows_of_another_run(tmp_path: Path) -> None:
    """It caches local folders by their last name and their card's header, which say nothing about the content."""
    import datasets

    def loaded(run: Run, card: Callable[[str], str]) -> set[str]:
        folder = publish(run, Publish(), card).path
        return set(datasets.load_dataset(str(folder), "pairs", split="train", cache_dir=str(tmp_path / "cache"))["id"])

    def our_card(run: Run) -> Callable[[str], str]:
        return lambda rows: card.render(run.path, {}, "python -m pipeline.run", content=rows)

    first_run, other = generated(tmp_path / "one"), generated(tmp_path / "other", seed=7)
    first, second = loaded(first_run, our_card(first_run)), loaded(other, our_card(other))
    assert first and second and not first & second
    # Negative control: with one header for both, the second comes out as the first.
    shutil.rmtree(first_run.path / "dataset")
    shutil.rmtree(other.path / "dataset")
    assert loaded(first_run, lambda _: HEADER) == loaded(other, lambda _: HEADER) == first


def test_pairs_have_trls_columns_and_where_they_come_from(run: Run) -> None:
    import datasets

    pairs = datasets.load_from_disk(str(run.path / "dataset" / "pairs"))
    assert pairs.features["images"] == datasets.List(datasets.Image())
    row = pairs[0]
    assert row["images"][0].size == (128, 128) or row["images"][0].size[0] > 0
    assert [message["role"] for message in row["prompt"]] == ["user"]
    for side in ("chosen", "rejected"):
        assert [message["role"] for message in row[side]] == ["assistant"] and row[side][0]["content"]
    source = {sampled["id"]: sampled for sampled in run.table("sample").to_pylist()}[row["id"]]["candidates"]
    chosen = next(c for c in source if c["seed"] == row["chosen_seed"])
    assert chosen["text"] == row["chosen"][0]["content"] and row["chosen_model"] == "canned"
    assert row["chosen_score"] - row["rejected_score"] == row["margin"] >= 0.5
    assert pairs["id"][:] == sorted(pairs["id"][:])


def test_candidates_have_every_text_with_every_score(run: Run) -> None:
    import datasets

    candidates = datasets.load_from_disk(str(run.path / "dataset" / "candidates"))
    row = candidates[0]
    assert len(row["candidates"]) == 4 and "images" not in row
    names = [score["name"] for score in row["candidates"][0]["scores"]]
    assert {"objects.hallucinated", "correctness"} <= set(names)
    assert all([s["name"] for s in c["scores"]] == names for c in row["candidates"])


def test_the_same_tables_give_the_same_bytes(run: Run, tmp_path: Path) -> None:
    other = generated(tmp_path)
    done(other)
    assert tree(run.path / "dataset") == tree(other.path / "dataset")


def test_rows_do_not_depend_on_shards(run: Run, tmp_path: Path) -> None:
    import datasets

    other = generated(tmp_path, shard_size=7)
    done(other, Publish(rows_per_shard=3, images_in_candidates=True))
    a, b = (datasets.load_from_disk(str(r.path / "dataset" / "pairs")) for r in (run, other))
    assert a.data.table.to_pylist() == b.data.table.to_pylist()
    assert len(list((other.path / "dataset" / "pairs").glob("data-*.arrow"))) == -(-len(b) // 3)
    candidates = datasets.load_from_disk(str(other.path / "dataset" / "candidates"))
    assert candidates[0]["images"][0].size[0] > 0


def test_it_is_written_once_and_again_when_something_changed(tmp_path: Path) -> None:
    run = generated(tmp_path)
    assert not done(run).reused
    assert done(run).reused
    assert not done(run, Publish(rows_per_shard=5)).reused


def test_a_gate_on_style_changes_no_row_and_what_is_written_changes_them(run: Run) -> None:
    plain, gated, referenced = (
        module.record(run, spec)
        for spec in (
            Publish(),
            Publish(style=StyleGates(max_auc=0.9, vocabulary="scenes")),
            Publish(images="reference"),
        )
    )
    assert plain.own != gated.own  # the card says other things
    assert module.rows(plain) == module.rows(gated)
    assert module.rows(plain) != module.rows(referenced)


def test_a_crash_leaves_the_old_dataset_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = generated(tmp_path)
    done(run)
    before = tree(run.path / "dataset")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.files, "replace_folder", full)
    with pytest.raises(StoreError, match="free some space"):
        done(run, Publish(rows_per_shard=5))
    assert tree(run.path / "dataset") == before and not (run.path / "dataset.partial").exists()


def test_a_run_without_pairs_says_why(tmp_path: Path) -> None:
    run = generated(tmp_path, pair={"weights": {"objects.hallucinated": -1}, "margin": 100})
    with pytest.raises(InputError, match=r"not one of the prompts gave a pair \(below_margin: \d+, no_valid"):
        done(run)


def test_a_run_without_pairs_names_the_scorer_that_knew_nothing(tmp_path: Path) -> None:
    run = generated(tmp_path)

    def silence(row: dict[str, Any]) -> dict[str, Any]:
        scores = [{**score, "values": [None] * len(score["values"])} for score in row["scores"]]
        return {
            **row,
            "scores": scores,
            "unknown": [{"scorer": "objects", "failed": False, "error_type": "no_facts", "error": "no facts"}],
        }

    assert not list(few_pairs(run, 0))
    change(run, "score", silence)
    assert "the scorer objects gave no value" in "".join(few_pairs(run, 0))
    assert not list(few_pairs(run, 10))
    change(run, "pair", lambda row: {**row, "chosen": None, "rejected": None, "reason": "no_valid_candidates"})
    with pytest.raises(
        InputError,
        match=r"the scorer objects gave no value of objects\.hallucinated for (\d+) of \1 texts \(no facts\)",
    ):
        done(run)


def change(run: Run, stage: str, of: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write every row of a stage anew."""
    for shard in run.shards(stage):
        table = run.read(stage, shard)
        rows = [of(row) for row in table.to_pylist()]
        run.write(stage, shard, pa.Table.from_pylist(rows, schema=table.schema.remove_metadata()), by=run.record(stage))


def rows(run: Run, config: str = "pairs") -> list[dict[str, Any]]:
    import datasets

    table = datasets.load_from_disk(str(run.path / "dataset" / config)).data.table
    return [dict(row) for row in table.to_pylist()]


def test_a_prompt_may_have_several_pairs(tmp_path: Path) -> None:
    from pipeline.publishing.collect import collect
    from pipeline.publishing.outcomes import PAIRED
    from training import formats

    weights = {"objects.hallucinated": -1, "objects.covered": 0.3, "correctness": 1}
    pair = {"policy": "all_above_margin", "weights": weights, "margin": 0.2, "max_length_ratio": 9}
    run = generated(tmp_path, pair=pair)
    done(run)
    published = rows(run)
    names = [(row["id"], row["pair"]) for row in published]
    assert names == sorted(set(names)) and len(names) > len({id for id, _ in names})
    made = [row for row in run.table("pair").to_pylist() if row["chosen"] is not None]
    assert len(published) == len(made) and {row["id"] for row in made} == {id for id, _ in names}
    texts = {(row["id"], row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in published}
    assert len(texts) == len(published), "what tells pairs apart in training"
    findings = collect(run.path)
    assert (
        findings.pairs == len(published)
        and findings.prompts == findings.outcomes.total() == run.table("source").num_rows
    )
    assert findings.outcomes[PAIRED] == len({id for id, _ in names})
    assert findings.lengths.difference and len(findings.lengths.difference) == len(published)
    shown = {(example.id, example.chosen["text"], example.rejected["text"]) for example in findings.examples}
    assert len(shown) == len(findings.examples)
    import datasets

    assert len(formats.read(datasets.load_from_disk(str(run.path / "dataset" / "pairs")))) == len(published)


def test_pairs_that_are_left_out_to_balance_lengths_are_not_published(tmp_path: Path) -> None:
    from pipeline.publishing.collect import collect

    weights = {"objects.hallucinated": -1, "objects.covered": 1, "correctness": 1}
    pair = {"weights": weights, "margin": 0.5, "max_length_ratio": 9}
    source = {"scenes": 60, "questions_per_scene": 1}
    runs = [
        generated(tmp_path / str(balanced), source=source, shard_size=200, pair={**pair, "balance_length": balanced})
        for balanced in (False, True)
    ]
    for run in runs:
        done(run)
    before, after = (collect(run.path) for run in runs)
    assert after.unbalanced == len(rows(runs[0])) - len(rows(runs[1])) == after.outcomes["length_balance"] > 0
    assert before.longer_wins is not None and not 0.45 <= before.longer_wins <= 0.55
    assert abs(after.lengths.longer - after.lengths.shorter) <= 1 or 0.45 <= (after.longer_wins or 0) <= 0.55


def test_rows_are_in_the_order_of_their_ids_in_whatever_shards_they_lie(run: Run, tmp_path: Path) -> None:
    """As in a run that grew: its shards overlap."""
    grown = generated(tmp_path)
    numbers = grown.shards("source")
    whole = {stage: pa.concat_tables(list(grown.tables(stage))) for stage in module.TABLES}
    for stage, table in whole.items():
        ids = pc.unique(table["id"])
        for number in numbers:
            mine = pa.array([id for place, id in enumerate(ids) if (place * 7) % len(numbers) == number])
            part = table.filter(pc.is_in(table["id"], value_set=mine))
            grown.write(stage, number, part.take(list(range(len(part)))[::-1]), by=grown.record(stage))
    done(grown)
    assert len(list(by_id.groups(run))) == len(numbers) and len(list(by_id.groups(grown))) == 1
    assert tree(grown.path / "dataset") == tree(run.path / "dataset")
    assert [row["id"] for row in rows(grown, "candidates")] == sorted(whole["source"]["id"].to_pylist())


def test_bytes_depend_on_no_chunk_and_no_table_is_read_whole(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = generated(tmp_path)
    read = Run.read

    def chunked(self: Run, stage: str, shard: int) -> pa.Table:
        table = read(self, stage, shard)
        return pa.concat_tables([pa.concat_tables([table, table]).slice(0, 1), table.slice(1)])

    def whole(*_: object) -> None:
        raise AssertionError("reads a whole table")

    monkeypatch.setattr(Run, "read", chunked)
    monkeypatch.setattr(Run, "table", whole)
    done(other)
    assert tree(other.path / "dataset") == tree(run.path / "dataset")


def test_bytes_depend_on_no_shard(run: Run, tmp_path: Path) -> None:
    other = generated(tmp_path, shard_size=9)
    done(other)
    a, b = (tree(r.path / "dataset") for r in (run, other))
    assert a == b and len([name for name in a if name.endswith(".arrow")]) == 2


def test_memory_does_not_grow_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for writer in (published_rows, dataset_folder):
        monkeypatch.setattr(writer, "BATCH_ROWS", 4)
    usual, peaks = pa.default_memory_pool(), []
    for scenes in (10, 60):
        run = generated(tmp_path / str(scenes), source={"scenes": scenes, "questions_per_scene": 1})
        pool = pa.proxy_memory_pool(usual)
        pa.set_memory_pool(pool)
        try:
            done(run)
        finally:
            pa.set_memory_pool(usual)
        peaks.append(pool.max_memory())
    assert 0 < peaks[1] < 1.5 * peaks[0]


def test_whose_texts_they_are(tmp_path: Path) -> None:
    run = generated(tmp_path)

    def own(row: dict[str, Any]) -> dict[str, Any]:
        for i, candidate in enumerate(row["candidates"] or []):
            candidate.update(on_policy=[True, False, None][i % 3], revision="r1")
        return row

    change(run, "sample", own)
    done(run)
    texts = {row["id"]: row["candidates"] for row in rows(run, "candidates")}
    assert [text["on_policy"] for text in next(iter(texts.values()))] == [True, False, None, True]
    assert next(iter(texts.values()))[0]["revision"] == "r1"
    for row in rows(run):
        for side in ("chosen", "rejected"):
            told = {text["seed"]: text["on_policy"] for text in texts[row["id"]]}
            assert row[f"{side}_on_policy"] == told[row[f"{side}_seed"]]
    assert len({row["chosen_on_policy"] for row in rows(run)}) > 1


@pytest.fixture
def outside(tmp_path: Path) -> Run:
    """A run whose prompts name the files of their images."""
    run = generated(tmp_path)

    def named(row: dict[str, Any]) -> dict[str, Any]:
        for image in row["images"]:
            file = tmp_path / f"{row['id']}.png"
            file.write_bytes(image["bytes"])
            image.update(bytes=None, path=str(file))
        return row

    change(run, "source", named)
    return run


def test_images_are_copied_or_stay_where_they_are_and_then_it_is_said(outside: Run, tmp_path: Path) -> None:
    published = done(outside)
    for row in rows(outside):
        name = f"{row['id']}.png"
        assert row["images"] == [{"bytes": (tmp_path / name).read_bytes(), "path": name}]
    assert (published.local_images, list(published.warnings())) == (0, [])
    published = done(outside, Publish(images="reference"))
    assert not published.reused
    for row in rows(outside):
        assert row["images"] == [{"bytes": None, "path": str(tmp_path / f"{row['id']}.png")}]
    assert (published.local_images, published.remote_images) == (published.pairs, 0)
    assert f"{published.pairs} images of the pairs are files of this machine" in next(published.warnings())
    assert done(outside, Publish(images="reference")) == Published(**{**vars(published), "reused": True})
    told = card.render(outside, {}, "python -m pipeline.run")
    assert f"**This dataset works on one machine only:** {published.pairs} images" in told


def test_a_run_whose_images_are_all_in_its_rows_is_not_warned_of(run: Run) -> None:
    published = done(run, Publish(images="reference"))
    assert (published.local_images, published.remote_images) == (0, 0)
    assert "on one machine only" not in card.render(run, {}, "python -m pipeline.run")


def test_an_image_that_is_gone_is_named_and_the_old_dataset_stays(outside: Run, tmp_path: Path) -> None:
    done(outside, Publish(images="reference"))
    before, lost = tree(outside.path / "dataset"), rows(outside)[3]["id"]
    (tmp_path / f"{lost}.png").unlink()
    with pytest.raises(InputError, match=rf"id '{lost}': .*{lost}\.png cannot be read.*\n.*publish\.images=reference"):
        done(outside, Publish(images="embed"))
    assert tree(outside.path / "dataset") == before and not (outside.path / "dataset.partial").exists()


def test_no_path_gives_a_password_away(outside: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> bytes:
        raise OSError("no network")

    monkeypatch.setattr("pipeline.base.images.image_files._fetch", nobody)

    def remote(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "images": [{"bytes": None, "path": "https://me:secret@host/a.png?signature=secret"}]}

    change(outside, "source", remote)
    published = done(outside, Publish(images="reference"))
    assert {image["path"] for row in rows(outside) for image in row["images"]} == {"https://host/a.png"}
    assert (published.local_images, published.remote_images) == (0, published.pairs)
    assert "lie at addresses" in next(published.warnings())
    told = card.render(outside, {}, "python -m pipeline.run")
    assert "at the addresses that the rows name" in told and "on one machine only" not in told


def test_no_column_names_a_folder_of_this_machine(tmp_path: Path) -> None:
    run = generated(tmp_path)

    def at_home(row: dict[str, Any]) -> dict[str, Any]:
        images = [{**image, "path": "/home/me/My photos/a.png"} for image in row["images"]]
        return {**row, "images": images, "source": "/home/me/data/prompts.jsonl:3"}

    def by_folder(row: dict[str, Any]) -> dict[str, Any]:
        texts = [{**text, "model": "/home/me/models/qwen"} for text in row["candidates"]]
        failed = {"status": "failed", "error_type": "engine", "error": "no file /home/me/data/x.png; see https://a/b/c"}
        return {**row, "candidates": texts, **(failed if row["id"] == broken else {})}

    broken = run.table("pair").filter(pc.is_null(run.table("pair")["chosen"]))["id"][0].as_py()
    change(run, "source", at_home)
    change(run, "sample", by_folder)
    done(run)
    assert "/home/me" not in str([rows(run, config) for config in ("pairs", "candidates")])
    row = rows(run)[0]
    assert (row["images"][0]["path"], row["source"]) == ("a.png", "prompts.jsonl:3")
    assert {row["chosen_model"], row["rejected_model"]} == {"qwen"}
    told = {row["id"]: row for row in rows(run, "candidates")}
    assert told[broken]["error"] == "no file x.png; see https://a/b/c"
    assert {text["model"] for row in told.values() for text in row["candidates"]} == {"qwen"}


def test_both_sides_have_every_score_by_its_name_and_null_where_it_is_not_known(tmp_path: Path) -> None:
    import datasets

    run = generated(tmp_path)
    first = sorted(row["id"] for row in run.table("pair").to_pylist() if row["chosen"] is not None)[0]

    def without(row: dict[str, Any]) -> dict[str, Any]:
        scores = [score for score in row["scores"] if row["id"] != first or score["name"] != "correctness"]
        return {**row, "scores": scores[::-1]}

    change(run, "score", without)
    done(run)
    names = {score["name"] for row in run.table("score").to_pylist() for score in row["scores"]}
    pairs = datasets.load_from_disk(str(run.path / "dataset" / "pairs"))
    assert pairs.features["chosen_scores"] == {name: datasets.Value("float64") for name in sorted(names)}
    texts = {row["id"]: row["candidates"] for row in rows(run, "candidates")}
    for row in pairs.remove_columns("images"):
        for side in ("chosen", "rejected"):
            (text,) = [text for text in texts[row["id"]] if text["seed"] == row[f"{side}_seed"]]
            every = dict.fromkeys(names) | {score["name"]: score["value"] for score in text["scores"]}
            assert row[f"{side}_scores"] == every
    assert rows(run)[0]["id"] == first and rows(run)[0]["chosen_scores"]["correctness"] is None
    assert any(row["chosen_scores"]["objects.hallucinated"] == 0 for row in rows(run))


def test_pairs_that_nothing_was_scored_for_have_no_columns_of_scores(tmp_path: Path) -> None:
    run = generated(tmp_path)
    change(run, "score", lambda row: {**row, "scores": []})
    done(run)
    assert not {"chosen_scores", "rejected_scores"} & rows(run)[0].keys()


def test_what_only_the_card_tells_writes_no_row_again(tmp_path: Path) -> None:
    run = generated(tmp_path)
    written = done(run)
    shards = {path: path.stat().st_mtime_ns for path in (run.path / "dataset").rglob("*.arrow")}
    of_rows = module.rows(run.record("publish"))  # type: ignore[arg-type]
    told = Publish(license="cc-by-4.0", authors=("Ann",), citation="@misc{a}", tags=("photos",))
    assert module.reasons(run, told) == []
    again = publish(
        run, told, lambda _: HEADER + "More.", "other", lambda: {"LICENSE": b"Ours", "pictures/a.png": b"a"}
    )
    assert again.reused and again.pairs == written.pairs
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert module.rows(run.record("publish")) == of_rows  # type: ignore[arg-type]
    assert (run.path / "dataset" / "LICENSE").read_bytes() == b"Ours" and module.current(run) is not None
    publish(run, told, lambda _: HEADER, "another")
    assert not (run.path / "dataset" / "pictures").exists() and not (run.path / "dataset" / "LICENSE").exists()


def test_a_dataset_of_before_is_written_again_and_the_plan_says_why(tmp_path: Path) -> None:
    run = generated(tmp_path)
    done(run)
    now = run.record("publish")
    assert now is not None and module.reasons(run, Publish()) == []
    run.save(replace(now, version=6, options={**now.options, "images": "reference"}))
    assert module.reasons(run, Publish()) == ["stage version: 6 -> 7", "images: reference -> embed"]
    assert not done(run).reused and module.reasons(run, Publish()) == []
    shutil.rmtree(run.path / "dataset")
    assert module.reasons(run, Publish()) == ["unfinished, or the folder is gone"]


def test_a_shard_that_lacks_a_row_is_an_error(tmp_path: Path) -> None:
    run = generated(tmp_path)
    lost = run.read("score", 0)["id"][0].as_py()
    run.write("score", 0, run.read("score", 0).slice(1), by=run.record("score"))
    with pytest.raises(InputError, match=f"score: the shard has no row for id '{lost}'"):
        done(run)


def test_what_was_counted_is_known_when_nothing_is_written(tmp_path: Path) -> None:
    run = generated(tmp_path)
    first, again = done(run), done(run)
    assert again.reused and (again.pairs, again.candidates) == (first.pairs, first.candidates)
    assert (first.pairs, first.candidates) == (len(rows(run)), len(rows(run, "candidates")))


def test_both_configs_join_the_tables_row_by_row(tmp_path: Path) -> None:
    run = generated(tmp_path)
    broken = run.read("source", 1)["id"][0].as_py()
    for stage, lost in (("sample", "candidates"), ("score", "scores"), ("pair", "chosen")):
        gone = {lost: None, "status": "failed", "error_type": "boom", "error": f"in {stage}"}
        change(run, stage, lambda row, gone=gone: {**row, **(gone if row["id"] == broken else {})})
    done(run)
    source, sample, score = ({row["id"]: row for row in run.table(name).to_pylist()} for name in module.TABLES[:3])

    def scored(id: str, i: int) -> list[dict[str, Any]]:
        return [{"name": s["name"], "value": s["values"][i]} for s in score[id]["scores"]]

    candidates = [
        {
            **{name: source[id][name] for name in ("id", "prompt", "source")},
            "candidates": [
                {**{name: text[name] for name in published_rows._CANDIDATE}, "scores": scored(id, i)}
                for i, text in enumerate(sample[id]["candidates"] or [])
            ],
            "error_type": sample[id]["error_type"],
            "error": sample[id]["error"],
        }
        for id in sorted(source)
    ]
    assert rows(run, "candidates") == candidates and candidates != [c for c in candidates if c["error"] is None]
    pairs = []
    for made in sorted(run.table("pair").to_pylist(), key=lambda row: row["id"]):
        if made["chosen"] is not None:
            texts = {side: sample[made["id"]]["candidates"][made[side]] for side in ("chosen", "rejected")}
            pairs.append(
                {
                    **{name: source[made["id"]][name] for name in ("images", "prompt", "source")},
                    **{side: [{"role": "assistant", "content": text["text"]}] for side, text in texts.items()},
                    "pair": 0,
                    **{name: made[name] for name in ("id", "policy", "chosen_score", "rejected_score", "margin")},
                    **{f"{s}_{name}": t[name] for s, t in texts.items() for name in ("model", "seed", "on_policy")},
                    **{
                        f"{side}_scores": {s["name"]: s["value"] for s in scored(made["id"], made[side])}
                        for side in texts
                    },
                }
            )
    assert rows(run) == pairs
