"""Errors name the option that mends them as the door is written at which they show: flags, or keys of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.base.errors import UserError

#: (pattern, what stands in its place): keys of an engine's configuration to flags of ``training.evaluate``.
_FLAGS = (
    (r"\b(?:sample\.)?engine\.base_url\b", "--base-url"),
    (r"\b(?:sample\.)?engine\.(\w+)", r"--engine \1"),
    (r"\bsample\.model\b", "MODEL"),
)
_JUDGE_FLAGS = tuple((pattern, flag.replace("--", "--judge-")) for pattern, flag in _FLAGS[:2])
#: Those flags to keys of a recipe.
_KEYS = (
    (r"--option (\w+(?:\.\w+)+)=", r"evaluate.options.\1="),
    (r"--judgements FILE --judge NAME", "evaluate.judge.judgements"),
    (r"--judge MODEL(?: \(with --judge-base-url for a server\))?", "evaluate.judge.model"),
    (r"--suite\b", "evaluate.suites"),
    (r"--max-failure-rate\b", "max_failure_rate"),
    (r"--(data|images|ids|limit|seed)\b", r"evaluate.\1"),
    (r"--(variant|synonyms|nouns|similarity|phrases)\b", r"evaluate.options.SUITE.\1"),
)


@contextmanager
def as_flags(of_judge: bool = False) -> Iterator[None]:
    """Within it, errors name the flags of ``python -m training.evaluate``."""
    with _replaced(_JUDGE_FLAGS if of_judge else _FLAGS):
        yield


@contextmanager
def as_keys() -> Iterator[None]:
    """Within it, errors name the keys of a recipe's ``evaluate``."""
    with _replaced(_KEYS):
        yield


@contextmanager
def _replaced(names: Sequence[tuple[str, str]]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        texts = [_replace(text, names) if isinstance(text, str) else text for text in error.args]
        if texts == list(error.args):
            raise
        raise type(error)(*texts) from error


def _replace(text: str, names: Sequence[tuple[str, str]]) -> str:
    """
    >>> _replace("engine.base_url: base_url must be like http://host, or correct sample.engine.dtype", _FLAGS)
    '--base-url: base_url must be like http://host, or correct --engine dtype'
    """
    for pattern, name in names:
        text = re.sub(pattern, name, text)
    return text
