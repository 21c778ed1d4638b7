"""Similar images of published pairs, from a CLIP model that is a rule, and from the one of the scenes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from stage_kit import generated, png, recipe

from pipeline.base import config_file
from pipeline.base.errors import ConfigError, InputError, SeveralProblems, UserError
from pipeline.base.marks import FILE as MARKS
from pipeline.publishing import card, report
from pipeline.publishing.config import Publish, Similar
from pipeline.publishing.embed_stage import EmbedStage, OpenClip
from pipeline.publishing.publish import Published, publish, reasons, record
from pipeline.recipe import preflight
from pipeline.recipe.plan import Plan
from pipeline.running.executor import process_shard
from pipeline.running.store import Run
from reward.text.same_text import identity
from training.config.recipe import WholeRecipe

SPEC = Publish(similar=Similar())
#: Few questions about many pictures, so that most are asked of several.
SOURCE = {"scenes": 14, "questions_per_scene": 2}


class Colours:
    """Takes images whose bytes hash alike for similar ones."""

    def embed_images(self, rows: Sequence[Sequence[bytes]]) -> list[torch.Tensor]:
        return [
            torch.tensor([self.vector(image) for image in images]).reshape(len(images), -1 if images else 0)
            for images in rows
        ]

    def vector(self, image: bytes) -> list[float]:
        numbers = np.frombuffer(hashlib.sha256(image).digest(), np.uint8)[:6].astype(np.float32) + 1
        return (numbers / np.linalg.norm(numbers)).tolist()


def embed(run: Run, model: Any = None) -> None:
    stage = EmbedStage(SPEC.similar or Similar())
    for shard in run.shards("source"):
        process_shard(stage, model or Colours(), run, shard)


def published(run: Run, spec: Publish = SPEC) -> Published:
    return publish(run, spec, lambda rows: card.render(run, {}, "a command", content=rows))


def pairs(run: Run) -> list[dict[str, Any]]:
    rows = datasets.load_from_disk(str(run.path / "dataset" / "pairs"), keep_in_memory=True)
    plain = datasets.Image(decode=False)
    for name in ("images", "similar_images"):
        rows = rows.cast_column(name, datasets.List(plain))
    return rows.to_list()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def asked(row: dict[str, Any]) -> str:
    return json.dumps(row["prompt"])


def text(messages: list[dict[str, str]]) -> str:
    return messages[0]["content"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = generated(tmp_path_factory.mktemp("similar"), source=SOURCE)
    embed(run)
    published(run)
    return run


def test_every_pair_has_the_most_similar_other_image_with_another_answer(run: Run) -> None:
    rows = pairs(run)
    vector = {row["id"]: np.array(Colours().vector(row["images"][0]["bytes"]), np.float64) for row in rows}
    found = 0
    for row in rows:
        able = [
            other
            for other in rows
            if asked(other) == asked(row)
            and other["images"][0]["bytes"] != row["images"][0]["bytes"]
            and identity(text(other["chosen"])) != identity(text(row["chosen"]))
        ]
        if not able:
            assert row["similar_images"] == [] and row["similar_chosen"] == []
            continue
        found += 1
        best = max(float(vector[row["id"]] @ vector[other["id"]]) for other in able)
        nearest = [other for other in able if vector[row["id"]] @ vector[other["id"]] > best - 1e-6]
        assert any(
            row["similar_images"] == other["images"] and row["similar_chosen"] == other["chosen"] for other in nearest
        )
    assert 5 < found < len(rows)
    assert published(run).similar == found and published(run).reused
    assert list(rows[0])[-2:] == ["similar_images", "similar_chosen"]


def test_card_report_and_record_say_how_many(run: Run) -> None:
    number = published(run).similar
    page = (run.path / "dataset" / "README.md").read_text()
    assert f"| pairs with a similar image | {number} |" in page and "`similar_chosen`" in page
    html = report.write(run, {}, "a command").read_text()
    assert f"<b>{number}</b><small>of them with a similar image</small>" in html


def test_how_prompts_lie_in_shards_changes_nothing(run: Run, tmp_path: Path) -> None:
    other = generated(tmp_path, source=SOURCE, shard_size=9)
    embed(other)
    published(other)
    assert pairs(other) == pairs(run)
    assert len(other.shards("source")) != len(run.shards("source"))


def test_the_same_pictures_under_two_ids_are_no_neighbours_and_ties_go_by_id(tmp_path: Path) -> None:
    class Alike(Colours):
        def vector(self, image: bytes) -> list[float]:  # every other image is as similar as any
            place = int.from_bytes(hashlib.sha256(image).digest()[:2]) % 64
            return np.eye(64, dtype=np.float32)[place].tolist()

    run = generated(tmp_path, source=SOURCE)
    embed(run, Alike())
    published(run)
    rows = pairs(run)
    for row in rows:
        able = [
            other
            for other in rows
            if asked(other) == asked(row)
            and Alike().vector(other["images"][0]["bytes"]) != Alike().vector(row["images"][0]["bytes"])
            and identity(text(other["chosen"])) != identity(text(row["chosen"]))
        ]
        assert (row["similar_images"], row["similar_chosen"]) == (
            (able[0]["images"], able[0]["chosen"]) if able else ([], [])
        )


def test_a_pair_that_a_person_took_out_or_turned_round_counts_as_it_is_now(tmp_path: Path) -> None:
    run = generated(tmp_path, source=SOURCE)
    embed(run)
    published(run)
    (row, *_) = [row for row in pairs(run) if row["similar_chosen"]]
    taken = next(
        other
        for other in pairs(run)
        if other["images"] == row["similar_images"] and other["chosen"] == row["similar_chosen"]
    )
    mark = {"id": taken["id"], "chosen": text(taken["chosen"]), "rejected": text(taken["rejected"]), "mark": "reject"}
    (run.path / MARKS).write_text(json.dumps(mark) + "\n")
    published(run)
    assert taken["id"] not in {other["id"] for other in pairs(run)}
    now = next(other for other in pairs(run) if other["id"] == row["id"] and other["pair"] == row["pair"])
    assert (now["similar_images"], now["similar_chosen"]) != (row["similar_images"], row["similar_chosen"])


def test_without_it_record_rows_and_card_are_what_they_were(run: Run, tmp_path: Path) -> None:
    plain, other = generated(tmp_path / "a", source=SOURCE), generated(tmp_path / "b", source=SOURCE)
    embed(other)
    for each in (plain, other):
        published(each, Publish())
    assert tree(plain.path / "dataset") == tree(other.path / "dataset")
    assert not [key for key in record(other, Publish()).options if "similar" in key]
    assert "similar" not in Publish().model_dump() and "similar" not in (other.path / "dataset/README.md").read_text()
    assert "similar" in record(run, SPEC).options
    assert published(other, Publish()).similar is None
    assert reasons(other, SPEC) != [] and not published(other, SPEC).reused and published(other, SPEC).reused
    assert tree(other.path / "dataset") == tree(run.path / "dataset")


def test_another_model_writes_the_rows_again(tmp_path: Path) -> None:
    class Other(Colours):
        def vector(self, image: bytes) -> list[float]:
            return super().vector(image[::-1])

    run = generated(tmp_path, source=SOURCE)
    embed(run)
    published(run)
    embed(run, Other())
    assert reasons(run, SPEC)[0].startswith("similar: ") and not published(run).reused


def from_files(tmp_path: Path, images: Sequence[Sequence[int]]) -> Run:
    """Descriptions of the pictures with these numbers."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in {number for row in images for number in row}:
        (folder / f"{number}.png").write_bytes(png(number))
    facts = {"objects": [{"name": "sun"}]}
    rows = [{"images": [f"{number}.png" for number in row], "prompt": "Describe it.", "facts": facts} for row in images]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [f"The image shows {thing}." for thing in ("a sun", "one sun", "the sun", "a king", "an anchor")]
    return generated(
        tmp_path,
        source={"kind": "jsonl", "path": str(folder / "rows.jsonl")},
        sample={"model": "canned", "n": 3, "engine": {"kind": "scripted", "texts": texts}},
        pair={"weights": {"objects.hallucinated": -1}},
    )


def test_several_images_are_compared_in_their_order_with_as_many(tmp_path: Path) -> None:
    run = from_files(tmp_path, [(0, 1), (1, 0), (2, 1), (3, 4), (4, 5), (0,), (1,), (2,), (5, 4), (3, 1)])
    embed(run)
    published(run)
    rows = pairs(run)
    found = 0
    for row in rows:
        able = {
            mean(row, other): other
            for other in rows
            if len(other["images"]) == len(row["images"])
            and other["images"] != row["images"]
            and text(other["chosen"]) != text(row["chosen"])
        }
        best = able[max(able)] if able else None
        assert row["similar_images"] == (best["images"] if best else [])
        assert row["similar_chosen"] == (best["chosen"] if best else [])
        found += len(row["similar_images"]) == 2
    assert found > 2


def mean(row: dict[str, Any], other: dict[str, Any]) -> float:
    vectors = [[Colours().vector(image["bytes"]) for image in each["images"]] for each in (row, other)]
    return float(np.mean([np.dot(*both) for both in zip(*vectors, strict=True)]))


def test_images_that_are_not_copied_keep_their_paths_and_are_counted_once(tmp_path: Path) -> None:
    run = from_files(tmp_path, [(number,) for number in range(12)])
    embed(run)
    made = published(run, Publish(similar=Similar(), images="reference"))
    assert made.similar and made.local_images == made.pairs
    row = next(row for row in pairs(run) if row["similar_images"])
    assert row["similar_images"][0]["bytes"] is None and row["similar_images"][0]["path"].startswith(str(tmp_path))
    copied = published(run)
    assert copied.local_images == 0 and next(r for r in pairs(run) if r["similar_images"])["similar_images"][0]["bytes"]


def test_an_image_that_breaks_the_model_is_one_row_that_failed(tmp_path: Path) -> None:
    run = generated(tmp_path, source=SOURCE)
    source = run.table("source").to_pylist()
    broken = source[3]["images"][0]["bytes"]

    class Breaks(Colours):
        def vector(self, image: bytes) -> list[float]:
            if image == broken:
                raise ValueError("no picture of mine")
            return super().vector(image)

    embed(run, Breaks())
    rows = run.table("embed").to_pylist()
    lost = {row["id"] for row in rows if row["status"] == "failed"}
    assert lost == {row["id"] for row in source if row["images"][0]["bytes"] == broken}
    assert "no picture of mine" in next(row["error"] for row in rows if row["status"] == "failed")
    published(run)
    assert all(row["similar_images"] == [] for row in pairs(run) if row["id"] in lost)
    assert all(image["bytes"] != broken for row in pairs(run) for image in row["similar_images"])


def test_prompts_of_text_alone_have_no_vectors_and_do_not_fail(tmp_path: Path) -> None:
    run = generated(tmp_path, source=SOURCE)
    table, record = run.read("source", 0), run.record("source")
    bare = table.set_column(1, "images", pa.array([[] for _ in range(len(table))], table["images"].type))
    run.write("source", 0, bare, by=record)
    embed(run)
    rows = run.read("embed", 0).to_pylist()
    assert {row["status"] for row in rows} == {"ok"} and all(row["vectors"] == [] for row in rows)
    published(run)
    assert any(row["similar_images"] for row in pairs(run))


def test_the_scenes_model_tells_images_apart(tmp_path: Path) -> None:
    run = generated(tmp_path, source=SOURCE)
    embed(run, OpenClip(Similar())())
    vectors = [row["vectors"][0] for row in run.table("embed").to_pylist()]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5) and len({tuple(v) for v in vectors}) > 5
    assert published(run).similar


def test_publishing_alone_says_that_the_vectors_are_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="embed"):
        published(generated(tmp_path, source=SOURCE))


@pytest.mark.parametrize(
    ("similar", "said"),
    [
        ({"model": "./nowhere"}, "no model folder './nowhere'"),
        ({"model": "scenes-clp"}, "did you mean 'scenes-clip'"),
        ({"model": "ViT-B-32"}, "publish.similar: .*needs pretrained weights"),
    ],
)
def test_a_model_that_is_not_there_shows_before_anything_runs(
    tmp_path: Path, similar: dict[str, Any], said: str
) -> None:
    plan = Plan(recipe(tmp_path, publish={"similar": similar}))
    with pytest.raises((UserError, SeveralProblems), match=said):
        preflight.check(plan)
    preflight.check(Plan(recipe(tmp_path, publish={"similar": {"model": "scenes-clip"}})))  # negative control


def test_symmpo_without_it_is_an_error_of_the_recipe(tmp_path: Path) -> None:
    def whole(**changes: Any) -> WholeRecipe:
        values = recipe(tmp_path).model_dump(mode="json")
        return config_file.make(WholeRecipe, {**values, "train": {"objective": "symmpo"}, **changes}, what="the recipe")

    with pytest.raises(ConfigError, match=r"train\.objective=symmpo .* publish\.similar: \{model: scenes-clip\}"):
        whole()
    assert whole(publish={"similar": {"model": "scenes-clip"}}).publish.similar == Similar()
    assert whole(train={"objective": "mdpo"}).publish.similar is None


def test_the_stage_is_one_of_publishing(tmp_path: Path) -> None:
    plan = Plan(recipe(tmp_path, publish={"similar": {}}))
    assert [stage.name for stage in plan.chosen({"publish"})] == ["embed"]
    assert [stage.name for stage in Plan(recipe(tmp_path)).chosen({"publish"})] == []
    assert "embed" in plan.names()
