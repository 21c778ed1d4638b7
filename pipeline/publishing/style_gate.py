"""The style of a run's pairs: drawn from its tables, measured (``pipeline.publishing.style``), kept, and held against
gates.

Two kinds are told apart: ``answers`` belong to prompts with a known answer, ``descriptions`` to all others. Gates look
at descriptions. At most ``MOST`` pairs of a kind are measured, those with the smallest hashes of id and candidates, so
the draw is nobody's choice and depends on neither shards nor workers.
"""

from __future__ import annotations

import hashlib
import math
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.columns import Floats
from pipeline.base.errors import PipelineError
from pipeline.publishing import measured
from pipeline.publishing.config import StyleGates
from pipeline.publishing.curated import Curation
from pipeline.publishing.style import VERSION, Style, TextPair, measure
from pipeline.running import joined
from pipeline.running.joined import Joined
from pipeline.running.store import Record, Run
from reward.text.object_vocabulary import Vocabulary

DESCRIPTIONS, ANSWERS = "descriptions", "answers"
KINDS = (DESCRIPTIONS, ANSWERS)
#: The score that tells log-probs.
LIKELIHOOD = "likelihood"
MOST = 5_000
_NAME = "style"

#: (hash, id, chosen, rejected): what the pairs of a run are ordered by.
_Key = tuple[int, str, int, int]


class StyleGate(PipelineError):
    """Chosen and rejected texts differ more in style than the recipe allows; everything before publishing is kept."""

    exit_code = 3


def of_run(run: Run, vocabulary: Vocabulary | None) -> dict[str, Style]:
    """The style of every kind that the run has pairs of, descriptions first.

    Raises:
        InputError: there is no ``source`` table, or a row refers to a candidate that does not exist.
    """
    totals: Counter[str] = Counter()
    kept: dict[str, list[tuple[_Key, TextPair]]] = {kind: [] for kind in KINDS}
    for shard in joined.shards(run, Curation.of(run)):
        for kind in KINDS:
            nearest, part = kept[kind], _OfKind(shard, kind)
            totals[kind] += part.total
            # Of a million pairs, late shards add a handful: to sort anew for them would take longer than all the rest.
            for entry in part.before(nearest[-1][0] if len(nearest) == MOST else None):
                insort(nearest, entry, key=lambda item: item[0])
            del nearest[MOST:]
    return {kind: measure([pair for _, pair in kept[kind]], vocabulary, totals[kind]) for kind in KINDS if totals[kind]}


def write(run: Run, styles: Mapping[str, Style], of: Record) -> None:
    """Keep what was measured in the run; ``of`` is what is published with it."""
    measured.write(run, _NAME, VERSION, {kind: asdict(style) for kind, style in styles.items()}, of)


def read(run: Run) -> dict[str, Style]:
    """What ``write`` kept; nothing if the tables have changed since, or something else is published."""
    return {kind: _style(values) for kind, values in (measured.read(run, _NAME, VERSION) or {}).items()}


def summary(run: Run) -> dict[str, dict[str, Any]]:
    """What was measured, as JSON values."""
    return {kind: asdict(style) for kind, style in read(run).items()}


def logp_gaps(shard: Joined) -> dict[str, Floats]:
    """By kind, the log-prob per token of the chosen text less that of the rejected one, of the pairs that have both."""
    gaps_of = {kind: _OfKind(shard, kind).logp_gaps for kind in KINDS}
    return {kind: gaps[np.isfinite(gaps)] for kind, gaps in gaps_of.items()}


def check(styles: Mapping[str, Style], gates: StyleGates) -> None:
    """
    Raises:
        StyleGate: a measure of the descriptions is beyond its bound. One that is not known stops nothing.
    """
    style = styles.get(DESCRIPTIONS)
    stopped = list(_excesses(style, gates)) if style is not None else []
    if stopped:
        raise StyleGate(
            "chosen and rejected descriptions differ in style:\n" + "\n".join(f"  - {line}" for line, _ in stopped),
            "; ".join(remedy for _, remedy in stopped) + "; or move the bound in publish.style",
        )


def _excesses(style: Style, gates: StyleGates) -> Iterator[tuple[str, str]]:
    """(what is wrong, what helps) of each gate that stops."""
    bounds = (
        ("max_auc", "the classifier's AUC", style.auc, "word both sides anew by one writer (rewrite.restyle)"),
        ("max_length_gap", "the length gap in words", style.length_gap, "set pair.balance_length=true"),
        ("max_logp_gap", "the log-prob gap per token", style.logp_gap, "set pair.on_policy_only=true"),
        ("max_edit_distance", "the edit distance", style.edit_distance, "make one text from the other (rewrite)"),
    )
    for key, name, value, remedy in bounds:
        bound: float | None = getattr(gates, key)
        # Of a gap it does not matter which side has more.
        if value is not None and bound is not None and abs(value) > bound:
            yield f"{name} is {value:g}, beyond publish.style.{key}={bound:g}", remedy
    value, least = style.edit_distance, gates.min_edit_distance
    if value is not None and least is not None and value < least:
        yield (
            f"the edit distance is {value:g}, below publish.style.min_edit_distance={least:g}",
            "let the texts differ in more words (rewrite.inject.faults, or a larger pair.margin)",
        )


class _OfKind:
    """The pairs of one kind in a shard."""

    def __init__(self, of: Joined, kind: str) -> None:
        pairs, prompt = of.complete_pairs()
        questions = columns.bools(pc.struct_field(columns.whole(of.source["facts"]), "answer").is_valid())
        of_kind = np.flatnonzero(questions[prompt] == (kind == ANSWERS))
        self._of, self._prompt = of, prompt[of_kind]
        self._chosen, self._rejected = (columns.ints(pairs[side], -1)[of_kind] for side in ("chosen", "rejected"))

    @property
    def total(self) -> int:
        return len(self._prompt)

    @property
    def logp_gaps(self) -> Floats:
        """Of every pair; nan where it is not known."""
        scored, values = self._of.scored, columns.floats(self._of.scored.values)
        at = np.flatnonzero(columns.bools(pc.equal(scored.name, LIKELIHOOD)))
        begins = np.full(len(self._of.sizes), -1)
        begins[scored.row[at]] = scored.begins[at]
        starts = begins[self._prompt]
        has = starts >= 0
        gaps = np.full(self.total, np.nan)
        gaps[has] = values[starts[has] + self._chosen[has]] - values[starts[has] + self._rejected[has]]
        return gaps

    def before(self, most: _Key | None) -> Iterator[tuple[_Key, TextPair]]:
        """The pairs whose key is smaller than ``most``, all of them without one."""
        ids, first = self._of.ids.to_pylist(), columns.starts(self._of.sizes).tolist()
        texts = pc.struct_field(self._of.texts, "text")
        groups: dict[int, str] = {}
        for row, chosen, rejected, gap in zip(
            *(values.tolist() for values in (self._prompt, self._chosen, self._rejected, self.logp_gaps)), strict=True
        ):
            name = f"style:{ids[row]}:{chosen}:{rejected}"
            key = (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]), ids[row], chosen, rejected)
            if most is not None and key >= most:
                continue
            if row not in groups:
                groups[row] = _group(self._of, row, ids[row])
            better, worse = (texts[first[row] + side].as_py() for side in (chosen, rejected))
            yield key, TextPair(groups[row], better, worse, gap if math.isfinite(gap) else None)


def _group(of: Joined, row: int, row_id: str) -> str:
    """What pairs about the same images have in common; a prompt without images is by itself."""
    named = [
        hashlib.blake2b(image["bytes"], digest_size=16).hexdigest() if image["bytes"] is not None else image["path"]
        for image in of.source["images"][row].as_py() or ()
    ]
    return " ".join(named) if named else f"prompt:{row_id}"


def _style(values: Mapping[str, Any]) -> Style:
    """From JSON, which has no tuples."""
    columns_of = {field.name: values[field.name] for field in fields(Style)}
    read: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in columns_of.items()
    }
    return Style(**read)
