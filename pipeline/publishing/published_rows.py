"""The rows of the published dataset, from the tables of a run, shard after shard: the columns and what is in them.

Rows are ordered by id, in whatever shards they lie. No folder of this machine stands in a column, but for images that
are not copied. Memory does not grow with the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.columns import Ints
from pipeline.base.local_paths import base_name, shorten_paths
from pipeline.publishing import by_id
from pipeline.publishing.curated import Curation
from pipeline.publishing.dataset_folder import BATCH_ROWS
from pipeline.publishing.final_images import FinalImages
from pipeline.publishing.side_scores import side_scores
from pipeline.publishing.similar_pairs import SimilarPairs, answers
from pipeline.running.store import Run

_SIDES = ("chosen", "rejected")
_MESSAGES = [{"role": {"dtype": "string", "_type": "Value"}, "content": {"dtype": "string", "_type": "Value"}}]
#: Shards that are open at a time; of disjoint ones only one is in use.
_OPEN = 8


def pair_tables(
    run: Run, scores: Sequence[str], final: FinalImages, similar: SimilarPairs | None = None
) -> Iterator[pa.Table]:
    """The rows of ``pairs``, as a person has left them, a few at a time; ``scores`` are those that both sides have a
    field for. With ``similar`` each has its columns, too."""
    curate = Curation.of(run)

    @lru_cache(_OPEN)
    def tables(shard: int) -> tuple[pa.Table, pa.Table, pa.Table, pa.Table]:
        sample = run.read("sample", shard)
        pairs = curate.published_pairs(run.read("pair", shard), sample)
        return pairs, run.read("source", shard), sample, run.read("score", shard)

    def step(shard: int) -> int:
        pairs, source, *_ = tables(shard)
        of_pairs = pc.is_in(columns.whole(source["id"]), value_set=pc.unique(pairs["id"]))
        rows = final.step(source["images"].filter(of_pairs), BATCH_ROWS)
        return rows if similar is None else max(1, rows // 2)  # as many images again

    def rows(shard: int, at: Ints) -> pa.Table:
        pairs, source, sample, score = tables(shard)
        made = _pair_rows(pairs.take(pa.array(at)), source, sample, score, scores, final)
        return made if similar is None else similar.add_columns(made, shard, at)

    for group in by_id.groups(run):
        yield from by_id.merge(group, lambda shard: columns.whole(tables(shard)[0]["id"]), rows, min(map(step, group)))


def _pair_rows(
    pairs: pa.Table, source: pa.Table, sample: pa.Table, score: pa.Table, names: Sequence[str], final: FinalImages
) -> pa.Table:
    ids = columns.whole(pairs["id"])
    tables = {"source": source, "sample": sample, "score": score}
    of_source, of_sample, of_score = (by_id.places(ids, table, stage) for stage, table in tables.items())
    prompts = source.select(["images", "prompt", "source"]).take(of_source)
    sizes = columns.counts(sample["candidates"])
    first = columns.starts(sizes)[of_sample.to_numpy()]
    places = {side: columns.ints(pairs[side], -1) for side in _SIDES}
    at = {side: pa.array(first + place) for side, place in places.items()}
    scored = columns.Scored.of(ids, score["scores"].take(of_score), sizes[of_sample.to_numpy()])
    texts = {side: columns.items(sample["candidates"], "text").take(at[side]) for side in _SIDES}
    made = {
        "images": final.column(ids, prompts["images"]),
        "prompt": prompts["prompt"],
        **{side: answers(texts[side]) for side in _SIDES},
        **{name: pairs[name] for name in ("id", "pair", "policy", "chosen_score", "rejected_score", "margin")},
        **side_scores(names, scored, places),
        "source": _rewrite(prompts["source"], shorten_paths),
        **{
            f"{side}_{name}": columns.items(sample["candidates"], name).take(at[side])
            for side in _SIDES
            for name in ("seed", "on_policy")
        },
        **{
            f"{side}_model": _rewrite(columns.items(sample["candidates"], "model").take(at[side]), base_name)
            for side in _SIDES
        },
    }
    return pa.table({name: made[name] for name in pair_features(names)})


def _rewrite(texts: Any, rule: Callable[[str], str]) -> Any:
    """A column of texts after ``rule``, which is asked once about each of them."""
    encoded = columns.whole(texts).dictionary_encode()
    return pa.array(map(rule, encoded.dictionary.to_pylist()), pa.string()).take(encoded.indices)


def candidate_tables(run: Run, final: FinalImages | None) -> Iterator[pa.Table]:
    """Every prompt with all its texts; a prompt that failed has none, and says why."""
    left = ["facts"] if final else ["facts", "images"]

    @lru_cache(_OPEN)
    def tables(shard: int) -> tuple[Any, ...]:
        source, sample, score = (run.read(stage, shard) for stage in ("source", "sample", "score"))
        return source.drop_columns(left), pc.sort_indices(source["id"]), sample, score

    def ids(shard: int) -> pa.Array:
        source, order, *_ = tables(shard)
        return columns.whole(source["id"]).take(order)

    def rows(shard: int, at: Ints) -> pa.Table:
        source, order, sample, score = tables(shard)
        return _candidate_rows(source.take(order.take(pa.array(at))), sample, score, final)

    def step(shard: int) -> int:
        return BATCH_ROWS if final is None else final.step(tables(shard)[0]["images"], BATCH_ROWS)

    for group in by_id.groups(run):
        yield from by_id.merge(group, ids, rows, min(map(step, group)))


def _candidate_rows(prompts: pa.Table, sample: pa.Table, score: pa.Table, final: FinalImages | None) -> pa.Table:
    ids = columns.whole(prompts["id"])
    sample = sample.take(by_id.places(ids, sample, "sample"))
    score = score.take(by_id.places(ids, score, "score"))
    error = {name: pa.nulls(len(ids), pa.string()) for name in ("error_type", "error")}
    for table in (score, sample, prompts):  # what failed first is what is told
        broken = pc.not_equal(columns.whole(table["status"]), "ok")
        error = {name: pc.if_else(broken, columns.whole(table[name]), later) for name, later in error.items()}
    made = {
        **({"images": final.column(ids, prompts["images"], columns.ok(prompts))} if final else {}),
        **{name: prompts[name] for name in ("id", "prompt")},
        "source": _rewrite(prompts["source"], shorten_paths),
        "candidates": _texts(ids, sample["candidates"], score["scores"]),
        **{name: _rewrite(column, shorten_paths) for name, column in error.items()},
    }
    return pa.table({name: made[name] for name in candidate_features(final is not None)})


def _texts(ids: Any, candidates: Any, scores: Any) -> pa.Array:
    """The candidates of each row, each with its own value of every score."""
    sizes = columns.counts(candidates)
    scored = columns.Scored.of(ids, scores, sizes)
    of_row = np.bincount(scored.row, minlength=len(sizes))
    row = columns.rows(sizes)
    score = columns.ranges(columns.starts(of_row)[row], of_row[row])  # for every text the scores of its row
    index = columns.ranges(np.zeros(len(sizes), np.int64), sizes)  # of a text among those of its row
    value = scored.values.take(pa.array(scored.begins[score] + np.repeat(index, of_row[row])))
    named = pa.StructArray.from_arrays([scored.name.take(pa.array(score)), value], names=["name", "value"])
    arrays = {name: columns.items(candidates, name) for name in _CANDIDATE}
    arrays |= {"model": _rewrite(arrays["model"], base_name), "scores": columns.lists(of_row[row], named)}
    return columns.lists(sizes, pa.StructArray.from_arrays(list(arrays.values()), names=list(arrays)))


# ----------------------------------------------------------------------------------------------------------- features

#: Columns of a published candidate, and their type.
_CANDIDATE = {
    "text": "string",
    "origin": "string",
    "model": "string",
    "revision": "string",
    "seed": "int64",
    "temperature": "float64",
    "n_tokens": "int32",
    "finish_reason": "string",
    "logprob": "float64",
    "on_policy": "bool",
}


def pair_features(scores: Sequence[str], similar: bool = False) -> dict[str, Any]:
    """The columns of ``pairs``, as ``datasets`` writes their types; ``similar``: with those of ``SimilarPairs``."""
    each = _values(**dict.fromkeys(scores, "float64"))
    return {
        "images": [{"_type": "Image"}],
        "prompt": _MESSAGES,
        "chosen": _MESSAGES,
        "rejected": _MESSAGES,
        **_values(id="string", pair="int32", source="string", policy="string"),
        **_values(chosen_score="float64", rejected_score="float64", margin="float64"),
        **({f"{side}_scores": each for side in _SIDES} if scores else {}),
        **_values(chosen_model="string", rejected_model="string", chosen_seed="int64", rejected_seed="int64"),
        **_values(chosen_on_policy="bool", rejected_on_policy="bool"),
        **({"similar_images": [{"_type": "Image"}], "similar_chosen": _MESSAGES} if similar else {}),
    }


def candidate_features(with_images: bool) -> dict[str, Any]:
    """The columns of ``candidates``, likewise."""
    return {
        **_values(id="string"),
        **({"images": [{"_type": "Image"}]} if with_images else {}),
        "prompt": _MESSAGES,
        **_values(source="string"),
        "candidates": [{**_values(**_CANDIDATE), "scores": [_values(name="string", value="float64")]}],
        **_values(error_type="string", error="string"),
    }


def _values(**types: str) -> dict[str, Any]:
    return {name: {"dtype": dtype, "_type": "Value"} for name, dtype in types.items()}
