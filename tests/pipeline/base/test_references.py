"""Which key of a row holds its images."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.images.references import IMAGES, OTHERS, PATHS, Unclear, find, is_filled

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
    for name in set(IMAGES) - PATHS:
        for path in PATHS:
            assert find({path: "data/1.jpg", name: BYTES}) == find({name: [BYTES], path: "data/1.jpg"})[0] == BYTES
    assert find({"image_path": BYTES, "img": BYTES, "img_path": "data/1.jpg"}) == BYTES
    with pytest.raises(Unclear, match="`images` and `image`"):
        find({"images": ["data/1.jpg"], "image": BYTES})


@pytest.mark.parametrize(
    "value",
    [
        *("a.jpg", "x/A.PNG", "https://host/a.webp?sig=1", "my photo.jpg", "a.heic", "a.HEIF", "a.avif", "a.jfif"),
        *(["a.png", "b c.png"], b"x", BYTES, "data:image/png;base64,iVBORw0KGgo=", {"path": "my photo.jpg"}),
        *("iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAA", "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQ"),
    ],
)
def test_an_image_under_a_key_that_nobody_reads_is_refused(value: Any) -> None:
    with pytest.raises(Unclear, match=r"`scan` holds .*rename it to `images`"):
        find({"images": None, "scan": value})
    assert find({"image": "b.png", "scan": value}) == "b.png", "beside an image it may be anything"


@pytest.mark.parametrize(
    "value", [None, 3, "", "see a.png.", "png", "a.txt", "a.png?" * 999 + " ", ["a.png", 3], [], {"path": "a.mp3"}]
)
def test_what_does_not_look_like_an_image_is_let_be(value: Any) -> None:
    assert find({"scan": value, "id": "1.png"}) is None


@pytest.mark.parametrize(
    "name",
    [
        *("Images", "IMAGE", "images_path", "image_url", "imageUrl", "image_base64", "image_data", "image1", "photo_2"),
        *("img-file", "imgurl", "imageBytes", "Photo", "main.picture", "user_image", "rejected_image", "query_image"),
    ],
)
@pytest.mark.parametrize("value", ["h/img/12", "iVBORw0", b"x", ["12"], {"url": "https://h/12"}, [{"bytes": b"x"}]])
def test_what_is_called_an_image_is_one_if_nothing_else_is_said_of_it(name: str, value: Any) -> None:
    with pytest.raises(Unclear, match=rf"`{name}` holds .*rename it to `images`") as caught:
        find({"images": [], name: value})
    assert caught.value.kind == "unread_media"
    assert find({"image": "b.png", name: value}) == "b.png"


@pytest.mark.parametrize("name", ["Images", "image_url", "imageBytes"])
@pytest.mark.parametrize(
    "value",
    [None, "", " ", [], 3, 0.5, True, {"bytes": None, "path": None}, {"url": ""}, [None], [1, 2], "it is a prose text"],
)
def test_no_value_a_number_and_prose_are_no_image_whatever_they_are_called(name: str, value: Any) -> None:
    assert find({name: value}) is None


@pytest.mark.parametrize(
    "name",
    [
        *(
            "image_id",
            "image_ids",
            "imageId",
            "imageIDs",
            "image_width",
            "img_height",
            "image_size",
            "image_count",
            "image_hash",
        ),
        *("image_sha256", "image_caption", "image_description", "image_quality", "image_source", "image_license"),
        *("origin_image_name", "image_type", "photo_category", "has_image", "isImage", "num_images", "img_idx"),
        *("imagenet_class", "photography", "imagination", "pictured", "origin_dataset", "magic"),
    ],
)
def test_what_only_says_something_about_an_image_is_let_be(name: str) -> None:
    assert find({name: "coco/12"}) is None
    assert find({name: ["a", "b"]}) is None
