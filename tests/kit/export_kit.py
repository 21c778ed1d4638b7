"""Published datasets with rows that are hard to pass on, and what a reader of them must find."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from picture_kit import file, noise, turned
from PIL import Image
from stage_kit import png

from pipeline.base.tables import IMAGE
from pipeline.publishing import dataset_folder

Row = dict[str, Any]

TEXTS = (
    "What is it?",
    " two spaces before,  and behind  ",
    "\nA line break first,\r\nthen Windows',\ttabs and a last one\n",
    "\r\nWindows' first",
    'quotes " \' \\ and braces {{content}} {"a": 1}, \\n that is none',
    "Ünïcödé 图片 🐙 \u202eright to left\u2028a separator\u0085another\x0b\x1f\x00",
    "2021-01-01",
    "007",
    "null",
    "",
)


def message(role: str, text: Any) -> Row:
    return {"role": role, "content": text}


def pair(pair_id: str = "p", **changes: Any) -> Row:
    return {
        "id": pair_id,
        "images": [{"bytes": png(), "path": "a.png"}],
        "prompt": [message("user", "What is it?")],
        "chosen": [message("assistant", "A dog.")],
        "rejected": [message("assistant", "A cat.")],
        "source": "test",
        "margin": 1.0,
        **changes,
    }


def pictures(folder: Path) -> list[Row]:
    """Files that readers see in different ways, or as they are; in the row or beside it."""
    rgba = np.concatenate([noise(seed=1), np.full((16, 24, 1), 90, np.uint8)], axis=2)
    deep = Image.fromarray(noise(seed=2, channels=1).astype(np.uint16) * 257)
    encoded = {
        "photo.jpg": turned(6),
        "alpha.png": file(Image.fromarray(rgba)),
        "deep.png": file(deep),
        "palette.gif": file(Image.fromarray(noise(seed=3)).quantize(16), "GIF"),
        "grey.png": file(Image.fromarray(noise(seed=4, channels=1))),
        "plain.jpg": file(Image.fromarray(noise(seed=5)), "JPEG"),
        "web.webp": file(Image.fromarray(noise(seed=6)), "WEBP"),
    }
    rows: list[Row] = []
    for number, (name, data) in enumerate(encoded.items()):
        if number % 2:
            rows.append({"bytes": data, "path": name})
        else:
            (folder / name).write_bytes(data)
            rows.append({"bytes": None, "path": str(folder / name)})
    return rows


def questions(folder: Path) -> list[Row]:
    """Rows of one image and one question, which every format can contain."""
    shown = pictures(folder)
    rows = [pair(f"picture-{at}", images=[image]) for at, image in enumerate(shown)]
    for at, text in enumerate(TEXTS):
        answers = {"chosen": f"{text}good", "rejected": text or " "}
        sides = {side: [message("assistant", answer)] for side, answer in answers.items()}
        rows.append(pair(f"text-{at}", prompt=[message("user", text)], images=[shown[at % 2]], **sides))
    rows += [pair("p", rejected=[message("assistant", f"A cat {n}.")]) for n in range(3)]
    return [*rows, pair("007"), pair("p-2")]  # called as a further pair of another is


def conversations(folder: Path) -> list[Row]:
    """Rows that need more than one image and one question."""
    shown = pictures(folder)
    first, other = message("user", "One?"), message("user", "\nTwo?")
    return [
        pair("none", images=[]),
        pair("null", images=None, prompt=[message("user", " no image ")]),
        pair("three", images=shown[:3]),
        pair("twice", images=[shown[0], shown[0]], prompt=[message("user", "\nSame?")]),
        pair("turns", prompt=[first, message("assistant", " It is one. "), other]),
        pair("system", prompt=[message("system", "Be brief.\n"), first]),
        pair("empty-system", prompt=[message("system", ""), other, message("assistant", ""), first], images=shown[:2]),
    ]


def publish_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A dataset as ``pipeline.publishing.publish`` leaves it, files beside it as their paths; with a column that nobody
    knows."""
    text = {"dtype": "string", "_type": "Value"}
    messages = [{"role": text, "content": text}]
    features = {"id": text, "images": [{"_type": "Image"}], "prompt": messages, "chosen": messages,
                "rejected": messages, "source": text, "margin": {"dtype": "float64", "_type": "Value"}}  # fmt: skip
    table = pa.Table.from_pylist([dict(row) for row in rows])
    message_type = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    for name, kind in (
        ("images", pa.list_(IMAGE)),
        *((name, message_type) for name in ("prompt", "chosen", "rejected")),
    ):
        column = pa.array([row[name] for row in rows], kind)
        table = table.set_column(table.column_names.index(name), name, column)
    dataset_folder.write(folder / "pairs", features, [table.select(list(features))], 1000)
    dataset_folder.write(folder / "candidates", {"id": text}, [table.select(["id"])], 1000)
    (folder / "dataset_dict.json").write_text('{"splits": ["pairs", "candidates"]}')
    return folder


def picture(data: bytes) -> bytes:
    """What any reader sees in an image file that leaves nothing to interpret."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return repr(image.size).encode() + image.tobytes()
