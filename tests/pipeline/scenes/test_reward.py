"""The built-in reward model: pairs in which the chosen side really is better, and what the committed weights tell."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.model_names import SCENES as MODELS
from pipeline.scenes import grammar, prompts
from pipeline.scenes.models_build.card_numbers import prefers
from pipeline.scenes.models_build.train_reward_model import BACKBONE, FAULTS, curriculum, edit, pair
from pipeline.scenes.models_build.untrained_vlm import tokenizer
from pipeline.scenes.vocabulary import COLOURS, VOCABULARY
from pipeline.scenes.world import above, left_of, scene
from reward.agreement.truth import wrong_details
from reward.scorers.objects import judge

_QUESTIONS = {"existence", "attribute", "count", "relation"}


def badness(text: str, index: int) -> tuple[int, ...]:
    """Hallucinated, missing, repeated, wrong colours, wrong counts."""
    shown = scene(5, index)
    verdict = judge(text, shown.names, VOCABULARY)
    details = wrong_details(text, prompts.facts(shown), VOCABULARY, frozenset(COLOURS))
    return (len(verdict.hallucinated), len(verdict.truth - verdict.covered), verdict.repeated, *details)


@given(st.integers(0, 100_000))
def test_the_rejected_description_has_a_fault_more_of_the_kind_that_is_named(index: int) -> None:
    made = pair(5, index)
    if len(made.chosen.split()) < 2:
        return
    good, bad = badness(made.chosen, index), badness(made.rejected, index)
    assert good < bad
    decides = next(i for i, (a, b) in enumerate(zip(good, bad, strict=True)) if a != b)
    assert ("object", "missing", "repeated", "attribute", "count")[decides] == made.kind


@given(st.integers(0, 100_000))
def test_of_a_question_the_two_answers_are_compared(index: int) -> None:
    made = pair(5, index)
    if len(made.chosen.split()) < 2:
        assert {made.chosen.strip("."), made.rejected.strip(".")} == {"Yes", "No"} and made.kind in _QUESTIONS


@given(st.integers(0, 100_000), st.sampled_from(["existence", "attribute", "count", "relation"]))
def test_an_edited_scene_makes_a_true_statement_false(index: int, kind: str) -> None:
    rng = random.Random(index)
    shown = scene(5, index)
    question = grammar.question(shown, kind, rng)
    if question.answer == "no":
        return
    names = [mention.name for mention in VOCABULARY.mentions(question.text)]
    if kind != question.kind:  # there is no relation to ask about
        return
    other = edit(shown, kind, names, rng)
    before, after = ({thing.name: thing for thing in made.objects} for made in (shown, other))
    cells = [cell for thing in other.objects for cell in thing.cells]
    assert len(cells) == len(set(cells))
    if kind == "existence":
        assert names[0] not in after
    elif kind == "attribute":
        assert before[names[0]].colour != after[names[0]].colour
    elif kind == "count":
        assert names[0] not in after or 0 < after[names[0]].count != before[names[0]].count
    else:
        assert any(
            test(before[names[0]], before[names[1]]) and test(after[names[1]], after[names[0]])
            for test in (left_of, above)
        )


def test_pairs_of_two_pictures_have_one_text_and_come_first() -> None:
    told = curriculum(5, 200, blind=False)
    assert all(case.rejected_images not in (None, case.images) and case.chosen == "Yes" for case in told[:6])
    rest = [case.rejected_images is not None for case in told[6:]]
    assert 0.1 < sum(rest) / len(rest) < 0.3
    assert all((case.chosen == case.rejected) == (case.rejected_images is not None) for case in told)
    assert not any(case.rejected_images for case in curriculum(5, 50, blind=True))


def test_neither_length_nor_yes_tells_which_side_is_chosen() -> None:
    made = [pair(5, index) for index in range(1500)]
    answers = [case.chosen.strip(".") for case in made if case.chosen.strip(".") in ("Yes", "No")]
    assert 0.45 < answers.count("Yes") / len(answers) < 0.55
    told = [case for case in made if len(case.chosen.split()) > 2]
    longer = sum(len(case.rejected) > len(case.chosen) for case in told) / len(told)
    assert 0.3 < longer < 0.7
    assert {case.kind for case in told} == {kind for kind, _, _ in FAULTS}


def test_every_text_is_in_the_models_word_list_and_pairs_depend_on_their_index_alone() -> None:
    words = tokenizer()
    for index in range(200):
        made = pair(5, index)
        assert made == pair(5, index) and made.chosen != made.rejected
        for text in (made.prompt[0][1], made.chosen, made.rejected):
            assert words.unk_token_id not in words(text).input_ids


def test_the_committed_reward_model_tells_right_from_wrong() -> None:
    accuracy = prefers(MODELS / "reward", MODELS / BACKBONE, 400)
    assert accuracy["descriptions"]["all"] > 0.75 and accuracy["answers"]["all"] > 0.7
    assert accuracy["answers"]["existence"] > 0.85


def test_without_the_image_it_can_only_guess_what_is_there() -> None:
    accuracy = prefers(MODELS / "reward-blind", MODELS / BACKBONE, 400)
    assert accuracy["answers"]["all"] < 0.6 and accuracy["descriptions"]["all"] < 0.75


@pytest.mark.parametrize("name", ["reward", "reward-blind"])
def test_committed_adapters_are_small_and_name_no_folder(name: str) -> None:
    folder = MODELS / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 500_000
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "scenes-vlm-strong"
