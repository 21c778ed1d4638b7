"""Pictures on a page: as data URIs, and what became of the images that were made from a few texts."""

from __future__ import annotations

import base64
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.base.images import pixels
from pipeline.running.store import Run
from pipeline.sources.imagine.rank import gain

#: Pictures beyond this many bytes are shown reduced; smaller ones byte for byte.
LARGEST = 150_000
#: What ``images.final`` gives, by the first bytes.
_KINDS = {b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}
#: Texts whose images are shown: the first of the run, which is sorted by a hash of them.
SHOWN = 6


@dataclass(frozen=True, slots=True)
class Drawing:
    """``uri`` is None where there is no image. ``reason`` says why it was rejected, None if it was kept; ``faithful``
    whether it shows what the text says, None where nobody knows."""

    uri: str | None
    small: bool
    score: float | None
    reason: str | None
    faithful: bool | None


#: A text and what was drawn of it.
Row = tuple[str, tuple[Drawing, ...]]


@dataclass(frozen=True, slots=True)
class Gallery:
    """``reasons`` counts what became of all images (``kept`` or why not), ``faithful`` is ``rank.gain``."""

    rows: tuple[Row, ...]
    reasons: Counter[str]
    faithful: dict[str, float] | None
    questions: int
    leading: int
    no_question: int


def gallery(run: Run) -> Gallery | None:
    """The images that a run has made from texts; None if it has not ranked any."""
    record, shards = run.record("rank"), run.shards("rank")
    if record is None or not shards:
        return None
    reasons: Counter[str] = Counter()
    for shard in shards:
        for row in run.read("rank", shard)["reasons"].to_pylist():
            reasons.update(reason or "kept" for reason in row or ())
    rows = tuple(itertools.islice(_rows(run, shards), SHOWN))
    instructed = run.record("instruct")
    extras = instructed.extras if instructed is not None else {}
    asked = {name: extras.get(name, 0) for name in ("questions", "leading", "no_question")}
    return Gallery(rows, reasons, gain(record.extras), **asked)


def _rows(run: Run, shards: Sequence[int]) -> Iterator[Row]:
    """The texts of the shards with what was drawn of each; those alone of which something was drawn."""
    for shard in shards:
        made = {row["id"]: row for row in run.read("imagine", shard).slice(0, SHOWN).to_pylist()}
        for row in run.read("rank", shard).slice(0, SHOWN).to_pylist():
            if row["id"] in made and row["status"] == "ok":
                drawn = made[row["id"]]
                every = zip(drawn["images"], row["scores"], row["reasons"], row["faithful"], strict=True)
                yield drawn["text"], tuple(_drawing(image["bytes"], *rest) for image, *rest in every)


def _drawing(picture: bytes | None, score: float | None, reason: str | None, faithful: bool | None) -> Drawing:
    uri, small = data_uri(picture) if picture is not None else (None, False)
    return Drawing(uri, small, score, reason, faithful)


def data_uri(image: bytes) -> tuple[str, bool]:
    """The picture for an ``img`` tag, and whether it is so small that its pixels should stay sharp when enlarged."""
    try:
        small = max(pixels.size(image)) <= 160
    except pixels.BadImage:
        small = False
    image, name = reduce_picture(image)
    return f"data:image/{name};base64,{base64.b64encode(image).decode()}", small


def reduce_picture(image: bytes) -> tuple[bytes, str]:
    """A picture that a page can show, and its kind (``png``, ``jpeg``, ``webp``): of many bytes, a smaller one."""
    try:
        image = pixels.final(image)
        if len(image) > LARGEST:
            picture = pixels.decode(image, None, None)
            picture.thumbnail((640, 640))
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=85)
            image = buffer.getvalue()
    except pixels.BadImage:
        pass
    return image, kind(image)


def kind(image: bytes) -> str:
    """Of final pixels: ``png``, ``jpeg`` or ``webp``."""
    return next((name for start, name in _KINDS.items() if image.startswith(start)), "png")
