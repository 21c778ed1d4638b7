"""What publishing has measured of the pairs, kept in the run beside the record of what was published."""

from __future__ import annotations

import json
from typing import Any

from pipeline.base import files
from pipeline.base import model_names as models
from pipeline.running import joined
from pipeline.running.store import Record, Run


def content(run: Run) -> str:
    """What the tables behind the pairs hold."""
    return models.digest(json.dumps([digest for stage in joined.STAGES for digest in run.digests(stage)]))


def write(run: Run, name: str, version: int, values: Any, of: Record) -> None:
    """Keep JSON values in the run, with what they were measured of; ``of`` is what is published with it."""
    about = {"version": version, "content": content(run), "made": of.own, name: values}
    files.write_text(run.path / "publish" / f"{name}.json", json.dumps(about, indent=2) + "\n")


def read(run: Run, name: str, version: int) -> Any:
    """What ``write`` kept; None if the tables have changed since, or something else is published."""
    text, record = files.read_text(run.path / "publish" / f"{name}.json"), run.record("publish")
    about = json.loads(text) if text is not None else {}
    if about.get("version") != version or about["content"] != content(run):
        return None
    if record is not None and about.get("made", record.own) != record.own:
        return None
    return about[name]
