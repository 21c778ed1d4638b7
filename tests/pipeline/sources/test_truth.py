"""What inputs say is true: answers of every type, class labels, boxes, and facts that cannot be meant."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_kit import source
from stage_kit import png

from pipeline.base.errors import InputError
from pipeline.sources.readers import protocol as sources
from pipeline.sources.readers.answer import NoAnswer, answers
from pipeline.sources.readers.boxes import BadBox, corners, fractions
from pipeline.sources.readers.facts import BadFacts, read

VQA = [
    {"answer": "net", "answer_confidence": "maybe", "answer_id": 1},
    {"answer": "racket", "answer_confidence": "yes", "answer_id": 2},
    {"answer": "racket", "answer_confidence": "yes", "answer_id": 3},
]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cat", ("cat",)),
        (["one", "1"], ("one", "1")),
        (np.array(["one", "1"]), ("one", "1")),
        (True, ("yes",)),
        (np.False_, ("no",)),
        ([True, "Yes"], ("yes", "Yes")),
        (2.0, ("2",)),
        (2, ("2",)),
        (-0.5, ("-0.5",)),
        (1e20, ("100000000000000000000",)),
        (decimal.Decimal("2.50"), ("2.5",)),
        (np.float32(2), ("2",)),
        (np.int64(2), ("2",)),
        (math.nan, ()),
        (np.float64("nan"), ()),
        ([math.nan, None, ""], ()),
        (None, ()),
        ("", ()),
        (" \n", ()),
        ("\u200b", ()),
        ("%", ("%",)),
        ("\u2600", ("\u2600",)),
        ([], ()),
        (VQA, ("racket", "net")),
        ({"answer": ["net", "racket", "racket"], "answer_id": [1, 2, 3]}, ("racket", "net")),
        ({"answer": True}, ("yes",)),
    ],
)
def test_an_answer_is_what_its_type_means(value: Any, expected: tuple[str, ...]) -> None:
    assert answers([value]) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"cat",
        [["a"]],
        {"text": "cat"},
        {"answer": [["x"]]},
        datetime.date(2020, 1, 1),
        datetime.datetime(2020, 1, 1),
        np.datetime64("2020-01-01"),
        math.inf,
        10**50,
        1e300,
        {1, 2},
        object(),
    ],
)
def test_what_cannot_be_meant_as_an_answer_is_refused(value: Any) -> None:
    with pytest.raises(NoAnswer, match="give a text"):
        answers([value])


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner))


@given(VALUES)
def test_no_value_is_spelt_out_as_python_writes_it(value: Any) -> None:
    try:
        texts = answers([value])
    except NoAnswer:
        return
    for text in texts:
        assert (text.strip() and text not in ("None", "nan", "True", "False", "[]", "{}")) or text in _strings(value)
        assert text in _strings(value) or text in ("yes", "no") or text.lstrip("-").replace(".", "").isdigit()


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _strings(item)]


def rows(tmp_path: Path, *lines: dict[str, Any]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"images": [], **line}) + "\n" for line in lines))
    return path


def test_answers_of_every_type_in_a_table(tmp_path: Path, make: Any) -> None:
    values = [["one", "1"], True, 2.0, math.nan, "", {"what": 1}, VQA]
    path = rows(tmp_path, *({"prompt": f"q{i}", "answer": value} for i, value in enumerate(values)))
    outcomes = [(row["facts"], row["error"]) for row in make(kind="jsonl", path=path)]
    right = [(facts or {}).get("answer") for facts, _ in outcomes]
    assert right == ["one", "yes", "2", None, None, None, "racket"]
    assert [(facts or {}).get("answers") for facts, _ in outcomes] == [["one", "1"], *[None] * 5, ["racket", "net"]]
    (error,) = (error for _, error in outcomes if error)
    assert error == (
        f"{path}, line 6: `answer`: {{'what': 1}} has no key `answer`; give a text, or a list of {{answer}}; "
        "or leave it out where the answer is not known"
    )


def test_the_columns_of_vqa(tmp_path: Path, make: Any) -> None:
    path = rows(
        tmp_path, {"prompt": "q", "multiple_choice_answer": "net", "answers": VQA}, {"prompt": "r", "answers": ["a"]}
    )
    first, second = make(kind="jsonl", path=path)
    assert (first["facts"]["answer"], first["facts"]["answers"]) == ("net", ["net", "racket"])
    assert (second["facts"]["answer"], second["facts"]["answers"]) == ("a", None)


def test_an_answer_and_that_of_the_facts_must_have_something_in_common(tmp_path: Path, make: Any) -> None:
    facts = {"answer": "no"}
    path = rows(
        tmp_path, {"prompt": "q", "answer": "yes", "facts": facts}, {"prompt": "r", "answer": "no", "facts": facts}
    )
    bad, fine = make(kind="jsonl", path=path)
    assert (bad["error_type"], fine["facts"]["answer"]) == ("malformed_facts", "no")
    assert "the answer is 'yes', and that of the facts 'no'; keep one of them" in bad["error"]


def test_answers_in_parquet_and_csv(tmp_path: Path, make: Any) -> None:
    prompts = ["a", "b", "c"]
    table = pa.table({"images": [[]] * 3, "prompt": prompts, "answer": pa.array([1.0, math.nan, None])})
    pq.write_table(table, tmp_path / "rows.parquet")
    right = [(row["facts"] or {}).get("answer") for row in make(kind="parquet", path=tmp_path / "rows.parquet")]
    assert right == ["1", None, None]
    lists = pa.table({"images": [[]] * 2, "prompt": ["a", "b"], "answer": [["one", "1"], []]})
    pq.write_table(lists, tmp_path / "lists.parquet")
    first, second = make(kind="parquet", path=tmp_path / "lists.parquet")
    assert first["facts"]["answers"] == ["one", "1"] and second["facts"] is None
    (tmp_path / "rows.csv").write_text('images,prompt,answer\n,a,"[""one"", ""1""]"\n,b,\n,c,"[\'x\']"\n,d,2.0\n')
    number, none, python, text = make(kind="csv", path=tmp_path / "rows.csv")
    assert (number["facts"]["answers"], none["facts"], text["facts"]["answer"]) == (["one", "1"], None, "2.0")
    assert python["error_type"] == "malformed_row"


@pytest.mark.parametrize("kind", ["huggingface", "parquet"])
def test_a_class_label_is_its_name(kind: str, tmp_path: Path, make: Any) -> None:
    label = datasets.ClassLabel(names=["yes", "no"])
    features = datasets.Features(
        {"images": datasets.List(datasets.Image()), "prompt": datasets.Value("string"), "answer": label}
    )
    values = {"images": [[]] * 3, "prompt": ["a", "b", "c"], "answer": ["yes", "no", -1]}
    saved = datasets.Dataset.from_dict(values, features=features)
    if kind == "parquet":
        saved.to_parquet(tmp_path / "rows.parquet")
        made = make(kind=kind, path=tmp_path / "rows.parquet")
    else:
        saved.save_to_disk(tmp_path / "hf")
        made = make(kind=kind, path=tmp_path / "hf", columns={"images": "images"})
    assert [(row["facts"] or {}).get("answer") for row in made] == ["yes", "no", None]


def test_class_labels_within_lists_and_structs(tmp_path: Path, make: Any) -> None:
    label = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features(
        {
            "image": datasets.List(datasets.Image()),
            "question": label,
            "answers": datasets.List(label),
            "facts": {"objects": datasets.List({"name": label}), "question_type": label},
        }
    )
    facts = {"objects": [{"name": "dog"}], "question_type": "cat"}
    values = {"image": [[]], "question": ["cat"], "answers": [["dog", "cat"]], "facts": [facts]}
    datasets.Dataset.from_dict(values, features=features).save_to_disk(tmp_path / "hf")
    columns = {"prompt": "question", "answer": "answers"}
    (row,) = make(kind="huggingface", path=tmp_path / "hf", columns=columns)
    assert row["prompt"][0]["content"] == "cat" and row["facts"]["answers"] == ["dog", "cat"]
    assert row["facts"]["objects"][0]["name"] == "dog" and row["facts"]["question_type"] == "cat"


# --------------------------------------------------------------------------------------------------------------- facts


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (5, "`facts` is 5"),
        ({"objects": 5}, "facts.objects is 5"),
        ({"objects": "dog"}, "facts.objects is 'dog'"),
        ({"objects": ["dog"]}, r"facts.objects\[0\] is 'dog'"),
        ({"objects": [{"name": None}]}, r"facts.objects\[0\] has no name"),
        ({"objects": [{"name": " "}]}, r"facts.objects\[0\] has no name"),
        ({"objects": [{"name": 3}]}, r"facts.objects\[0\].name is 3"),
        ({"objects": [{"name": "a", "count": "two"}]}, "count is 'two'"),
        ({"objects": [{"name": "a", "count": True}]}, "count is True"),
        ({"objects": [{"name": "a", "count": -1}]}, "count is -1"),
        ({"objects": [{"name": "a", "count": 2.5}]}, "count is 2.5"),
        ({"objects": [{"name": "a", "count": 2**31}]}, "count is 2147483648"),
        ({"objects": [{"name": "a", "attributes": [5]}]}, "attributes holds 5"),
        ({"objects": [{"name": "a", "boxes": [[]]}]}, r"boxes\[0\]: box \[\] is not four numbers"),
        ({"objects": [{"name": "a", "boxes": [None]}]}, "box None is not four numbers"),
        ({"objects": [{"name": "a", "boxes": [[0, 0, 1]]}]}, "is not four numbers"),
        ({"objects": [{"name": "a", "boxes": [[0, 0, 1, math.nan]]}]}, "no place in an image"),
        ({"objects": [{"name": "a", "boxes": [[0.5, 0, 0.1, 1]]}]}, "ends before it begins"),
        ({"objects": [{"name": "a", "boxes": [["0", 0, 1, 1]]}]}, "is not four numbers"),
        ({"regions": [{"phrase": 5}]}, r"facts.regions\[0\].phrase is 5"),
        ({"regions": [{"phrase": "a", "box": [0, 0, 1, True]}]}, "is not four numbers"),
        ({"captions": [5]}, "facts.captions holds 5"),
        ({"captions": {"a": 1}}, "facts.captions is"),
        ({"question_type": 5}, "facts.question_type is 5"),
        ({"answer": b"x"}, "`facts.answer`: b'x'"),
        ({"colour": "red"}, "unknown key 'colour' in facts"),
    ],
)
def test_facts_that_cannot_be_meant_are_refused(facts: Any, says: str) -> None:
    with pytest.raises(BadFacts, match=says):
        read({"facts": facts})


def test_what_has_no_area_or_was_counted_none_is_not_there() -> None:
    flat, seen = [0.1, 0.1, 0.1, 0.5], [0.1, 0.1, 0.3, 0.5]
    things = [
        {"name": "none", "count": 0},
        {"name": "flat", "boxes": [flat]},
        {"name": "both flat", "count": 2, "boxes": [flat, flat]},
        {"name": "one flat", "count": 2, "boxes": [flat, seen]},
        {"name": "counted", "count": 3, "boxes": [flat]},
        {"name": "said", "count": 2.0, "attributes": "red"},
        {"name": "unknown", "count": math.nan, "boxes": []},
    ]
    facts = read(
        {"facts": {"objects": things, "regions": [{"phrase": "a", "box": flat}, {"phrase": "b", "box": seen}]}}
    )
    assert facts is not None
    left = [(thing["name"], thing["count"], thing["boxes"]) for thing in facts["objects"]]
    assert left == [("one flat", 1, [seen]), ("counted", 3, []), ("said", 2, None), ("unknown", None, [])]
    assert facts["objects"][2]["attributes"] == ["red"] and facts["regions"] == [{"phrase": "b", "box": seen}]


def test_facts_of_one_bad_row_are_one_failed_row(tmp_path: Path, make: Any) -> None:
    path = rows(tmp_path, {"prompt": "a", "facts": {"objects": 5}}, {"prompt": "b", "facts": {"captions": "A dog."}})
    bad, fine = make(kind="jsonl", path=path)
    assert (bad["status"], bad["error"]) == ("failed", f"{path}, line 1: facts.objects is 5; give a list")
    assert fine["facts"]["captions"] == ["A dog."]


BOXES = st.lists(st.floats() | st.integers(-5, 200), max_size=5)


@given(BOXES, st.floats(1, 1000), st.floats(1, 1000))
def test_a_box_has_an_area_or_is_none_or_is_refused(box: list[float], width: float, height: float) -> None:
    for make in (lambda: fractions(box, width, height), lambda: corners(box)):
        try:
            box_read = make()
        except BadBox:
            continue
        assert box_read is None or (box_read[0] < box_read[2] and box_read[1] < box_read[3])


def coco(tmp_path: Path, *annotations: dict[str, Any], images: list[dict[str, Any]] | None = None) -> Path:
    images = images or [{"id": 1, "file_name": "a.png", "width": 100, "height": 50}]
    (tmp_path / "a.png").write_bytes(png())
    content = {"images": images, "categories": [{"id": 7, "name": "dog"}], "annotations": list(annotations)}
    (tmp_path / "inst.json").write_text(json.dumps(content))
    return tmp_path / "inst.json"


def box(*values: Any, **changes: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 7, "bbox": list(values), **changes}


def test_a_box_of_coco_without_an_area_is_no_object(tmp_path: Path, make: Any) -> None:
    path = coco(tmp_path, box(1, 1, 0, 5), box(1, 1, 5, 0), box(200, 1, 5, 5))
    (row,) = make(kind="coco", path=path)
    assert row["facts"]["objects"] == []
    (row,) = make(kind="coco", path=coco(tmp_path, box(1, 1, 0, 5), box(90, 1, 50, 5)))
    (thing,) = row["facts"]["objects"]
    assert (thing["count"], len(thing["boxes"])) == (1, 1)


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (box(), r"element 3 \(in 'annotations'\): box \[\] is not four numbers"),
        (box(1, 1, 5), "is not four numbers"),
        (box(1, 1, 5, 5, 5), "is not four numbers"),
        (box(1, 1, -5, 5), "has a negative size"),
        (box(1, 1, math.nan, 5), "no place in an image"),
        (box(1, 1, 1e300, 5), "no place in an image"),
        (box(1, 1, "5", 5), "is not four numbers"),
        (box(1, 1, 5, 5, image_id=1.5), "image_id is 1.5, which is no id"),
        (box(1, 1, 5, 5, category_id=True), "category_id is True, which is no id"),
        (box(1, 1, 5, 5, image_id=2**64), "image_id is 18446744073709551616, which is no id"),
        (box(1, 1, 5, 5, bbox=None), "box None is not four numbers"),
    ],
)
def test_what_is_no_box_is_named(annotation: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        list(sources.entries(source(kind="coco", path=coco(tmp_path, annotation))))


def test_two_images_of_one_id_are_named(tmp_path: Path, make: Any) -> None:
    twice = [{"id": 1, "file_name": name, "width": 9, "height": 9} for name in ("a.png", "b.png")]
    with pytest.raises(InputError, match=r"element 2 \(in 'images'\): image 1 comes a second time"):
        list(sources.entries(source(kind="coco", path=coco(tmp_path, images=twice))))
    region = {"phrase": "a dog", "x": 1, "y": 1, "width": 5, "height": 0}
    items = [{"id": 1, "regions": [region, {**region, "height": 5}]}, {"id": 1, "regions": []}]
    (tmp_path / "vg.json").write_text(json.dumps(items))
    (tmp_path / "1.jpg").write_bytes(png())
    bad, fine = sorted(make(kind="visual_genome", path=tmp_path / "vg.json"), key=lambda row: row["status"])
    assert "item 2: image 1 comes a second time" in bad["error"] and len(fine["facts"]["regions"]) == 1
    (tmp_path / "data.json").write_text(json.dumps([{"image_id": 1, "width": 9, "height": 9}] * 2))
    with pytest.raises(InputError, match="item 2: image 1 comes a second time"):
        make(kind="visual_genome", path=tmp_path / "vg.json", image_data=tmp_path / "data.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"caption": None}, "caption is None, which is no text"),
        ({"caption": 5}, "caption is 5, which is no text"),
        ({"image_id": "one"}, "image_id is 'one', which is no id"),
    ],
)
def test_captions_are_texts(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    captioned = [{"image_id": 1, "caption": ""}, {"image_id": 1, "caption": "A dog.", **change}]
    (tmp_path / "caps.json").write_text(json.dumps({"annotations": captioned}))
    spec = source(kind="coco", path=coco(tmp_path), captions=tmp_path / "caps.json")
    with pytest.raises(InputError, match=rf"element 2 .*{says}"):
        list(sources.entries(spec))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"answer": "no", "answers": ["yes"]}, "`answer` is 'no' and `answers` 'yes'"),
        (
            {"multiple_choice_answer": "net", "answers": ["ball"]},
            "`multiple_choice_answer` is 'net' and `answers` 'ball'",
        ),
        ({"facts": {"answer": 1, "answers": ["2"]}}, "`facts.answer` is '1' and `facts.answers` '2'"),
    ],
)
def test_answers_that_differ_are_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadFacts, match=reason):
        read(row)


def test_an_answer_among_others_is_one_of_them() -> None:
    facts = read({"answer": "Racket.", "answers": VQA})
    assert facts is not None and facts["answers"] == ["Racket.", "racket", "net"]
