from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_kit import png, prompt_row

from pipeline.config.source import JsonlSource, ScenesSource
from pipeline.errors import InputError
from pipeline.executor import Executor
from pipeline.stages.source import SourceStage, content_id, layout, make_table, read_jsonl
from pipeline.store import Run

IDS = st.lists(st.text("abcdef", min_size=1, max_size=4), unique=True, max_size=20)


def jsonl(folder: Path, *lines: object) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_ids_are_content_rows_are_sorted_and_duplicates_merge() -> None:
    rows = [prompt_row("ignored", images=[{"bytes": png(i), "path": f"{i}.png"}]) for i in (0, 1, 2, 1)]
    for row in rows:
        del row["status"]
    table, again = make_table(rows), make_table(reversed(rows))
    assert table.num_rows == 3 and table["id"].to_pylist() == sorted(table["id"].to_pylist())
    assert table["id"].equals(again["id"])


def test_the_id_depends_on_images_roles_and_texts() -> None:
    user = [{"role": "user", "content": "hi"}]
    other = [content_id([b"x"], user), content_id([b"x", b"x"], user), content_id([b"y"], user)]
    other += [content_id([b"x"], [{"role": "system", "content": "hi"}]), content_id([b"x"], [*user, *user])]
    assert len(set(other)) == 5


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"images": [{"bytes": png()[:100], "path": "a.png"}]}, "unreadable_image"),
        ({"images": [{"bytes": b"", "path": "a.png"}]}, "unreadable_image"),
        ({"images": [{"bytes": b"<svg/>", "path": "a.svg"}]}, "unreadable_image"),
        ({"prompt": [{"role": "user", "content": " \n"}]}, "empty_prompt"),
        ({"prompt": []}, "empty_prompt"),
    ],
)
def test_a_bad_row_is_a_failed_row_with_a_reason(changes: dict, kind: str) -> None:
    row = {**prompt_row("x"), **changes}
    del row["status"]
    (made,) = make_table([row]).to_pylist()
    assert (made["status"], made["error_type"]) == ("failed", kind) and made["error"]


def test_a_jsonl_file_gives_rows_and_a_missing_image_a_failed_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    path = jsonl(
        tmp_path,
        {"images": ["a.png"], "prompt": "Is there a sun?", "answer": "yes"},
        {"images": ["a.png"], "prompt": [{"role": "user", "content": "Describe."}]},
        {"images": ["lost.png"], "prompt": "Describe."},
    )
    by_source = {row["source"]: row for row in make_table(read_jsonl(path)).to_pylist()}
    assert by_source["prompts.jsonl:1"]["facts"]["answer"] == "yes"
    assert by_source["prompts.jsonl:2"]["status"] == "ok"
    lost = by_source["prompts.jsonl:3"]
    assert (lost["error_type"], "lost.png" in lost["error"]) == ("missing_image", True)


@pytest.mark.parametrize("line", [[1], {"prompt": "x"}, {"images": [], "prompt": 3}, {"images": [], "prompt": [{}]}])
def test_a_malformed_line_is_named(tmp_path: Path, line: object) -> None:
    with pytest.raises(InputError, match="line 2"):
        list(read_jsonl(jsonl(tmp_path, {"images": [], "prompt": "fine"}, line)))


def test_an_unknown_fact_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="objcts"):
        list(read_jsonl(jsonl(tmp_path, {"images": [], "prompt": "x", "facts": {"objcts": []}})))


def test_an_empty_source_is_an_error(tmp_path: Path) -> None:
    stage = SourceStage(JsonlSource(kind="jsonl", path=jsonl(tmp_path)), 0, 4)
    with pytest.raises(InputError, match="no prompts"):
        stage.shards(Run(tmp_path / "run"))
    with pytest.raises(InputError, match="cannot read"):
        SourceStage(JsonlSource(kind="jsonl", path=tmp_path / "none.jsonl"), 0, 4).options()


@given(IDS, st.integers(1, 5))
def test_a_layout_holds_every_id_once(ids: list[str], size: int) -> None:
    shards = layout(ids, size, {})
    assert sorted(one for part in shards.values() for one in part) == sorted(ids)
    assert list(shards) == list(range(len(shards))) and all(1 <= len(part) <= size for part in shards.values())


@given(IDS, IDS, st.integers(1, 5))
def test_prompts_that_come_later_go_into_new_shards(old: list[str], more: list[str], size: int) -> None:
    before = layout(old, size, {})
    after = layout(sorted({*old, *more}), size, before)
    assert {shard: after[shard] for shard in before} == before
    assert sorted(one for part in after.values() for one in part) == sorted({*old, *more})


def test_scenes_added_to_a_run_keep_its_finished_shards(tmp_path: Path) -> None:
    run = Run(tmp_path)
    digests = []
    for scenes in (8, 12):
        stage = SourceStage(ScenesSource(scenes=scenes), 0, 4)
        with Executor(run) as executor:
            executor.write(stage, lambda stage=stage: stage.shards(run))
        digests.append([run.digest("source", shard) for shard in run.shards("source")])
    assert digests[1][:2] == digests[0] and len(digests[1]) == 3
