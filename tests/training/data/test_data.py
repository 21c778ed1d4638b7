"""A published dataset: how it opens, what a row becomes, and errors that name the row."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

from training import formats
from training.config import make_config
from training.data.dataset import prepare, prepare_chosen
from training.data.pairs import PairDataset
from training.data.render import render, structure
from training.data.tokens import Encoder
from training.errors import DataError

Rows = list[dict[str, Any]]
Publish = Callable[[Rows], datasets.Dataset]


def tokenise(rows: Rows, publish: Publish, processor: Any, **options: Any) -> PairDataset:
    positions = options.pop("positions", None)
    values = {"model": "none", "dataset": "none", "output_dir": "none", "objective": "dpo", **options}
    return prepare(formats.read(publish(rows)), processor, make_config(values), positions)


def test_the_completion_is_what_follows_the_common_prefix_of_the_renderings(processor: Any, rows: Rows) -> None:
    row = rows[1]
    assert render(processor, row["prompt"], [row["chosen"], row["rejected"]], 1) == (
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
        ours = render(processor, row["prompt"], [row["chosen"], row["rejected"]], 1)
        assert ours == (theirs["prompt"], theirs["chosen"], theirs["rejected"])


def test_placeholders_stand_before_the_first_user_text_only() -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    contents = [[part["type"] for part in message["content"]] for message in structure(messages, 2)]
    assert contents == [["text"], ["image", "image", "text"], ["text"], ["text"]]


def test_structured_content_is_kept_without_the_nulls_that_arrow_adds() -> None:
    parts = [{"type": "text", "text": "q"}, {"type": "image", "text": None}]
    (message,) = structure([{"role": "user", "content": parts}], 1)
    assert message["content"] == [{"type": "text", "text": "q"}, {"type": "image"}]
    with pytest.raises(DataError, match=r"1 image placeholder\(s\) for 2 image\(s\)"):
        structure([{"role": "user", "content": parts}], 2)


def test_the_prompt_holds_the_expanded_image_and_the_response_ends_with_the_end_token(
    pairs: PairDataset, processor: Any
) -> None:
    for pair in pairs.pairs:
        assert pair.prompt.ids.count(processor.image_token_id) == 4
        assert pair.chosen_ids[-1] == pair.rejected_ids[-1] == processor.tokenizer.eos_token_id
        assert processor.tokenizer.unk_token_id not in pair.prompt.ids + pair.chosen_ids + pair.rejected_ids


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
    nameless = [{key: value for key, value in row.items() if key != "id"} for row in rows]
    without = lambda given: publish([{"id": None, **row} for row in given]).remove_columns("id")  # noqa: E731
    assert tokenise(nameless, without, processor).pairs[3].name == "row 3"


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
    with pytest.raises(DataError, match=r"row 0 .* tokens long, the limit is 8"):
        tokenise(rows, publish, processor, positions=8)


def test_mdpo_needs_an_image_in_every_row_and_dpo_does_not(rows: Rows, publish: Publish, processor: Any) -> None:
    rows[6]["images"] = []
    assert tokenise(rows, publish, processor).pairs[6].prompt.images == ()
    with pytest.raises(DataError, match=r"row 6 .*has no image"):
        tokenise(rows, publish, processor, objective="mdpo")


def test_what_measures_the_images_of_dpo_needs_one_in_every_row_too(
    rows: Rows, publish: Publish, processor: Any
) -> None:
    assert tokenise(rows, publish, processor, probe_image=True).pairs[6].corrupted is not None
    rows[6]["images"] = []
    message = r"row 6 \(id pair-6\): has no image, and probe_image=true .* drop the row or set probe_image=false"
    with pytest.raises(DataError, match=message):
        tokenise(rows, publish, processor, probe_image=True)


def test_the_corrupted_image_is_the_same_in_every_call_and_of_the_same_size(pairs: PairDataset) -> None:
    for pair in pairs.pairs:
        image, corrupted = pairs.image(pair, 0), pairs.corrupted_image(pair, 0)
        assert corrupted.size == image.size
        assert corrupted.tobytes() == pairs.corrupted_image(pair, 0).tobytes()
        assert corrupted.tobytes() != image.tobytes()


LONG = "this is a green square" + " and nothing" * 8


@pytest.mark.parametrize("limit", [18, 21])
def test_cutting_takes_response_tokens_only_and_both_answers_fit(
    rows: Rows, publish: Publish, processor: Any, limit: int
) -> None:
    rows[1]["rejected"] = [{"role": "assistant", "content": LONG}]
    whole = tokenise(rows, publish, processor).pairs[1]
    cut = tokenise(rows, publish, processor, too_long="cut", max_length=limit).pairs[1]
    assert cut.tokens == limit < whole.tokens
    assert cut.prompt == whole.prompt
    assert whole.chosen_ids[: len(cut.chosen_ids)] == cut.chosen_ids
    assert whole.rejected_ids[: len(cut.rejected_ids)] == cut.rejected_ids


def test_a_row_is_skipped_with_its_reason_where_cutting_leaves_nothing_to_compare(
    rows: Rows, publish: Publish, processor: Any
) -> None:
    rows[1]["chosen"] = [{"role": "assistant", "content": LONG}]
    rows[1]["rejected"] = [{"role": "assistant", "content": LONG + " on the square"}]
    prepared = tokenise(rows, publish, processor, too_long="cut", max_length=20)
    assert [skipped.name for skipped in prepared.skipped] == ["row 1 (id pair-1)"]
    assert "both answers are the same" in prepared.skipped[0].reason
    prepared = tokenise(rows, publish, processor, too_long="skip", max_length=20)
    assert [skipped.name for skipped in prepared.skipped] == ["row 1 (id pair-1)"]
    assert len(prepared.pairs) == 7
    with pytest.raises(DataError, match=r"all 8 rows were skipped, the first: row 0"):
        tokenise(rows, publish, processor, too_long="cut", max_length=4)


def test_ties_are_refused_all_at_once_or_left_out_and_counted(rows: Rows, publish: Publish, processor: Any) -> None:
    for at in (3, 5):
        rows[at]["rejected"] = rows[at]["chosen"]
    reason = (
        r"row 3 \(id pair-3\): .*the same text.* 2 of 8 row\(s\) are ties \(row 3 \(id pair-3\), row 5 \(id pair-5\)\)"
    )
    with pytest.raises(DataError, match=rf"{reason}; drop them, or set ties=skip"):
        tokenise(rows, publish, processor)
    prepared = tokenise(rows, publish, processor, ties="skip")
    assert [pair.name for pair in prepared.pairs] == [f"row {at} (id pair-{at})" for at in (0, 1, 2, 4, 6, 7)]
    assert [(skipped.name, skipped.reason) for skipped in prepared.skipped] == [
        (f"row {at} (id pair-{at})", "chosen and rejected are the same text") for at in (3, 5)
    ]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("token", ["</s>", "<pad>", "<user>", "<assistant>"])
def test_a_control_token_of_the_model_in_an_answer_is_an_error(
    token: str, rows: Rows, publish: Publish, processor: Any
) -> None:
    rows[2]["chosen"], rows[2]["rejected"] = answer("a sun"), answer(f"a boat{token}")
    with pytest.raises(DataError, match=rf"row 2 \(id pair-2\): the rejected response holds {token}, a control token"):
        tokenise(rows, publish, processor)
    rows[2]["chosen"] = answer(f"a boat {token}")
    with pytest.raises(DataError, match=r"row 2 \(id pair-2\): chosen and rejected are the same text"):
        tokenise(rows, publish, processor)
    rows[2]["rejected"] = answer("a boat")
    assert [skipped.name for skipped in tokenise(rows, publish, processor, ties="skip").skipped] == [
        "row 2 (id pair-2)"
    ]
    with pytest.raises(DataError, match=r"row 0 \(id pair-2\): chosen and rejected are the same text.* 1 of 1 row"):
        tokenise(rows[2:3], publish, processor)


def test_a_word_in_angle_brackets_that_is_none_of_the_models_tokens_is_text(
    rows: Rows, publish: Publish, processor: Any
) -> None:
    rows[2]["chosen"] = answer("<b>a sun</b>")
    assert len(tokenise(rows, publish, processor).pairs) == 8


def test_the_image_token_of_a_model_in_a_prompt_is_an_error(rows: Rows, publish: Publish, processor: Any) -> None:
    dataset = formats.read(publish(rows))
    config = make_config({"model": "none", "dataset": "none", "output_dir": "none", "objective": "dpo"})
    part = {"type": "text", "text": "what <image> is"}
    spoilt = dataset.map(lambda row: {"prompt": [{"role": "user", "content": [part]}]})
    with pytest.raises(DataError, match=r"row 0 \(id pair-0\): the prompt holds <image>, .* one more image"):
        prepare(spoilt, processor, config)


def test_without_images_the_prompt_is_the_text_alone(rows: Rows, publish: Publish, processor: Any) -> None:
    blind = tokenise(rows, publish, processor, use_images=False)
    seeing = tokenise(rows, publish, processor)
    for with_image, without in zip(seeing.pairs, blind.pairs, strict=True):
        assert without.prompt.images == ()
        kept = tuple(token for token in with_image.prompt.ids if token != processor.image_token_id)
        assert without.prompt.ids == kept
        assert (without.chosen_ids, without.rejected_ids) == (with_image.chosen_ids, with_image.rejected_ids)


def test_the_image_of_another_pair_stands_in_as_the_rejected_one(rows: Rows, publish: Publish, processor: Any) -> None:
    prepared = tokenise(rows, publish, processor, objective="mdpo", corruption={"kind": "other"})
    pictures = [prepared.image(pair, 0).tobytes() for pair in prepared.pairs]
    for index, pair in enumerate(prepared.pairs):
        corrupted = prepared.corrupted_image(pair, 0).tobytes()
        assert corrupted in pictures and corrupted != pictures[index]
        assert corrupted == prepared.corrupted_image(pair, 0).tobytes()


def test_rejected_images_of_the_data_are_used_and_their_absence_is_an_error(
    rows: Rows, publish: Publish, processor: Any
) -> None:
    def with_rejected(given: Rows) -> datasets.Dataset:
        moved = publish([*given[1:], given[0]]).select_columns("images").rename_column("images", "rejected_images")
        return datasets.concatenate_datasets([publish(given), moved], axis=1)

    options = {"objective": "mdpo", "corruption": {"kind": "data"}}
    prepared = tokenise(rows, with_rejected, processor, **options)
    for index, pair in enumerate(prepared.pairs):
        lender = prepared.pairs[(index + 1) % 8]
        assert prepared.corrupted_image(pair, 0).tobytes() == prepared.image(lender, 0).tobytes()
    with pytest.raises(DataError, match="no column rejected_images"):
        tokenise(rows, publish, processor, **options)


def test_rejected_images_that_show_the_same_pixels_are_a_tie_whatever_they_are_called(
    rows: Rows, publish: Publish, processor: Any, tmp_path: Path
) -> None:
    # A copy of another format: neither its name nor its bytes say that it is the same picture.
    copies = [tmp_path / f"copy-{index}.bmp" for index in range(len(rows))]
    for row, lender, path in zip(rows, [*rows[1:4], rows[3], *rows[5:], rows[0]], copies, strict=True):
        (lender if row is not rows[3] else row)["images"][0].save(path)

    def with_rejected(given: Rows) -> datasets.Dataset:
        return publish(given).add_column("rejected_images", [[str(path)] for path in copies])

    with pytest.raises(DataError, match=r"row 3 \(id pair-3\): rejected_images show the same pixels as images"):
        tokenise(rows, with_rejected, processor, objective="mdpo", corruption={"kind": "data"})
    assert len(tokenise(rows, with_rejected, processor, objective="mdpo").pairs) == 8  # it reads others


def test_good_answers_alone_are_tokenised_as_the_chosen_side_of_pairs(
    rows: Rows, publish: Publish, processor: Any
) -> None:
    values = {"model": "none", "dataset": "none", "output_dir": "none", "objective": "mdpo", "probe_image": True}
    read = formats.read(publish(rows))
    prepared = prepare_chosen(read.remove_columns("rejected"), processor, make_config(values))
    for alone, pair in zip(prepared.pairs, tokenise(rows, publish, processor).pairs, strict=True):
        assert (alone.prompt, alone.chosen_ids) == (pair.prompt, pair.chosen_ids)
        assert alone.rejected_ids == () and alone.corrupted is None
    assert prepare_chosen(read, processor, make_config(values)).pairs == prepared.pairs  # ``rejected`` is not read


def test_tools_that_the_model_cannot_be_shown_are_an_error_naming_the_row(
    rows: Rows, publish: Publish, processor: Any
) -> None:
    def with_tools(given: Rows) -> datasets.Dataset:
        return publish(given).add_column("tools", [None] * 3 + ['[{"name": "zoom"}]'] + [None] * 4)

    with pytest.raises(DataError, match=r"row 3 \(id pair-3\): has tools, and the model's chat template does not show"):
        tokenise(rows, with_tools, processor)


def test_an_answer_that_the_processor_cannot_read_is_found_among_those_read_with_it(
    rows: Rows, publish: Publish, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Encoder.answers

    def refusing(encoder: Encoder, texts: list[str]) -> list[tuple[int, ...]]:
        if any("blue" in text for text in texts):
            raise ValueError("blue")
        return real(encoder, texts)

    monkeypatch.setattr(Encoder, "answers", refusing)
    with pytest.raises(DataError, match=r"row 2 \(id pair-2\): the processor cannot read it \(ValueError: blue\)"):
        tokenise(rows, publish, processor)


def test_rows_are_read_in_parts_and_stay_in_order(rows: Rows, publish: Publish, processor: Any) -> None:
    many = [{**rows[number % 8], "id": f"n{number}"} for number in range(130)]
    prepared = tokenise(many, publish, processor)
    assert [pair.row for pair in prepared.pairs] == list(range(130))
    assert [pair.name for pair in prepared.pairs] == [f"row {number} (id n{number})" for number in range(130)]
    for number in (63, 64, 129):
        assert prepared.pairs[number].chosen_ids == prepared.pairs[number % 8].chosen_ids


def test_a_limit_keeps_some_pairs_in_their_order_and_smaller_sets_are_part_of_larger_ones(
    rows: Rows, publish: Publish, processor: Any
) -> None:
    every = [pair.id for pair in tokenise(rows, publish, processor).pairs]
    sets = [[pair.id for pair in tokenise(rows, publish, processor, limit=n).pairs] for n in (1, 2, len(every) + 1)]
    assert [len(names) for names in sets] == [1, 2, len(every)]
    for smaller, larger in itertools.pairwise(sets):
        assert set(smaller) <= set(larger) and larger == [name for name in every if name in larger]
    seeds = {tuple(pair.id for pair in tokenise(rows, publish, processor, limit=1, seed=i).pairs) for i in range(8)}
    assert len(seeds) > 1


def test_held_out_pairs_are_all_read_whatever_the_limit(
    rows: Rows, publish: Publish, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.loop import inputs

    monkeypatch.setattr(formats, "open", lambda *_, **__: formats.read(publish(rows)))
    options = {"model": "none", "dataset": "a", "eval_dataset": "b", "output_dir": "none", "objective": "dpo"}
    data = inputs.read(make_config({**options, "limit": 1, "draw": {}}), processor, None, visible=False)
    assert data.held_out is not None
    assert (len(data.train.pairs), len(data.held_out.pairs)) == (2, len(tokenise(rows, publish, processor).pairs))


@pytest.mark.parametrize(
    ("options", "says"), [({"max_image_pixels": 1440}, "41 x 36 pixels"), ({"max_image_bytes": 50}, "max_image_bytes")]
)
def test_images_beyond_the_limits_of_a_source_are_named(
    processor: Any, rows: Rows, publish: Publish, options: dict[str, int], says: str
) -> None:
    with pytest.raises(DataError, match=rf"row \d .*: image 0 cannot be read \(.*{says}"):
        tokenise(rows, publish, processor, **options)
    assert len(tokenise(rows, publish, processor, max_image_pixels=47 * 36).pairs) == len(rows)
