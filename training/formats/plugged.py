"""A schema that is not ours (``pipeline.base.plugins``).

What it makes of a row is read by the same checks as a row of ours: tags and images agree, and answers are texts of the
assistant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.base import plugins
from training.config import TrainConfig
from training.errors import DataError
from training.formats.row import Preference, parts_by_tags, question, turns, untagged_answer
from training.formats.schema import Schema, Sign

_GIVES = ("prompt", "chosen", "rejected")


def schema_of(config: TrainConfig) -> Schema | str | None:
    """What ``training.formats.open`` takes for ``config.dataset_format``."""
    plug_in, name = config.plug_in("dataset_format"), config.dataset_format
    if plug_in is None or name is None:
        return name

    def convert(row: Mapping[str, Any], images: int) -> Preference:
        return _check(name, plug_in, {column: row[column] for column in plug_in.reads if column in row}, images)

    needs = frozenset(getattr(plug_in, "needs", plug_in.reads))
    return Schema(name, (Sign(needs),), plug_in.reads, convert, bool(getattr(plug_in, "repeats", False)), ours=False)


def _check(name: str, plug_in: Any, row: dict[str, Any], images: int) -> Preference:
    try:
        given = plug_in.convert(row, images)
    except Exception as error:  # whatever other people's code raises
        raise DataError(f"{name} raised {plugins.failure(plug_in, error)}; correct it, or drop the row") from error
    if not isinstance(given, Mapping) or set(given) != set(_GIVES):
        raise DataError(f"{name} gives {given!r:.80}; give a dict of {', '.join(_GIVES)}")
    prompt = given["prompt"]
    try:
        messages = question(prompt, "prompt") if isinstance(prompt, str) else turns(prompt, "prompt")
        answers = [untagged_answer(given[column], column) for column in _GIVES[1:]]
        return Preference(parts_by_tags(messages, images, fill=True), *answers)
    except DataError as error:
        raise DataError(f"as {name} gives it: {error}") from error
