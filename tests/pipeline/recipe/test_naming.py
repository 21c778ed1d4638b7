"""Which words a recipe reads texts with, and that they know what the facts name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stage_kit import generated, png, recipe

from pipeline.base.errors import ConfigError, InputError
from pipeline.recipe.plan import Plan
from pipeline.recipe.preflight import check
from pipeline.running.store import Run

LONG = ["A person watches tv beside a telephone and the sun.", "An elephant rides a train with a zebra."]


def coco(folder: Path, *names: str, captions: list[str] | None = None) -> dict[str, Any]:
    """A COCO source about one picture with these objects."""
    (folder / "a.png").write_bytes(png())
    images = [{"id": 1, "file_name": "a.png", "width": 96, "height": 64}]
    boxes = [{"image_id": 1, "category_id": i, "bbox": [1, 1, 9, 9]} for i, _ in enumerate(names)]
    told = {"images": images, "categories": [{"id": i, "name": name} for i, name in enumerate(names)]}
    (folder / "inst.json").write_text(json.dumps({**told, "annotations": boxes}))
    source = {"kind": "coco", "path": str(folder / "inst.json")}
    if captions is None:
        return source
    captioned = [{"image_id": 1, "caption": text} for text in captions]
    (folder / "caps.json").write_text(json.dumps({"images": images, "annotations": captioned}))
    return {**source, "captions": str(folder / "caps.json")}


def rows(folder: Path, *lines: dict[str, Any]) -> dict[str, Any]:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"images": [], **line}) + "\n" for line in lines))
    return {"kind": "jsonl", "path": str(folder / "rows.jsonl")}


def scripted(*texts: str) -> dict[str, Any]:
    return {"model": "canned", "n": 8, "engine": {"kind": "scripted", "texts": list(texts)}}


PAIR = {"weights": {"objects.hallucinated": -1}, "margin": 0.5, "max_length_ratio": 9}


def scored(run: Run, name: str) -> dict[str, float | None]:
    """Text -> value of one score."""
    by_text = {}
    for texts, of_row in zip(run.table("sample").to_pylist(), run.table("score").to_pylist(), strict=True):
        (values,) = (scores["values"] for scores in of_row["scores"] if scores["name"] == name)
        by_text.update(zip((candidate["text"] for candidate in texts["candidates"]), values, strict=True))
    return by_text


def test_a_coco_source_is_read_with_the_words_of_coco(tmp_path: Path) -> None:
    run = generated(tmp_path, source=coco(tmp_path, "person", "tv"), sample=scripted(*LONG), pair=PAIR)
    assert scored(run, "objects.hallucinated") == dict(zip(LONG, (0.0, 3.0), strict=True))
    (pair,) = run.table("pair").to_pylist()
    (texts,) = run.table("sample").to_pylist()
    assert texts["candidates"][pair["chosen"]]["text"] == LONG[0]


def test_what_captions_name_is_no_hallucination(tmp_path: Path) -> None:
    texts = ["A man walks a dog on the grass.", "A dog is standing on the grass."]
    source = coco(tmp_path, "dog", captions=["A man walks his dog.", "A person and a dog outside."])
    for chosen in ({}, {"publish": {"style": {"vocabulary": "coco"}}}):
        run = generated(tmp_path, source=source, sample=scripted(*texts), pair=PAIR, **chosen)
        assert scored(run, "objects.hallucinated") == dict.fromkeys(texts, 0.0)
        assert [row["reason"] for row in run.table("pair").to_pylist()] == ["tie"]


@pytest.mark.parametrize("kind", ["scenes", "jsonl", "coco"])
def test_every_vocabulary_that_is_left_out_follows_the_source(kind: str, tmp_path: Path) -> None:
    source = {"scenes": {"scenes": 1}, "jsonl": rows(tmp_path, {"prompt": "x"}), "coco": coco(tmp_path, "dog")}[kind]
    left_out = recipe(tmp_path, source=source, rewrite={})
    expected = "coco" if kind == "coco" else "scenes"
    assert left_out.rewrite is not None
    groups = (left_out.score.objects, left_out.score.facts, left_out.rewrite, left_out.publish.style)
    assert [group.vocabulary for group in groups] == [expected] * 4
    named = recipe(tmp_path, source=source, score={"objects": {"vocabulary": "words.json"}})
    assert (named.score.objects.vocabulary, named.publish.style.vocabulary) == ("words.json", "words.json")
    again = recipe(tmp_path, **{**left_out.model_dump(mode="json"), "name": "again"})
    assert again.score == left_out.score and again.rewrite == left_out.rewrite


def test_the_choice_is_in_the_fingerprint(tmp_path: Path) -> None:
    def versions(**changes: Any) -> str:
        stages = {stage.name: stage for stage in Plan(recipe(tmp_path, **changes)).generation()}
        return str(stages["score"].options())

    source = coco(tmp_path, "dog")
    assert "coco@" in versions(source=source) and "scenes@" in versions()
    assert versions(source=source) == versions(source=source, score={"objects": {"vocabulary": "coco"}})
    assert versions(source=source) != versions(source=source, score={"objects": {"vocabulary": "scenes"}})


@pytest.mark.parametrize("group", ["score", "rewrite"])
def test_the_grammar_of_the_scenes_is_not_spoken_about_coco_and_regions_need_words(group: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"restyle\.by=grammar knows the built-in world only"):
        recipe(tmp_path, source=coco(tmp_path, "dog"), rewrite={"restyle": {}})
    source = {"kind": "visual_genome", "path": "regions.json"}
    scorers = {"scorers": ["facts", "objects", "correctness"]}
    changes: dict[str, Any] = {"rewrite": {}} if group == "rewrite" else {"score": scorers}
    with pytest.raises(ConfigError, match=rf"{group}.*vocabulary: missing"):
        recipe(tmp_path, source=source, **changes)


def test_facts_that_no_word_fits_end_the_run_before_anything_is_sampled(tmp_path: Path) -> None:
    (tmp_path / "words.json").write_text('{"dog": "dog", "cat": "cat"}')
    some = {"prompt": "x", "facts": {"objects": [{"name": "person"}, {"name": "dog"}]}}
    odd = {"prompt": "y", "facts": {"objects": [{"name": name} for name in ("gnu", "yak", "person", "a", "b", "c")]}}
    with pytest.raises(InputError, match=r"(?s)'person', 'dog'.*score\.objects\.vocabulary=scenes.*=coco, which knows"):
        generated(tmp_path, source=rows(tmp_path, some))
    words = {"publish": {"style": {"vocabulary": "coco"}}, "name": "own"}
    with pytest.raises(InputError, match=r"(?s)'person', 'gnu', .* and 1 more: no.*`coco` knows 1 of them; add every"):
        _generated_with(tmp_path, {"objects": {"vocabulary": str(tmp_path / "words.json")}}, rows(tmp_path, some, odd))
    assert not Run(tmp_path / "run").shards("sample")
    question = {"prompt": "z", "answer": "yes", "facts": odd["facts"]}
    source = rows(tmp_path, question)  # a question: not judged
    generated(tmp_path, source=source, sample=scripted("Yes.", "No."), **words)


def _generated_with(folder: Path, score: dict[str, Any], source: dict[str, Any]) -> None:
    from pipeline.recipe import naming
    from pipeline.sources.stage import SourceStage

    made = recipe(folder, source=source, score=score)
    run = Run(made.run_dir)
    run.clear("source")  # of another recipe
    for number, table in SourceStage(made.source, 0, 4).shards(run):
        run.write("source", number, table)
    naming.check(run, "source", made)


def test_regions_in_other_words_than_those_of_the_scenes_are_no_empty_image(tmp_path: Path) -> None:
    told = {"prompt": "x", "facts": {"regions": [{"phrase": "a gnu", "box": [0, 0, 1, 1]}]}}
    score = {"scorers": ["objects", "correctness", "facts"]}
    with pytest.raises(InputError, match=r"(?s)'a gnu'.*score\.facts\.vocabulary=scenes"):
        _generated_with(tmp_path, score, rows(tmp_path, told))
    (tmp_path / "fine").mkdir()
    seen = {"prompt": "y", "facts": {"regions": [{"phrase": "a red sun", "box": [0, 0, 1, 1]}]}}
    _generated_with(tmp_path / "fine", score, rows(tmp_path / "fine", told, seen))


def test_a_vocabulary_of_the_wrong_shape_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "voc.json").write_text('{"person": ["person", "man"], "dog": ["dog", "dogs"]}')
    made = recipe(tmp_path, score={"objects": {"vocabulary": str(tmp_path / "voc.json")}})
    with pytest.raises(ConfigError, match=r'(?s)\{"person": "person", "man": "person"\}.*"surface form"'):
        check(Plan(made))
    assert not list(tmp_path.glob("run"))
