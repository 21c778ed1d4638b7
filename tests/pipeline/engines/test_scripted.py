"""What the engine without a model says of its first token."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pipeline.engines.protocol import Request, Sampling
from pipeline.engines.scripted import SURE, ScriptedEngine

REQUEST = Request("r", (), (("user", "Is it?"),), 0)


def first(engine: ScriptedEngine, top_logprobs: int = 5) -> tuple[tuple[str, float], ...] | None:
    (response,) = engine.generate([REQUEST], Sampling(n=1, top_logprobs=top_logprobs))
    return response.completions[0].first


@pytest.mark.parametrize(("text", "other"), [("Yes.", "No"), ("no, it is not", "Yes")])
def test_yes_and_no_share_what_there_is(text: str, other: str) -> None:
    tokens = first(ScriptedEngine((text,)))
    assert tokens is not None and [token for token, _ in tokens] == [text.split()[0], other]
    assert [math.exp(logprob) for _, logprob in tokens] == pytest.approx([SURE, 1 - SURE])


def test_another_word_has_no_opposite() -> None:
    assert first(ScriptedEngine(("A sun.",))) == (("A", math.log(SURE)),)


def test_a_text_follows_the_beginning_of_an_answer_after_a_space() -> None:
    begun = replace(REQUEST, prefix="It")
    (response,) = ScriptedEngine(("is.",)).generate([begun], Sampling(n=1))
    assert begun.prefix + response.completions[0].text == "It is."


def test_what_is_told_counts_and_nothing_is_told_unasked() -> None:
    told = ScriptedEngine(("Yes",), first=lambda request, index: (("no", -3.0), (" yes", -0.1)))
    assert first(told) == ((" yes", -0.1), ("no", -3.0)) and first(told, 1) == ((" yes", -0.1),)
    assert first(told, 0) is None
    assert first(ScriptedEngine(("Yes",), first=lambda request, index: None)) is None
