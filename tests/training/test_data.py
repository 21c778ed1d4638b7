"""A published dataset: how it opens, what a row becomes, and errors that name the row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

from training.config import Corruption
from training.data import PairDataset, check_columns, open_dataset, prepare, render, structured
from training.errors import DataError

Rows = list[dict[str, Any]]
Publish = Callable[[Rows], datasets.Dataset]


def tokenise(rows: Rows, publish: Publish, processor: Any, **options: Any) -> PairDataset:
    return prepare(check_columns(publish(rows), "memory"), processor, Corruption(), seed=0, **options)


def test_a_saved_folder_opens_with_its_images_left_encoded(dataset_folder: Path) -> None:
    dataset = open_dataset(str(dataset_folder))
    assert len(dataset) == 8
    assert isinstance(dataset[0]["images"][0]["bytes"], bytes)


def test_a_folder_of_two_configs_opens_its_pairs(tmp_path: Path, rows: Rows, publish: Publish) -> None:
    for config, part in (("pairs", rows), ("candidates", rows[:1])):
        (tmp_path / config).mkdir()
        publish(part).to_parquet(str(tmp_path / config / "train-00000.parquet"))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: candidates\n  data_files: candidates/*.parquet\n"
        "- config_name: pairs\n  data_files: pairs/*.parquet\n---\n"
    )
    assert len(open_dataset(str(tmp_path))) == 8


def test_a_folder_that_holds_a_saved_pairs_folder_opens_it(tmp_path: Path, rows: Rows, publish: Publish) -> None:
    publish(rows).save_to_disk(str(tmp_path / "pairs"))
    assert len(open_dataset(str(tmp_path))) == 8


def test_a_published_dataset_saved_whole_opens_its_pairs(tmp_path: Path, rows: Rows, publish: Publish) -> None:
    whole = datasets.DatasetDict({"pairs": publish(rows), "candidates": publish(rows[:1])})
    whole.save_to_disk(str(tmp_path / "whole"))
    assert len(open_dataset(str(tmp_path / "whole"))) == 8


def test_a_missing_dataset_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset .*nowhere: cannot be opened"):
        open_dataset(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.remove_columns("chosen"), r"missing column\(s\) chosen; it has id, images, prompt, rejected"),
        (lambda d: d.rename_column("images", "image"), "put the single `image` into a list named `images`"),
        (lambda d: d.remove_columns("prompt").add_column("prompt", ["q"] * 8), "column prompt is not conversational"),
        (lambda d: d.remove_columns("images").add_column("images", [1] * 8), "images has type .*cast it to List"),
        (lambda d: d.select([]), "has no rows"),
    ],
)
def test_a_wrong_column_is_an_error_with_the_remedy(
    rows: Rows, publish: Publish, change: Callable[[datasets.Dataset], datasets.Dataset], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        check_columns(change(publish(rows)), "memory")


def test_the_completion_is_what_follows_the_common_prefix_of_the_renderings(processor: Any, rows: Rows) -> None:
    row = rows[1]
    assert render(processor, row["prompt"], row["chosen"], row["rejected"], 1) == (
        "<user><image>what is this<assistant>",
        "this is a green square</s>",
        "a black square and nothing</s>",
    )


def test_rendering_is_trls(processor: Any, rows: Rows) -> None:
    for row in rows:
        example = {
            "prompt": prepare_multimodal_messages(row["prompt"], images=row["images"]),
            "chosen": prepare_multimodal_messages(row["chosen"]),
            "rejected": prepare_multimodal_messages(row["rejected"]),
        }
        theirs = apply_chat_template(example, processor)
        ours = render(processor, row["prompt"], row["chosen"], row["rejected"], 1)
        assert ours == (theirs["prompt"], theirs["chosen"], theirs["rejected"])


def test_placeholders_stand_before_the_first_user_text_only() -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    contents = [[part["type"] for part in message["content"]] for message in structured(messages, 2)]
    assert contents == [["text"], ["image", "image", "text"], ["text"], ["text"]]


def test_structured_content_is_kept_without_the_nulls_that_arrow_adds() -> None:
    parts = [{"type": "text", "text": "q"}, {"type": "image", "text": None}]
    (message,) = structured([{"role": "user", "content": parts}], 1)
    assert message["content"] == [{"type": "text", "text": "q"}, {"type": "image"}]
    with pytest.raises(DataError, match=r"1 image placeholder\(s\) for 2 image\(s\)"):
        structured([{"role": "user", "content": parts}], 2)


def test_the_prompt_holds_the_expanded_image_and_the_response_ends_with_the_end_token(
    pairs: PairDataset, processor: Any
) -> None:
    for pair in pairs.pairs:
        assert pair.prompt_ids.count(processor.image_token_id) == 4
        assert pair.chosen_ids[-1] == pair.rejected_ids[-1] == processor.tokenizer.eos_token_id
        assert processor.tokenizer.unk_token_id not in pair.prompt_ids + pair.chosen_ids + pair.rejected_ids


def test_pair_ids_are_distinct_and_do_not_depend_on_the_order_of_rows(
    rows: Rows, publish: Publish, processor: Any
) -> None:
    forward = [pair.id for pair in tokenise(rows, publish, processor).pairs]
    backward = [pair.id for pair in tokenise(rows[::-1], publish, processor).pairs]
    assert forward == backward[::-1]
    assert len(set(forward)) == 8


def test_two_pairs_of_one_prompt_have_ids_of_their_own(rows: Rows, publish: Publish, processor: Any) -> None:
    twin = {**rows[0], "rejected": rows[1]["rejected"]}
    first, second = tokenise([rows[0], twin], publish, processor).pairs
    assert first.id != second.id


def test_the_id_column_is_optional(rows: Rows, publish: Publish, processor: Any) -> None:
    dataset = check_columns(publish(rows).remove_columns("id"), "memory")
    assert prepare(dataset, processor, Corruption(), seed=0).pairs[3].name == "row 3"


def test_an_unreadable_image_is_an_error_naming_the_row(rows: Rows, publish: Publish, processor: Any) -> None:
    rows[4]["images"] = [{"bytes": b"not an image", "path": None}]
    with pytest.raises(DataError, match=r"row 4 \(id pair-4\): image 0 cannot be read"):
        tokenise(rows, publish, processor)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
@pytest.mark.parametrize("content", ["", "  "])
def test_an_empty_response_is_an_error_naming_the_row(
    rows: Rows, publish: Publish, processor: Any, side: str, content: str
) -> None:
    rows[2][side] = [{"role": "assistant", "content": content}]
    with pytest.raises(DataError, match=rf"row 2 \(id pair-2\): the {side} response is empty"):
        tokenise(rows, publish, processor)


def test_a_row_longer_than_the_model_is_an_error_because_nothing_is_cut(
    rows: Rows, publish: Publish, processor: Any
) -> None:
    with pytest.raises(DataError, match=r"row 0 .* tokens long, the model has 8 positions"):
        tokenise(rows, publish, processor, max_length=8)


def test_mdpo_needs_an_image_in_every_row_and_dpo_does_not(rows: Rows, publish: Publish, processor: Any) -> None:
    rows[6]["images"] = []
    assert tokenise(rows, publish, processor).pairs[6].images == ()
    with pytest.raises(DataError, match=r"row 6 .*has no image"):
        tokenise(rows, publish, processor, needs_image=True)


def test_the_corrupted_image_is_the_same_in_every_call_and_of_the_same_size(pairs: PairDataset) -> None:
    for pair in pairs.pairs:
        image, corrupted = pairs.image(pair, 0), pairs.corrupted(pair, 0)
        assert corrupted.size == image.size
        assert corrupted.tobytes() == pairs.corrupted(pair, 0).tobytes()
        assert corrupted.tobytes() != image.tobytes()
