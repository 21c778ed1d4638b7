"""A picture that its file leaves to the reader is one picture everywhere: servers, scorers, report, published data."""

from __future__ import annotations

import base64
import io
import itertools
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from picture_kit import file, noise, turned
from PIL import Image
from stage_kit import generated

from pipeline.base.images.pixels import decode
from pipeline.engines.chat_completions import data_url
from pipeline.exporting.formats import FORMATS
from pipeline.exporting.write_export import export
from pipeline.publishing import page_images
from pipeline.publishing.config import Publish
from pipeline.publishing.publish import publish
from pipeline.running.store import Run
from pipeline.sources.admission.phash import phash
from reward.models import conversation_reader
from reward.scorers import clip

PHOTO = turned(6, "JPEG", Image.fromarray(noise(80, 120)))
LOGO = file(Image.new("RGBA", (96, 64), (0, 0, 0, 0)))
DEEP = file(Image.fromarray(np.arange(0, 65536, 64, np.uint32).reshape(32, 32).astype(np.uint16)))
PALETTE = file(Image.fromarray(noise()).convert("P"), "GIF")
PLAIN = file(Image.fromarray(noise()), "JPEG")
AWKWARD = [PHOTO, LOGO, DEEP, PALETTE, turned(3, "PNG"), file(Image.fromarray(noise()).convert("CMYK"), "JPEG")]


def naive(data: bytes) -> Any:
    """What a reader sees that interprets nothing."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def url(text: str) -> bytes:
    return base64.b64decode(text.partition(",")[2])


@pytest.mark.parametrize("data", [*AWKWARD, PLAIN])
def test_servers_the_report_and_scorers_see_what_decode_gives(data: bytes) -> None:
    shown = np.asarray(decode(data))
    assert np.array_equal(naive(url(data_url(data))), shown)
    assert np.array_equal(naive(url(page_images.data_uri(data)[0])), shown)
    assert np.array_equal(np.asarray(clip._decode(data, [[data]])), shown)
    assert np.array_equal(np.asarray(conversation_reader._decode(0, 0, data)), shown)


def test_what_is_final_is_sent_and_shown_byte_for_byte() -> None:
    assert url(data_url(PLAIN)) == url(page_images.data_uri(PLAIN)[0]) == PLAIN


def test_a_photo_and_its_upright_copy_look_alike() -> None:
    assert phash(decode(PHOTO)) == phash(decode(file(decode(PHOTO))))


@pytest.fixture
def outside(tmp_path: Path) -> Run:
    """A run whose prompts name files, some of which leave something to the reader."""
    import pyarrow as pa

    run = generated(tmp_path)
    files = itertools.cycle(data for awkward in AWKWARD for data in (PLAIN, awkward))
    for shard in run.shards("source"):
        table = run.read("source", shard)
        rows = table.to_pylist()
        for row in rows:
            path = tmp_path / f"{row['id']}.img"
            path.write_bytes(next(files))
            row["images"] = [{"bytes": None, "path": str(path)}]
        run.write(
            "source", shard, pa.Table.from_pylist(rows, schema=table.schema.remove_metadata()), by=run.record("source")
        )
    return run


@pytest.mark.parametrize("how", ["reference", "embed"])
def test_what_is_published_shows_the_same_in_datasets_and_to_everybody(outside: Run, tmp_path: Path, how: Any) -> None:
    folder = publish(outside, Publish(images=how, images_in_candidates=True), lambda _: "card").path
    for config in ("pairs", "candidates"):
        rows = datasets.load_from_disk(str(folder / config))
        kept = 0
        for row, raw in zip(rows, rows.cast_column("images", datasets.List(datasets.Image(decode=False))), strict=True):
            (image,), (stored,) = row["images"], raw["images"]
            original = (tmp_path / f"{row['id']}.img").read_bytes()
            assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(decode(original)))
            if stored["bytes"] is None:
                assert how == "reference" and original == PLAIN
            else:
                assert np.array_equal(naive(stored["bytes"]), np.asarray(decode(original)))
                assert stored["path"] == f"{row['id']}.img"
            kept += stored["bytes"] in (None, PLAIN)
        assert 0 < kept < len(rows)


def test_rows_that_failed_are_published_without_a_look_at_what_they_name(outside: Run, tmp_path: Path) -> None:
    """A path that may not be followed must not be copied into the dataset either."""
    import pyarrow as pa

    secret = tmp_path / "secret.png"
    secret.write_bytes(LOGO)
    shard = outside.shards("source")[0]
    table = outside.read("source", shard)
    rows = table.to_pylist()
    rows[0] |= {"images": [{"bytes": None, "path": str(secret)}], "status": "failed", "error_type": "path_outside_root"}
    outside.write(
        "source", shard, pa.Table.from_pylist(rows, schema=table.schema.remove_metadata()), by=outside.record("source")
    )
    folder = publish(outside, Publish(images="embed", images_in_candidates=True), lambda _: "card").path
    stored = datasets.load_from_disk(str(folder / "candidates"))
    raw = {row["id"]: row for row in stored.cast_column("images", datasets.List(datasets.Image(decode=False)))}
    assert raw[rows[0]["id"]]["images"][0]["bytes"] is None


def test_exported_pairs_show_the_same(outside: Run, tmp_path: Path) -> None:
    folder = publish(outside, Publish(images="embed"), lambda _: "card").path
    export(FORMATS["pds"], folder, tmp_path / "out")
    for item in json.loads((tmp_path / "out/out.json").read_text()):
        original = (tmp_path / f"{item['id']}.img").read_bytes()
        assert np.array_equal(naive((tmp_path / "out" / item["image"]).read_bytes()), np.asarray(decode(original)))


def test_another_look_at_a_picture_is_another_prompt_and_at_a_plain_one_the_same(tmp_path: Path) -> None:
    """So that what was sampled and scored about the old look is made anew, and nothing else."""
    import hashlib

    from pipeline.sources.admission.verdicts import Verdicts, key

    verdicts = Verdicts(10**9, 10**9, hashed=False)
    for data in (*AWKWARD, PLAIN):
        image = {"bytes": data, "path": None}
        (verdict,) = verdicts.look({key(image, None): (image, None)}).values()
        plain = hashlib.blake2b(data, digest_size=32).digest()
        assert (verdict.digest == plain) == (data in (PLAIN, PALETTE, AWKWARD[-1]))
