"""Entries as Arrow batches: every prompt with its id, where its images are, and whether it can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.base.errors import InputError
from pipeline.base.images.image_files import public
from pipeline.base.images.tags import Misplaced, in_front
from pipeline.base.tables import FACTS, MESSAGE, NOT_STORED, OK, error_status, storable
from pipeline.sources.admission.prompt_id import failed_id, prompt_id
from pipeline.sources.admission.spool import Blobs
from pipeline.sources.admission.verdicts import Verdict, Verdicts, key
from pipeline.sources.readers.protocol import Entry
from pipeline.sources.readers.record import WRONG_FACTS
from reward.text.same_text import is_unseen

#: An image on its way through the source: ``digest`` is the front half of the file's, ``hash`` is null unless somebody
#: wants it, and ``offset`` and ``size`` say where embedded bytes lie among the blobs (-1 for a file).
PICTURE = pa.struct(
    [
        ("path", pa.string()),
        ("digest", pa.binary(16)),
        ("hash", pa.uint64()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)
ADMITTED = pa.schema(
    [
        ("id", pa.string()),
        ("pictures", pa.list_(PICTURE)),
        ("prompt", pa.list_(MESSAGE)),
        ("facts", FACTS),
        ("source", pa.string()),
        *((name, pa.string()) for name in OK),
    ]
)
_ROWS, _BYTES = 2048, 32 << 20
#: Two shapes are the same whose sides differ by less, in relation.
_SAME = 0.02
#: So many malformed rows before any other say that all are: a wrong column, or another kind of file.
_HOPELESS = 1000


def admit(entries: Iterable[Entry], verdicts: Verdicts, blobs: Blobs) -> Iterator[pa.RecordBatch]:
    """Batches of ``ADMITTED`` in the order of ``entries``; embedded bytes go to ``blobs``. The id of a failed row comes
    from where it stands, so that no two of them are taken for one.

    Raises:
        InputError: not one row is well formed, or none of the first thousand is: then the recipe is wrong, or the file.
    """
    failures = _Failures()
    for chunk in _chunks(entries):
        keys = [[key(image, entry.root) for image in entry.images] for entry in chunk]
        wanted = {
            image_key: (image, entry.root)
            for entry, entry_keys in zip(chunk, keys, strict=True)
            for image, image_key in zip(entry.images, entry_keys, strict=True)
        }
        by_image = verdicts.look(wanted)
        kept: dict[str | bytes, tuple[int, int]] = {
            image_key: blobs.put(image_key, image["bytes"])
            for image_key, (image, _) in wanted.items()
            if isinstance(image_key, bytes)
        }
        rows = [_row(entry, entry_keys, by_image, kept) for entry, entry_keys in zip(chunk, keys, strict=True)]
        malformed = [entry.error is not None and entry.error[0] != WRONG_FACTS for entry in chunk]
        yield _batch(rows, malformed, failures)
    failures.finish()


def _row(
    entry: Entry,
    keys: Sequence[str | bytes],
    by_image: Mapping[str | bytes, Verdict],
    kept: Mapping[str | bytes, tuple[int, int]],
) -> dict[str, Any]:
    """A row of ``ADMITTED``; the id of one that failed is null, and comes from ``_Failures``."""
    if entry.error is not None:
        return _failed_row(entry.source, entry.error)
    verdicts = [by_image[image_key] for image_key in keys]
    prompt, status = _prompt(entry, verdicts)
    pictures = []
    for image, image_key, verdict in zip(entry.images, keys, verdicts, strict=True):
        offset, size = kept.get(image_key, (-1, -1))
        # Equal bytes may come under several names.
        path = image["path"] if offset >= 0 else verdict.path
        pictures.append(
            {"path": path, "digest": verdict.digest[:16], "hash": verdict.hash, "offset": offset, "size": size}
        )
    return {
        "id": prompt_id((verdict.digest for verdict in verdicts), prompt) if status is OK else None,
        "pictures": pictures,
        "prompt": prompt,
        "facts": entry.facts,
        "source": storable(entry.source),
        **status,
    }


def _prompt(entry: Entry, verdicts: Sequence[Verdict]) -> tuple[Sequence[Mapping[str, str]], dict[str, Any]]:
    """The prompt without the tags of its images, and whether the row can be used."""
    prompt = entry.prompt
    if any(_half(text) for message in prompt for text in (message["role"], message["content"])):
        why = f"{public(entry.source)}: the prompt holds half of a surrogate pair, which is no text; correct it"
        return [], error_status("malformed_row", why)
    try:
        prompt = in_front(prompt, len(entry.images))
    except Misplaced as error:
        return prompt, error_status(error.kind, f"{public(entry.source)}: {error.reason}")
    if not any(message["role"] == "user" and not is_unseen(message["content"]) for message in prompt):
        return prompt, error_status("empty_prompt", f"{public(entry.source)}: no message of the user has any text")
    for index, verdict in enumerate(verdicts):
        if verdict.error_type is not None:
            return prompt, error_status(verdict.error_type, f"image {index}: {verdict.error} ({public(entry.source)})")
    if entry.annotated is not None and (shape := verdicts[0].shape) is not None and _lies_down(entry.annotated, shape):
        annotated, shown = (" x ".join(f"{side:g}" for side in size) for size in (entry.annotated, shape))
        why = (
            f"annotated as {annotated} pixels, and shown as {shown}: the boxes are those of a picture that lies on its "
            "side, as without its EXIF orientation; annotate it as it is shown, or turn its pixels and drop the tag"
        )
        return prompt, error_status("turned_annotations", f"{public(entry.source)}: {why}")
    return prompt, OK


def _lies_down(annotated: tuple[float, float], shown: tuple[int, int]) -> bool:
    """Whether width and height of the one are height and width of the other. A picture that was merely scaled, by as
    much in both directions or not, has its boxes where they were.

    >>> _lies_down((20, 10), (100, 200)), _lies_down((20, 10), (40, 20)), _lies_down((20, 10), (10, 10))
    (True, False, False)
    """
    (width, height), (across, up) = annotated, shown
    return abs(width / height / (up / across) - 1) < _SAME and abs(width / height / (across / up) - 1) > _SAME


def _half(text: str) -> bool:
    """Whether there is half of a surrogate pair in it, as JSON may hold, which no encoding of text can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _failed_row(source: str, error: tuple[str, str]) -> dict[str, Any]:
    """A row of which nothing is known but where it stands."""
    return {"id": None, "pictures": [], "prompt": [], "facts": None, "source": storable(source), **error_status(*error)}


def _batch(rows: list[dict[str, Any]], malformed: list[bool], failures: _Failures) -> pa.RecordBatch:
    try:
        batch = pa.RecordBatch.from_pylist(rows, schema=ADMITTED)
    except NOT_STORED:
        for at, row in enumerate(rows):
            if (why := _not_storable(row)) is not None:
                rows[at], malformed[at] = _failed_row(row["source"], ("malformed_row", why)), True
        batch = pa.RecordBatch.from_pylist(rows, schema=ADMITTED)
    failures.note(rows, malformed)
    return batch.set_column(0, "id", pa.array(failures.ids(rows), pa.string()))


def _not_storable(row: dict[str, Any]) -> str | None:
    for column in ADMITTED:
        try:
            pa.array([row[column.name]], column.type)
        except NOT_STORED as error:
            place, name = public(row["source"]), "images" if column.name == "pictures" else column.name
            return f"{place}: {name} cannot be stored ({error}); see pipeline.base.tables.PROMPTS for the types"
    return None


class _Failures:
    """Names failed rows by where they stand, and gives up where no row is well formed. State: how many rows failed at
    each place; the first malformed row's error and how many followed, until another row comes."""

    def __init__(self) -> None:
        self._at: Counter[str] = Counter()
        self._first: str | None = None
        self._malformed, self._any = 0, False

    def ids(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        return [row["id"] or self._id(row["source"]) for row in rows]

    def note(self, rows: Iterable[Mapping[str, Any]], malformed: Iterable[bool]) -> None:
        """
        Raises:
            InputError: the first thousand rows are malformed.
        """
        for row, bad in zip(rows, malformed, strict=True):
            if self._any or not bad:
                self._any = True
                return
            self._first = self._first or row["error"]
            self._malformed += 1
            if self._malformed == _HOPELESS:
                self.finish()

    def finish(self) -> None:
        """
        Raises:
            InputError: there were rows, and all of them are malformed.
        """
        if self._first is not None and not self._any:
            raise InputError(self._first, f"none of the {self._malformed} row(s) read is well formed")

    def _id(self, source: str) -> str:
        self._at[source] += 1
        return failed_id(source, self._at[source])


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += sum(len(image["bytes"]) for image in entry.images if image["bytes"] is not None)
        if len(chunk) == _ROWS or size > _BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
