"""Log-probs of whole texts, tiny random models: one by one through transformers is what the scorer must give."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_models import (
    CONTEXT,
    gemma3,
    idefics3,
    image,
    internvl,
    llava,
    llava_next,
    llava_onevision,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_vl,
)

from reward.forward.packing import Group
from reward.scorers.likelihood import LikelihoodScorer

QUESTION = "What is this?"
SUN, SEA = image(1, 1, seed=1), image(1, 1, seed=2)
ROWS = [
    ([SUN], ["a sun", "a much longer text about the sea and the sun", "x"]),
    ([SEA], ["a sun", "a sun"]),
    ([], ["no picture at all"]),
    ([SUN, SEA], ["two", "two pictures"]),
]


def row(images: list[bytes], texts: list[str], prompt: str = QUESTION) -> dict[str, Any]:
    return {
        "images": images,
        "prompt": [{"role": "user", "content": prompt}],
        "facts": None,
        "candidates": [{"text": text} for text in texts],
    }


def rows() -> list[dict[str, Any]]:
    return [row(*values) for values in ROWS]


def flat(values: list[list[Any]]) -> list[Any]:
    return [value for of_row in values for value in of_row]


def saved(build: Any, folder: Path) -> Path:
    model, processor = build()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(llava, tmp_path_factory.mktemp("vlm"))


def by_hand(model: Any, processor: Any, images: list[bytes], text: str, merged: int = 0) -> float:
    """One conversation, all logits, one token after the other. ``merged`` tokens of the prompt go on in the text."""
    pictures = [{"type": "image", "image": Image.open(io.BytesIO(content)).convert("RGB")} for content in images]
    question = [{"role": "user", "content": [*pictures, {"type": "text", "text": QUESTION}]}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    how: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    prompt = processor.apply_chat_template(question, add_generation_prompt=True, **how)["input_ids"].shape[1]
    inputs = processor.apply_chat_template([*question, answer], **how)
    with torch.inference_mode():
        logps = model(**inputs).logits[0].log_softmax(-1)
    ids = inputs["input_ids"][0].tolist()
    of_text = [float(logps[place - 1, ids[place]]) for place in range(prompt - merged, len(ids))]
    assert len(of_text) >= len(text)  # the tokenizer has one token for each character
    return sum(of_text) / len(of_text)


@pytest.mark.parametrize("build", [llava, llava_next, qwen2_5_vl, idefics3, gemma3])
def test_a_batch_gives_what_one_conversation_after_the_other_gives(build: Any, tmp_path: Path) -> None:
    model, processor = build()
    values = LikelihoodScorer(saved(build, tmp_path), batch_size=4, device="cpu").score(rows())["likelihood"]
    expected = [[by_hand(model, processor, images, text) for text in texts] for images, texts in ROWS]
    assert flat(values) == pytest.approx(flat(expected), abs=1e-4)
    assert [len(of_row) for of_row in values] == [3, 2, 1, 2] and max(flat(values)) < 0


MANY = [
    row([SUN], ["a sun", "a sun and the sea", "", "something that is long, and goes on"]),
    row([SUN], ["yes", "yes, it is", "no"], prompt="Is it?"),
    row([SEA, SUN], ["two", "two pictures"]),
    row([SEA], ["the sea"]),
    row([], ["no picture", "no picture at all"]),
]


def packed_passes(scorer: LikelihoodScorer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of conversations of every packed pass from now on."""
    passes, packed = [], scorer._packed

    def count(conversations: Any, groups: Any, lengths: Any) -> Any:
        passes.append(sum(len(answers.places) for answers in groups))
        return packed(conversations, groups, lengths)

    monkeypatch.setattr(scorer, "_packed", count)
    return passes


@pytest.mark.parametrize(
    "build", [llava, llava_next, llava_onevision, qwen2_vl, qwen2_5_vl, qwen3_vl, idefics3, internvl]
)
def test_shared_prompts_change_no_value(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    folder = saved(build, tmp_path)
    alone = LikelihoodScorer(folder, batch_size=3, device="cpu", share_prompt=False).score(MANY)["likelihood"]
    for size in (1, 3, 16):
        scorer = LikelihoodScorer(folder, batch_size=size, device="cpu")
        passes = packed_passes(scorer, monkeypatch)
        values = scorer.score(MANY)["likelihood"]
        assert flat(values) == pytest.approx(flat(alone), abs=1e-4)
        assert sum(passes) == 12 and len(passes) > {1: 4, 3: 1, 16: 0}[size]
    assert not [warning for warning in recwarn if "anew" in str(warning.message)]


def test_an_image_is_read_and_seen_once_for_all_its_prompts(vlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reward.forward import features
    from reward.models import shared_prompts

    counts = {"read": 0, "seen": 0}
    read, seen = shared_prompts.read_image, features.tower_features

    def read_image(*of: Any) -> Any:
        counts["read"] += 1
        return read(*of)

    def tower_features(model: Any, images: Any, device: Any) -> Any:
        counts["seen"] += len(images)
        return seen(model, images, device)

    monkeypatch.setattr(shared_prompts, "read_image", read_image)
    monkeypatch.setattr(features, "tower_features", tower_features)
    LikelihoodScorer(vlm, batch_size=64, device="cpu").score(MANY)
    assert counts == {"read": 2, "seen": 2}


def test_logits_in_pieces_are_those_of_all(vlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LikelihoodScorer(vlm, device="cpu").score(MANY)["likelihood"]
    monkeypatch.setattr("reward.scorers.likelihood._HEAD_CHUNK", 3)
    assert flat(LikelihoodScorer(vlm, device="cpu").score(MANY)["likelihood"]) == pytest.approx(flat(whole), abs=1e-5)


@pytest.mark.parametrize("wrong", ["positions", "mask", "raises"])
def test_negative_control_a_wrong_pass_is_found_and_every_prompt_read_alone(
    wrong: str, vlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reward.forward import attention, token_logps

    alone = LikelihoodScorer(vlm, device="cpu", share_prompt=False).score(MANY)["likelihood"]
    if wrong == "positions":
        monkeypatch.setattr(token_logps, "position_ids", lambda model, packed, prompts: packed.offsets[None] * 0)
    elif wrong == "mask":  # every branch sees what stands before it in the row

        def all_before(groups: Any, device: Any, one_call: bool = False) -> Any:
            return attention.Plan((Group(groups[0].start, groups[-1].end, (groups[-1].end,)),))

        monkeypatch.setattr(attention, "plan", all_before)
    else:

        def broken(*_: Any) -> Any:
            raise RuntimeError("no such kernel")

        monkeypatch.setattr(token_logps, "position_ids", broken)
    scorer = LikelihoodScorer(vlm, device="cpu")
    with pytest.warns(UserWarning, match="reads prompt and images anew for every answer: .*(apart|no such kernel)"):
        values = scorer.score(MANY)["likelihood"]
    assert flat(values) == pytest.approx(flat(alone), abs=1e-5)
    passes = packed_passes(scorer, monkeypatch)
    assert flat(scorer.score(MANY)["likelihood"]) == flat(values) and passes == []


def test_texts_whose_tokens_do_not_follow_from_each_other_are_read_alone(
    vlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = LikelihoodScorer(vlm, device="cpu")
    expected = scorer.score(MANY)["likelihood"]
    passes, (_, reader) = packed_passes(scorer, monkeypatch), scorer._backbone
    tensors = reader.tensors

    def other(texts: Any, pictures: Any) -> Any:  # as a processor would that rewrites what an answer says
        made = tensors(texts, pictures)
        if len(texts) == 1 and "Is it?" in texts[0]:
            made["input_ids"][0, -2] = 0
        return made

    monkeypatch.setattr(reader, "tensors", other)
    alone: list[int] = []
    one_by_one = scorer._alone
    monkeypatch.setattr(
        scorer, "_alone", lambda conversations, places: (alone.extend(places), one_by_one(conversations, places))[1]
    )
    values = scorer.score(MANY)["likelihood"]
    assert flat(values) == pytest.approx(flat(expected), abs=1e-4)
    assert len(alone) == 3 and sum(passes) == 9


def test_a_token_that_begins_in_the_prompt_belongs_to_the_text(tmp_path: Path) -> None:
    model, processor = qwen2_5_vl()
    scorer = LikelihoodScorer(saved(qwen2_5_vl, tmp_path), device="cpu")
    # The prompt ends on a new line, and two new lines are one token.
    ((value, plain),) = scorer.score([row([SUN], ["\nsun", "sun"])])["likelihood"]
    assert value == pytest.approx(by_hand(model, processor, [SUN], "\nsun", merged=1), abs=1e-4)
    assert plain == pytest.approx(by_hand(model, processor, [SUN], "sun"), abs=1e-4)


def test_another_image_gives_another_value_and_the_same_one_the_same(vlm: Path) -> None:
    same = [row([picture], ["a sun"]) for picture in (SUN, SEA, SUN)]
    ((sun,), (sea,), (again,)) = LikelihoodScorer(vlm, device="cpu").score(same)["likelihood"]
    assert abs(sun - sea) > 1e-2 and sun == again


def test_another_prompt_gives_another_value(vlm: Path) -> None:
    prompts = [row([SUN], ["a sun"]), row([SUN], ["a sun"], prompt="What is that?")]
    (first,), (second,) = LikelihoodScorer(vlm, device="cpu").score(prompts)["likelihood"]
    assert first != second


def test_a_value_does_not_depend_on_its_batch(vlm: Path) -> None:
    values = [flat(LikelihoodScorer(vlm, batch_size=size, device="cpu").score(rows())["likelihood"]) for size in (1, 8)]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_logits_of_every_place_are_cut_where_a_model_knows_no_option(vlm: Path) -> None:
    scorer = LikelihoodScorer(vlm, device="cpu", share_prompt=False)
    expected = scorer.score(rows())
    model, reader = scorer._backbone
    seen = []

    class Whole:
        device, dtype = model.device, model.dtype

        def __call__(self, logits_to_keep: Any, **tensors: Any) -> Any:
            made = model(**tensors)
            seen.append(made.logits.shape[1] > len(logits_to_keep))
            return made

    scorer.__dict__["_backbone"] = (Whole(), reader)
    assert flat(scorer.score(rows())["likelihood"]) == pytest.approx(flat(expected["likelihood"]), abs=1e-6)
    assert all(seen) and seen


def test_a_text_beyond_the_context_has_no_value_and_the_others_keep_theirs(vlm: Path) -> None:
    scorer = LikelihoodScorer(vlm, device="cpu")
    ((short,),) = scorer.score([row([SUN], ["a sun"])])["likelihood"]
    ((beyond, kept),) = scorer.score([row([SUN], ["x" * CONTEXT, "a sun"])])["likelihood"]
    assert beyond is None and kept == pytest.approx(short, abs=1e-5)
    assert scorer.score([row([SUN], ["x" * CONTEXT])])["likelihood"] == [[None]]


def test_rows_without_candidates(vlm: Path) -> None:
    assert LikelihoodScorer(vlm, device="cpu").score([row([SUN], [])]) == {"likelihood": [[]]}
    assert LikelihoodScorer(vlm, device="cpu").score([]) == {"likelihood": []}


def test_what_cannot_be_read_names_row_and_candidate(vlm: Path) -> None:
    broken = [row([SUN], ["a sun"]), row([b"not an image"], ["a sun"])]
    with pytest.raises(ValueError, match="row 1, candidate 0: image 0: cannot be decoded"):
        LikelihoodScorer(vlm, device="cpu").score(broken)


def test_the_version_follows_the_content_and_not_the_place(vlm: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(vlm, tmp_path / "copy")
    assert LikelihoodScorer(copy).version == LikelihoodScorer(vlm).version
    assert LikelihoodScorer(vlm, dtype="bfloat16").version != LikelihoodScorer(vlm).version
    (copy / "chat_template.jinja").write_text("{{ bos_token }}")
    assert LikelihoodScorer(copy).version != LikelihoodScorer(vlm).version
    assert LikelihoodScorer("a/model", "v1").version == "2:a/model@v1"


def test_what_is_wrong_is_said_before_the_first_row(vlm: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read config\.json"):
        LikelihoodScorer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="no vision_config"):
        LikelihoodScorer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {}}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no \*\.safetensors"):
        LikelihoodScorer(tmp_path)
    with pytest.raises(ValueError, match="batch_size=0"):
        LikelihoodScorer(vlm, batch_size=0)
    with pytest.raises(ValueError, match="dtype='int8' is none of"):
        LikelihoodScorer(vlm, dtype="int8")
