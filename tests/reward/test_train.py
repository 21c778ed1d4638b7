"""Pairs from a dataset, the loss, and a reward model trained on a tiny VLM."""

import gzip
import io
import json
import math
import os
from pathlib import Path

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_models import image, llava
from typer.testing import CliRunner

from reward.models.bradley_terry import comparisons, loss
from reward.models.preference_pairs import Pair, read_pairs
from reward.models.reward_checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, HEAD_FILE
from reward.scorers.reward_model import RewardModelScorer
from reward.train import Options, app, order, split, train

PICTURES = [image(1, 1, seed=i) for i in range(6)]
PROMPT = (("user", "What?"),)


def pairs(count=24):
    """Right: "red". The image says nothing."""
    return [Pair((PICTURES[i % 6],), PROMPT, "red", "blue" if i % 2 else "green") for i in range(count)]


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    model, processor = llava()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_what_was_learnt_is_what_the_scorer_reads(vlm, tmp_path, tuning):
    options = Options(
        tuning=tuning, epochs=2, lr=1e-2 if tuning == "lora" else 3e-3, batch_size=8, rank=4, held_out=0.2
    )
    result = train(pairs(), vlm, tmp_path, options)
    assert result["held_out_accuracy"] == 1.0 and 0 < result["held_out"] < 24
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".bin", ".pt", ".md")]
    scorer = RewardModelScorer(tmp_path, device="cpu")
    rows = [{"images": [PICTURES[0]], "prompt": [{"role": "user", "content": "What?"}], "facts": None,
             "candidates": [{"text": "red"}, {"text": "blue"}]}]  # fmt: skip
    ((red, blue),) = scorer.score(rows)["reward_model"]
    assert red > blue + 0.5


def test_the_same_pairs_and_options_give_the_same_weights(vlm, tmp_path):
    options = Options(epochs=1, batch_size=8, rank=2, mix_images=0.5, mix_words=1, held_out=0.0)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        result = train(pairs(12), vlm, tmp_path / name, Options(**{**options.__dict__, "seed": seed}))
        assert result["held_out_accuracy"] is None
    for file in (HEAD_FILE, ADAPTER_WEIGHTS, ADAPTER_CONFIG):
        first, again, other = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert first == again
        assert (first == other) == (file == ADAPTER_CONFIG)


def test_a_pair_that_cannot_be_learnt_from_is_named(vlm, tmp_path):
    options = Options(batch_size=4, held_out=0.0)
    long = [*pairs(3), Pair((PICTURES[0],), PROMPT, "red " * 200, "blue")]
    with pytest.raises(ValueError, match=r"row 3: has more tokens than the model's 512 positions"):
        train(long, vlm, tmp_path, options)
    broken = [*pairs(2), Pair((b"no image",), PROMPT, "red", "blue")]
    with pytest.raises(ValueError, match=r"row 2: image 0: cannot be decoded"):
        train(broken, vlm, tmp_path, options)
    with pytest.raises(ValueError, match="set one of the two"):
        Options(blind=True, mix_images=0.5)


def test_what_lies_where_it_is_saved_is_not_mixed_with_it(vlm, tmp_path):
    """An adapter of before was read with the head of the whole model that was trained over it."""
    some, lora, full = pairs(4), Options(batch_size=4, held_out=0.0), Options(tuning="full", batch_size=4, held_out=0.0)
    train(some, vlm, tmp_path / "adapter", lora)
    train(some, vlm, tmp_path / "whole", full)
    for out, options, why in (
        (tmp_path / "adapter", full, "holds an adapter"),
        (tmp_path / "whole", lora, "holds a whole model"),
        (vlm, lora, "holds the model that is trained"),
        (vlm, full, "holds the model that is trained"),
    ):
        before = sorted(os.listdir(out))
        with pytest.raises(ValueError, match=f"{why}; name another folder"):
            train(some, vlm, Path(out), options)
        assert sorted(os.listdir(out)) == before
    train(some, vlm, tmp_path / "adapter", lora)  # again is fine
    train(some, vlm, tmp_path / "whole", full)


def test_a_training_that_diverges_saves_nothing(vlm, tmp_path, monkeypatch):
    options = Options(tuning="full", epochs=2, lr=1e30, batch_size=4, held_out=0.0)
    with pytest.raises(ValueError, match=r"step 2: the loss of rows [0-3, ]+ is nan; nothing is saved: lower lr"):
        train(pairs(4), vlm, tmp_path / "out", options)

    def overflow(parameters, most):
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.fill_(math.nan)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", overflow)
    with pytest.raises(
        ValueError, match="the last of 1 steps made weights that are no finite numbers; nothing is saved"
    ):
        train(pairs(4), vlm, tmp_path / "out", Options(batch_size=4, held_out=0.0))
    assert not (tmp_path / "out").exists()


def test_the_command_trains_and_prints_what_it_measured(vlm, tmp_path):
    saved = datasets.Dataset.from_list(
        [
            {
                "images": [{"bytes": pair.images[0], "path": None}],
                "prompt": [{"role": "user", "content": "What?"}],
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in pairs(8)
        ]
    )
    saved.save_to_disk(str(tmp_path / "pairs"))
    args = [str(tmp_path / "pairs"), "--model", vlm, "--out", str(tmp_path / "out"), "--rank", "2", "--held-out", "0.3"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    assert {"pairs", "steps", "held_out_accuracy"} <= set(json.loads(done.stdout.splitlines()[-1]))
    assert (tmp_path / "out" / HEAD_FILE).is_file()
    wrong = CliRunner().invoke(app, [str(tmp_path / "none"), "--model", vlm, "--out", str(tmp_path / "out")])
    assert wrong.exit_code == 2 and "cannot be opened" in wrong.output


# ---------------------------------------------------------------------------------------------------------------- loss

REWARD = st.floats(-20, 20)


@given(REWARD, REWARD, st.floats(0, 5), st.floats(0, 1))
def test_the_loss_is_bradley_terrys_with_margin_and_centre(better, worse, margin, center):
    got = loss(*(torch.tensor([x], dtype=torch.float64) for x in (better, worse, margin)), center)
    wanted = math.log1p(math.exp(-(better - worse - margin))) + center * (better + worse) ** 2
    assert got.item() == pytest.approx(wanted, abs=1e-9)


@given(REWARD, REWARD)
def test_the_loss_of_a_swapped_pair_differs_by_the_difference_of_rewards(better, worse):
    a, b, none = (torch.tensor([x], dtype=torch.float64) for x in (better, worse, 0.0))
    assert (loss(b, a, none) - loss(a, b, none)).item() == pytest.approx(better - worse, abs=1e-9)


def test_mixed_images_put_the_true_image_above_another_for_the_same_text():
    told = [Pair((PICTURES[i % 3],), PROMPT, "one two three four five", "x") for i in range(12)]
    made = comparisons(told, range(12), 1.0, 5, seed=0, epoch=0)
    mixed = [comparison for comparison in made if comparison.better.messages == comparison.worse.messages]
    assert len(made) == 24 and len(mixed) == 12
    assert all(
        comparison.better.images == told[comparison.pair].images != comparison.worse.images for comparison in mixed
    )
    assert {comparison.worse.images for comparison in mixed} <= {pair.images for pair in told}
    assert comparisons(told, range(12), 1.0, 5, 0, 0) == made != comparisons(told, range(12), 1.0, 5, 0, 1)


def test_short_texts_and_pairs_without_another_image_are_not_mixed():
    told = [Pair((PICTURES[i],), PROMPT, "Yes", "No") for i in range(4)]
    assert len(comparisons(told, range(4), 1.0, 5, 0, 0)) == 4
    same = [Pair((PICTURES[0],), PROMPT, "one two three four five", "x")] * 3
    assert len(comparisons(same, range(3), 1.0, 5, 0, 0)) == 3
    none = [Pair((), PROMPT, "one two three four five", "x")] * 3
    assert len(comparisons(none, range(3), 1.0, 5, 0, 0)) == 3


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 3))
def test_all_pairs_of_a_prompt_are_held_out_or_none(which, seed):
    told = [Pair((PICTURES[i],), PROMPT, f"a{n}", "b") for n, i in enumerate(which)]
    try:
        learnt, held = split(told, Options(held_out=0.4, seed=seed))
    except ValueError:
        return
    assert sorted([*learnt, *held]) == list(range(len(told)))
    assert not {told[i].images for i in learnt} & {told[i].images for i in held}


@given(st.integers(1, 30), st.integers(0, 3))
def test_an_epoch_has_every_pair_once(count, epoch):
    assert sorted(order(range(count), epoch, 0)) == list(range(count))


@given(st.integers(1, 30))
def test_a_curriculum_keeps_its_order_the_first_time(count):
    assert order(range(count), 0, 0, in_order=True) == list(range(count))
    assert order(range(count), 1, 0, in_order=True) == order(range(count), 1, 0)


# --------------------------------------------------------------------------------------------------------------- pairs


def rows(**changes):
    good = {"prompt": "What?", "chosen": "a", "rejected": "b", "images": [{"bytes": PICTURES[0], "path": None}]}
    return [good, {**good, **changes}]


def saved(tmp_path, table):
    path = tmp_path / "pairs.parquet"
    datasets.Dataset.from_list(table).to_parquet(path)
    return str(path)


def test_texts_and_messages_are_the_same_pairs(tmp_path):
    def turn(role, text):
        return [{"role": role, "content": text}]

    plain = rows(chosen="c")
    spoken = [
        {**row, "prompt": turn("user", row["prompt"]), **{k: turn("assistant", row[k]) for k in ("chosen", "rejected")}}
        for row in plain
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = read_pairs(saved(tmp_path / "a", plain))
    assert first == read_pairs(saved(tmp_path / "b", spoken))
    assert first[1] == Pair((PICTURES[0],), PROMPT, "c", "b")


def test_parts_of_a_message_are_read_and_image_columns_stay_encoded(tmp_path):
    parts = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]}]
    made = datasets.Dataset.from_list(
        [{**row, "prompt": parts, "score": 2.5, "kind": "count"} for row in rows(chosen="c")]
    )
    made = made.cast_column("images", datasets.List(datasets.Image()))
    made.save_to_disk(str(tmp_path / "saved"))
    first, _ = read_pairs(str(tmp_path / "saved"), margin="score")
    assert first == Pair((PICTURES[0],), PROMPT, "a", "b", margin=2.5, kind="count")
    assert Image.open(io.BytesIO(first.images[0])).size == (32, 32)


@pytest.mark.parametrize("name", ["pairs.json", "pairs.jsonl", "pairs.jsonl.gz"])
def test_texts_of_json_are_word_for_word_where_others_are_no_texts(tmp_path, name):
    def turn(role, text):
        return [{"role": role, "content": [{"type": "text", "text": text}]}]

    table = [
        {"prompt": "2021-01-01", "chosen": "007", "rejected": '"STOP"'},
        {"prompt": turn("user", "q"), "chosen": turn("assistant", "a"), "rejected": "null"},
    ]
    text = json.dumps(table) if ".jsonl" not in name else "".join(json.dumps(row) + "\n" for row in table)
    path = tmp_path / "data" / name
    path.parent.mkdir()
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    for place in (path, path.parent):
        first, second = read_pairs(str(place))
        assert first == Pair((), (("user", "2021-01-01"),), "007", '"STOP"')
        assert second == Pair((), (("user", "q"),), "a", "null")


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "pairs.csv").write_text("prompt\n")
    with pytest.raises(ValueError, match=r"is a file of no known kind; known: .json, .jsonl, .parquet"):
        read_pairs(str(tmp_path / "pairs.csv"))


def test_the_column_system_is_the_first_message(tmp_path):
    one, other = rows()
    first, second = read_pairs(saved(tmp_path, [{**one, "system": "Be kind."}, {**other, "system": None}]))
    assert first.prompt == (("system", "Be kind."), *PROMPT) and second.prompt == PROMPT
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What?"}]
    table = [{**row, "prompt": turns, "system": "Be kind."} for row in rows()]
    assert read_pairs(saved(tmp_path, table))[0].prompt == first.prompt
    with pytest.raises(ValueError, match=r"row 1: has a column system and another system turn in its prompt"):
        read_pairs(saved(tmp_path, [table[0], {**table[1], "system": "Be short."}]))


@pytest.mark.parametrize("margin", [None, "NaN", "inf", "1e400", True])
def test_a_margin_that_is_no_number_is_an_error_with_its_row_and_column(tmp_path, margin):
    made = [{**row, "how": value} for row, value in zip(rows(chosen="c")[:2] * 2, [margin, margin], strict=False)]
    with pytest.raises(ValueError, match=r"row 0: how is .*, and no number says how much better the chosen one is"):
        read_pairs(saved(tmp_path, made), margin="how")


@pytest.mark.parametrize("key", ["image", "image_path", "img"])
def test_an_image_is_found_under_any_name_and_a_tag_is_its_place(tmp_path, key):
    (tmp_path / "a.png").write_bytes(PICTURES[0])
    row = {"prompt": "<image>\nWhat?", "chosen": "a", "rejected": "b", "images": None, key: "a.png"}
    (first,) = read_pairs(saved(tmp_path, [row]))
    assert first == Pair((PICTURES[0],), PROMPT, "a", "b")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image": "b.png"}, "row 0: `images` and `image` name different images"),
        ({"prompt": "<image><image>What?"}, "row 0: 2 <image> tag"),
        ({"video": "a.mp4"}, "row 0: `video` is filled"),
    ],
)
def test_images_that_cannot_be_told_are_an_error_that_names_the_row(tmp_path, changes, says):
    (tmp_path / "a.png").write_bytes(PICTURES[0])
    row = {"prompt": "What?", "chosen": "a", "rejected": "b", "images": ["a.png"], **changes}
    with pytest.raises(ValueError, match=says):
        read_pairs(saved(tmp_path, [row]))


def test_a_rejected_side_may_have_other_images(tmp_path):
    other = [{"bytes": PICTURES[1], "path": None}]
    table = [{**row, "rejected": "a", "rejected_images": other} for row in rows()]
    first, _ = read_pairs(saved(tmp_path, table))
    assert (first.chosen, first.rejected, first.rejected_images) == ("a", "a", (PICTURES[1],))
    (made,) = comparisons([first], [0], 0.0, 5, 0, 0)
    assert made.better.images == (PICTURES[0],) and made.worse.images == (PICTURES[1],)


def test_an_empty_list_of_rejected_images_is_none(tmp_path):
    """Without this, the rejected text would be judged about no image at all."""
    table = [{**row, "rejected_images": images} for row, images in zip(rows(), ([], ["b.png"]), strict=True)]
    (tmp_path / "b.png").write_bytes(PICTURES[1])
    first, second = read_pairs(saved(tmp_path, table))
    assert (first.rejected_images, second.rejected_images) == (None, (PICTURES[1],))
    (one,) = read_pairs(saved(tmp_path, [{**rows()[0], "rejected_images": "b.png"}]))
    assert one.rejected_images == (PICTURES[1],)
    with pytest.raises(ValueError, match=r"row 0: rejected_images has 2 image\(s\) for a prompt about 1"):
        read_pairs(saved(tmp_path, [{**rows()[0], "rejected_images": ["b.png", "b.png"]}]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rejected": "a"}, "row 1: chosen and rejected are the same text about the same images"),
        ({"chosen": "  "}, "row 1: chosen is empty"),
        ({"images": [{"bytes": None, "path": "gone.png"}]}, r"row 1: .*gone\.png"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_pairs(saved(tmp_path, rows(**changes)))


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(ValueError, match="no column rejected among"):
        read_pairs(saved(tmp_path, [{"prompt": "a", "chosen": "b"}]))


def test_images_of_pairs_lie_below_the_dataset_or_where_the_options_say(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "more").mkdir()
    for place in ("data/a.png", "more/b.png"):
        (tmp_path / place).write_bytes(image(1, 1))
    os.mkfifo(tmp_path / "data/fifo.png")
    (tmp_path / "data/text.png").write_bytes(b"no image")

    def read(path, **options):
        row = {"prompt": "q", "chosen": "a", "rejected": "b", "images": [path]}
        (tmp_path / "data/rows.json").write_text(json.dumps([row]))
        return read_pairs(str(tmp_path / "data/rows.json"), **options)[0].images

    assert read("a.png") == read(f"{tmp_path}/data/a.png") == (image(1, 1),)
    assert read("b.png", image_root=str(tmp_path / "more")) == (image(1, 1),)
    for path, says in (
        ("../more/b.png", "is not below .*; set --image-root"),
        ("/etc/passwd", "is not below"),
        ("s3://b/a.png", "is not below"),
        ("https://h/a.png", "need --allow-http"),
        ("fifo.png", "a FIFO"),
        ("text.png", "in none of the formats"),
    ):
        with pytest.raises(ValueError, match=f"row 0: .*{says}"):
            read(path)
