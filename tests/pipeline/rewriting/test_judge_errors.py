"""The error that the stages report of a judge is the one that the judge has."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rewriting_kit import described
from typer.testing import CliRunner

from pipeline.rewriting import detect_stage as detect
from pipeline.rewriting import judge_errors as module
from pipeline.rewriting.checked import Checked, check, interval
from pipeline.rewriting.judge_errors import ERRORS, Judged, expected_rates, measure_judge, table

TEXTS = [described(index)[:2] for index in range(200)]
#: 99.9 %: of what follows, nothing is off by chance.
Z = 3.29
MUMBLED = 0.1


@cache
def at(error: float) -> Judged:
    return measure_judge(TEXTS, error, MUMBLED)


def agrees(outcome: Judged, error: float) -> bool:
    """Whether the reported error may have come about with this one."""
    assert outcome.found.error is not None
    low, high = interval(outcome.found.error, outcome.found.sentences, Z)
    return low <= error <= high


@pytest.mark.parametrize("error", ERRORS)
def test_the_reported_error_is_the_one_that_was_set(error: float) -> None:
    outcome = at(error)
    assert outcome.found.sentences > 300 and agrees(outcome, error)
    assert outcome.found.precision is not None and outcome.found.recall is not None
    precision, recall = expected_rates(outcome, error)
    wrong = outcome.detected["true_positives"] + outcome.detected.get("false_negatives", 0)
    flagged = outcome.detected["true_positives"] + outcome.detected.get("false_positives", 0)
    low, high = interval(outcome.found.recall, wrong, Z)
    assert low <= recall <= high
    low, high = interval(outcome.found.precision, flagged, Z)
    assert precision is not None and low <= precision <= high


def test_no_other_error_would_do() -> None:
    """The control: the intervals tell the rates apart."""
    assert [rate for rate in (0.0, 0.1, 0.2, 0.4) if agrees(at(0.1), rate)] == [0.1]


def test_a_stage_that_took_the_judge_at_its_word_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with the judge's own verdicts as the truth, no error is reported, whatever it is."""

    def trusting(*rest: Any) -> tuple[Checked, ...]:
        return tuple(sentence._replace(true=sentence.says or "unclear") for sentence in check(*rest))

    monkeypatch.setattr(detect, "check", trusting)
    outcome = measure_judge(TEXTS, 0.2, MUMBLED)
    assert outcome.found.error == 0.0 and not agrees(outcome, 0.2)


def test_answers_that_cannot_be_read_are_reported_and_judge_nothing() -> None:
    outcome = at(0.1)
    assert outcome.found.unreadable is not None
    low, high = interval(outcome.found.unreadable, len(TEXTS), Z)
    assert low <= MUMBLED <= high and outcome.found.unreadable > 0
    assert outcome.detected["checked_texts"] + outcome.detected["unreadable_texts"] == len(TEXTS)
    assert "unreadable_texts" not in measure_judge(TEXTS[:20], 0.1).detected


def test_a_judge_who_never_errs_leaves_nothing_wrong_and_takes_nothing_sound() -> None:
    outcome = at(0.0)
    assert (outcome.found.precision, outcome.found.recall) == (1.0, 1.0)
    assert outcome.corrected > 50 and (outcome.wrong, outcome.changed, outcome.refused) == (0, 0, 0)


def test_what_a_judge_gets_wrong_goes_on_into_texts_and_is_refused_by_the_score() -> None:
    some, many = at(0.1), at(0.4)
    assert 0 < some.changed < many.changed < many.sound
    assert 0 < some.refused < many.refused < many.paired
    assert some.wrong < many.wrong


def test_the_table_has_a_line_for_each_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = table({error: at(error) for error in (0.0, 0.2)}).splitlines()
    assert len(made) == 4 and len({line.count("|") for line in made}) == 1
    assert made[2].startswith("| 0.0 % | 0.0 % (") and "100.0 % (100.0 %)" in made[2]
    monkeypatch.setattr(module, "descriptions", lambda *_: iter(TEXTS))
    result = CliRunner().invoke(module.app, [str(tmp_path), "--texts", "10", "--unreadable", "0"])
    assert result.exit_code == 0, result.output
    assert [line.split(" | ")[0] for line in result.stdout.splitlines()[2:]] == [
        *("| 0.0 %", "| 5.0 %", "| 10.0 %", "| 20.0 %", "| 40.0 %")
    ]


def test_nothing_to_judge_is_an_error() -> None:
    with pytest.raises(ValueError, match="no description to judge"):
        measure_judge([], 0.1)
