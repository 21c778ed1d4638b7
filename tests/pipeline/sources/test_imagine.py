"""From texts to prompts about images made from them: the stages one by one, and all of them as a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from stage_kit import content_id, recipe

from pipeline.base.errors import ConfigError, InputError
from pipeline.base.tables import IMAGES, OK, RANKED, error_status
from pipeline.engines.painter import Picture, Wish
from pipeline.engines.scripted import ScriptedEngine
from pipeline.recipe.plan import Plan, group, run_stage
from pipeline.recipe.recipe import Recipe
from pipeline.running.executor import Executor, process_shard
from pipeline.running.resume import describe, explain
from pipeline.running.store import Run, Survey
from pipeline.scenes.drawn import scene, shows
from pipeline.scenes.vocabulary import VOCABULARY
from pipeline.sources.imagine.config import ImagineSource, Texts, Written
from pipeline.sources.imagine.instruct import InstructStage, questions
from pipeline.sources.imagine.stage import ImagineStage, TextSource

BASE: dict[str, Any] = {"kind": "imagine", "texts": {"scenes": 10}, "instruct": {"kind": "scenes"}}
STAGES = ["texts", "imagine", "rank", "instruct", "source"]


class FirstWins:
    """Scores that fall from image to image."""

    version = "1"

    def score_images(self, rows: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[float]]:
        return [[-float(at) for at in range(len(images))] for _, images in rows]


def imagined(folder: Path, source: dict[str, Any] = BASE, only: Sequence[str] = STAGES, **changes: Any) -> Run:
    """The stages up to the source, ranking without its model and so without workers."""
    plan = Plan(recipe(folder, source=source, **changes))
    run = Run(plan.recipe.run_dir)
    with Executor(run, max_failure_rate=1.0) as executor:
        for stage in plan.generation():
            if stage.name in only and stage.name == "rank":
                for shard in run.shards("imagine"):
                    process_shard(stage, FirstWins(), run, shard)  # type: ignore[arg-type]
                run.save(replace(describe(run, stage, Survey(run)), finished=True))
            elif stage.name in only:
                run_stage(executor, stage, "if-possible")
    return run


def refuse(source: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        recipe("x", source=source)


# Texts.


def test_a_text_is_a_prompt_without_an_image_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a dog\n\n  a cat \na dog\n")
    ((_, table),) = TextSource(Texts(path=str(path)), 0, 8).shards(Run(tmp_path / "run"))
    rows = {row["prompt"][0]["content"]: row for row in table.to_pylist()}
    assert set(rows) == {"a dog", "a cat"} and all(row["images"] == [] for row in rows.values())
    assert rows["a cat"]["id"] == content_id([], [{"role": "user", "content": "a cat"}])
    assert rows["a cat"]["source"] == "texts.txt:3"


def test_lines_of_json_name_their_text_and_one_that_does_not_is_named(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"txt": "a cat"}) + "\n")
    with pytest.raises(InputError, match=r"texts\.jsonl, line 1: no `text`"):
        list(TextSource(Texts(path=str(path)), 0, 8).shards(Run(tmp_path / "run")))


def test_the_same_texts_elsewhere_are_the_same_texts(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("a dog\n")
    first, second = (TextSource(Texts(path=str(tmp_path / name)), 0, 8).options() for name in ("a.txt", "b.txt"))
    assert first == second
    (tmp_path / "b.txt").write_text("a cat\n")
    assert TextSource(Texts(path=str(tmp_path / "b.txt")), 0, 8).options() != first


def test_scenes_of_another_seed_are_other_texts(tmp_path: Path) -> None:
    tables = [
        pa.concat_tables([t for _, t in TextSource(Texts(scenes=6, seed=seed), run, 8).shards(Run(tmp_path / "run"))])
        for seed, run in ((0, 1), (1, 0), (0, 0))
    ]
    assert tables[0].equals(tables[1]) and not tables[0]["id"].equals(tables[2]["id"])


# Images.


@dataclass
class Flaky:
    """Fails where the text says so; otherwise the picture says what was wished for."""

    def paint(self, wishes: Sequence[Wish]) -> Iterator[Picture]:
        for at, wish in enumerate(wishes):
            if wish.text == "never" or (wish.text == "once" and at % 4 == 0):
                yield Picture(error_type="unsafe_image", error="withheld")
            else:
                yield Picture(f"{wish.text} {wish.seed} {wish.guidance:g}".encode())


def painted(*texts: str, **changes: Any) -> list[dict[str, Any]]:
    spec = ImagineSource.model_validate({**BASE, **changes})
    rows = [{"id": text, "prompt": [{"role": "user", "content": text}], **OK} for text in texts]
    table = pa.Table.from_pylist(rows)
    made: list[dict[str, Any]] = ImagineStage(spec, 0).process(Flaky(), {"texts": table}).to_pylist()
    return made


def test_every_image_has_its_guidance_scale_and_a_seed_of_its_own() -> None:
    rows = painted("a", "b", images_per_prompt=5, guidance_scales=[3, 6])
    assert [image["guidance"] for image in rows[0]["images"]] == [3, 6, 3, 6, 3]
    seeds = [image["seed"] for row in rows for image in row["images"]]
    assert len(set(seeds)) == 10 and seeds[0] == painted("a")[0]["images"][0]["seed"]
    assert rows[1]["images"][1]["bytes"] == f"b {seeds[6]} 6".encode()


def test_an_image_that_fails_is_no_data_and_a_text_fails_when_all_of_its_images_do() -> None:
    once, never = painted("once", "never")
    assert [image["bytes"] is None for image in once["images"]] == [True, False, False, False]
    assert once["images"][0]["error_type"] == "unsafe_image" and once["status"] == "ok"
    assert (never["status"], never["error_type"], never["images"]) == ("failed", "unsafe_image", None)


def test_a_failed_text_stays_failed() -> None:
    spec = ImagineSource.model_validate(BASE)
    rows = [{"id": "x", "prompt": [], **error_status("empty_prompt", "no text")}]
    table = pa.table(
        {
            "id": ["x"],
            "prompt": pa.array([[]], pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            **{key: [rows[0][key]] for key in OK},
        }
    )
    (made,) = ImagineStage(spec, 0).process(Flaky(), {"texts": table}).to_pylist()
    assert made["error_type"] == "empty_prompt"


def test_what_changes_an_image_changes_the_fingerprint_and_what_does_not_does_not() -> None:
    def options(**changes: Any) -> dict[str, Any]:
        return ImagineStage(ImagineSource.model_validate({**BASE, **changes}), 0).options()

    assert options() == options(rank={"keep": 2}, limit=3)
    changed = [options(images_per_prompt=2), options(guidance_scales=[5]), options(generator={"drop": 0.5})]
    assert all(other != options() for other in changed)


# Questions.


def instructed(spec: Any, engine: Any = None, texts: Sequence[str] = ("a red kite above two boats",)) -> pa.Table:
    images = [{"bytes": b"one"}, {"bytes": b"two"}, {"bytes": b"three"}]
    imagine = [{"id": f"t{at}", "text": text, "images": images, **OK} for at, text in enumerate(texts)]
    rank = [{"id": row["id"], "kept": [2, 0], **OK} for row in imagine]
    tables = {
        "imagine": pa.Table.from_pylist(imagine, schema=IMAGES),
        "rank": pa.Table.from_pylist(rank, schema=RANKED),
    }
    return InstructStage(spec, 0).process(engine, tables)


def templates(**changes: Any) -> Any:
    return ImagineSource.model_validate({**BASE, "instruct": {"kind": "templates", **changes}}).instruct


def test_templates_are_drawn_for_every_kept_image_without_repetition() -> None:
    given = [f"What about {n}?" for n in range(9)]
    table = instructed(templates(templates=given, per_image=3), texts=[f"text {n}" for n in range(6)])
    by_image: dict[tuple[int, int], list[str]] = {}
    for number, row in enumerate(table.to_pylist()):
        assert [instruction["image"] for instruction in row["instructions"]] == [2, 2, 2, 0, 0, 0]
        for instruction in row["instructions"]:
            by_image.setdefault((number, instruction["image"]), []).append(instruction["text"])
    assert all(len(set(drawn)) == 3 and set(drawn) <= set(given) for drawn in by_image.values())
    assert len({tuple(drawn) for drawn in by_image.values()}) > 6


def test_leading_questions_are_kept_aside_with_the_reason_and_counted() -> None:
    leading = ["Why is it windy?", "What is in the image?"]
    table = instructed(templates(templates=leading, per_image=2))
    reasons = {instruction["text"]: instruction["reason"] for instruction in table.to_pylist()[0]["instructions"]}
    assert reasons == {"Why is it windy?": "leading: asks 'why'", "What is in the image?": None}
    assert InstructStage(templates(), 0).extras(table) == {"questions": 4, "leading": 2}
    allowed = instructed(templates(templates=leading, per_image=2, keep_leading=True))
    assert all(instruction["reason"] is None for instruction in allowed.to_pylist()[0]["instructions"])


def test_a_model_writes_questions_from_what_it_is_shown() -> None:
    seen: list[Any] = []

    def answer(request: Any, index: int) -> str:
        seen.append(request)
        return "Sure:\n1. What flies?\n2. Why do the boats lie there?\n3. What is left?"

    spec = Written(kind="model", model="m", per_image=2, shows="both", engine={"kind": "scripted"})  # type: ignore[arg-type]
    (row,) = instructed(spec, ScriptedEngine(answer=answer)).to_pylist()
    assert [(line["image"], line["text"], line["reason"] is None) for line in row["instructions"]] == [
        (2, "What flies?", True),
        (2, "Why do the boats lie there?", False),
        (0, "What flies?", True),
        (0, "Why do the boats lie there?", False),
    ]
    assert [request.images for request in seen] == [(b"three",), (b"one",)]
    assert all("a red kite" in request.messages[0][1] for request in seen) and seen[0].seed != seen[1].seed
    instructed(replace_shows(spec, "text"), ScriptedEngine(answer=answer))
    assert seen[-1].images == () and "a red kite" in seen[-1].messages[0][1]
    instructed(replace_shows(spec, "image"), ScriptedEngine(answer=answer))
    assert seen[-1].images and "a red kite" not in seen[-1].messages[0][1]


def replace_shows(spec: Written, shows: str) -> Written:
    return spec.model_copy(update={"shows": shows})


def test_what_a_model_writes_that_asks_nothing_is_left_out_and_counted() -> None:
    spec = Written(kind="model", model="m", per_image=2, engine={"kind": "scripted"})  # type: ignore[arg-type]
    engine = ScriptedEngine(answer=lambda request, _: "Question 1: What is it?\nThe user wants two questions.")
    table = instructed(spec, engine)
    written = [(line["text"], line["reason"]) for line in table.to_pylist()[0]["instructions"]][:2]
    assert written == [
        ("What is it?", None),
        ("The user wants two questions.", "no_question: speaks about its task: 'the user'"),
    ]
    counts = InstructStage(spec, 0).extras(table)
    assert counts == {"questions": 2 * counts["no_question"], "leading": 0, "no_question": counts["no_question"]}
    assert counts["no_question"] > 0
    kept = spec.model_copy(update={"keep_statements": True})
    assert all(line["reason"] is None for line in instructed(kept, engine).to_pylist()[0]["instructions"])
    assert InstructStage(kept, 0).options() == {**InstructStage(spec, 0).options(), "keep_statements": True}


def test_a_switch_that_is_off_asks_no_model_again() -> None:
    spec = Written(kind="model", model="m", engine={"kind": "scripted"})  # type: ignore[arg-type]
    assert "keep_statements" not in InstructStage(spec, 0).options()


def test_a_model_that_refuses_or_says_nothing_fails_the_row_and_no_other() -> None:
    spec = Written(kind="model", model="m", engine={"kind": "scripted"})  # type: ignore[arg-type]
    engine = ScriptedEngine(
        answer=lambda request, _: " \n" if request.id.startswith("t1") else "What?", refuse=frozenset({"t0#0"})
    )
    rows = instructed(spec, engine, texts=["a", "b", "c"]).to_pylist()
    assert [row["error_type"] for row in rows] == ["refused", "no_question", None]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("What is it?", ["What is it?"]),
        ('- "One?"\n* Two?\n3) Three?', ["One?", "Two?", "Three?"]),
        ("Questions:\n\n1. One?\n1. One?", ["One?"]),
        ("", []),
    ],
)
def test_the_lines_of_an_answer_are_questions(answer: str, expected: list[str]) -> None:
    assert questions(answer, 9) == expected and questions(answer, 1) == expected[:1]


# All together.


def test_a_recipe_with_an_imagined_source_has_its_stages_before_the_source(tmp_path: Path) -> None:
    names = [stage.name for stage in Plan(recipe(tmp_path, source=BASE)).generation()]
    assert names == [*STAGES, "sample", "score", "pair"]
    assert [group(name) for name in STAGES] == ["imagine"] * 4 + ["source"]


def test_prompts_are_the_kept_images_with_the_facts_of_what_was_drawn(tmp_path: Path) -> None:
    run = imagined(tmp_path, {**BASE, "rank": {"keep": 2}})
    images = {row["id"]: row for row in run.table("imagine").to_pylist()}
    rows = run.table("source").to_pylist()
    told = 0
    for row in rows:
        (image,) = row["images"]
        text, _, number = image["path"].removesuffix(".png").partition("-")
        made = images[text]["images"][int(number)]
        assert int(number) in (0, 1) and image["bytes"] == made["bytes"]
        assert row["id"] == content_id([image["bytes"]], row["prompt"]) and row["source"] == "imagine:scenes"
        assert row["facts"]["objects"] == made["facts"]["objects"]
        told += shows(images[text]["text"], row["facts"]) is False
        if row["facts"]["answer"] is not None and row["facts"]["question_type"] == "existence":
            (mention,) = VOCABULARY.mentions(row["prompt"][0]["content"])
            assert row["facts"]["answer"] == ("yes" if mention.name in scene(row["facts"]).names else "no")
    assert told, "with faults as usual, some drawn facts must differ from the text's"
    assert len({row["images"][0]["path"] for row in rows}) == 20 and len(rows) > 40
    assert [len(run.read("source", shard)) for shard in run.shards("source")][:-1] == [4] * ((len(rows) - 1) // 4)


def test_the_same_recipe_gives_the_same_prompts(tmp_path: Path) -> None:
    runs = [imagined(tmp_path / name) for name in ("a", "b")]
    digests = [[run.digest(stage, shard) for stage in STAGES for shard in run.shards(stage)] for run in runs]
    assert digests[0] == digests[1]


def test_a_text_that_cannot_be_drawn_has_no_prompts_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a dog\nThere is a red sun.\n")
    run = imagined(tmp_path, {**BASE, "texts": {"path": str(path)}})
    failures = [row["error_type"] for name in STAGES[1:4] for row in run.table(name).to_pylist()]
    assert sorted(filter(None, failures)) == ["not_in_grammar"] * 3
    assert all(row["status"] == "ok" for row in run.table("source").to_pylist())


def test_a_source_is_made_again_when_what_it_reads_says_something_else(tmp_path: Path) -> None:
    run = imagined(tmp_path)
    stage = next(s for s in Plan(recipe(tmp_path, source=BASE)).generation() if s.name == "source")

    def why() -> list[str]:
        return explain(run, stage, Survey(run))

    before = run.record("source")
    assert why() == []
    imagined(tmp_path)
    assert run.record("source") == before, "nothing changed, so nothing is written anew"
    shard = run.shards("instruct")[0]
    table = run.read("instruct", shard)
    rows = [{**row, "instructions": (row["instructions"] or [])[:1]} for row in table.to_pylist()]
    run.write(
        "instruct",
        shard,
        pa.Table.from_pylist(rows, schema=table.schema),
        run.input_digests(("imagine", "rank"), shard),
        by=run.record("instruct"),
    )
    assert why() == ["instruct has other content now"]
    count = run.table("source").num_rows
    imagined(tmp_path, only=["source"])
    assert run.table("source").num_rows < count and why() == []


def test_more_texts_keep_the_shards_that_are_there(tmp_path: Path) -> None:
    run = imagined(tmp_path, {**BASE, "texts": {"scenes": 8}})
    before = {stage: [run.digest(stage, shard) for shard in run.shards(stage)] for stage in STAGES}
    imagined(tmp_path, {**BASE, "texts": {"scenes": 12}})
    for stage in STAGES[:4]:
        assert [run.digest(stage, shard) for shard in run.shards(stage)][:2] == before[stage]
    assert run.table("imagine").num_rows == 12
    # The last shard of prompts need not be full, and may be taken apart.
    kept = len(before["source"]) - 1
    assert [run.digest("source", shard) for shard in range(kept)] == before["source"][:kept]


def test_a_source_does_not_run_on_half_of_what_it_reads(tmp_path: Path) -> None:
    run = imagined(tmp_path, only=STAGES[:4])
    run.remove("rank", run.shards("rank")[-1])
    with pytest.raises(InputError, match="'rank', which has 2 of 3 shards"):
        imagined(tmp_path, only=["source"])


def test_another_ranking_draws_no_image_again(tmp_path: Path) -> None:
    run = imagined(tmp_path)
    before = [run.digest("imagine", shard) for shard in run.shards("imagine")]
    outlook = {
        stage.stage: stage.reasons
        for stage in Plan(recipe(tmp_path, source={**BASE, "rank": {"keep": 2}})).outlook(run)
    }
    assert outlook["texts"] == outlook["imagine"] == () and "keep: 1 -> 2" in outlook["rank"]
    imagined(tmp_path, {**BASE, "rank": {"keep": 2}})
    assert [run.digest("imagine", shard) for shard in run.shards("imagine")] == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"texts": {}}, "either path or scenes"),
        ({"texts": {"scenes": 2, "path": "x"}}, "either path or scenes"),
        ({"rank": {"keep": 5}}, "more than images_per_prompt=4"),
        ({"generator": {"kind": "diffusers", "model": "m"}}, "instruct.kind=scenes needs generator.kind=scenes"),
        ({"generator": {"drop": 0.6, "swap": 0.6}}, "more than 1 together"),
        ({"generator": {"dropp": 0.6}}, "did you mean source.generator.drop"),
        ({"generator": {"kind": "magic"}}, "use one of scenes, diffusers"),
        ({"instruct": {"kind": "model", "model": "m", "instruction": "{answer}"}}, "no other braces"),
        ({"instruct": {"kind": "model", "model": "m", "engine": {"kind": "given"}}}, "no model that could write"),
        ({"generator": {"kind": "diffusers", "model": "m", "size": [100, 64]}}, r"source\.generator\.size\.0"),
    ],
)
def test_what_is_wrong_with_an_imagined_source_is_said(changes: dict[str, Any], reason: str) -> None:
    refuse({**BASE, **changes}, reason)


def test_a_recipe_survives_being_written_down() -> None:
    made = recipe("x", source={**BASE, "instruct": {"kind": "model", "model": "m"}})
    assert Recipe.model_validate(made.model_dump(mode="json")) == made


def test_the_recipe_of_the_documentation_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "images_from_text.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    source = recipe("x", **yaml.safe_load(example)).source
    assert isinstance(source, ImagineSource) and source.generator.name.startswith("stabilityai/")
