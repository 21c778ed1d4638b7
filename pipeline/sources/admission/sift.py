"""Which rows of a spool stay, bucket by bucket in the order of their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.base.images.image_files import public
from pipeline.sources.admission.filter import CONTRADICTED, DUPLICATE, Candidate, Filter
from pipeline.sources.admission.prompt_id import LENGTH
from pipeline.sources.admission.spool import Spool
from reward.answers.match_answer import asks_yes_or_no, is_yes, right

Array = npt.NDArray[Any]
_ID = f"S{LENGTH // 2}"


class Kept(NamedTuple):
    """The rows that stay, sorted by id: ``ids``, the bucket (as where each one ``starts``) and the row in it. 20 bytes
    a row, which is all that is held of all of them at once."""

    ids: Array
    rows: Array
    starts: Array


def sift(spool: Spool, filter: Filter | None, drop: Callable[[dict[str, Any]], None], *, strict: bool = True) -> Kept:
    """Of rows with the same id the first to come stays, or, if ``strict``, none where one says yes to the question and
    another no. Then ``filter`` is asked. ``drop`` gets a row of ``pipeline.sources.admission.filter.DROPPED`` for every
    other."""
    ids, rows, starts = [np.empty(0, _ID)], [np.empty(0, np.int32)], [0]
    for number in range(spool.buckets):
        table = spool.bucket(number)
        bucket_ids = names(table["id"])
        order = np.argsort(bucket_ids, kind="stable").astype(np.int32)
        sorted_ids = bucket_ids[order]
        first = np.ones(len(order), bool)
        first[1:] = sorted_ids[1:] != sorted_ids[:-1]
        if not first.all():
            heads = order[first][np.cumsum(first) - 1]
            pairs = list(zip(order[~first].tolist(), heads[~first].tolist(), strict=True))
            unsure = _contradicted(table, pairs) if strict else {}
            for row, head in pairs:
                drop(_dropped_row(table, row, *unsure.get(head, (DUPLICATE, f"same as {_source(table, head)}"))))
            for head, doubt in unsure.items():
                drop(_dropped_row(table, head, *doubt))
            first &= ~np.isin(order, list(unsure))
        order = order[first]
        if filter is not None and len(order):
            reasons = [filter.why(row) if row else None for row in _candidates(table, order)]
            for row, why in zip(order.tolist(), reasons, strict=True):
                if why is not None:
                    drop(_dropped_row(table, row, *why))
            order = order[np.array([why is None for why in reasons])]
        ids.append(bucket_ids[order])
        rows.append(order)
        starts.append(starts[-1] + len(order))
    return Kept(np.concatenate(ids), np.concatenate(rows), np.array(starts))


def names(column: pa.ChunkedArray) -> Array:
    """Ids as an array of the bytes that their digits say, which sort as the texts do."""
    return np.frombuffer(bytes.fromhex("".join(column.to_pylist())), _ID)


def _contradicted(table: pa.Table, pairs: list[tuple[int, int]]) -> dict[int, tuple[str, str]]:
    """Of rows and the first with their id: the first ones that another one contradicts, with reason and detail."""
    said: dict[int, dict[bool, int]] = {}
    for row, head in pairs:
        for at in (head, row):
            answers = right(table["facts"][at].as_py()) if table["status"][at].as_py() == "ok" else ()
            if answers and all(map(asks_yes_or_no, answers)) and len({*map(is_yes, answers)}) == 1:
                said.setdefault(head, {}).setdefault(is_yes(answers[0]), at)
    return {
        head: (CONTRADICTED, f"{_source(table, by[True])} says yes and {_source(table, by[False])} no")
        for head, by in said.items()
        if len(by) == 2
    }


def _source(table: pa.Table, row: int) -> str:
    return public(table["source"][row].as_py() or "a row")


def _candidates(table: pa.Table, order: Array) -> Iterator[Candidate | None]:
    """The rows in ``order``; None for one that failed, which stays to say why."""
    for start in range(0, len(order), 1024):
        part = table.take(pa.array(order[start : start + 1024]))
        for row in part.select(["id", "pictures", "prompt", "facts", "status"]).to_pylist():
            facts = row["facts"] or {}
            texts = [message["content"] for message in row["prompt"]]
            texts += [*(facts.get("captions") or ()), *right(facts)]
            pictures = row["pictures"]
            yield (
                Candidate(row["id"], [seen["digest"] for seen in pictures], [seen["hash"] for seen in pictures], texts)
                if row["status"] == "ok"
                else None
            )


def _dropped_row(table: pa.Table, row: int, reason: str, detail: str) -> dict[str, Any]:
    (values,) = table.slice(row, 1).select(["id", "source", "pictures", "prompt"]).to_pylist()
    images = [public(picture["path"]) if picture["path"] else None for picture in values.pop("pictures")]
    return {**values, "images": images, "reason": reason, "detail": detail}
