"""Tags of images in prompts: where they may stand, and what is left without them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.images.tags import Misplaced, in_front, split, tight
from pipeline.engines.chat_completions import messages
from pipeline.engines.protocol import Request, unservable

WORDS = st.text(st.sampled_from("ab \n\t?<i"), max_size=12)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@given(WORDS, st.integers(1, 3), st.sampled_from([" ", "\n", "\r\n"]))
def test_taking_tags_away_leaves_the_text_as_it_was(text: str, count: int, joint: str) -> None:
    tags = joint.join(["<image>"] * count)
    assert in_front(user(tags + joint + text), count) == user(text)
    if text.strip():  # otherwise all of it is white space around tags
        assert in_front(user(text + joint + tags), count) == user(text)
    assert in_front(user(text), count) == user(text), "images without a tag"


@given(st.lists(st.sampled_from(["<image>", " ", "\n", "a", "<imag"]), max_size=12).map("".join))
def test_every_tag_is_counted_once(text: str) -> None:
    before, inner, behind = split(text)
    assert before + inner.count("<image>") + behind == text.count("<image>")
    assert tight(text).split() == tight(tight(text)).split()


def test_a_hundred_thousand_tags_take_no_time() -> None:
    assert split("a" + "<image> " * 100_000 + "b") == (0, "a" + "<image> " * 100_000 + "b", 0)


@pytest.mark.parametrize(
    ("prompt", "images", "kind", "says"),
    [
        (user("<image>\nWhat?"), 0, "image_tags", r"1 <image> tag\(s\) for 0 image\(s\); make the two numbers equal"),
        (user("<image> <image>\nWhich?"), 1, "image_tags", "2 <image>"),
        (user("<image>\nWhich?"), 2, "image_tags", "1 <image>.* for 2"),
        (user("In <image> there is a box. Is it larger than in <image>?"), 2, "image_inside_text", "message 0"),
        (user("Is <image> red?"), 1, "image_inside_text", "message 0"),
        (user("<image> is one. Here is another: <image>"), 2, "image_inside_text", "message 0"),
        ([*user("Hi."), *user("<image>\nWhat?")], 1, "image_inside_text", "message 1"),
        ([{"role": "system", "content": "<image>"}, *user("What?")], 1, "image_inside_text", "message 0"),
        *((user(f"{tag} What?"), n, "unread_media", tag) for tag in ("<video>", "<audio>", "<bbox>", "<ref-object>")
          for n in (0, 1)),
    ],
)  # fmt: skip
def test_tags_that_are_not_the_images_are_refused_by_name(prompt: Any, images: int, kind: str, says: str) -> None:
    with pytest.raises(Misplaced, match=says) as caught:
        in_front(prompt, images)
    assert caught.value.kind == kind


def test_other_messages_stay_as_they_are() -> None:
    prompt = [{"role": "system", "content": " Be brief. "}, *user("<image>\nHi."), *user("And? ")]
    assert [message["content"] for message in in_front(prompt, 1)] == [" Be brief. ", "Hi.", "And? "]


def test_no_tag_reaches_an_engine_beside_an_image() -> None:
    request = Request("a", (b"x",), (("user", "Is <image> red?"),), 0)
    refused = messages(request)
    assert not isinstance(refused, list) and refused.error_type == "image_tags" and "<image>" in str(refused.error)
    begun = Request("a", (b"x",), (("user", "Is it red?"),), 0, prefix="The <image>")
    assert unservable(begun) is not None
    alone = Request("a", (), (("user", "What does <image> mean?"),), 0)
    assert unservable(alone) is None, "a tag is a word where there is no image"
    assert unservable(alone, ("<image>",)) is not None, "but not to a model that reads it as one"
