"""What the experiments add to recipes: pair policies, a scorer with noise, and how right a run's ranking is."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stage_kit import generated

from pipeline.pairing.policies import Able
from training.evidence import label_accuracy
from training.evidence.noisy_facts import NoisyFacts
from training.evidence.policies import Injected, TwoWriters


def able(place: int, text: str, total: float, origin: str = "restyled", parent: int | None = None) -> Able:
    return Able(place, total, text, text, len(text.split()), True, True, origin, parent, None)


def test_injected_texts_meet_what_they_were_injected_into_and_nothing_else() -> None:
    texts = [
        able(0, "There is a sun.", -1.0, "sampled"),
        able(1, "There is a star.", 0.0, "corrected", 0),
        able(2, "There is a star and a moon.", -1.0, "injected", 1),
        able(3, "There is a star and a tree.", -1.0, "injected", 9),
    ]
    assert [(a.place, b.place) for a, b in Injected().propose(texts)] == [(1, 2)]


def prompts(count: int) -> list[list[Able]]:
    """Right and wrong texts of both writers for each prompt."""
    openings = ("The image shows", "There is")
    return [
        [
            able(4 * right + 2 * wording + other, f"{opening} {n} {wording} {right}.", float(right) - 1.0)
            for right in (0, 1)
            for wording in (0, 1)
            for other, opening in enumerate(openings)
        ]
        for n in range(count)
    ]


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.1), (0.5, 0.3, 0.6), (1.0, 1.0, 1.0)])
def test_the_share_of_pairs_by_two_writers_is_what_was_asked_for(share: float, low: float, high: float) -> None:
    pairs = [pair for texts in prompts(400) for pair in TwoWriters(share).propose(texts)]
    assert len(pairs) >= 800 and all((a.total, b.total) == (0.0, -1.0) for a, b in pairs)
    told = [a.text.startswith("The image") and b.text.startswith("There") for a, b in pairs]
    assert low <= statistics.fmean(told) <= high
    same = [a.text.split()[0] == b.text.split()[0] and a.text.split()[1] == b.text.split()[1] for a, b in pairs]
    assert all(one != other for one, other in zip(told, same, strict=True))


def test_neither_the_order_of_the_texts_nor_their_places_change_a_pair() -> None:
    for texts in prompts(20):
        forwards = list(TwoWriters(0.5).propose(texts))
        assert forwards and forwards == list(TwoWriters(0.5).propose(texts[::-1]))


def test_the_better_text_is_as_long_as_the_other_where_there_is_one() -> None:
    texts = [
        able(0, "There is a sun.", 0.0),
        able(1, "There is a sun up there.", 0.0),
        able(2, "There is a moon.", -1.0),
        able(3, "The image shows the sun.", 0.0),
    ]
    ((better, worse),) = TwoWriters(0.0).propose(texts)
    assert (better.place, worse.place) == (0, 2)


def test_no_pair_is_made_of_texts_that_are_equally_good() -> None:
    assert not list(TwoWriters(0.0).propose([able(0, "There is a sun.", 0.0), able(1, "The image shows a sun.", 0.0)]))


def row(*texts: str, **facts: Any) -> dict[str, Any]:
    objects = [{"name": "sun", "count": 1, "attributes": ["red"]}]
    return {
        "id": "a",
        "facts": {"objects": objects, **facts},
        "candidates": [{"text": text, "finish_reason": "stop"} for text in texts],
    }


def test_without_noise_the_truer_text_is_worth_more_and_noise_is_the_same_every_time() -> None:
    texts = row("There is a red sun.", "There is a blue sun.", "There is a red sun and a moon.")
    ((right, colour, made_up),) = NoisyFacts().score([texts])["noisy"]
    assert right is not None and colour is not None and made_up is not None
    assert right > max(colour, made_up)
    noisy = NoisyFacts(2.0).score([texts])
    assert noisy == NoisyFacts(2.0).score([texts]) != NoisyFacts().score([texts])
    assert NoisyFacts().score([row("Yes.", answer="yes")])["noisy"] == [[None]]


def test_noise_is_normal_with_the_deviation_that_was_asked_for() -> None:
    texts = [f"There is a red sun. Number {n}." for n in range(2000)]
    (plain,), (noisy,) = (NoisyFacts(noise).score([row(*texts)])["noisy"] for noise in (0.0, 3.0))
    noise = [b - a for a, b in zip(plain, noisy, strict=True) if a is not None and b is not None]
    assert abs(statistics.fmean(noise)) < 0.25 and 2.8 < statistics.stdev(noise) < 3.2


def test_labels_are_right_as_often_as_facts_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reward.agreement.truth import Prompt

    texts = ("There is a sun.", "There is a moon.", "There is a star.")
    facts = {"objects": [{"name": "sun", "count": 1, "attributes": []}]}
    asked = [Prompt("a", None, (), texts, {"mine": (1.0, 0.5, 2.0), "other": (9.0, 0.0, 0.0)}, facts)]
    monkeypatch.setattr(label_accuracy, "read", lambda *_, **__: asked)
    monkeypatch.setattr(label_accuracy, "_pairs", lambda _: {"a": {(0, 1)}})
    (tmp_path / "recipe.json").write_text(json.dumps({"pair": {"weights": {"mine": 1.0}}}))
    # The sun is better than the moon, which has less, and than the star, which has more; these two are as bad.
    assert label_accuracy.measure(tmp_path) == {"answers": 0.5, "pairs": 1.0, "made_up": 1.0}
    (tmp_path / "recipe.json").write_text(json.dumps({"pair": {"weights": {"other": 1.0}}}))
    # The moon and the star differ by nothing that facts know, so a pair of them is neither right nor wrong.
    monkeypatch.setattr(label_accuracy, "_pairs", lambda _: {"a": {(0, 2), (1, 0), (1, 2)}, "b": {(0, 1)}})
    assert label_accuracy.measure(tmp_path) == {"answers": 1.0, "pairs": 0.5, "made_up": 0.5}
    # One that says less, and makes nothing up, is worse, but not by that.
    asked[0] = replace(asked[0], texts=("There is a sun.", "A thing.", "There is a star."))
    monkeypatch.setattr(label_accuracy, "_pairs", lambda _: {"a": {(0, 1)}})
    # Of the three that differ two are ranked rightly, and one is a tie.
    assert label_accuracy.measure(tmp_path) == {"answers": 2.5 / 3, "pairs": 1.0, "made_up": None}
    monkeypatch.setattr(label_accuracy, "_pairs", lambda _: {})
    assert label_accuracy.measure(tmp_path)["pairs"] is None


def test_pairs_are_read_from_the_run(tmp_path: Path) -> None:
    run = generated(tmp_path)
    made = label_accuracy._pairs(run.path)
    rows = run.table("pair").to_pylist()
    assert made and sum(map(len, made.values())) == sum(row["chosen"] is not None for row in rows)
    (tmp_path / "run" / "recipe.json").write_text(
        json.dumps({"pair": {"weights": {"objects.hallucinated": -1.0, "correctness": 1.0}}})
    )
    # A scripted engine, and a recipe that ranks by objects: what facts see of its pairs, they see as the recipe does.
    assert label_accuracy.measure(run.path)["pairs"] == 1.0
