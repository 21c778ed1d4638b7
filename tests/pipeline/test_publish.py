from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from stage_kit import generated

from pipeline.config import Publish
from pipeline.errors import InputError, StoreError
from pipeline.stages import publish as module
from pipeline.stages.publish import Published, publish
from pipeline.store import Run

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
    return publish(run, spec, lambda: HEADER)


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


def test_pairs_have_trls_columns_and_where_they_come_from(run: Run) -> None:
    import datasets

    pairs = datasets.load_from_disk(str(run.path / "dataset" / "pairs"))
    assert pairs.features["images"] == datasets.List(datasets.Image())
    row = pairs[0]
    assert row["images"][0].size == (128, 128) or row["images"][0].size[0] > 0
    assert [message["role"] for message in row["prompt"]] == ["user"]
    for side in ("chosen", "rejected"):
        assert [message["role"] for message in row[side]] == ["assistant"] and row[side][0]["content"]
    source = {one["id"]: one for one in run.table("sample").to_pylist()}[row["id"]]["candidates"]
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


def test_a_crash_leaves_the_old_dataset_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = generated(tmp_path)
    done(run)
    before = tree(run.path / "dataset")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_swap", full)
    with pytest.raises(StoreError, match="free some space"):
        done(run, Publish(rows_per_shard=5))
    assert tree(run.path / "dataset") == before and not (run.path / "dataset.partial").exists()


def test_a_run_without_pairs_says_why(tmp_path: Path) -> None:
    run = generated(tmp_path, pair={"weights": {"objects.hallucinated": -1}, "margin": 100})
    with pytest.raises(InputError, match=r"not one of the prompts gave a pair \(below_margin: \d+, no_valid"):
        done(run)
