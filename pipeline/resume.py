"""What of an earlier run still holds, and why the rest does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from pipeline.errors import StoreError
from pipeline.stages import Stage
from pipeline.store import Record, Run, changes, make_record

#: never: start again. if-possible: keep what holds. always: keep everything, and refuse where that would be wrong.
Resume = Literal["never", "if-possible", "always"]


def describe(run: Run, stage: Stage) -> Record:
    """The record the stage would have now."""
    upstream = {name: record.fingerprint for name in stage.inputs if (record := run.record(name)) is not None}
    return make_record(stage.name, stage.version, stage.options(), upstream)


def prepare(run: Run, stage: Stage, resume: Resume) -> Record:
    """Remove the shards of ``stage`` that no longer hold, and write down what the stage is now.

    The shards of a stage without inputs stay: whoever makes them anew decides which shard a prompt belongs to, and
    needs to know where it was.

    Raises:
        StoreError: ``resume`` is "always" and an option has changed.
    """
    old, new = run.record(stage.name), describe(run, stage)
    if resume == "never":
        run.clear(stage.name)
        old = None
    run.sweep(stage.name)
    changed = old is not None and old.own != new.own
    if old is not None and changed and resume == "always":
        raise StoreError(
            f"stage {stage.name!r} of {run.path} was made with other options: {'; '.join(changes(old, new))}",
            "restore them, or use --resume if-possible to make it again",
        )
    if changed and stage.inputs:
        run.clear(stage.name)
    dropped = [shard for shard in run.shards(stage.name) if not run.current(stage.name, shard, stage.inputs)]
    for shard in dropped:
        run.remove(stage.name, shard)
    if old is not None and not changed and (not dropped or run.shards(stage.name)):
        # The seconds of earlier sessions count as long as some of their work does.
        new = replace(new, seconds=old.seconds, finished=old.finished and not dropped)
    run.save(new)
    return new


def explain(run: Run, stage: Stage, stale_inputs: Iterable[str] = ()) -> list[str]:
    """Why the stage would run again, key by key; empty if nothing it depends on has changed."""
    old = run.record(stage.name)
    if old is None:
        return ["never ran"]
    reasons = changes(old, describe(run, stage))
    reasons += [f"{name} runs again; shards whose input comes out the same are kept" for name in stale_inputs]
    lost = [s for s in run.shards(stage.name) if not run.current(stage.name, s, stage.inputs)]
    if lost and not reasons:
        reasons.append(f"{len(lost)} shards are to be tried again or have other inputs now")
    if not reasons and not old.finished:
        reasons.append(f"unfinished: {len(run.shards(stage.name))} shards are done")
    return reasons
