"""The pairs of any dataset as a reader has them who is not shown the images (``pipeline.blindness``)."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import datasets

from pipeline.blindness.pair_texts import MOST, Drawn, PairTexts, source_mark, writers
from training import formats
from training.errors import DataError
from training.formats import batches, dataset_files

#: Columns that say where a pair is from, in datasets that have them.
_MARKS = ("source", "policy", "origin_dataset", "ds_name")
_WRITERS = ("chosen_model", "rejected_model")
_WRITTEN_BY = "written by"


class UnseenPairs:
    """``by`` are the columns whose values pairs are told apart by, beside all; None: those of ``_MARKS`` that there
    are, and the models that wrote the two texts. Images need not be there.

    Raises:
        DataError: the dataset cannot be read (``formats.open``), or lacks one of ``by``.
    """

    def __init__(
        self, path: str, by: Sequence[str] | None = None, dataset_format: str | None = None, split: str | None = None
    ) -> None:
        self._rows = formats.open(path, dataset_format, split, check_images=False)
        raw = dataset_files.load(path, split)
        self._marks = _mark_columns(raw, by, path)
        self._raw, self._path = raw, path

    def drawn(self, most: int = MOST) -> tuple[list[PairTexts], int]:
        """At most so many of them, and how many there are."""
        kept = Drawn(most)
        kept.add(self._entries())
        # Images are looked at last: to tell apart those of all rows, all of them would be read.
        return self._with_images(kept.pairs), kept.total

    def at(self, numbers: Sequence[int]) -> list[PairTexts]:
        """Those of the rows of such numbers."""
        rows = self._rows.select(numbers).remove_columns("images")
        pairs = [_pair(number, row, {}) for number, row in zip(numbers, rows, strict=True)]
        return self._with_images(pairs)

    def _entries(self) -> Iterator[tuple[str, PairTexts]]:
        columns = [name for name in ("id", "prompt", "chosen", "rejected") if name in self._rows.column_names]
        texts = self._rows.select_columns(columns)
        seen: Counter[tuple[str, str, str]] = Counter()
        for number, (row, marks) in enumerate(zip(texts, self._marks_of_rows(), strict=True)):
            pair = _pair(number, row, marks)
            name = row.get("id")
            if name is None:  # of several that say the same, each is drawn for itself
                said = pair.prompt, pair.chosen, pair.rejected
                seen[said] += 1
                name = f"#{seen[said]}"
            yield name, pair

    def _marks_of_rows(self) -> Iterator[Mapping[str, str]]:
        if not self._marks:
            yield from ({} for _ in range(len(self._rows)))
            return

        def name(index: int) -> str:
            return f"dataset {self._path}: row {index}"

        wanted = [column for column in dict.fromkeys((*self._marks, *_WRITERS)) if column in self._raw.column_names]
        for batch in batches.rows(self._raw.select_columns(wanted), name):
            yield from (self._of_row(row) for row in batch)

    def _of_row(self, row: Mapping[str, Any]) -> dict[str, str]:
        marks = {column: str(row[column]) for column in self._marks if row.get(column) is not None}
        if "source" in marks:
            marks["source"] = source_mark(marks["source"])
        if _WRITTEN_BY in self._marks:
            marks[_WRITTEN_BY] = writers(*(row[column] for column in _WRITERS))
        return marks

    def _with_images(self, pairs: Sequence[PairTexts]) -> list[PairTexts]:
        """``images`` of the pairs are still the numbers of their rows."""
        only = self._rows.select_columns(["images"])
        return [replace(pair, images=_name(only[int(pair.images)]["images"], pair.prompt)) for pair in pairs]


def _pair(number: int, row: Mapping[str, Any], marks: Mapping[str, str]) -> PairTexts:
    return PairTexts(str(number), _text(row["prompt"][-1:]), _text(row["chosen"]), _text(row["rejected"]), marks)


def _text(messages: Iterable[Mapping[str, Any]]) -> str:
    parts = (part["text"] for message in messages for part in message["content"])
    return "\n".join(text for text in parts if text)


def _name(images: Sequence[Mapping[str, Any]], prompt: str) -> str:
    """A prompt without images is by itself."""
    names = [
        hashlib.blake2b(image["bytes"], digest_size=16).hexdigest() if image["bytes"] is not None else image["path"]
        for image in images or ()
    ]
    return " ".join(names) if names else f"prompt:{prompt}"


def _mark_columns(raw: datasets.Dataset, by: Sequence[str] | None, path: str) -> tuple[str, ...]:
    there = raw.column_names
    if by is None:
        written_by = (_WRITTEN_BY,) if set(_WRITERS) <= set(there) else ()
        return (*(column for column in _MARKS if column in there and _is_scalar(raw, column)), *written_by)
    for column in by:
        if column not in there:
            close = difflib.get_close_matches(column, there, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(there))}"
            raise DataError(f"dataset {path}: has no column {column}; {hint}")
        if not _is_scalar(raw, column):
            raise DataError(f"dataset {path}: column {column} holds no texts or numbers; name one that does")
    return tuple(dict.fromkeys(by))


def _is_scalar(raw: datasets.Dataset, column: str) -> bool:
    return isinstance(raw.features[column], datasets.Value)
