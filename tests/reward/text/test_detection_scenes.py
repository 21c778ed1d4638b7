"""How exact detection by facts is on descriptions of scenes with known faults."""

from __future__ import annotations

import itertools
import re

import pytest
from rewriting_kit import described, told_items

from pipeline.rewriting.detection_accuracy import measure
from pipeline.scenes import prompts
from pipeline.scenes.oracle import faults
from pipeline.scenes.scene_words import scenes
from pipeline.scenes.world import CELL_NAMES
from reward.text.fact_findings import by_facts, hallucinations

TEXTS = [described(index)[:2] for index in range(300)]


def test_precision_and_recall_on_300_descriptions_are_at_least_98_percent() -> None:
    measured = measure(TEXTS)
    assert measured["texts"] == 300 and all(measured["faults"][kind] >= 15 for kind in measured["faults"]), measured[
        "faults"
    ]
    for kind, rates in measured["words"].items():
        assert rates["precision"] >= 0.98 and rates["recall"] >= 0.98, (kind, measured["missed"], measured["made_up"])
    assert min(measured["whole_sentences"].values()) >= 0.98


def test_the_items_that_were_made_wrong_are_the_ones_that_are_found() -> None:
    """Against the items themselves, so that neither the oracle nor the detector reads the text for the truth."""
    for index in range(300):
        text, items, scene = told_items(index)
        if len(set(items)) < len(items):  # one of the two may have its place in the text
            continue
        truth = {thing.name: thing for thing in scene.objects}
        wrong = []
        for item in items:
            true_thing = truth.get(item.name)
            # A place is in the text only if the sentence of the item begins with it.
            placed = item.cell is not None and f"In the {CELL_NAMES[item.cell]} is {item.phrase}" in text
            if true_thing is None:
                wrong.append("object")
                continue
            here = item.cell in true_thing.cells
            wrong += ["attribute"] * (item.colour != true_thing.colour)
            wrong += ["count"] * (item.count != true_thing.count and not (placed and here))
            wrong += ["relation"] * (placed and not here)
        kinds = sorted(str(finding.kind) for finding in hallucinations(by_facts(text, prompts.facts(scene), scenes())))
        assert kinds == sorted(wrong), text


def test_a_detector_that_sees_nothing_or_everything_does_not_pass() -> None:
    """The control: the measure tells a bad detector from a good one."""
    blind = [(text, {"objects": []}) for text, _ in TEXTS[:50]]
    assert all(not hallucinations(by_facts(text, facts, scenes())) for text, facts in blind)
    others = [(text, facts) for (text, _), (_, facts) in itertools.pairwise(TEXTS)]
    assert measure(others)["faults"]["object"] > 2 * measure(TEXTS)["faults"]["object"]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("There is a red sun. In this picture you can see two blue cups.", []),
        ("In the top left corner is a red sun.", []),
        ("In the centre is a red sun.", ["relation"]),
        ("In the bottom middle is a blue cup.", []),  # one of the two
        ("In the bottom middle are two blue cups.", ["relation"]),
        ("In the top middle is a blue cup.", ["relation", "count"]),
        ("There are three red suns and a blue cup.", ["count", "count"]),
        ("There is a blue sun, a moon and a red cup. There is a star", ["attribute", "object", "attribute", "count",
                                                                         "object"]),
        ("There is no moon.", None),
    ],
)  # fmt: skip
def test_detector_and_oracle_read_the_same_faults(text: str, kinds: list[str] | None) -> None:
    third = 1 / 3
    facts = {
        "objects": [
            {"name": "sun", "count": 1, "attributes": ["red"], "boxes": [[0.01, 0.01, 0.3, 0.3]]},
            {"name": "cup", "count": 2, "attributes": ["blue"], "boxes": [[third, 2 * third, 0.6, 0.99],
                                                                          [0, 2 * third, 0.3, 0.99]]},
        ]
    }  # fmt: skip
    findings = sorted((finding.start, str(finding.kind)) for finding in hallucinations(by_facts(text, facts, scenes())))
    assert sorted(kind for _, kind in findings) == sorted(kinds or [])
    if kinds is not None:  # the oracle knows no "no"
        assert findings == sorted((fault.start, fault.kind) for fault in faults(text, facts))


def test_the_oracle_shares_no_code_with_the_detector() -> None:
    from pipeline.scenes import oracle

    with open(oracle.__file__, encoding="utf-8") as source:
        imports = re.findall(r"^\s*(?:from|import) (\S+)", source.read(), re.MULTILINE)
    assert not [name for name in imports if "reward" in name or name == "re"]
