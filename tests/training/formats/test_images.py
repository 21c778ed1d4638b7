"""Images in every shape that datasets have them: found, checked, and not copied."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.base.dataset_table import in_memory
from training.errors import DataError
from training.formats import open, read
from training.formats.images import IMAGES

Row = dict[str, Any]


def png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 20), colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(**columns: Any) -> Row:
    return {"question": "q", "chosen": "a", "rejected": "b", **columns}


def images_of(dataset: datasets.Dataset, **options: Any) -> list[list[Row]]:
    return [row["images"] for row in read(dataset, **options)]


def stored(data: bytes) -> list[Row]:
    return [{"bytes": data, "path": None}]


@pytest.mark.parametrize("column", ["image", "images"])
@pytest.mark.parametrize("encoding", ["image", "undecoded", "struct", "struct turned round"])
def test_encoded_images_are_kept_as_they_are(column: str, encoding: str) -> None:
    item: Any = {"bytes": png(), "path": None}
    if encoding == "struct turned round":
        item = {"path": None, "bytes": png()}
    dataset = datasets.Dataset.from_list([row(**{column: [item] if column == "images" else item})])
    feature = {"image": datasets.Image(), "undecoded": datasets.Image(decode=False)}.get(encoding)
    if feature is not None:
        dataset = dataset.cast_column(column, datasets.List(feature) if column == "images" else feature)
    assert images_of(dataset) == [stored(png())]


def test_bytes_without_a_path_beside_them_are_an_image() -> None:
    assert images_of(datasets.Dataset.from_list([row(image=png()), row(image=None)])) == [stored(png()), []]
    assert images_of(datasets.Dataset.from_list([row(images=[png(), png("blue")])])) == [
        [*stored(png()), *stored(png("blue"))]
    ]


def test_pil_images_are_encoded_by_datasets_and_read() -> None:
    dataset = datasets.Dataset.from_list([row(image=Image.new("RGB", (4, 4), "red"))])
    ((image,),) = images_of(dataset)
    assert Image.open(io.BytesIO(image["bytes"])).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("shape", [lambda path: path, lambda path: [path], lambda path: [{"path": path}]])
def test_a_path_stays_a_path_and_is_made_absolute(tmp_path: Path, shape: Any) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "1.png").write_bytes(png())
    dataset = datasets.Dataset.from_list([row(images=shape("sub/1.png")), row(images=shape(f"{tmp_path}/sub/1.png"))])
    absolute = [{"bytes": None, "path": str(tmp_path / "sub" / "1.png")}]
    assert images_of(dataset, image_root=str(tmp_path)) == [absolute, absolute]


def test_json_may_give_one_path_a_list_of_them_or_none(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(png())
    first, second = ({"bytes": None, "path": str(tmp_path / name)} for name in ("1.png", "2.png"))
    mixed = datasets.Dataset.from_list(
        [row(image=value) for value in ("1.png", ["1.png", {"path": "2.png"}], None, [])],
        features=datasets.Features(
            {**dict.fromkeys(("question", "chosen", "rejected"), datasets.Value("string")), "image": datasets.Json()}
        ),
    )
    assert images_of(mixed, image_root=str(tmp_path)) == [[first], [first, second], [], []]


@pytest.mark.parametrize("others", [{}, {"image": "1.png"}])
@pytest.mark.parametrize("item", [7, {"path": None}, [["1.png"]], ["1.png", {"file": "2.png"}]])
def test_what_is_no_path_in_json_is_named_with_its_row(tmp_path: Path, item: Any, others: Row) -> None:
    """Also behind the first thousand rows, and where another column has images, too."""
    (tmp_path / "1.png").write_bytes(png())
    texts = dict.fromkeys(("id", "question", "chosen", "rejected", *others), datasets.Value("string"))
    values = [{**row(id=str(at), images=["1.png"]), **others} for at in range(1002)]
    values[1001]["images"] = item
    mixed = datasets.Dataset.from_list(values, features=datasets.Features({**texts, "images": datasets.Json()}))
    with pytest.raises(DataError, match=r"row 1001 \(id 1001\): column images has .* for an image; give its path"):
        images_of(mixed, image_root=str(tmp_path))


def test_a_path_beside_embedded_images_is_not_read_whatever_comes_first() -> None:
    rows = [
        row(image_path="orig/a.png", img={"bytes": png(), "path": None}),
        row(image_path="orig/b.png", img={"bytes": png("blue"), "path": None}),
        row(image_path="", img={"bytes": png("green"), "path": None}),
    ]
    assert images_of(datasets.Dataset.from_list(rows)) == [stored(png(colour)) for colour in ("red", "blue", "green")]


def test_the_name_of_an_embedded_image_is_not_looked_up() -> None:
    item = {"bytes": png(), "path": "nowhere.png"}
    assert images_of(datasets.Dataset.from_list([row(image=item)])) == [[item]]


@pytest.mark.parametrize("path", ["s3://bucket/1.png", "tar:///data/a.tar#offset=512&size=90&name=1.png"])
def test_a_url_is_kept_and_not_asked(path: str) -> None:
    assert images_of(datasets.Dataset.from_list([row(image=path)])) == [[{"bytes": None, "path": path}]]


def test_relative_paths_may_lie_below_a_url() -> None:
    dataset = datasets.Dataset.from_list([row(image="a/1.png")])
    assert images_of(dataset, image_root="s3://bucket/") == [[{"bytes": None, "path": "s3://bucket/a/1.png"}]]


def test_a_missing_file_is_an_error_that_names_row_and_path(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png())
    rows = [{"idx": 10 + i, **row(images=["1.png"] * i)} for i in range(4)]
    rows[3]["images"][2] = "gone.png"
    with pytest.raises(
        DataError, match=rf"row 3 \(id 13\): image '{tmp_path}/gone.png' does not exist; set image_root"
    ):
        images_of(datasets.Dataset.from_list(rows), image_root=str(tmp_path))


def test_an_error_counts_rows_over_batches(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png())
    rows = [row(image="1.png")] * 1200 + [row(image="gone.png")]
    with pytest.raises(DataError, match="row 1200: image"):
        images_of(datasets.Dataset.from_list(rows), image_root=str(tmp_path))


@pytest.mark.parametrize("item", [{"bytes": None, "path": None}, {"bytes": None, "path": ""}])
def test_an_image_of_nothing_is_an_error(item: Row) -> None:
    rows = [row(images=[{"bytes": png(), "path": None}]), row(images=[item])]
    with pytest.raises(DataError, match="row 1: an image has neither bytes nor a path"):
        images_of(datasets.Dataset.from_list(rows))


def test_a_null_among_images_is_an_error() -> None:
    with pytest.raises(DataError, match="row 0: an image has neither bytes nor a path"):
        images_of(datasets.Dataset.from_list([row(images=[{"bytes": png(), "path": None}, None])]))


def test_a_relative_path_without_a_folder_is_an_error() -> None:
    with pytest.raises(DataError, match=r"row 0: image '1.png' is a relative path, .* set image_root"):
        images_of(datasets.Dataset.from_list([row(image="1.png")]))


@pytest.mark.parametrize("value", [1, [1], [[1.5]], True])
def test_a_column_of_something_else_is_an_error(value: Any) -> None:
    with pytest.raises(DataError, match=r"column images has type .*, not a list of images; cast it to List\(Image"):
        images_of(datasets.Dataset.from_list([row(images=value)]))


# -- nothing is copied ---------------------------------------------------------------------------------------------


def buffers(dataset: datasets.Dataset, column: str) -> Iterator[tuple[int, int]]:
    """(address, size) of the bytes of every chunk."""
    for chunk in dataset.data.table.column(column).chunks:
        structs = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
        data = structs.field("bytes").buffers()[2]
        yield data.address, data.size


@pytest.mark.parametrize("column", ["image", "images"])
def test_encoded_images_stay_in_the_buffers_they_came_in(tmp_path: Path, column: str) -> None:
    item = {"bytes": png(), "path": None}
    rows = [row(**{column: [item] if column == "images" else item}) for _ in range(250)]
    feature = datasets.List(datasets.Image()) if column == "images" else datasets.Image()
    datasets.Dataset.from_list(rows).cast_column(column, feature).save_to_disk(str(tmp_path / "saved"), num_shards=3)
    saved = datasets.load_from_disk(str(tmp_path / "saved"))
    there = list(buffers(saved, column))
    result = read(saved)
    for address, size in buffers(result, "images"):
        assert any(start <= address and address + size <= start + length for start, length in there)
    assert len(result) == 250
    assert result[249]["images"] == stored(png())


def test_a_table_that_is_mapped_from_disk_stays_mapped(tmp_path: Path) -> None:
    item = {"bytes": png(), "path": None}
    dataset = datasets.Dataset.from_list([row(images=[item])]).cast_column("images", datasets.List(datasets.Image()))
    dataset.save_to_disk(str(tmp_path / "saved"))
    assert read(datasets.load_from_disk(str(tmp_path / "saved"))).cache_files
    assert open(str(tmp_path / "saved")).cache_files


def test_no_file_is_written_beside_the_dataset(tmp_path: Path) -> None:
    datasets.Dataset.from_list([row(image=png())]).save_to_disk(str(tmp_path / "saved"))
    before = sorted(tmp_path.rglob("*"))
    open(str(tmp_path / "saved"))
    assert sorted(tmp_path.rglob("*")) == before


def test_rows_that_were_selected_are_read_in_their_order() -> None:
    dataset = datasets.Dataset.from_list([{"id": str(i), **row(image=png(c))} for i, c in enumerate(["red", "blue"])])
    result = read(dataset.select([1, 0, 1]))
    assert result["id"][:] == ["1", "0", "1"]
    assert [images[0]["bytes"] for images in result["images"]] == [png("blue"), png("red"), png("blue")]


# -- where images may lie ------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset's file with an image beside it, and images elsewhere."""
    for name in ("data/in/1.png", "more/2.png", "3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    (tmp_path / "data/link.png").symlink_to(tmp_path / "3.png")
    return tmp_path / "data"


def opened(data: Path, path: str, **options: Any) -> list[Row]:
    (data / "rows.json").write_text(json.dumps([row(image=path)]))
    (opened_row,) = open(str(data / "rows.json"), **options)
    images: list[Row] = opened_row["images"]
    return images


def test_images_lie_below_the_dataset_or_where_the_options_say(data: Path) -> None:
    for path in ("in/1.png", "./in/../in/1.png", f"{data}/in/1.png"):
        assert opened(data, path) == [{"bytes": None, "path": f"{data}/in/1.png"}]
    more = {"bytes": None, "path": f"{data.parent}/more/2.png"}
    assert opened(data, more["path"], allowed_roots=[str(data.parent / "more")]) == [more]
    assert opened(data, "more/2.png", image_root=str(data.parent)) == [more]
    for path in (
        "../3.png",
        f"{data.parent}/3.png",
        "link.png",
        "/etc/passwd",
        "s3://bucket/3.png",
        f"file://{data}/../3.png",
    ):
        with pytest.raises(DataError, match=r"row 0: image .* is not below .*; set image_root if it is meant"):
            opened(data, path)


def test_the_web_is_closed_unless_opened(data: Path) -> None:
    url = "https://me:key@host/a.png"
    with pytest.raises(DataError, match=r"row 0: image https://host/a\.png: images from the web need allow_http=true"):
        opened(data, url)
    assert opened(data, url, allow_http=True) == [{"bytes": None, "path": url}]


def test_what_is_no_file_is_named_and_not_waited_for(data: Path) -> None:
    os.mkfifo(data / "fifo.png")
    for path, kind in (("fifo.png", "a FIFO"), ("in", "a folder")):
        with pytest.raises(DataError, match=rf"row 0: image .* cannot be read: it is {kind}"):
            opened(data, path)
    os.mkfifo(data / "rows2.json")
    with pytest.raises(DataError, match="a FIFO"):
        open(str(data / "rows2.json"))


def test_more_images_than_an_array_holds_are_told_apart_some_rows_at_a_time() -> None:
    """As in RLAIF-V: bytes in one column, and in another what file they once were. The same 22 MB, a hundred times."""
    part = pa.array([{"bytes": bytes(2_200_000), "path": "x.png"}] * 10, IMAGES.value_type)
    texts = {name: ["x.png"] * 1000 for name in ("image_path", "question", "chosen", "rejected")}
    table = pa.table({"image": pa.chunked_array([part] * 100), **texts})
    features = datasets.Features({"image": datasets.Image(), **dict.fromkeys(texts, datasets.Value("string"))})
    rows = read(in_memory(table, features))
    assert len(rows) == 1000 and rows.data["images"].nbytes > 2 << 30


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (
            "data:image/png;base64,iVBORw0KGgo=",
            "row 0: image 'data:image/png;base64,.*' is given as a data URL; write",
        ),
        ({"bytes": "iVBORw0KGgo=", "path": None}, "column images has type .*, not a list of images"),
    ],
)
def test_an_image_that_is_written_as_text_is_an_error_that_says_so(image: Any, says: str) -> None:
    row = {"images": [image], "question": "q", "chosen": "a", "rejected": "b"}
    with pytest.raises(DataError, match=says):
        read(datasets.Dataset.from_list([row]))
