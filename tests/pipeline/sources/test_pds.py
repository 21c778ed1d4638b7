"""PDS-DPO's pairs as prompts: what they begin with, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from source_kit import source
from stage_kit import png

from pipeline.base.errors import InputError
from pipeline.sources.readers import pds
from pipeline.sources.readers import protocol as sources


def item(question: str, chosen: str, rejected: str, **changes: Any) -> dict[str, Any]:
    turn = {"from": "human", "value": question}
    return {
        "id": "art-1",
        "image": "a.png",
        "conversations": [turn, {"from": "gpt", "value": chosen}],
        "rejected_conversations": [turn, {"from": "gpt", "value": rejected}],
        **changes,
    }


def put(folder: Path, *items: Any, name: str = "pairs.json") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(png())
    text = "\n".join(map(json.dumps, items)) if name.endswith("l") else json.dumps(list(items))
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize("name", ["pairs.json", "pairs.jsonl"])
@pytest.mark.parametrize("tag", ["<image> ", "<image>\n", ""])
def test_the_prompt_is_what_both_conversations_begin_with(name: str, tag: str, tmp_path: Path, make: Any) -> None:
    path = put(tmp_path, item(f"{tag}What is it?", "A dog.", ""), name=name)
    (row,) = make(kind="pds", path=path)
    assert row["prompt"] == [{"role": "user", "content": "What is it?"}]
    assert row["images"] == [{"bytes": None, "path": str(tmp_path / "a.png")}]
    assert (row["status"], row["facts"], row["source"]) == ("ok", None, f"{name}:1")
    assert list(pds.answers(source(kind="pds", path=path))) == [(f"{name}:1", "A dog.", "")]


def test_earlier_turns_belong_to_the_prompt_and_an_image_is_not_needed(tmp_path: Path, make: Any) -> None:
    before = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Hi."},
        {"from": "gpt", "value": " Hello. "},
        {"from": "user", "value": "And?"},
    ]
    turns = {
        "conversations": [*before, {"from": "gpt", "value": "a"}],
        "rejected_conversations": [*before, {"from": "assistant", "value": "b"}],
    }
    (row,) = make(kind="pds", path=put(tmp_path, {"id": 3, **turns}))
    assert [(m["role"], m["content"]) for m in row["prompt"]] == [
        ("system", "Be brief."), ("user", "Hi."), ("assistant", " Hello. "), ("user", "And?")
    ]  # fmt: skip
    assert row["images"] == []


def test_of_items_with_the_same_prompt_the_first_stays_and_the_others_are_counted(tmp_path: Path, run: Any) -> None:
    from pipeline.sources.stage import SourceStage

    path = put(tmp_path, item("Q?", "one", "two"), item("Q?", "three", "four"), item("R?", "five", "six"))
    kept = [
        row for _, table in SourceStage(source(kind="pds", path=path), 0, 9).shards(run) for row in table.to_pylist()
    ]
    assert sorted(row["source"] for row in kept) == ["pairs.json:1", "pairs.json:3"]
    (dropped,) = run.table("dropped").to_pylist()
    assert (dropped["reason"], dropped["source"]) == ("duplicate_prompt", "pairs.json:2")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rejected_conversations": None}, "item 1: `rejected_conversations` is not a list of"),
        ({"conversations": []}, "`conversations` is not a list of"),
        ({"conversations": [{"from": "human", "value": "Q?"}]}, "ends with an answer of gpt"),
        ({"conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": None}]}, "`conversations`"),
        ({"conversations": [{"from": "judge", "value": "Q?"}, {"from": "gpt", "value": "a"}]}, "`from` is one of"),
        (
            {"conversations": [{"from": "human", "value": "R?"}, {"from": "gpt", "value": "a"}]},
            "differ before the last",
        ),
    ],
)
def test_a_malformed_item_is_a_failed_row_without_answers(
    changes: dict[str, Any], says: str, tmp_path: Path, make: Any
) -> None:
    path = put(tmp_path, item("Q?", "a", "b", **changes), item("R?", "c", "d"))
    bad, good = make(kind="pds", path=path)
    assert (bad["error_type"], good["status"]) == ("malformed_row", "ok") and re.search(says, bad["error"])
    assert list(pds.answers(source(kind="pds", path=path))) == [("pairs.json:2", "c", "d")]


def test_an_item_without_rejected_conversations_says_what_it_has(tmp_path: Path, make: Any) -> None:
    path = put(tmp_path, {key: value for key, value in item("Q?", "a", "b").items() if not key.startswith("rej")})
    with pytest.raises(InputError, match="item 1: lacks `rejected_conversations`; columns present: conversations, id"):
        make(kind="pds", path=path)


def test_files_of_one_name_are_refused_because_rows_are_told_apart_by_it(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        put(tmp_path / folder, item("Q?", "a", "b"))
    with pytest.raises(InputError, match="have the same name"):
        list(sources.entries(source(kind="pds", path=tmp_path / "*" / "pairs.json")))


def test_what_the_system_says_beside_the_conversations_is_part_of_the_prompt(tmp_path: Path, make: Any) -> None:
    (row,) = make(kind="pds", path=put(tmp_path, item("<image>\nWhat?", "A dog.", "A cat.", system="Be terse.")))
    assert [(turn["role"], turn["content"]) for turn in row["prompt"]] == [("system", "Be terse."), ("user", "What?")]
    (plain,) = make(kind="pds", path=put(tmp_path / "b", item("<image>\nWhat?", "A dog.", "A cat.", system=" ")))
    assert [turn["role"] for turn in plain["prompt"]] == ["user"]
