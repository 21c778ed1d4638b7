"""Which key of a row holds its images."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.images.references import IMAGES, OTHERS, Unclear, find, is_filled

EMPTY = st.sampled_from([None, "", [], {"bytes": None, "path": None}])
BYTES = {"bytes": b"x", "path": None}


@given(st.dictionaries(st.sampled_from(IMAGES), EMPTY), st.sampled_from(IMAGES), st.sampled_from(OTHERS))
def test_a_key_without_a_value_hides_nothing(empty: dict[str, Any], name: str, other: str) -> None:
    assert find(empty) is None and not any(map(is_filled, empty.values()))
    assert find({**empty, name: "a.png"}) == "a.png"
    with pytest.raises(Unclear, match=f"`{other}` is filled") as caught:
        find({**empty, name: "a.png", other: ["x"]})
    assert caught.value.kind == "unread_media"


@given(st.lists(st.sampled_from(IMAGES), min_size=2, max_size=4, unique=True))
def test_keys_that_say_the_same_are_one_and_others_are_named(names: list[str]) -> None:
    same: list[Any] = ["a.png", ["a.png"], {"bytes": None, "path": "a.png"}, [{"path": "a.png"}]]
    row = dict(zip(names, same, strict=False))
    assert find(row) in same
    *_, last = sorted(names, key=IMAGES.index)
    with pytest.raises(Unclear, match=f"and `{last}` name different images") as caught:
        find(row | {last: "b.png"})
    assert caught.value.kind == "ambiguous_images"


def test_beside_embedded_images_a_path_only_says_where_they_came_from() -> None:
    assert find({"image": BYTES, "image_path": "data/1.jpg"}) == BYTES
    with pytest.raises(Unclear, match="`images` and `image`"):
        find({"images": ["data/1.jpg"], "image": BYTES})


@pytest.mark.parametrize("value", ["a.jpg", "x/A.PNG", "https://host/a.webp?sig=1", ["a.png", "b.png"], b"x", BYTES])
def test_an_image_under_a_key_that_nobody_reads_is_refused(value: Any) -> None:
    with pytest.raises(Unclear, match=r"`scan` holds .*rename it to `images`"):
        find({"images": None, "scan": value})
    assert find({"image": "b.png", "scan": value}) == "b.png", "beside an image it may be anything"


@pytest.mark.parametrize("value", [None, 3, "", "two words.png", "png", "a.txt", ["a.png", 3], [], {"path": "a.mp3"}])
def test_what_does_not_look_like_an_image_is_let_be(value: Any) -> None:
    assert find({"scan": value, "id": "1.png"}) is None
