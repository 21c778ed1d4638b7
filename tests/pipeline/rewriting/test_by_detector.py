"""Other people's detectors: what they find, and what becomes of findings that are none."""

from __future__ import annotations

from typing import Any

import pytest
from plugin_kit import Finder
from pydantic import ValidationError
from rewrite_kit import DESCRIBED, FALSE, TRUE, candidates, tables, through

from pipeline.rewriting.by_detector import OpenDetector, PluggedDetector
from pipeline.rewriting.config import Correct, Detect
from pipeline.rewriting.correct_stage import CorrectStage
from pipeline.rewriting.detect_stage import DetectStage, stages
from reward.text.types import Problem

ROW: dict[str, Any] = {"id": "p0", "images": [b""], "facts": None, "prompt": [], "candidates": []}


def detect(**options: Any) -> DetectStage:
    spec = Detect(by="plugin_kit:Finder", options=options)
    (stage,) = stages(spec, "scenes", "source", DESCRIBED, (), 0)
    assert isinstance(stage, DetectStage)
    return stage


def test_sentences_without_a_finding_are_unclear() -> None:
    findings = PluggedDetector("mine", Finder()).findings(FALSE, ROW)
    assert not isinstance(findings, Problem)
    assert [(finding.sentence, finding.verdict, finding.words, finding.by) for finding in findings] == [
        (0, "unclear", "The image shows a red sun and two blue cups.", "mine"),
        (1, "hallucination", "anchor", "mine"),
    ]


@pytest.mark.parametrize(
    ("mode", "kind", "why"),
    [
        ("raise", "RuntimeError", "nothing is known of p0"),
        ("tuple", "malformed_finding", "mine: 'tuple' object has no attribute 'start'; make findings with"),
        ("outside", "ValueError", "do not lie in a sentence"),
        ("verdict", "ValueError", "not 'wrong'"),
    ],
)
def test_what_is_no_finding_is_the_problem_of_the_text(mode: str, kind: str, why: str) -> None:
    problem = PluggedDetector("mine", Finder(mode)).findings(FALSE, ROW)
    assert isinstance(problem, Problem) and problem.kind == kind and why in problem.message


def test_what_it_finds_is_corrected_and_held_against_the_facts() -> None:
    correct = CorrectStage(Correct(), "scenes", 0, "source", DESCRIBED)
    stage = detect()
    made = through(tables(candidates(FALSE, TRUE)), stage, correct)
    (row,) = made["detect"].to_pylist()
    assert {finding["by"] for finding in row["findings"]} == {"plugin_kit:Finder"}
    assert [candidate["text"] for candidate in made["sample-corrected"].to_pylist()[0]["candidates"]] == [TRUE]
    counts = stage.extras(made["detect"])
    assert counts["true_positives"] == 1 and counts["hallucination"] == 1 and counts["checked_texts"] == 2


def test_a_text_that_breaks_it_is_refused_and_a_row_of_them_fails() -> None:
    (row,) = through(tables(candidates(FALSE)), detect(mode="raise"))["detect"].to_pylist()
    assert row["error_type"] == "RuntimeError" and row["refused"][0]["error"] == "nothing is known of p0"


def test_a_row_without_its_image_fails() -> None:
    given = tables(candidates(FALSE))
    rows = given["source"].to_pylist()
    rows[0]["images"] = [{"bytes": None, "path": "/nowhere.png"}]
    given["source"] = type(given["source"]).from_pylist(rows, schema=given["source"].schema)
    assert through(given, detect())["detect"]["error_type"].to_pylist() == ["missing_image"]


def test_version_and_options_are_what_it_is() -> None:
    assert detect().options()["identity"].startswith("plugin_kit:Finder@1 {")
    assert detect(words=["cup"]).options() != detect().options()


def test_one_with_a_model_has_a_worker() -> None:
    assert detect().worker is None
    finder = Detect(by="plugin_kit:HeavyFinder").plug_in()
    assert finder is not None
    worker = DetectStage(Detect(by="plugin_kit:HeavyFinder"), "scenes", "source", DESCRIBED).worker
    assert worker is not None and worker.gpus == 1 and worker.open == OpenDetector(finder) and worker.open() == finder


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"by": "factz"}, "'factz' is none of the detectors; did you mean facts?"),
        ({"by": "plugin_kit:Findr"}, "plugin_kit has no 'Findr'; did you mean Finder?"),
        ({"by": "plugin_kit:Rows"}, "has no method find(text, row)"),
        ({"options": {"word": []}}, "has no option 'word'; did you mean words?"),
        ({"low": 0.2}, "by=plugin_kit:Finder does not read low; remove it, or change by"),
        ({"model": "m"}, "by=plugin_kit:Finder does not read model"),
        ({"by": "facts", "options": {"words": []}}, "by=facts does not read options"),
    ],
)
def test_a_mistake_is_a_line(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Detect.model_validate({"by": "plugin_kit:Finder", **keys})
    assert line in str(caught.value)
