"""Write the dataset that others load: ``pairs`` with TRL's columns and provenance, ``candidates`` with every score.

The folder opens with ``datasets.load_from_disk`` (whole, or one config) and ``datasets.load_dataset``, no code of ours
needed. Rows are ordered by id, in whatever shards they lie. A prompt may have several pairs; ``id`` with ``pair`` (0,
1, ...) names one. The same rows give the same bytes, whenever and by however many workers they were made. Shards are
read one after the other, so memory does not grow with the run.

The folder says itself what it is (``made`` in ``dataset_dict.json``, a digest of all that it holds), and the record of
what is published says which it should be: whatever a killed process has left, one is not taken for the other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns, files, memory
from pipeline.base import model_names as models
from pipeline.base.columns import Ints
from pipeline.base.errors import InputError
from pipeline.publishing import by_id
from pipeline.publishing import style_gate as consistency
from pipeline.publishing.config import Publish
from pipeline.publishing.dataset_folder import BATCH_ROWS, write
from pipeline.publishing.final_images import FinalImages
from pipeline.running.store import Record, Run, fingerprint, make_record

if TYPE_CHECKING:
    from reward.text.object_vocabulary import Vocabulary

TABLES = ("source", "sample", "score", "pair")
#: Changes whenever the same tables may be published as other rows.
ROWS = 4
FOLDER = "dataset"
#: Says what the folder holds, written last.
_WHOLE = "dataset_dict.json"
_SIDES = ("chosen", "rejected")
_MESSAGES = [{"role": {"dtype": "string", "_type": "Value"}, "content": {"dtype": "string", "_type": "Value"}}]
#: Pairs whose images are in memory at a time.
_IMAGE_ROWS = 16
#: Shards that are open at a time; of disjoint ones only one is in use.
_OPEN = 8


@dataclass(frozen=True)
class Published:
    """``reused`` if the folder was already there, made from the same tables."""

    path: Path
    pairs: int
    candidates: int
    reused: bool


def record(run: Run, spec: Publish, about: str = "") -> Record:
    """What the published folder depends on: the content of the tables, and how it is written; its ``fingerprint`` also
    covers what only the card tells, ``about``."""
    upstream = {name: stage.fingerprint for name in TABLES if (stage := run.record(name)) is not None}
    upstream |= {"card": about} if about else {}
    words = masked_vocabulary(spec)
    # A vocabulary counts by its content as well: the card says what a classifier finds that does not see its words.
    decides = {"content": consistency.content(run), "masked": words.version if words is not None else None}
    return make_record("publish", 6, {**spec.model_dump(), **decides}, upstream)


def current(run: Run) -> Record | None:
    """What is published, if it is there."""
    published = run.record("publish")
    return (
        published
        if published is not None and published.finished and _says(run.path / FOLDER).get("made") == published.made
        else None
    )


def _says(folder: Path) -> dict[str, Any]:
    """What a published folder says of itself: ``rows`` identifies its rows, ``made`` all of it."""
    try:
        content: dict[str, Any] = json.loads(files.read_text(folder / _WHOLE) or "{}")
    except ValueError:
        return {}
    return content


def rows(published: Record) -> str:
    """What the published rows depend on: neither the card nor what is asked of style, which change no row."""
    options = {key: value for key, value in published.options.items() if not key.startswith("style.")}
    options.pop("masked", None)
    return fingerprint("publish", ROWS, options, {})


def publish(run: Run, spec: Publish, card: Callable[[str], str], about: str = "") -> Published:
    """Write ``run.path/dataset``, or leave it if it holds what it should. ``card`` renders its README, given what
    identifies the rows; ``about`` identifies what else it tells.

    Raises:
        InputError: there is not a single pair, or an image that is to be copied is gone.
        StyleGate: chosen and rejected texts differ more in style than ``spec.style`` allows.
    """
    target = run.path / FOLDER
    new, old = record(run, spec, about), current(run)
    # Options only: upstream fingerprints may differ though the tables came out the same.
    if old is not None and old.own == new.own:
        if old.fingerprint != new.fingerprint:
            same = replace(new, seconds=old.seconds, rows=old.rows, extras=old.extras)
            run.save(same)
            run.save(replace(same, finished=True, made=_describe(target, card, _says(target)["rows"])))
        return Published(target, old.extras["pairs"], old.extras["candidates"], True)
    run.save(new)  # from here on nothing is published, until it is
    partial = target.with_name(target.name + files.PARTIAL)
    files.remove_tree(partial)
    try:
        styles = consistency.of_run(run, masked_vocabulary(spec))
        consistency.write(run, styles, new)  # where the card finds it
        memory.release()
        consistency.check(styles, spec.style)
        tables = _pairs(run, spec.images == "embed")
        pairs = write(partial / "pairs", _pair_features(), tables, spec.rows_per_shard)
        if not pairs.rows:
            raise _no_pairs(run)
        with_images = spec.images_in_candidates
        final = FinalImages(spec.images == "embed") if with_images else None
        features, tables = _candidate_features(with_images), _candidates(run, final)
        candidates = write(partial / "candidates", features, tables, spec.rows_per_shard)
        memory.release()
        made = _describe(partial, card, models.digest(f"{pairs.digest} {candidates.digest}"))
        files.replace_folder(partial, target)
    except OSError as error:
        files.remove_tree(partial)
        raise files.disk_error(target, error) from error
    except BaseException:
        files.remove_tree(partial)
        raise
    counts = {"pairs": pairs.rows, "candidates": candidates.rows}
    run.save(replace(new, rows=pairs.rows, extras=counts, finished=True, made=made))
    return Published(target, **counts, reused=False)


def _describe(folder: Path, card: Callable[[str], str], rows: str) -> str:
    """Write what tells of the rows; what identifies all of the folder."""
    readme = card(rows)
    made = models.digest(f"{rows} {readme}")
    files.write_text(folder / "README.md", readme)
    files.write_text(folder / _WHOLE, json.dumps({"splits": ["pairs", "candidates"], "rows": rows, "made": made}))
    return made


def masked_vocabulary(spec: Publish) -> Vocabulary | None:
    """The objects that the measure of style does not see."""
    if spec.style.vocabulary is None:
        return None
    from pipeline.scoring.vocabularies import vocabulary

    return vocabulary(spec.style.vocabulary, "publish.style.vocabulary")


def _no_pairs(run: Run) -> InputError:
    reasons: Counter[str] = Counter()
    for shard in run.shards("pair"):
        reasons.update(run.read("pair", shard)["reason"].to_pylist())
    counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
    return InputError(f"not one of the prompts gave a pair ({counts})", "lower pair.margin, or raise sample.n")


# --------------------------------------------------------------------------------------------------------------- rows


def _pairs(run: Run, embed: bool) -> Iterator[pa.Table]:
    """The rows of ``pairs``, a few at a time."""
    final = FinalImages(embed)

    @lru_cache(_OPEN)
    def opened(shard: int) -> tuple[pa.Table, pa.Table, pa.Table]:
        pairs = run.read("pair", shard)
        pairs = pairs.filter(pairs["chosen"].is_valid())
        pairs = _number_pairs(pairs.sort_by([(name, "ascending") for name in ("id", *_SIDES)]))
        return pairs, run.read("source", shard), run.read("sample", shard)

    def step(shard: int) -> int:
        pairs, source, _ = opened(shard)
        of_pairs = pc.is_in(columns.whole(source["id"]), value_set=pc.unique(pairs["id"]))
        return _IMAGE_ROWS if final.copies(source["images"].filter(of_pairs)) else BATCH_ROWS

    def rows(shard: int, at: Ints) -> pa.Table:
        pairs, source, sample = opened(shard)
        return _pair_rows(pairs.take(pa.array(at)), source, sample, final)

    for group in by_id.groups(run):
        yield from by_id.merge(group, lambda shard: columns.whole(opened(shard)[0]["id"]), rows, min(map(step, group)))


def _number_pairs(pairs: pa.Table) -> pa.Table:
    """Sorted by ``id``, with a column that tells the pairs of one prompt apart."""
    first = pc.index_in(columns.whole(pairs["id"]), value_set=pc.unique(pairs["id"])).to_numpy()
    begins = np.flatnonzero(np.diff(first, prepend=-1))
    number = np.arange(len(first)) - begins[first]
    return pairs.append_column("pair", pa.array(number, pa.int32()))


def _pair_rows(pairs: pa.Table, source: pa.Table, sample: pa.Table, final: FinalImages) -> pa.Table:
    ids = columns.whole(pairs["id"])
    of_source, of_sample = _places(ids, source, "source"), _places(ids, sample, "sample")
    prompts = source.select(["images", "prompt", "source"]).take(of_source)
    first = columns.starts(columns.counts(sample["candidates"]))[of_sample.to_numpy()]
    at = {side: pa.array(first + pairs[side].to_numpy()) for side in _SIDES}
    texts = {side: columns.items(sample["candidates"], "text").take(at[side]) for side in _SIDES}
    made = {
        "images": final.column(ids, prompts["images"]),
        "prompt": prompts["prompt"],
        **{side: _answer(texts[side]) for side in _SIDES},
        **{name: pairs[name] for name in ("id", "pair", "policy", "chosen_score", "rejected_score", "margin")},
        "source": prompts["source"],
        **{
            f"{side}_{name}": columns.items(sample["candidates"], name).take(at[side])
            for side in _SIDES
            for name in ("model", "seed", "on_policy")
        },
    }
    return pa.table({name: made[name] for name in _pair_features()})


def _answer(texts: Any) -> pa.Array:
    """A conversation of one message for every text."""
    role = pa.array(["assistant"] * len(texts), pa.string())
    messages = pa.StructArray.from_arrays([role, texts], names=["role", "content"])
    return columns.lists(np.ones(len(texts), np.int64), messages)


def _candidates(run: Run, final: FinalImages | None) -> Iterator[pa.Table]:
    """Every prompt with all its texts; a prompt that failed has none, and says why."""
    left = ["facts"] if final else ["facts", "images"]

    @lru_cache(_OPEN)
    def opened(shard: int) -> tuple[Any, ...]:
        source, sample, score = (run.read(stage, shard) for stage in ("source", "sample", "score"))
        return source.drop_columns(left), pc.sort_indices(source["id"]), sample, score

    def ids(shard: int) -> pa.Array:
        source, order, *_ = opened(shard)
        return columns.whole(source["id"]).take(order)

    def rows(shard: int, at: Ints) -> pa.Table:
        source, order, sample, score = opened(shard)
        return _candidate_rows(source.take(order.take(pa.array(at))), sample, score, final)

    for group in by_id.groups(run):
        yield from by_id.merge(group, ids, rows, _IMAGE_ROWS if final else BATCH_ROWS)


def _candidate_rows(prompts: pa.Table, sample: pa.Table, score: pa.Table, final: FinalImages | None) -> pa.Table:
    ids = columns.whole(prompts["id"])
    sample = sample.take(_places(ids, sample, "sample"))
    score = score.take(_places(ids, score, "score"))
    error = {name: pa.nulls(len(ids), pa.string()) for name in ("error_type", "error")}
    for table in (score, sample, prompts):  # what failed first is what is told
        broken = pc.not_equal(columns.whole(table["status"]), "ok")
        error = {name: pc.if_else(broken, columns.whole(table[name]), later) for name, later in error.items()}
    made = {
        **({"images": final.column(ids, prompts["images"], columns.ok(prompts))} if final else {}),
        **{name: prompts[name] for name in ("id", "prompt", "source")},
        "candidates": _texts(ids, sample["candidates"], score["scores"]),
        **error,
    }
    return pa.table({name: made[name] for name in _candidate_features(final is not None)})


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
    arrays = [*(columns.items(candidates, name) for name in _CANDIDATE), columns.lists(of_row[row], named)]
    return columns.lists(sizes, pa.StructArray.from_arrays(arrays, names=[*_CANDIDATE, "scores"]))


def _places(ids: Any, table: pa.Table, stage: str) -> Any:
    """Where the rows with these ids are."""
    places = pc.index_in(ids, value_set=columns.whole(table["id"]))
    if places.null_count:
        lost = ids.filter(places.is_null())[0].as_py()
        raise InputError(f"{stage}: the shard has no row for id {lost!r}", f"delete {stage}/ and run again")
    return places


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


def _pair_features() -> dict[str, Any]:
    return {
        "images": [{"_type": "Image"}],
        "prompt": _MESSAGES,
        "chosen": _MESSAGES,
        "rejected": _MESSAGES,
        **_values(id="string", pair="int32", source="string", policy="string"),
        **_values(chosen_score="float64", rejected_score="float64", margin="float64"),
        **_values(chosen_model="string", rejected_model="string", chosen_seed="int64", rejected_seed="int64"),
        **_values(chosen_on_policy="bool", rejected_on_policy="bool"),
    }


def _candidate_features(with_images: bool) -> dict[str, Any]:
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
