"""The table of scores, made of whole shards: every part of it says something of each row, or why it cannot.

A part is a scorer, the scores that another stage computed, or the verdicts that another stage asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.errors import PipelineError
from pipeline.base.images import image_files
from pipeline.base.tables import OK, SCORES, UNKNOWN, error_status
from pipeline.scoring.ask import read_verdicts
from reward.asking.protocol import Asker
from reward.scorers.column_scorer import Batch, ColumnScorer
from reward.scorers.protocol import FLAGS, READS_EVERY_TEXT, Flagging, Scorer

_READ = ("images", "prompt", "facts")
#: A worker has two shards at a time, so that one is read while the other is scored. Scorers run other people's code: a
#: tokenizer, for one, keeps how it pads between two calls, and two threads would pad for each other.
_TURN = threading.Lock()
#: Why a row of another table failed; null for a good one.
_PROBLEM = pa.struct([("error_type", pa.string()), ("error", pa.string())])

#: What is not known of one row: a ``pipeline.base.tables.UNKNOWN``.
Note = dict[str, Any]
#: By row of the shard.
Notes = dict[int, list[Note]]


@dataclass(frozen=True)
class Stored:
    """The scores that the stage ``table`` computed for ``scorer``."""

    table: str
    scorer: str


@dataclass(frozen=True)
class Answered:
    """The scores that follow from the verdicts in ``table``."""

    table: str
    asker: Asker
    version: str

    @property
    def scorer(self) -> str:
        return self.asker.name


Part = Scorer | Stored | Answered


def process(
    parts: Sequence[Part], tables: Mapping[str, pa.Table], further: Sequence[str], alone: bool = False
) -> pa.Table:
    """One row per row of ``sample``; one that failed there has failed. A row that failed in one of the tables
    ``further`` lacks those scores. ``alone``: a row that breaks the only scorer fails."""
    sample = tables["sample"]
    ids = columns.whole(sample["id"])
    fine = columns.ok(sample)
    good = pa.array(fine)
    prompts = columns.align(tables["source"].select(["id", *_READ]), ids.filter(good))
    for name in further:
        # Beside the prompts' own columns: what is done to their rows is then done to these.
        table = columns.align(tables[name], ids).filter(good)
        beside = [columns.whole(table.column(1)), pa.array(_problems(table), _PROBLEM), _unknown(table)]
        for column, values in zip(_beside(name), beside, strict=True):
            prompts = prompts.append_column(column, values)
    scored = _score(parts, prompts, sample["candidates"].filter(good), alone)
    if fine.all():
        return scored
    bad = sample.filter(pa.array(~fine)).select(["id", *OK])
    return columns.align(pa.concat_tables([scored, _table(bad, None, {})]), ids)


def all_notes(table: pa.Table) -> Iterator[Note]:
    """Everything that is not known in a table of scores."""
    for row in _unknown(table).drop_null().to_pylist():
        yield from row


def _beside(table: str) -> tuple[str, str, str]:
    """The columns that hold what another table says: values, why there are none, what is not known."""
    return table, f"{table} problem", f"{table} unknown"


def _problems(table: pa.Table) -> list[dict[str, Any] | None]:
    return [
        None
        if row["status"] == "ok"
        else {"error_type": row["error_type"] or "no_scores", "error": row["error"] or "the row has no scores"}
        for row in table.select(list(OK)).to_pylist()
    ]


def _unknown(table: pa.Table) -> Any:
    if "unknown" in table.column_names:
        return columns.whole(table["unknown"])
    return pa.nulls(table.num_rows, SCORES.field("unknown").type)  # verdicts, and scores of earlier versions


def _score(parts: Sequence[Part], prompts: pa.Table, candidates: pa.ChunkedArray, alone: bool) -> pa.Table:
    """The scores of prompts and their candidates (aligned). A row that breaks a scorer breaks it for itself."""
    count = prompts.num_rows
    rows = pa.table({"id": prompts["id"], **{name: pa.array([OK[name]] * count, pa.string()) for name in OK}})
    try:
        return _table(rows, *_columns(parts, prompts, candidates))
    except PipelineError:
        raise
    except Exception as error:  # scorers run other people's models: any error is one row's, until shown otherwise
        if count > 1:
            each = [_score(parts, prompts.slice(i, 1), candidates.slice(i, 1), alone) for i in range(count)]
            return pa.concat_tables(each)
        if alone or columns.items(candidates, "text").null_count:
            status = {name: [value] for name, value in error_status(type(error).__name__, str(error)).items()}
            return _table(pa.table({"id": prompts["id"], **status}), None, {})
    return _table(rows, *_one_by_one(parts, prompts, candidates))


def _one_by_one(parts: Sequence[Part], prompts: pa.Table, candidates: pa.ChunkedArray) -> tuple[Any, Notes]:
    """Of a row that breaks a scorer: what the others say of it."""
    batches: list[Any] = []
    notes: list[Note] = []
    for part in parts:
        try:
            scores, batch_notes = _columns([part], prompts, candidates)
        except PipelineError:
            raise
        except Exception as error:
            notes.append(_note(part, type(error).__name__, str(error), fails=True))
        else:
            batches.append(scores)
            notes += batch_notes.get(0, [])
    return columns.join_lists(batches) if batches else _transpose([], columns.counts(candidates)), {0: notes}


def _columns(parts: Sequence[Part], prompts: pa.Table, candidates: pa.ChunkedArray) -> tuple[Any, Notes]:
    """The ``scores`` column: for every prompt one struct per score, in the parts' order; and what is not known."""
    sizes = columns.counts(candidates)
    texts = columns.whole(columns.items(candidates, "text"))
    if texts.null_count:
        raise ValueError("a candidate has no text")
    batch = Batch(columns.whole(prompts["facts"]), texts, columns.rows(sizes), _asked(prompts["prompt"]))
    rows: list[dict[str, Any]] | None = None
    named: list[tuple[str, str, pa.Array]] = []  # name, version, one value per text
    done: list[pa.ListArray] = []
    notes: Notes = {}
    for part in parts:
        if isinstance(part, Stored):
            done += [_transpose(named, sizes)] if named else []
            named = []
            done.append(columns.whole(prompts[part.table]))
            _add(notes, {**_without_value(part, prompts), **_of_table(part, prompts)})
            continue
        if isinstance(part, ColumnScorer):
            values_of = part.score_columns(batch)
        elif isinstance(part, Answered):
            values_of, part_notes = _score_answers(part, prompts, candidates)
            _add(notes, part_notes)
        else:
            rows = rows if rows is not None else _rows(prompts, candidates)
            with _TURN:
                values_of = _flat({**part.score(rows), **(part.flags(rows) if isinstance(part, Flagging) else {})})
        for name, values in values_of.items():
            finite, dropped = _finite(part, name, values, batch)
            named.append((name, part.version, finite))
            _add(notes, dropped)
    done += [_transpose(named, sizes)] if named or not done else []
    return (done[0] if len(done) == 1 else columns.join_lists(done)), notes


def _asked(conversations: pa.ChunkedArray) -> pa.Array:
    """The last message of each."""
    sizes = columns.counts(conversations)
    last = columns.starts(sizes)[1:] - 1
    return columns.whole(columns.items(conversations, "content")).take(pa.array(last, mask=sizes == 0))


def _of_table(part: Stored | Answered, prompts: pa.Table) -> Notes:
    """Why rows failed in the part's table, and what it does not know of others."""
    _, problems, unknown = (prompts[name].to_pylist() for name in _beside(part.table))
    notes: Notes = {}
    for row, (problem, flags) in enumerate(zip(problems, unknown, strict=True)):
        if problem is not None:
            notes[row] = [_note(part, problem["error_type"], problem["error"], fails=True)]
        elif flags:
            notes[row] = flags
    return notes


def _without_value(part: Stored, prompts: pa.Table) -> Notes:
    """Of a scorer that reads every text: the rows in which it has no value for some."""
    if part.scorer not in READS_EVERY_TEXT:
        return {}
    scores = prompts[part.table]
    values = columns.items(scores, "values")
    of_values = np.repeat(columns.rows(columns.counts(scores)), columns.counts(values))
    missing = columns.bools(columns.items(values).is_null())
    return {row: [_note(part, *READS_EVERY_TEXT[part.scorer])] for row in np.unique(of_values[missing]).tolist()}


def _score_answers(part: Answered, prompts: pa.Table, candidates: pa.ChunkedArray) -> tuple[dict[str, pa.Array], Notes]:
    verdicts = prompts[part.table].to_pylist()
    plain = prompts.select(["id", "prompt", "facts"]).to_pylist()
    notes = _of_table(part, prompts)
    scores_of: dict[str, list[list[float | None]]] = {}
    for number, (row, texts, row_verdicts) in enumerate(zip(plain, candidates.to_pylist(), verdicts, strict=True)):
        answers = read_verdicts(row_verdicts)
        scores = part.asker.scores({**row, "images": [], "candidates": texts}, answers)
        errors = [answer.error for answer in answers if answer.error is not None]
        if number not in notes and errors:
            kind, _, message = errors[0].partition(": ")
            notes[number] = [_note(part, kind, f"{len(errors)} of {len(answers)} verdicts, the first one: {message}")]
        for name, values in scores.items():
            usable = number not in notes or not notes[number][0]["failed"]
            scores_of.setdefault(name, []).append(values if usable else [None] * len(values))
    return _flat(scores_of), notes


def _finite(part: Scorer | Answered, name: str, values: pa.Array, batch: Batch) -> tuple[pa.Array, Notes]:
    """The values with null for those that are no finite number, which are not known; and what a flag tells of others
    of the scorer."""
    numbers = columns.floats(values)
    odd = np.isnan(numbers) & columns.bools(values.is_valid()) | np.isinf(numbers)
    notes: Notes = {}
    if odd.any():
        for row in np.unique(batch.prompt[odd]).tolist():
            notes[row] = [_note(part, "not_finite", f"a value of {name} is no finite number")]
        values = pc.if_else(pa.array(odd), pa.scalar(None, pa.float64()), values)
    if name in FLAGS:
        for row in np.unique(batch.prompt[numbers > 0]).tolist():
            notes.setdefault(row, []).append(_note(part, *FLAGS[name]))
    return values, notes


def _note(part: Part, error_type: str, error: str, fails: bool = False) -> Note:
    scorer = part.scorer if isinstance(part, Stored | Answered) else part.name
    return {"scorer": scorer, "failed": fails, "error_type": error_type, "error": error}


def _add(notes: Notes, more: Notes) -> None:
    for row, notes_of in more.items():
        notes.setdefault(row, []).extend(notes_of)


def _flat(scores: Mapping[str, Sequence[Sequence[float | None]]]) -> dict[str, pa.Array]:
    """From a list of values per row to one array over all texts."""
    return {name: pa.array([value for row in values for value in row], pa.float64()) for name, values in scores.items()}


def _transpose(named: Sequence[tuple[str, str, pa.Array]], sizes: columns.Ints) -> pa.ListArray:
    """From one array per score over all texts to one struct per prompt and score."""
    prompts, texts, scores = len(sizes), int(sizes.sum()), len(named)
    if not named:
        return columns.lists(np.zeros(prompts, np.int64), pa.array([], SCORES.field("scores").type.value_type))
    first = columns.starts(sizes)[:-1, None] + texts * np.arange(scores)
    each = np.repeat(sizes, scores)
    every = pa.concat_arrays([columns.whole(values) for _, _, values in named])
    values = columns.lists(each, every.take(pa.array(columns.ranges(first.ravel(), each))))
    which = pa.array(np.tile(np.arange(scores), prompts))
    names, versions = (pa.array([column[i] for column in named], pa.string()).take(which) for i in (0, 1))
    fields = list(SCORES.field("scores").type.value_type)
    return columns.lists(
        np.full(prompts, scores, np.int64), pa.StructArray.from_arrays([names, versions, values], fields=fields)
    )


def _rows(prompts: pa.Table, candidates: pa.ChunkedArray) -> list[dict[str, Any]]:
    """What a scorer reads that looks at one row after the other (``reward.scorers.protocol.Row``)."""
    rows = prompts.select(["id", *_READ]).to_pylist()
    return [
        {
            **row,
            "images": [image_files.load(image) for image in row["images"]],
            "paths": [image["path"] for image in row["images"]],
            "candidates": texts,
        }
        for row, texts in zip(rows, candidates.to_pylist(), strict=True)
    ]


def _table(rows: pa.Table, scores: pa.Array | None, notes: Notes) -> pa.Table:
    """``rows`` have an id and a status."""
    scores = pa.nulls(rows.num_rows, SCORES.field("scores").type) if scores is None else scores
    unknown = pa.array([notes.get(row) or None for row in range(rows.num_rows)], pa.list_(UNKNOWN))
    return rows.append_column("scores", scores).append_column("unknown", unknown).select(SCORES.names).cast(SCORES)
