"""Where a dataset may lie, and what is said when it cannot be opened."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import loopback
import pytest
from PIL import Image

from training.errors import DataError
from training.formats import content, open
from training.formats.dataset_files import identity

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of two images."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for name in ("0.png", "1.png"):
        Image.new("RGB", (8, 8)).save(folder / "images" / name)
    return folder


def row(number: int) -> Row:
    return {
        "id": number,
        "image": f"images/{number}.png",
        "conversations": [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}],
        "rejected_conversations": [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "b"}],
    }


def check(dataset: datasets.Dataset, data: Path) -> None:
    assert dataset["id"][:] == ["0", "1"]
    assert [images[0]["path"] for images in dataset["images"]] == [str(data / "images" / f"{i}.png") for i in (0, 1)]
    assert dataset[1]["rejected"] == [{"role": "assistant", "content": [{"type": "text", "text": "b"}]}]


def test_a_json_list_opens_with_images_beside_it(data: Path) -> None:
    (data / "train.json").write_text(json.dumps([row(0), row(1)], indent=2))
    check(open(str(data / "train.json")), data)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".JSONL"])
def test_a_file_of_an_object_per_line_opens(data: Path, suffix: str) -> None:
    path = data / f"train{suffix}"
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in (0, 1)))
    check(open(str(path)), data)


def test_a_parquet_file_opens(data: Path) -> None:
    datasets.Dataset.from_list([row(0), row(1)]).to_parquet(str(data / "train.parquet"))
    check(open(str(data / "train.parquet")), data)


def test_a_saved_folder_opens(data: Path) -> None:
    dataset = datasets.Dataset.from_list([row(0), row(1)])
    dataset.save_to_disk(str(data / "saved"))
    check(open(str(data / "saved"), image_root=str(data)), data)


def test_images_may_lie_elsewhere(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps([row(0), row(1)]))
    check(open(str(path), image_root=str(data)), data)
    with pytest.raises(DataError, match=r"row 0 \(id 0\): image .*/images/0.png' does not exist; set image_root"):
        open(str(path))


def test_values_of_several_kinds_in_a_json_column_open(data: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected_response": r}
        for r in ("b", [{"role": "assistant", "content": "b"}])
    ]
    rows[1]["messages"] = [{"role": "user", "content": [{"type": "text", "text": "q"}]}, rows[0]["messages"][1]]
    (data / "train.json").write_text(json.dumps([{"id": 1, **rows[0]}, {"id": "x", **rows[1]}]))
    first, second = open(str(data / "train.json"))
    assert (first["id"], second["id"]) == ("1", "x")
    assert {key: first[key] for key in ("prompt", "rejected")} == {key: second[key] for key in ("prompt", "rejected")}


#: Texts that are JSON, too.
WORDS = ['"STOP"', "3", "true", "null", "[1]", '{"a": 1}', '"', "1e3", "cat", "\\u00e9 \U0001f600"]


def dumped(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if path.suffix == ".jsonl" else json.dumps(rows))
    return str(path)


def said(dataset: datasets.Dataset, column: str) -> list[str]:
    return [message["content"][0]["text"] for messages in dataset[column] for message in messages[-1:]]


def of_trl(word: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": word}],
        "chosen": [{"role": "assistant", "content": word}],
        "rejected": [{"role": "assistant", "content": "no " + word}],
    }


def trl_in_parts() -> Row:
    return {key: [{**turns[0], "content": [{"type": "text", "text": "x"}]}] for key, turns in of_trl("x").items()}


def of_swift(word: str) -> Row:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}]
    return {"messages": turns, "rejected_response": word}


def of_llamafactory(word: str) -> Row:
    return {"conversations": [{"from": "human", "value": "q"}], "chosen": word, "rejected": "no " + word}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    ("write", "other", "columns"),
    [
        (of_trl, trl_in_parts(), ("prompt", "chosen")),
        (of_swift, of_swift("x") | {"rejected_response": [{"role": "assistant", "content": "x"}]}, ("rejected",)),
        (of_llamafactory, of_llamafactory("x") | {"chosen": {"from": "gpt", "value": "x"}}, ("chosen",)),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_text_that_is_json_stays_word_for_word_where_others_are_no_texts(
    tmp_path: Path, name: str, write: Any, other: Row, columns: tuple[str, ...], last: bool
) -> None:
    rows = [write(word) for word in WORDS]
    dataset = open(dumped(tmp_path / name, [*rows, other] if last else [other, *rows]))
    for column in columns:
        assert said(dataset, column) == ([*WORDS, "x"] if last else ["x", *WORDS])


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_names_of_rows_stay_word_for_word_where_some_are_numbers(tmp_path: Path, name: str) -> None:
    names = ["007", 7, "1e2", "null", None]
    dataset = open(dumped(tmp_path / name, [{"id": name, **of_trl("a")} for name in names]))
    assert dataset["id"][:] == ["007", "7", "1e2", "null", None]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_kind_that_comes_late_in_a_file_changes_no_text_before_or_after_it(tmp_path: Path, name: str) -> None:
    """``datasets`` reads ten million bytes at a time, and casts what follows to what it saw first."""
    first = [{"id": i, **of_llamafactory("x" * 10_000)} for i in range(600)]
    late = [
        {"id": "007", **of_llamafactory("hello")},
        {"id": 7, **of_llamafactory("x") | {"chosen": {"from": "gpt", "value": "x"}}},
    ]
    dataset = open(dumped(tmp_path / name, first + late))
    assert said(dataset.select([600, 601]), "chosen") == ["hello", "x"]
    assert dataset["id"][-3:] == ["599", "007", "7"]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_files_of_a_folder_change_no_text_of_each_other(tmp_path: Path, suffix: str) -> None:
    """Within a file, and where every file is of one kind but not of the same."""
    texts = [{"id": i, **of_llamafactory(word)} for i, word in enumerate(WORDS)]
    other = {"id": "007", **of_llamafactory("x") | {"chosen": {"from": "gpt", "value": "x"}}}
    for name, files in (("inside", [[*texts, other], texts]), ("between", [texts, [other]])):
        (tmp_path / name).mkdir()
        for number, rows in enumerate(files):
            dumped(tmp_path / name / f"train-{number}{suffix}", rows)
        dumped(tmp_path / name / f"test{suffix}", texts[:2])
        dataset = open(str(tmp_path / name))
        rows = [row for file in files for row in file]
        assert dataset["id"][:] == [str(row["id"]) for row in rows]
        assert said(dataset, "chosen") == ["x" if row is other else row["chosen"] for row in rows]
        assert len(open(str(tmp_path / name), split="test")) == 2


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_text_that_looks_like_a_date_is_a_text(tmp_path: Path, name: str) -> None:
    """Arrow takes a field for dates where all its texts are like one."""
    dates = ["2021-05-01", "2020-02-29 10:00:00", "2020-01-01T10:00:00Z"]
    rows = [{"id": date, "question": "When was it?", "chosen": date, "rejected": "2021-01-01"} for date in dates]
    dataset = open(dumped(tmp_path / name, rows))
    assert dataset["id"][:] == said(dataset, "chosen") == dates
    assert said(open(dumped(tmp_path / name, [of_trl(dates[0])])), "chosen") == dates[:1]


@pytest.mark.parametrize(("name", "sep"), [("train.csv", ","), ("train.tsv", "\t")])
def test_every_field_of_a_csv_is_a_text(data: Path, name: str, sep: str) -> None:
    header = ["id", "system", "question", "chosen", "rejected", "image", "rejected_images"]
    rows = [header, ["007", "", "NA", "1", "null", "", ""], ["1e3", "s", "None", "2", "3", "0.png", "1.png"]]
    (data / name).write_text("".join(sep.join(row) + "\n" for row in rows))
    first, second = open(str(data), image_root=str(data / "images"))
    assert (first["id"], second["id"]) == ("007", "1e3")
    counts = [(len(row["images"]), len(row["rejected_images"])) for row in (first, second)]
    assert counts == [(0, 0), (1, 1)]
    words = [[m["content"][0]["text"] for m in first[side]] for side in ("prompt", "chosen", "rejected")]
    assert words == [["NA"], ["1"], ["null"]]
    assert [message["role"] for message in second["prompt"]] == ["system", "user"]


def test_columns_like_those_of_an_agents_log_are_of_a_dataset(tmp_path: Path) -> None:
    """``datasets`` asks for another package where it sees them."""
    about = dict.fromkeys(("id", "source", "model", "system_prompt"), "x")
    assert said(open(dumped(tmp_path / "a.jsonl", [{**about, **of_swift("worse")}])), "rejected") == ["worse"]


COMPRESSED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_compressed_json_is_read_as_it_is_without_the_compression(tmp_path: Path, name: str, suffix: str) -> None:
    rows = [{"id": i, **of_trl(word)} for i, word in enumerate(WORDS)] + [{"id": "x", **trl_in_parts()}]
    plain = Path(dumped(tmp_path / name, rows))
    packed = tmp_path / "packed" / f"{name}{suffix}"
    packed.parent.mkdir()
    packed.write_bytes(COMPRESSED[suffix](plain.read_bytes()))
    assert identity(str(packed.parent)) != identity(str(tmp_path / "nothing in it"))
    for place in (packed, packed.parent):
        assert open(str(place)).to_list() == open(str(plain)).to_list()
        assert said(open(str(place)), "chosen") == [*WORDS, "x"]
    before = identity(str(packed.parent)), content.identity(str(packed))
    packed.write_bytes(COMPRESSED[suffix](Path(dumped(plain, rows[1:])).read_bytes()))
    assert (identity(str(packed.parent)), content.identity(str(packed))) != before
    assert len(open(str(packed))) == len(rows) - 1  # no copy of before is kept anywhere
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"{name}{suffix}: cannot be opened \("):
        open(str(packed))
    with pytest.raises(DataError, match=r"there is no such file or folder"):
        open(f"nowhere.jsonl{suffix}")


def test_json_that_lies_elsewhere_is_read_word_for_word_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the files of a dataset of a hub do."""
    for place in ("huggingface_hub.constants", "datasets.config"):
        monkeypatch.setattr(f"{place}.HF_HUB_OFFLINE", False)
    rows = [{"id": "007", **of_trl(word)} for word in WORDS] + [{"id": 7, **trl_in_parts()}]
    body = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())

    with loopback.serving(loopback.reply(body)) as server:
        (tmp_path / "README.md").write_text(
            f"---\nconfigs:\n- config_name: default\n  data_files: {server.url}/train.jsonl.gz\n---\n"
        )
        dataset = open(str(tmp_path))
    assert said(dataset, "chosen") == [*WORDS, "x"]
    assert dataset["id"][-2:] == ["007", "7"]


def test_an_item_that_cannot_be_read_value_by_value_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    dumped(path, [{"id": 1, **of_trl("a")}, {"id": "x", **of_trl("a")}])
    path.write_text(path.read_text()[:-2] + ', "more": {"a": 1, "a": 2}}\n')
    with pytest.raises(DataError, match=r"a.jsonl: item 2: the key 'a' comes twice; remove one"):
        open(str(path))


def test_published_folders_open_their_pairs(tmp_path: Path, rows: list[Row], publish: Any) -> None:
    publish(rows).save_to_disk(str(tmp_path / "a" / "pairs"))
    whole = datasets.DatasetDict({"pairs": publish(rows), "candidates": publish(rows[:1])})
    whole.save_to_disk(str(tmp_path / "b"))
    for config, part in (("pairs", rows), ("candidates", rows[:1])):
        (tmp_path / "c" / config).mkdir(parents=True)
        publish(part).to_parquet(str(tmp_path / "c" / config / "train-00000.parquet"))
    (tmp_path / "c" / "README.md").write_text(
        "---\nconfigs:\n- config_name: candidates\n  data_files: candidates/*.parquet\n"
        "- config_name: pairs\n  data_files: pairs/*.parquet\n---\n"
    )
    for folder in "abc":
        assert len(open(str(tmp_path / folder))) == 8


def test_a_split_can_be_chosen_and_train_is_the_default(tmp_path: Path, rows: list[Row], publish: Any) -> None:
    splits = datasets.DatasetDict({"train": publish(rows), "test": publish(rows[:3])})
    splits.save_to_disk(str(tmp_path / "saved"))
    assert len(open(str(tmp_path / "saved"))) == 8
    assert len(open(str(tmp_path / "saved"), split="test")) == 3
    with pytest.raises(DataError, match=r"has the splits \['test', 'train'\], none named valid; point at one split"):
        open(str(tmp_path / "saved"), split="valid")


def test_what_cannot_be_opened_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset .*nowhere: cannot be opened .*; check the path"):
        open(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere.jsonl: cannot be opened \(there is no such file or folder\)"):
        open("nowhere.jsonl")  # no hub is asked for it
    (tmp_path / "a.csv").write_text("prompt\n")
    with pytest.raises(DataError, match=r"is a file of no known kind \(known: .json, .*, JSON .*\); convert it"):
        open(str(tmp_path / "a.csv"))
    (tmp_path / "a.json").write_text('[{"prompt": 1},')
    with pytest.raises(DataError, match=r"a.json: cannot be opened \(.*(JSON|object|value)"):
        open(str(tmp_path / "a.json"))
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(DataError, match=r"b.json: (has no rows|cannot be opened .*no data)"):
        open(str(tmp_path / "b.json"))


def test_a_dataset_is_the_same_one_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    def saved(name: str, answer: str) -> str:
        datasets.Dataset.from_list([{"question": "q", "chosen": answer}]).save_to_disk(str(tmp_path / name))
        return identity(str(tmp_path / name))

    assert saved("one", "a") == saved("two", "a")
    assert saved("one", "a") != saved("three", "b")
    for name, text in (("x.json", "[1]"), ("y.json", "[1]"), ("z.json", "[2]")):
        (tmp_path / name).write_text(text)
    first, same, other = (identity(str(tmp_path / name)) for name in ("x.json", "y.json", "z.json"))
    assert first == same != other


def test_what_stands_beside_the_rows_does_not_make_another_dataset(data: Path) -> None:
    (data / "train.jsonl").write_text(json.dumps(row(0)))
    before = identity(str(data))
    (data / "README.md").write_text("about")
    Image.new("RGB", (9, 9)).save(data / "images" / "2.png")
    assert identity(str(data)) == before
    (data / "more.jsonl").write_text(json.dumps(row(1)))
    assert identity(str(data)) != before


def test_a_dataset_of_a_hub_is_known_by_its_name_and_the_revision_that_would_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert identity("owner/name") == "owner/name"  # there is none, or no network
    asked: list[tuple[str, str | None]] = []

    def builder(name: str, config: str | None) -> Any:
        asked.append((name, config))
        return SimpleNamespace(hash="5a1b2c3")

    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["candidates", "pairs"])
    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    assert identity("owner/name") == content.identity("owner/name") == "owner/name@5a1b2c3"
    assert set(asked) == {("owner/name", "pairs")}
    assert identity("./gone") == "./gone" and len(asked) == 2


def test_an_image_counts_by_what_it_shows_wherever_it_lies(data: Path, tmp_path: Path) -> None:
    (data / "train.jsonl").write_text(json.dumps(row(0)) + "\n" + json.dumps(row(1)))
    before = content.identity(str(data))
    assert before != identity(str(data))
    shutil.copytree(data, tmp_path / "moved")
    assert content.identity(str(tmp_path / "moved")) == before
    Image.new("RGB", (9, 9), "red").save(data / "images" / "1.png")
    assert content.identity(str(data)) != before
    assert content.identity("owner/name") == "owner/name"


def test_an_image_counts_wherever_it_may_be_read_from(data: Path, tmp_path: Path) -> None:
    """Rows that name an image below one of ``allowed_roots``, or relative to ``image_root``."""
    apart = tmp_path / "apart"
    apart.mkdir()
    picture = data / "images" / "0.png"
    (apart / "absolute.jsonl").write_text(json.dumps({**row(0), "image": str(picture)}))
    (apart / "relative.jsonl").write_text(json.dumps(row(0)))
    web = {**row(1), "image": "https://example.com/1.png"}
    (apart / "web.jsonl").write_text(json.dumps({**row(0), "image": str(picture)}) + "\n" + json.dumps(web))

    def identities() -> list[str]:
        return [
            content.identity(str(apart / "absolute.jsonl"), allowed_roots=(str(data),)),
            content.identity(str(apart / "relative.jsonl"), image_root=str(data)),
            content.identity(str(apart / "web.jsonl"), allowed_roots=(str(data),), allow_http=True),
        ]

    before = identities()
    assert identities() == before
    Image.new("RGB", (9, 9), "red").save(picture)
    assert all(now != was for now, was in zip(identities(), before, strict=True))


def test_rows_that_hold_their_images_or_cannot_be_read_count_by_their_files(
    tmp_path: Path, rows: list[Row], publish: Any
) -> None:
    publish(rows).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "broken.jsonl").write_text("{")
    for name in ("saved", "broken.jsonl"):
        assert content.identity(str(tmp_path / name)) == identity(str(tmp_path / name))
