"""What of an earlier run still holds, and why the rest does not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.base.errors import StoreError
from pipeline.base.tables import SCHEMA_VERSION
from pipeline.running.stage import Salvager, Source, Stage
from pipeline.running.store import Record, Run, Survey, changes, make_record

#: never: start again. if-possible: keep what holds. always: keep everything, and refuse where that would be wrong.
Resume = Literal["never", "if-possible", "always"]

_ANOTHER = (
    "begin a run of its own with another name or output_dir, or go on with this one in the version that made it. Its "
    "dataset is trained on, exported and sent as ever, and pipeline.browse shows it; --resume never makes it anew"
)


@dataclass(frozen=True)
class Found:
    """``record`` is what the stage is now, ``done`` the shards of it that hold."""

    record: Record
    done: frozenset[int]


def describe(run: Run, stage: Stage | Source, survey: Survey) -> Record:
    """The record the stage would have now.

    The shards of a stage carry the digests of the shards that they were made from. Those of a source are made from
    whole tables: its record has the digests of these, and what its shards carry has them, too.
    """
    if isinstance(stage, Source):
        upstream = {name: _content(run, name, survey) for name in stage.inputs}
        new = make_record(stage.name, stage.version, stage.options(), upstream)
        return replace(new, made=new.fingerprint)
    upstream = {name: record.fingerprint for name in stage.inputs if (record := run.record(name)) is not None}
    return make_record(stage.name, stage.version, stage.options(), upstream)


def current_record(run: Run, stage: Stage | Source, survey: Survey) -> Record:
    """The record the stage would have now, believing what ``prepare`` would."""
    return _keep_unsigned(run.record(stage.name), describe(run, stage, survey), isinstance(stage, Source))


def check_schema(run: Run, stages: Iterable[str], remedy: str = _ANOTHER) -> None:
    """
    Raises:
        StoreError: one of the stages, as far as they are there, has tables of another ``SCHEMA_VERSION``, whose rows
            meet none of today's.
    """
    for stage in stages:
        record = run.record(stage)
        if record is not None and record.schema != SCHEMA_VERSION:
            when = "an earlier" if record.schema < SCHEMA_VERSION else "a later"
            raise StoreError(
                f"{run.path} was made by {when} version: its tables have schema {record.schema}, those of this version "
                f"{SCHEMA_VERSION}, and their prompts have other ids; nothing there was changed",
                remedy,
            )


def prepare(run: Run, stage: Stage | Source, resume: Resume, survey: Survey) -> Found:
    """Remove the shards of ``stage`` that no longer hold, and write down what the stage is now.

    A stage that can take rows over from them (``Salvager``) finds them set aside. The shards of a source stay: whoever
    makes them anew decides which shard a prompt belongs to, and needs to know where it was.

    Raises:
        StoreError: ``resume`` is "always" and an option has changed, or a table that would be kept or read has another
            schema.
    """
    check_schema(run, [*stage.inputs, *([] if resume == "never" else [stage.name])])
    old, new = run.record(stage.name), current_record(run, stage, survey)
    if resume == "never":
        run.clear(stage.name)
        old, new = None, replace(new, unsigned=False)
    run.sweep(stage.name)
    changed = old is not None and old.own != new.own
    if old is not None and changed and resume == "always":
        raise StoreError(
            f"stage {stage.name!r} of {run.path} was made with other options: {'; '.join(changes(old, new))}",
            "restore them, or use --resume if-possible to make it again",
        )
    shards = run.shards(stage.name)
    survey.look(stage.name, shards)
    if isinstance(stage, Source):
        changed |= old is not None and old.upstream != new.upstream
        if old is not None and old.options.get("shard_size") != new.options.get("shard_size"):
            run.clear(stage.name)  # the old shards say nothing about the new layout
            shards = []
        done = frozenset(s for s in shards if (about := survey.about(stage.name, s)) and new.believes(about))
    else:
        useful = isinstance(stage, Salvager) and old is not None and stage.salvages(old.options)
        if changed and not useful:
            run.clear(stage.name)
            shards = []
        for name in stage.inputs:
            survey.look(name, shards)
        done = frozenset(shard for shard in shards if survey.is_current(new, shard, stage.inputs))
        for shard in set(shards) - done:
            about = survey.about(stage.name, shard)
            if useful and old is not None and about is not None and old.believes(about):
                run.set_aside(stage.name, shard, old)
            else:
                run.remove(stage.name, shard)
            survey.note(stage.name, shard, None)
    if old is not None and not changed and (done or not shards):
        finished = old.finished and len(done) == len(shards)
        if isinstance(stage, Source):  # it alone does not know from other tables how many shards there are
            finished &= sum(about.rows for s in done if (about := survey.about(stage.name, s))) == old.rows
        # The seconds of earlier sessions count as long as some of their work does.
        new = replace(new, seconds=old.seconds, start=old.start, finished=finished)
        if finished:  # a source whose record says nothing of its rows would be read again
            new = replace(new, rows=old.rows, failed=old.failed, extras=old.extras)
    run.save(new)
    return Found(new, done)


def _keep_unsigned(old: Record | None, new: Record, source: bool) -> Record:
    """A stage of before shards said what made them holds by its record, as long as nothing else was made there."""
    same = old is not None and old.own == new.own and (not source or old.upstream == new.upstream)
    return replace(new, unsigned=old is not None and same and old.unsigned)


def explain(run: Run, stage: Stage | Source, survey: Survey, stale_inputs: Iterable[str] = ()) -> list[str]:
    """Why the stage would run again, key by key; empty if nothing it depends on has changed."""
    old = run.record(stage.name)
    if old is None:
        return ["never ran"]
    new, stale = current_record(run, stage, survey), list(stale_inputs)
    reasons = changes(old, new)
    if reasons and isinstance(stage, Salvager) and stage.salvages(old.options):
        reasons.append("rows that the change does not touch are taken over")
    reasons += [f"{name} runs again; shards whose input comes out the same are kept" for name in stale]
    if isinstance(stage, Source):
        other = [name for name in stage.inputs if old.upstream.get(name) != new.upstream[name]]
        reasons += [f"{name} has other content now" for name in other if name not in stale]
    elif not reasons:
        shards = run.shards(stage.name)
        for name in (stage.name, *stage.inputs):
            survey.look(name, shards)
        lost = [s for s in shards if not survey.is_current(new, s, stage.inputs)]
        if lost:
            reasons.append(f"{len(lost)} shards are to be tried again or have other inputs now")
        missing = set(run.shards(stage.inputs[0])) - set(shards)
        if missing and old.finished:
            reasons.append(f"{len(missing)} shards are missing")
    if not reasons and not old.finished:
        reasons.append(f"unfinished: {len(run.shards(stage.name))} shards are done")
    return reasons


def _content(run: Run, stage: str, survey: Survey) -> str:
    """A digest of the shards of a stage that are there now."""
    shards = run.shards(stage)
    survey.look(stage, shards)
    surveyed = ((shard, survey.about(stage, shard)) for shard in shards)
    text = " ".join(f"{shard}:{about.digest}" for shard, about in surveyed if about is not None)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
