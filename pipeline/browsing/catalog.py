"""Which prompts of a run, or of two, a view shows, and in which order: queries over its shards, by DuckDB.

In memory is one short row for each prompt and each pair. Scores, models and texts are read shard by shard by the
queries that ask for them. A run that goes on is read anew as soon as it has other shards.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import files
from pipeline.base.columns import Ints
from pipeline.browsing import relations
from pipeline.browsing.fitting import FittingRun
from pipeline.browsing.view import MARGIN, UNMARKED, View, number, terms
from pipeline.running.joined import STAGES, Joined
from pipeline.running.store import Run

#: Results that are kept, for the next page and the next prompt.
_KEPT = 16
#: Sources that are offered.
MOST_SOURCES = 200
NAMES = ("a", "b")
_NO_MARKS: Mapping[str, Iterable[str]] = {}
_NO_NETWORK: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


@dataclass
class Facets:
    """What prompts of a run can be asked for, each with its number: of prompts, or of candidates for ``models``."""

    outcomes: dict[str, int] = field(default_factory=dict)
    policies: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)
    scores: list[str] = field(default_factory=list)
    prompts: int = 0
    pairs: int = 0
    candidates: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A prompt of one run or of both: where it lies in each, None in one that does not have it."""

    entry: int
    id: str
    shards: tuple[int | None, ...]
    outcomes: tuple[str | None, ...]


class Catalog:
    """The prompts of ``runs``, one or two. State: the tables of the query engine, which one query has at a time."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(FittingRun(run.path) for run in runs)
        self.facets: tuple[Facets, ...] = ()
        self._lock = threading.RLock()
        self._seen: Any = None
        self._results: OrderedDict[Any, Ints] = OrderedDict()
        self._connection = duckdb.connect(":memory:", config=_NO_NETWORK)
        self._connection.execute("SET threads = 2")
        self._connection.execute("SET memory_limit = '400MB'")
        self._connection.execute("SET preserve_insertion_order = false")

    def refresh(self) -> None:
        """Read the runs again if they have other shards than before.

        Raises:
            InputError: one of them has no source, or a shard that is none of its stage.
        """
        with self._lock:
            seen = tuple(_signature(run) for run in self.runs)
            if seen == self._seen:
                return
            self._results.clear()
            for run in self.runs:
                run.forget()
            self.facets = tuple(self._load(name, run) for name, run in zip(NAMES, self.runs, strict=False))
            if len(self.runs) == 1:
                self._connection.execute("CREATE OR REPLACE TABLE b_prompt AS FROM a_prompt LIMIT 0")
                self._connection.execute("CREATE OR REPLACE TABLE b_pair AS FROM a_pair LIMIT 0")
            self._connection.execute(
                "CREATE OR REPLACE TABLE entry AS "
                "SELECT row_number() OVER (ORDER BY a.place NULLS LAST, b.place) - 1 AS entry, "
                "coalesce(a.id, b.id) AS id, a.place AS a_place, b.place AS b_place "
                "FROM a_prompt a FULL JOIN b_prompt b ON a.id = b.id"
            )
            self._seen = seen

    def search(self, view: View, marked: Mapping[str, Iterable[str]] = _NO_MARKS) -> Ints:
        """The entries of a view in its order. ``marked`` has the ids of the prompts with each mark."""
        with self._lock:
            self.refresh()
            ids: tuple[str, ...] = ()
            if view.mark:
                wanted = marked.values() if view.mark == UNMARKED else [marked.get(view.mark, ())]
                ids = tuple(sorted({prompt_id for of_mark in wanted for prompt_id in of_mark}))
            key = (view.query, ids)
            if key not in self._results:
                self._results[key] = self._search(view, ids)
                while len(self._results) > _KEPT:
                    self._results.popitem(last=False)
            self._results.move_to_end(key)
            return self._results[key]

    def entries(self, numbers: Iterable[int]) -> list[Entry]:
        """In the order of the numbers."""
        with self._lock:
            wanted = [int(entry) for entry in numbers]
            rows = self._connection.execute(
                "SELECT e.entry, e.id, a.shard, b.shard, a.outcome, b.outcome FROM entry e "
                "LEFT JOIN a_prompt a ON a.place = e.a_place LEFT JOIN b_prompt b ON b.place = e.b_place "
                "WHERE e.entry IN (SELECT unnest(?::INTEGER[]))",
                [wanted],
            ).fetchall()
        by_entry = {row[0]: Entry(row[0], row[1], (row[2], row[3]), (row[4], row[5])) for row in rows}
        return [by_entry[entry] for entry in wanted if entry in by_entry]

    def entry_of(self, prompt_id: str) -> Entry | None:
        with self._lock:
            self.refresh()
            row = self._connection.execute("SELECT entry FROM entry WHERE id = ?", [prompt_id]).fetchone()
        return self.entries([row[0]])[0] if row is not None else None

    def shards(self, ids: Iterable[str], at: int) -> dict[str, int]:
        """In which shard of the ``at``-th run each of the prompts lies, as far as it has them."""
        with self._lock:
            rows = self._connection.execute(
                f"SELECT id, shard FROM {NAMES[at]}_prompt WHERE id IN (SELECT unnest(?::VARCHAR[]))", [list(ids)]
            ).fetchall()
        return dict(rows)

    def _load(self, name: str, run: Run) -> Facets:
        facets = Facets()
        prompts, pairs, scores = [], [], dict[str, None]()
        for base, of in relations.shards(run):
            prompts.append(relations.prompts(base, of))
            pairs.append(relations.pairs(base, of))
            facets.candidates += len(of.texts)
            for entry in pc.value_counts(pc.struct_field(of.texts, "model")).to_pylist():
                if entry["values"]:
                    facets.models[entry["values"]] += entry["counts"]
            scores |= dict.fromkeys(pc.unique(of.scored.name).to_pylist())
        for table, parts in (("prompt", prompts), ("pair", pairs)):
            rows = pa.concat_tables(parts)
            self._connection.register("rows_read", rows)
            self._connection.execute(f"CREATE OR REPLACE TABLE {name}_{table} AS FROM rows_read")
            self._connection.unregister("rows_read")
        facets.scores = list(scores)
        facets.prompts = self._count(f"SELECT count(*) FROM {name}_prompt")
        facets.pairs = self._count(f"SELECT count(*) FROM {name}_pair WHERE chosen IS NOT NULL")
        facets.outcomes = self._counts(
            "SELECT what, count(DISTINCT place) AS number FROM ("
            f"SELECT place, outcome AS what FROM {name}_prompt UNION ALL "
            f"SELECT place, x.reason FROM {name}_pair x JOIN {name}_prompt p USING (place) "
            "WHERE p.outcome = 'paired' AND x.reason IS NOT NULL) GROUP BY what"
        )
        facets.policies = self._counts(
            f"SELECT policy, count(DISTINCT place) AS number FROM {name}_pair GROUP BY policy"
        )
        facets.sources = self._counts(
            f"SELECT source, count(*) AS number FROM {name}_prompt GROUP BY source", MOST_SOURCES
        )
        return facets

    def _count(self, query: str) -> int:
        row = self._connection.execute(query).fetchone()
        return int(row[0]) if row is not None else 0

    def _counts(self, query: str, most: int = 1000) -> dict[str, int]:
        rows = self._connection.execute(f"{query} ORDER BY number DESC, 1 LIMIT {most}").fetchall()
        return {value: count for value, count in rows if value is not None}

    def _search(self, view: View, marked: Sequence[str]) -> Ints:
        at = NAMES.index(view.run) if NAMES.index(view.run) < len(self.runs) else 0
        name, run = NAMES[at], self.runs[at]
        where: list[str] = []
        values: list[Any] = []

        def ask(condition: str, *given: Any) -> None:
            where.append(condition)
            values.extend(given)

        if view.reason:
            rows = f"SELECT place FROM {name}_pair WHERE reason = ?"
            ask(f"(p.outcome = ? OR p.place IN ({rows}))", view.reason, view.reason)
        if view.policy:
            ask(f"p.place IN (SELECT place FROM {name}_pair WHERE policy = ?)", view.policy)
        if view.source:
            ask("p.source = ?", view.source)
        if view.mark == UNMARKED:
            ask("p.outcome = 'paired' AND p.id NOT IN (SELECT unnest(?::VARCHAR[]))", list(marked))
        elif view.mark:
            ask("p.id IN (SELECT unnest(?::VARCHAR[]))", list(marked))
        if len(self.runs) > 1 and view.which:
            ask(_WHICH[view.which])
        if view.model:
            self._read("model_of", run, relations.models, relations.MODELS)
            ask("p.place IN (SELECT place FROM model_of WHERE model = ?)", view.model)
        if view.score and (view.low or view.high):
            self._read("ranged", run, lambda base, of: relations.values(base, of, view.score), relations.VALUES)
            low, high = number(view.low), number(view.high)
            bounds = [*(["value >= ?"] if low is not None else []), *(["value <= ?"] if high is not None else [])]
            ask(f"p.place IN (SELECT place FROM ({_side(name, 'ranged', view.side)}) WHERE {' AND '.join(bounds)})",
                *(bound for bound in (low, high) if bound is not None))  # fmt: skip
        if words := terms(view.q):
            self._read("word_of", run, relations.words, relations.WORDS)
            holds = " AND ".join(["bool_or(contains(lower(text), ?))"] * len(words))
            # A prompt is also found by its id.
            ask(f"(p.id = ? OR p.place IN (SELECT place FROM word_of GROUP BY place HAVING {holds}))",
                view.q, *words)  # fmt: skip
        key = ""
        if view.sort:
            key = f"SELECT place, margin AS value FROM {name}_pair"
            if view.sort != MARGIN:
                self._read("sorted", run, lambda base, of: relations.values(base, of, view.sort), relations.VALUES)
                key = _side(name, "sorted", view.side)
            best = "max" if view.order == "desc" else "min"
            key = f"LEFT JOIN (SELECT place, {best}(value) AS value FROM ({key}) GROUP BY place) k ON k.place = p.place"
        query = (
            f"SELECT e.entry AS entry FROM entry e LEFT JOIN {name}_prompt p ON p.place = e.{name}_place {key} "
            f"WHERE {' AND '.join(where) or 'true'} "
            f"ORDER BY {f'k.value {view.order} NULLS LAST, ' if key else ''}e.entry"
        )
        try:
            column = self._connection.execute(query, values).fetchnumpy()["entry"]
        finally:
            for table in ("model_of", "ranged", "word_of", "sorted"):
                self._connection.unregister(table)
        entries: Ints = np.asarray(column).astype(np.int32)
        return entries

    def _read(self, table: str, run: Run, relation: Callable[[int, Joined], pa.Table], schema: pa.Schema) -> None:
        tables = (relation(base, of) for base, of in relations.shards(run))
        self._connection.register(table, relations.reader(tables, schema))


_WHICH = {
    "both": "e.a_place IS NOT NULL AND e.b_place IS NOT NULL",
    "a": "e.b_place IS NULL",
    "b": "e.a_place IS NULL",
    "differ": "(SELECT outcome FROM a_prompt x WHERE x.place = e.a_place) IS DISTINCT FROM "
    "(SELECT outcome FROM b_prompt y WHERE y.place = e.b_place)",
}


def _side(name: str, relation: str, side: str) -> str:
    """The values that count: of all candidates, or of those on one side of a pair."""
    if side == "any":
        return f"SELECT place, value FROM {relation}"
    return (
        f"SELECT v.place AS place, v.value AS value FROM {relation} v JOIN {name}_pair x "
        f"ON x.place = v.place AND x.{side} = v.candidate"
    )


def _signature(run: Run) -> Any:
    """Changes whenever a shard is written or removed."""
    folders = [run.folder(stage) for stage in STAGES]
    written = (folder.stat().st_mtime_ns if files.is_local(folder) and folder.is_dir() else 0 for folder in folders)
    return [*zip(map(files.names, folders), written, strict=True)]
