"""What a source is: ids, failed rows, shards that stay, rows left out. The readers have tests of their own."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_kit import content_id, layout, png

from pipeline.base.errors import InputError
from pipeline.base.progress import Progress
from pipeline.running.executor import Executor
from pipeline.running.store import Run
from pipeline.sources.admission import verdicts
from pipeline.sources.admission.shards import place
from pipeline.sources.config import ScenesSource, TableSource
from pipeline.sources.stage import BuiltSource, SourceStage

IDS = st.lists(st.text("abcdef", min_size=1, max_size=4), unique=True, max_size=20)


def jsonl(folder: Path, *lines: object) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def row(text: str = "Describe the image.", **changes: Any) -> dict[str, Any]:
    made = {"images": [{"bytes": png(), "path": "a.png"}], "prompt": [{"role": "user", "content": text}]}
    return {**made, "facts": None, "source": "test", **changes}


def built(folder: Path, rows: Iterable[dict[str, Any]]) -> pa.Table:
    stage = BuiltSource("built", lambda config: iter(rows), {}, shard_size=2)
    return pa.concat_tables([table for _, table in stage.shards(Run(folder))])


def test_ids_are_content_rows_are_sorted_and_duplicates_merge(tmp_path: Path) -> None:
    rows = [row(images=[{"bytes": png(i), "path": f"{i}.png"}]) for i in (0, 1, 2, 1)]
    table, again = built(tmp_path, rows), built(tmp_path, reversed(rows))
    assert table.num_rows == 3 and table["id"].to_pylist() == sorted(table["id"].to_pylist())
    assert table["id"].equals(again["id"])
    assert set(table["id"].to_pylist()) == {content_id([png(i)], rows[0]["prompt"]) for i in range(3)}


def test_an_id_is_the_same_in_every_release() -> None:
    image = hashlib.blake2b(b"x", digest_size=32).digest()
    expected = hashlib.blake2b(image, digest_size=4).hexdigest()
    expected += hashlib.blake2b(image + '[["user", "hé"]]'.encode(), digest_size=12).hexdigest()
    assert content_id([b"x"], [{"role": "user", "content": "hé"}]) == expected


def test_prompts_about_the_same_images_lie_together(tmp_path: Path) -> None:
    images = [{"bytes": png(number), "path": f"{number}.png"} for number in range(9)]
    asked = [[image] for image in images] + [images[:2], [images[1], images[0]], []]
    rows = [row(f"Question {number}?", images=each) for number in range(5) for each in asked]
    table = built(tmp_path, rows)
    shown = [tuple(image["path"] for image in each) for each in table["images"].to_pylist()]
    together = Counter(images for images, _ in itertools.groupby(shown))
    assert len(together) == 12 and {times for images, times in together.items() if images} == {1}
    beginnings = {row_id[:8] for row_id, images in zip(table["id"].to_pylist(), shown, strict=True) if not images}
    assert len(beginnings) == 5, "what shows no image is spread evenly"


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
        ({"images": [{"bytes": None, "path": "/none.png"}]}, "missing_image"),
        ({"prompt": [{"role": "user", "content": " \n"}]}, "empty_prompt"),
        ({"prompt": [{"role": "user", "content": "\u200b\ufeff"}]}, "empty_prompt"),
        ({"prompt": []}, "empty_prompt"),
    ],
)
def test_a_bad_row_is_a_failed_row_with_a_reason(changes: dict[str, Any], kind: str, tmp_path: Path) -> None:
    (made,) = built(tmp_path, [row(**changes)]).to_pylist()
    assert (made["status"], made["error_type"]) == ("failed", kind) and made["error"]


def test_half_a_surrogate_pair_is_no_crash(tmp_path: Path) -> None:
    (made,) = built(tmp_path, [row("cut off: \ud83d")]).to_pylist()
    assert made["error_type"] == "malformed_row" and "half of a surrogate pair" in made["error"]


def test_images_stay_in_their_files_and_each_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png())
    read: list[str] = []
    load = verdicts.load
    monkeypatch.setattr(verdicts, "load", lambda image, most: read.append(image["path"]) or load(image, most))
    path = jsonl(tmp_path, *({"images": ["a.png"], "prompt": f"{n}"} for n in range(50)))
    stage = SourceStage(TableSource(kind="jsonl", path=str(path)), 0, 8)
    tables = dict(stage.shards(Run(tmp_path / "run")))
    assert read == [str(tmp_path / "a.png")] and list(tables) == list(range(7))
    for table in tables.values():
        assert all(image == {"bytes": None, "path": read[0]} for row in table["images"].to_pylist() for image in row)


def test_a_missing_image_is_a_failed_row_that_names_it(tmp_path: Path) -> None:
    stage = SourceStage(
        TableSource(kind="jsonl", path=str(jsonl(tmp_path, {"images": ["lost.png"], "prompt": "x"}))), 0, 4
    )
    ((_, table),) = stage.shards(Run(tmp_path / "run"))
    (lost,) = table.to_pylist()
    assert lost["error_type"] == "missing_image" and "lost.png" in lost["error"] and "prompts.jsonl:1" in lost["error"]


def test_prompts_without_an_image_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    rows = [{"images": images, "prompt": f"{n}"} for n, images in enumerate(([], ["a.png"], None, ["lost.png"]))]
    run, console = Run(tmp_path / "run"), io.StringIO()
    with Executor(run, max_failure_rate=1, progress=Progress(console)) as executor:
        result = executor.write(SourceStage(TableSource(kind="jsonl", path=str(jsonl(tmp_path, *rows))), 0, 2))
    assert result.extras == {"without_image": 2} and "2 without an image" in console.getvalue()
    record = run.record("source")
    assert record is not None and record.extras == {"without_image": 2}


def test_an_empty_source_is_an_error(tmp_path: Path) -> None:
    stage = SourceStage(TableSource(kind="jsonl", path=str(jsonl(tmp_path))), 0, 4)
    with pytest.raises(InputError, match="no prompts"):
        list(stage.shards(Run(tmp_path / "run")))
    with pytest.raises(InputError, match="cannot read"):
        SourceStage(TableSource(kind="jsonl", path=str(tmp_path / "none.jsonl")), 0, 4).options()


def test_nothing_is_left_behind_when_a_source_is_given_up(tmp_path: Path) -> None:
    shards = SourceStage(ScenesSource(scenes=8), 0, 2).shards(Run(tmp_path))
    next(shards)
    assert (tmp_path / "source/.spool.tmp").is_dir()
    shards.close()
    assert list((tmp_path / "source").iterdir()) == []


def test_a_run_behind_a_url_has_a_source_too() -> None:
    run = Run("memory://runs/source-test")
    assert sum(table.num_rows for _, table in SourceStage(ScenesSource(scenes=8), 0, 2).shards(run)) == 8


@given(IDS, st.integers(1, 5))
def test_a_layout_holds_every_id_once(ids: list[str], size: int) -> None:
    shards = layout(ids, size, {})
    assert sorted(id for part in shards.values() for id in part) == sorted(ids)
    assert list(shards) == list(range(len(shards))) and all(1 <= len(part) <= size for part in shards.values())


@given(st.lists(st.integers(1, 12), min_size=1, max_size=40), st.sampled_from([8, 16, 50]))
def test_a_shard_ends_between_two_images_where_it_can(questions: list[int], size: int) -> None:
    prompts = [(f"{image:08x}", number) for image, count in enumerate(questions) for number in range(count)]
    ids = np.array([bytes.fromhex(f"{image}{number:024x}") for image, number in prompts], "S16")
    shards = [at.tolist() for _, at in place(ids, size, ())]
    assert [at for shard in shards for at in shard] == list(range(len(ids)))
    for shard, behind in itertools.pairwise(shards):
        assert size - size // 8 <= len(shard) <= size
        if prompts[shard[-1]][0] == prompts[behind[0]][0]:  # then it is cut where the size says, and it had to be
            near = prompts[shard[0] : behind[0]][-(size // 8) - 1 :]
            assert len(shard) == size and len({image for image, _ in near}) == 1


@given(IDS, IDS, st.integers(1, 5))
def test_prompts_that_come_later_go_into_new_shards(old: list[str], more: list[str], size: int) -> None:
    before = layout(old, size, {})
    after = layout(sorted({*old, *more}), size, before)
    assert {shard: after[shard] for shard in before} == before
    assert sorted(id for part in after.values() for id in part) == sorted({*old, *more})


def test_scenes_added_to_a_run_keep_its_finished_shards(tmp_path: Path) -> None:
    run = Run(tmp_path)
    digests = []
    for scenes in (8, 12):
        with Executor(run) as executor:
            executor.write(SourceStage(ScenesSource(scenes=scenes), 0, 4))
        digests.append([run.digest("source", shard) for shard in run.shards("source")])
    assert digests[1][:2] == digests[0] and len(digests[1]) == 3
