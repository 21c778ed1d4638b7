"""Every schema gives the same rows, and says which row is wrong, in which column, and what to do."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trl.data_utils import extract_prompt
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from pipeline.base.images.tags import OTHERS, TAG
from training.data.render import structure
from training.errors import DataError
from training.formats import FORMATS, MESSAGES, open, read
from training.formats.mdpo import without_template
from training.formats.row import split_tags

Row = dict[str, Any]
IMAGE = {"type": "image", "text": None}


def png(colour: str = "red", size: tuple[int, int] = (24, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def encoded(colour: str = "red") -> Row:
    return {"bytes": png(colour), "path": None}


def text(words: str) -> Row:
    return {"type": "text", "text": words}


def user(*parts: Row) -> Row:
    return {"role": "user", "content": list(parts)}


def gives(words: str) -> list[Row]:
    return [{"role": "assistant", "content": [text(words)]}]


def human(value: str) -> Row:
    return {"from": "human", "value": value}


def gpt(value: str) -> Row:
    return {"from": "gpt", "value": value}


def asks(content: Any) -> Row:
    return {"role": "user", "content": content}


def answered(content: Any) -> Row:
    return {"role": "assistant", "content": content}


def rows_of(rows: list[Row], **options: Any) -> list[Row]:
    return read(datasets.Dataset.from_list(rows), **options).to_list()


#: One question about one image, in every schema's words.
SAME: dict[str, Row] = {
    "trl": {
        "images": [encoded()],
        "prompt": [asks("What is it?")],
        "chosen": [answered("A cat.")],
        "rejected": [answered("A dog.")],
    },
    "trl of parts": {
        "images": [encoded()],
        "prompt": [asks([{"type": "image"}, text("What is it?")])],
        "chosen": [answered([text("A cat.")])],
        "rejected": [answered([text("A dog.")])],
    },
    "trl of one image": {
        "image": encoded(),
        "prompt": [asks("What is it?")],
        "chosen": [answered("A cat.")],
        "rejected": [answered("A dog.")],
    },
    "trl with the prompt in both": {
        "images": [encoded()],
        "chosen": [asks("What is it?"), answered("A cat.")],
        "rejected": [asks("What is it?"), answered("A dog.")],
    },
    "rlaif_v": {
        "ds_name": "RLAIF-V",
        "image": encoded(),
        "question": "What is it?",
        "chosen": "A cat.",
        "rejected": "A dog.",
        "origin_dataset": "COCO",
        "image_path": "elsewhere/1.jpg",
    },
    "mdpo": {
        "img_path": "",
        "prompt": "USER: <image>\nWhat is it? ASSISTANT:",
        "chosen": "A cat.",
        "rejected": "A dog.",
    },
    "llamafactory": {
        "conversations": [human("<image>What is it?")],
        "chosen": gpt("A cat."),
        "rejected": gpt("A dog."),
        "images": [encoded()],
    },
    "llamafactory openai": {
        "messages": [asks("<image>What is it?")],
        "chosen": answered("A cat."),
        "rejected": answered("A dog."),
        "images": [encoded()],
    },
    "llamafactory v1": {
        "chosen_messages": [
            asks([{"type": "image_url", "value": None}, {"type": "text", "value": "What is it?"}]),
            answered([{"type": "text", "value": "A cat."}]),
        ],
        "rejected_messages": [
            asks([{"type": "image_url", "value": None}, {"type": "text", "value": "What is it?"}]),
            answered([{"type": "text", "value": "A dog."}]),
        ],
        "images": [encoded()],
    },
    "swift": {
        "messages": [asks("<image>What is it?"), answered("A cat.")],
        "images": [encoded()],
        "rejected_response": "A dog.",
    },
    "swift with messages for the response": {
        "messages": [asks("<image>What is it?"), answered("A cat.")],
        "images": [encoded()],
        "rejected_response": [answered("A dog.")],
    },
    "swift with rejected messages": {
        "messages": [asks("<image>What is it?"), answered("A cat.")],
        "images": [encoded()],
        "rejected_messages": [asks("<image>What is it?"), answered("A dog.")],
    },
    "pds_dpo": {
        "image": encoded(),
        "conversations": [human("<image>\nWhat is it?"), gpt("A cat.")],
        "rejected_conversations": [human("<image>\nWhat is it?"), gpt("A dog.")],
    },
}


@pytest.mark.parametrize("schema", SAME)
def test_every_schema_gives_the_same_rows(schema: str, tmp_path: Path) -> None:
    row = dict(SAME[schema])
    image = encoded()
    if "img_path" in row:  # the only schema that cannot hold bytes
        (tmp_path / "1.png").write_bytes(png())
        row["img_path"], image = "1.png", {"bytes": None, "path": str(tmp_path / "1.png")}
    result = read(datasets.Dataset.from_list([{"id": 7, **row}]), image_root=str(tmp_path))
    assert result.to_list() == [
        {
            "id": "7",
            "images": [image],
            "prompt": [user(IMAGE, text("What is it?"))],
            "chosen": gives("A cat."),
            "rejected": gives("A dog."),
        }
    ]
    assert result.features == {
        "id": datasets.Value("string"),
        "images": datasets.List(datasets.Image(decode=False)),
        **dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES),
    }


@pytest.mark.parametrize("schema", SAME)
def test_a_schema_that_is_told_by_its_columns_can_also_be_named(schema: str, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png())
    row = SAME[schema] | ({"img_path": "1.png"} if schema == "mdpo" else {})
    rows = [row, row]
    assert rows_of(rows, name=schema.split()[0], image_root=str(tmp_path)) == rows_of(rows, image_root=str(tmp_path))


@pytest.mark.parametrize("schema", [schema for schema in SAME if "mdpo" not in schema])
def test_rows_of_text_only_stand_among_rows_with_images(schema: str) -> None:
    row = SAME[schema]
    plain = json.loads(
        json.dumps({key: value for key, value in row.items() if key not in ("image", "images", "image_path")})
        .replace("<image>\\n", "")
        .replace("<image>", "")
    )
    for key in ("prompt", "chosen_messages", "rejected_messages"):
        for message in plain.get(key, ()):
            if isinstance(message["content"], list):
                message["content"] = [part for part in message["content"] if "image" not in part["type"]]
    nothing: Row = {"images": []} if "images" in row else {"image": None}
    with_image, without, again = rows_of([row, plain | nothing, row])
    assert without["images"] == []
    assert without["prompt"] == [user(text("What is it?"))]
    assert with_image == again
    assert len(with_image["images"]) == 1


def test_a_dataset_without_a_column_of_images_is_one_of_text() -> None:
    row = {key: value for key, value in SAME["trl"].items() if key != "images"}
    (result,) = rows_of([row])
    assert result["images"] == []
    assert result["prompt"] == [user(text("What is it?"))]


@pytest.mark.parametrize("schema", ["llamafactory", "swift", "pds_dpo"])
def test_tags_of_several_images_stay_where_they_are(schema: str) -> None:
    question = "<image>\nHow does <image> differ from\nthis:\n<image>"
    row = {
        "llamafactory": {"conversations": [human(question)], "chosen": gpt("a"), "rejected": gpt("b")},
        "swift": {"messages": [asks(question), answered("a")], "rejected_response": "b"},
        "pds_dpo": {
            "conversations": [human(question), gpt("a")],
            "rejected_conversations": [human(question), gpt("b")],
        },
    }[schema]
    (result,) = rows_of([row | {"images": [encoded("red"), encoded("green"), encoded("blue")]}])
    assert result["prompt"] == [user(IMAGE, text("How does "), IMAGE, text(" differ from\nthis:"), IMAGE)]
    assert [image["bytes"] for image in result["images"]] == [png("red"), png("green"), png("blue")]


def test_images_of_later_turns_stay_in_their_turns() -> None:
    conversation = [human("<image>first"), gpt("yes"), human("and <image>?")]
    row = {"conversations": conversation, "chosen": gpt("a"), "rejected": gpt("b"), "images": [encoded()] * 2}
    (result,) = rows_of([row])
    assert result["prompt"] == [user(IMAGE, text("first")), *gives("yes"), user(text("and "), IMAGE, text("?"))]


@pytest.mark.parametrize("schema", ["swift", "rlaif_v"])
def test_images_stand_in_front_where_there_is_no_tag_and_one_tag_of_two_is_an_error(schema: str) -> None:
    def row(question: str) -> Row:
        asking: Row = {"messages": [asks(question), answered("a")]} if schema == "swift" else {"question": question}
        named = {key: value for key, value in SAME[schema].items() if "image" not in key}
        return named | asking | {"images": [encoded()] * 2}

    (result,) = rows_of([row("is it like it?")])
    assert result["prompt"] == [user(IMAGE, IMAGE, text("is it like it?"))]
    with pytest.raises(DataError, match=r"row 0: 1 <image> tag\(s\) for 2 image\(s\)"):
        rows_of([row("is <image> like it?")])


def test_trls_images_stand_before_the_first_user_text_only() -> None:
    turns = [{"role": "system", "content": "s"}, asks("q"), answered("a"), asks("r")]
    (result,) = rows_of([SAME["trl"] | {"prompt": turns, "images": [encoded("red"), encoded("blue")]}])
    contents = [[part["type"] for part in message["content"]] for message in result["prompt"]]
    assert contents == [["text"], ["image", "image", "text"], ["text"], ["text"]]


@pytest.mark.parametrize("content", ["<image>\nWhat is it?", [text("<image>\nWhat is it?")]])
def test_a_tag_in_trls_text_is_the_image(content: Any) -> None:
    (result,) = rows_of([SAME["trl"] | {"prompt": [asks(content)]}])
    assert result["prompt"] == [user(IMAGE, text("What is it?"))]
    for images in (0, 2):
        with pytest.raises(DataError, match=rf"row 0: 1 <image> tag\(s\) for {images} image\(s\)"):
            rows_of([SAME["trl"] | {"prompt": [asks(content)], "images": [encoded()] * images}])
    with pytest.raises(DataError, match=r"2 <image> tag\(s\) for 1 image\(s\)"):
        rows_of([SAME["trl"] | {"prompt": [asks([{"type": "image"}, text("<image>What is it?")])]}])


def test_system_and_earlier_turns_are_part_of_the_prompt() -> None:
    conversation = [{"from": "system", "value": "Be short."}, human("<image>q"), gpt("a"), human("r")]
    row = {"conversations": conversation, "chosen": gpt("s"), "rejected": gpt("t"), "images": [encoded()]}
    (result,) = rows_of([row])
    assert [message["role"] for message in result["prompt"]] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("schema", SAME)
def test_the_column_system_is_the_first_message_where_it_is_not_empty(schema: str) -> None:
    row = SAME[schema] | ({"image": encoded()} if schema == "mdpo" else {})
    given = [row | {"system": "Be short."}, row | {"system": ""}, row | {"system": None}]
    first, *others = rows_of(given)
    plain = rows_of([row])[0]["prompt"]
    assert first["prompt"] == [{"role": "system", "content": [text("Be short.")]}, *plain]
    assert [other["prompt"] for other in others] == [plain, plain]


def test_a_system_turn_that_says_the_same_is_not_doubled() -> None:
    turns = [{"from": "system", "value": "Be short."}, *SAME["llamafactory"]["conversations"]]
    (result,) = rows_of([SAME["llamafactory"] | {"conversations": turns, "system": "Be short."}])
    assert [message["role"] for message in result["prompt"]] == ["system", "user"]


def test_a_system_turn_in_parts_that_says_the_same_is_not_doubled() -> None:
    turns = [{"role": "system", "content": [text("Be short.")]}, *SAME["trl of parts"]["prompt"]]
    (result,) = rows_of([SAME["trl of parts"] | {"prompt": turns, "system": "Be short."}])
    assert [message["role"] for message in result["prompt"]] == ["system", "user"]
    with pytest.raises(DataError, match="has a column system and another system turn"):
        rows_of([SAME["trl of parts"] | {"prompt": turns, "system": "Be long."}])
    templated = "<|im_start|>system\na<|im_end|>\n<|im_start|>user\n<image>q<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(DataError, match="has a column system and another system turn"):
        rows_of([SAME["mdpo"] | {"prompt": templated, "system": "b", "image": encoded()}])


TOOL = {"type": "function", "function": {"name": "zoom", "parameters": None}}


@pytest.mark.parametrize("schema", [schema for schema in SAME if schema != "mdpo"])
def test_tools_come_along_as_json(schema: str) -> None:
    as_text = json.dumps([TOOL])
    first, second, third = rows_of([SAME[schema] | {"tools": value} for value in (as_text, "[]", None)])
    assert json.loads(first["tools"]) == [TOOL]
    assert second["tools"] is third["tools"] is None


def test_of_tools_in_a_list_the_keys_that_arrow_fills_with_null_are_not_there() -> None:
    (result,) = rows_of([SAME["trl"] | {"tools": [TOOL]}])
    assert json.loads(result["tools"]) == [{"type": "function", "function": {"name": "zoom"}}]


def test_keys_that_arrow_fills_with_null_are_not_there() -> None:
    parts = [{"type": "image", "text": None, "image": None}, {"type": "text", "text": "q", "image": None}]
    (result,) = rows_of([SAME["trl"] | {"prompt": [asks(parts)]}])
    assert result["prompt"] == [user(IMAGE, text("q"))]
    assert structure(result["prompt"], 1) == [user({"type": "image"}, text("q"))]


def test_the_prompt_that_two_conversations_share_is_trls() -> None:
    turns = [asks("q"), answered("a"), asks("r")]
    row = {"chosen": [*turns, answered("good")], "rejected": [*turns, answered("bad")]}
    theirs = extract_prompt(row)
    (ours,) = rows_of([row])
    for column in ("prompt", "chosen", "rejected"):
        assert ours[column] == structure(theirs[column], 0)


# -- mDPO's templates ----------------------------------------------------------------------------------------------

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)


@pytest.mark.parametrize(
    "templated",
    [
        "USER: <image>\nq? ASSISTANT:",
        VICUNA + "USER: <image>\nq? ASSISTANT:",
        "<|user|>\n<image>\nq?<|end|>\n<|assistant|>\n",
        "<|im_start|>user\n<image>\nq?<|im_end|>\n<|im_start|>assistant\n",
    ],
)
def test_a_template_that_is_known_is_taken_off(templated: str) -> None:
    assert without_template(templated) == [asks("<image>\nq?")]


def test_a_system_text_of_the_rows_own_stays() -> None:
    prompt = "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert without_template(prompt) == [{"role": "system", "content": "Be short."}, asks("q")]


@pytest.mark.parametrize(
    "prompt",
    [
        "What does ASSISTANT: mean?",
        "Act as a pirate. USER: q ASSISTANT:",
        "USER: q ASSISTANT: a USER: r ASSISTANT:",
        "<|user|>\nq<|assistant|>\n",
        "USER: q ASSISTANT: and then?",
    ],
)
def test_a_text_that_is_not_exactly_a_template_stays(prompt: str) -> None:
    assert without_template(prompt) == [asks(prompt)]


def test_the_placeholder_of_an_unknown_template_is_an_image_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png())
    row = SAME["mdpo"] | {"img_path": "1.png", "prompt": "Q: <image> what? A:"}
    (result,) = rows_of([row], image_root=str(tmp_path))
    assert result["prompt"] == [user(text("Q: "), IMAGE, text(" what? A:"))]


# -- rejected and similar images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [schema for schema in SAME if schema != "mdpo"])
def test_rejected_and_similar_images_come_along(schema: str) -> None:
    extra = {
        "rejected_images": [encoded("blue")],
        "similar_images": [encoded("green")],
        "similar_chosen": "A green cat.",
    }
    none = {"rejected_images": [], "similar_images": None, "similar_chosen": None}
    first, second = rows_of([SAME[schema] | extra, SAME[schema] | none])
    assert first["rejected_images"] == [encoded("blue")]
    assert first["similar_images"] == [encoded("green")]
    assert first["similar_chosen"] == gives("A green cat.")
    assert (second["rejected_images"], second["similar_images"], second["similar_chosen"]) == ([], [], [])


def test_ms_swift_repeats_images_that_are_not_worse() -> None:
    same = SAME["swift"] | {"rejected_images": [encoded()]}
    other = SAME["swift"] | {"rejected_images": [encoded("blue")]}
    first, second = rows_of([same, other])
    assert first["rejected_images"] == []
    assert second["rejected_images"] == [encoded("blue")]


def test_every_repeated_image_is_found_in_a_dataset_of_many_chunks() -> None:
    same = SAME["swift"] | {"rejected_images": [encoded()]}
    other = SAME["swift"] | {"rejected_images": [encoded("blue")]}
    chunks = [datasets.Dataset.from_list(rows) for rows in ([same, other], [other], [same, same, other])]
    result = read(datasets.concatenate_datasets(chunks)).to_list()
    assert [len(row["rejected_images"]) for row in result] == [0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("response", [{}, {"rejected_response": None}, {"rejected_response": ""}])
def test_another_image_alone_never_becomes_a_pair_of_equal_answers(response: Row) -> None:
    row = {key: value for key, value in SAME["swift"].items() if key != "rejected_response"}
    with pytest.raises(DataError, match=r"row 0: has no rejected answer: .* add rejected_response, or drop the row"):
        rows_of([row | {"rejected_images": [encoded("blue")]} | response])


# -- data without rejected answers ---------------------------------------------------------------------------------


def test_good_answers_alone_can_be_read() -> None:
    row = {key: value for key, value in SAME["trl"].items() if key != "rejected"}
    (result,) = rows_of([row], rejected=False)
    assert result == {"images": [encoded()], "prompt": [user(IMAGE, text("What is it?"))], "chosen": gives("A cat.")}
    with pytest.raises(DataError, match=r"missing column\(s\) rejected"):
        rows_of([row])


@pytest.mark.parametrize("rejected", [None, [], "<image>", 7, [{"role": "user", "content": "no answer"}]])
@pytest.mark.parametrize("schema", ["trl", "rlaif_v", "llamafactory"])
def test_where_good_answers_are_wanted_rejected_ones_are_not_read(schema: str, rejected: Any) -> None:
    row = {**SAME[schema], "rejected": rejected}
    (result,) = rows_of([row], rejected=False)
    (without,) = rows_of([{key: value for key, value in row.items() if key != "rejected"}], rejected=False)
    assert result == without and result["chosen"] == gives("A cat.")
    with pytest.raises(DataError, match="row 0: "):
        rows_of([row])


def test_the_prompt_of_a_good_answer_does_not_depend_on_a_rejected_one() -> None:
    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello."}]
    chosen = [*turns, {"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A cat."}]
    other = [turns[0], {"role": "assistant", "content": "Go."}, *chosen[2:]]
    for rejected in (chosen, other, None):
        (result,) = rows_of([{"images": [], "chosen": chosen, "rejected": rejected}], rejected=False)
        assert len(result["prompt"]) == 3 and result["chosen"] == gives("A cat.")


@pytest.mark.parametrize("schema", [schema for schema in SAME if schema != "mdpo"])
def test_pairs_can_be_read_for_their_good_answers(schema: str) -> None:
    (result,) = rows_of([SAME[schema]], rejected=False)
    assert "rejected" not in result
    assert result["chosen"] == gives("A cat.")


# -- errors --------------------------------------------------------------------------------------------------------

T, L, S, P = SAME["trl"], SAME["llamafactory"], SAME["swift"], SAME["pds_dpo"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (T | {"prompt": [asks([{"type": "image"}] * 2)]}, r"2 image placeholder\(s\) for 1 image\(s\); make the two"),
        (T | {"prompt": [{"role": "poet", "content": "q"}]}, r"column prompt has a turn of 'poet' \(known: human"),
        (T | {"prompt": [asks(None)]}, "column prompt has a turn whose content is None; give a text"),
        (T | {"prompt": "q"}, "column prompt is not conversational .* rename prompt to question"),
        (T | {"prompt": []}, "column prompt is not conversational"),
        (
            T | {"chosen": [asks("q"), answered("a")]},
            "chosen starts with a turn of user.* leave the prompt out",
        ),
        (T | {"chosen": [answered([{"type": "image"}])]}, "column chosen holds an image; only the prompt may"),
        (T | {"prompt": [asks([{"type": "image", "image": "a.png"}])]}, "an image inside a content; move it to the"),
        (T | {"prompt": [asks([{"type": "video"}])]}, "column prompt has a part {'type': 'video'}; give"),
        (T | {"rejected": [answered("b") | {"tool_calls": ["f"]}]}, "column rejected has tool calls"),
        (
            T | {"chosen": [answered("a") | {"reasoning_content": "because"}]},
            "column chosen has a turn with reasoning_content, which is not trained on; write it into the content",
        ),
        (
            S | {"messages": [asks("<image>q"), answered("a") | {"thinking": "so"}]},
            "column messages has a turn with thinking, .* or drop the row",
        ),
        (L | {"rejected": gpt("b") | {"reasoning": "so"}}, "column rejected has a turn with reasoning"),
        (
            T | {"images": [encoded()] * 2, "prompt": [asks([IMAGE | {"index": 1}, IMAGE | {"index": 0}, text("q")])]},
            "column prompt has an image part with index 1 in the place of image 0; images are read in the order of",
        ),
        (
            T | {"images": [encoded()] * 2, "prompt": [asks([text("<image>q"), IMAGE | {"index": 0}])]},
            "column prompt has an image part with index 0 in the place of image 1",
        ),
        (P | {"system": ["s"]}, r"column system is \['s'\]; give a text"),
        (L | {"images": [encoded()] * 2}, r"1 <image> tag\(s\) for 2 image\(s\); make the two numbers equal"),
        (L | {"conversations": [human("q")]}, r"0 <image> tag\(s\) for 1 image\(s\)"),
        (
            L | {"conversations": [human("<image>q"), gpt("a")]},
            "column conversations has a prompt that ends with",
        ),
        (L | {"conversations": []}, "column conversations is not conversational"),
        (L | {"rejected": gpt("<image>")}, "column rejected holds <image>; only the prompt may"),
        (T | {"rejected": [answered("<image>")]}, "column rejected holds <image>; only the prompt may"),
        (S | {"rejected_response": "<bbox>"}, "column rejected_response has <bbox> in a text; only images are read"),
        (L | {"chosen": human("a")}, "column chosen starts with a turn of user"),
        (L | {"system": 3}, "column system is 3; give a text"),
        (
            L | {"conversations": [{"from": "system", "value": "a"}, human("<image>q")], "system": "b"},
            "has a column system and another system turn in its conversation; keep one",
        ),
        (T | {"tools": "zoom"}, "column tools is no JSON .*; give a list of tools, or the JSON of one"),
        (T | {"tools": "{}"}, "column tools is '{}'; give a list of tools"),
        (S | {"images": []}, r"1 <image> tag\(s\) for 0 image\(s\)"),
        (S | {"messages": [asks("<image>q")]}, "column messages must hold a prompt and end with the assistant's turn"),
        (S | {"rejected_response": [asks("b")]}, "column rejected_response starts with a turn of user"),
        (P | {"rejected_conversations": [human("q"), gpt("b")]}, "do not start with the same message"),
        (P | {"rejected_conversations": P["conversations"][:1]}, "one is the start of the other; drop the row"),
        (SAME["rlaif_v"] | {"question": None}, "column question is None; give a text"),
        (SAME["rlaif_v"] | {"chosen": None}, "column chosen is not conversational"),
        (T | {"rejected_images": [encoded("blue")] * 2}, r"rejected_images has 2 image\(s\) for a prompt about 1"),
        (T | {"rejected_images": [encoded()]}, "rejected_images are the images themselves, so neither is worse"),
        (T | {"similar_images": [encoded("blue")]}, "only one of similar_images and similar_chosen; give both"),
        (T | {"similar_images": [], "similar_chosen": "a"}, "only one of similar_images and similar_chosen"),
    ],
)
def test_a_wrong_row_is_an_error_that_names_it_and_the_remedy(row: Row, message: str) -> None:
    with pytest.raises(DataError, match=rf"dataset mine: row 0 \(id x\): .*{message}"):
        rows_of([{"id": "x", **row}], path="mine")


def test_an_index_that_is_the_images_own_number_and_reasoning_of_nothing_change_nothing() -> None:
    first, second = (IMAGE | {"index": number} for number in (0, 1))
    prompt = [asks([first, text("q")]), answered([text("a")]) | {"reasoning_content": None}, asks([text("r"), second])]
    row = T | {"images": [encoded("red"), encoded("blue")], "prompt": prompt}
    (result,) = rows_of([row | {"chosen": [answered("c") | {"reasoning_content": "", "thinking": None}]}])
    assert result["chosen"] == gives("c") and [image["bytes"] for image in result["images"]] == [png(), png("blue")]
    assert [message["content"] for message in result["prompt"]] == [[IMAGE, text("q")], [text("a")], [text("r"), IMAGE]]


def test_an_error_counts_rows_over_batches() -> None:
    rows = [{"id": f"r{i}", **T} for i in range(1203)]
    rows[1201] = rows[1201] | {"prompt": [asks(None)]}
    with pytest.raises(DataError, match=r"row 1201 \(id r1201\)"):
        rows_of(rows)


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({"prompt", "question", "chosen", "rejected"}, "trl and rlaif_v; set dataset_format=trl or rlaif_v"),
        ({"conversations", "chosen", "rejected", "rejected_conversations"}, "llamafactory and pds_dpo"),
        ({"prompt", "chosen", "rejected", "conversations"}, "trl and llamafactory"),
        ({"messages", "chosen", "rejected", "rejected_response"}, "llamafactory and swift"),
        ({"messages", "rejected_messages", "chosen_messages"}, "llamafactory and swift"),
    ],
)
def test_columns_that_fit_two_schemas_are_an_error_that_says_what_to_set(columns: set[str], names: str) -> None:
    with pytest.raises(DataError, match=names):
        rows_of([dict.fromkeys(columns, "x")])


def test_a_name_decides_where_two_schemas_fit() -> None:
    (result,) = rows_of([SAME["rlaif_v"] | {"prompt": "templated"}], name="rlaif_v")
    assert result["prompt"] == [user(IMAGE, text("What is it?"))]


def test_no_schema_is_an_error_that_says_what_is_missing() -> None:
    with pytest.raises(DataError, match=r"missing column\(s\) chosen; it has prompt, rejected\. Read as trl; .* swift"):
        rows_of([{"prompt": "q", "rejected": "r"}])
    with pytest.raises(DataError, match=r"missing column\(s\) question; .* Read as rlaif_v"):
        rows_of([SAME["trl"]], name="rlaif_v")
    with pytest.raises(DataError, match="dataset_format=other is unknown; known: trl, rlaif_v, mdpo"):
        rows_of([SAME["trl"]], name="other")


def test_no_rows_are_an_error() -> None:
    with pytest.raises(DataError, match="dataset in memory: has no rows"):
        read(datasets.Dataset.from_dict({"prompt": []}))


def test_images_under_another_name_do_not_make_a_dataset_of_text() -> None:
    row = {key: value for key, value in T.items() if key != "images"}
    dataset = datasets.Dataset.from_list([row | {"scan": Image.new("RGB", (4, 4))}])
    with pytest.raises(DataError, match=r"row 0: column `scan` holds images, .* rename it to `images`"):
        read(dataset)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("Images", ["1"]),
        ("images_path", ["my photo.jpg"]),
        ("image_url", ["https://h/img/12"]),
        ("image_base64", ["iVBORw0K"]),
        ("filename", ["my photo.jpg"]),
        ("filename", ["a.heic"]),
        ("scan", ["data:image/png;base64,AAAA"]),
        ("scan", [["a.png"], "a.png"]),
    ],
)
def test_what_is_called_an_image_does_not_make_a_row_of_text(tmp_path: Path, column: str, values: list[Any]) -> None:
    row = {key: value for key, value in T.items() if key != "images"} | {"prompt": [asks("q")]}
    (tmp_path / "a.json").write_text(json.dumps([row | {column: None}, *(row | {column: value} for value in values)]))
    with pytest.raises(DataError, match=rf"row 1: column `{column}` holds .* rename it to `images`, or remove it"):
        open(str(tmp_path / "a.json"))


def test_what_is_said_about_images_makes_no_row_of_text_an_error() -> None:
    row = {key: value for key, value in T.items() if key != "images"} | {"prompt": [asks("q")]}
    said = {"image_id": "a/1", "origin_image_name": "12", "image_url": None, "num_images": 0, "Images": ""}
    (result,) = rows_of([row | said])
    assert result["images"] == []


# -- properties ----------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: not any(tag in text for tag in (TAG, *OTHERS))
)


@st.composite
def interleaved(draw: st.DrawFn) -> list[Row]:
    """Parts in which no two texts are neighbours, and some text is."""
    parts: list[Row] = []
    for kind in draw(st.lists(st.booleans(), min_size=1, max_size=6)):
        if kind and not (parts and parts[-1]["type"] == "text"):
            parts.append(text(draw(words)))
        else:
            parts.append(IMAGE)
    return parts if any(part["type"] == "text" for part in parts) else [*parts, text(draw(words))]


def written(parts: list[Row]) -> str:
    """With the line break that joins the tags at either end to the text."""
    texts = [i for i, part in enumerate(parts) if part["type"] == "text"]
    pieces = [part["text"] or "<image>" for part in parts]
    return (
        "".join(f"{piece}\n" for piece in pieces[: texts[0]])
        + "".join(pieces[texts[0] : texts[-1] + 1])
        + "".join(f"\n{piece}" if i == 0 else piece for i, piece in enumerate(pieces[texts[-1] + 1 :]))
    )


@given(interleaved())
def test_parts_written_with_tags_are_read_back(parts: list[Row]) -> None:
    assert split_tags(written(parts)) == parts


@given(st.text(st.sampled_from("ab\n<>image "), max_size=40))
def test_every_tag_is_an_image_and_no_other_character_is_lost(given_text: str) -> None:
    parts = split_tags(given_text)
    assert sum(part == IMAGE for part in parts) == given_text.count("<image>")
    kept = "".join(part["text"] or "" for part in parts)
    assert kept.replace("\n", "") == given_text.replace("<image>", "").replace("\n", "")
    assert given_text.count("\n") - kept.count("\n") <= given_text.count("<image>") + 1


def _as_trl(parts: list[Row], images: list[Row], good: str, bad: str) -> Row:
    return {"images": images, "prompt": [asks(parts)], "chosen": [answered(good)], "rejected": [answered(bad)]}


def _as_llamafactory(parts: list[Row], images: list[Row], good: str, bad: str) -> Row:
    return {"conversations": [human(written(parts))], "chosen": gpt(good), "rejected": gpt(bad), "images": images}


def _as_swift(parts: list[Row], images: list[Row], good: str, bad: str) -> Row:
    return {"messages": [asks(written(parts)), answered(good)], "images": images, "rejected_response": bad}


def _as_pds_dpo(parts: list[Row], images: list[Row], good: str, bad: str) -> Row:
    prompt = human(written(parts))
    return {"images": images, "conversations": [prompt, gpt(good)], "rejected_conversations": [prompt, gpt(bad)]}


@pytest.mark.parametrize("write", [_as_trl, _as_llamafactory, _as_swift, _as_pds_dpo])
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(interleaved(), words, words).filter(lambda row: row[1] != row[2]), min_size=1, max_size=4))
def test_any_texts_and_images_survive_any_schema(
    write: Callable[[list[Row], list[Row], str, str], Row], rows: list[tuple[list[Row], str, str]]
) -> None:
    colours = ("red", "green", "blue", "white", "black", "grey")
    expected = []
    for parts, good, bad in rows:
        images = [encoded(colours[i]) for i, _ in enumerate(part for part in parts if part == IMAGE)]
        expected.append((parts, images, good, bad))
    features = {"images": datasets.List(datasets.Image(decode=False))}
    dataset = datasets.Dataset.from_list([write(*row) for row in expected])
    result = read(dataset.cast_column("images", features["images"])).to_list()
    assert [
        (row["prompt"][0]["content"], row["images"], row["chosen"][0]["content"][0]["text"], row["rejected"])
        for row in result
    ] == [(parts, images, good, gives(bad)) for parts, images, good, bad in expected]


# -- what reads it next --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [schema for schema in SAME if schema != "mdpo"])
def test_trls_collator_takes_what_comes_out(schema: str, processor: Any) -> None:
    plain = {"images": [], "prompt": [asks("describe it")], "chosen": [answered("a")], "rejected": [answered("it")]}
    both = datasets.concatenate_datasets(
        [read(datasets.Dataset.from_list([SAME[schema]])), read(datasets.Dataset.from_list([plain]))]
    )
    examples = list(both.cast_column("images", datasets.List(datasets.Image())))
    batch = DataCollatorForVisionPreference(processor)(examples)
    assert batch["input_ids"].shape[0] == 4
    assert (batch["input_ids"] == processor.image_token_id).sum(1).tolist() == [4, 0, 4, 0]


def test_the_pipelines_dataset_is_read_as_it_is(dataset_folder: Path, rows: list[Row]) -> None:
    result = open(str(dataset_folder))
    assert result["id"][:] == [row["id"] for row in rows]
    for theirs, ours in zip(rows, result, strict=True):
        assert structure(ours["prompt"], 1) == structure(theirs["prompt"], 1)
        assert structure(ours["rejected"], 0) == structure(theirs["rejected"], 0)
        assert Image.open(io.BytesIO(ours["images"][0]["bytes"])).tobytes() == theirs["images"][0].tobytes()


def test_every_schema_is_in_the_table_under_its_own_name() -> None:
    assert list(FORMATS) == [schema.name for schema in FORMATS.values()]
    assert set(FORMATS) == {schema.split()[0] for schema in SAME}


@pytest.mark.parametrize("schema", FORMATS)
def test_the_example_in_the_docs_is_a_row_of_its_schema(schema: str, tmp_path: Path) -> None:
    docs = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    example = docs.split(f"\n## {schema}\n")[1].split("```json\n")[1].split("```")[0]
    (tmp_path / "1.jpg").write_bytes(png())
    (tmp_path / "train.json").write_text(json.dumps([json.loads(example)]))
    assert open(str(tmp_path / "train.json")).to_list() == [
        {
            "images": [{"bytes": None, "path": str(tmp_path / "1.jpg")}],
            "prompt": [user(IMAGE, text("What is it?"))],
            "chosen": gives("A cat."),
            "rejected": gives("A dog."),
        }
    ]


@pytest.mark.parametrize(
    ("value", "name"), [("x", "x"), (7, "7"), (7.0, "7"), (None, None), (math.nan, None), (True, ""), (1.5, "")]
)
def test_a_row_is_called_by_a_text_or_a_whole_number(value: Any, name: str | None) -> None:
    if name == "":
        with pytest.raises(DataError, match=f"column id is {value!r}; give a text or a whole number"):
            rows_of([{"id": value, **T}])
    else:
        assert [row["id"] for row in rows_of([{"id": value, **T}])] == [name]
