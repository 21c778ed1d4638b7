"""Some pairs of each prompt instead of all: a prompt counts by what it asks, not by how many wordings it has."""

from __future__ import annotations

import doctest
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import ConfigError
from training import formats
from training.config import Draw, TrainConfig, make_config
from training.data import subset as module
from training.data.dataset import prepare
from training.data.subset import Drawable, describes, draw
from training.loop.trainer import train

DESCRIPTION, ANSWER = "There is a red sun.", "No"
#: How many pairs each prompt has, and whether it wants a description.
PROMPTS = st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=6)


def pairs_of(prompts: list[tuple[int, bool]]) -> list[Drawable]:
    return [
        Drawable(prompt, f"{prompt}-{i}", DESCRIPTION if long else ANSWER)
        for prompt, (count, long) in enumerate(prompts)
        for i in range(count)
    ]


@given(prompts=PROMPTS, rounds=st.integers(1, 4), times=st.integers(1, 3), seed=st.integers(0, 5))
def test_every_round_has_one_pair_of_a_question_and_several_of_a_description(
    prompts: list[tuple[int, bool]], rounds: int, times: int, seed: int
) -> None:
    pairs = pairs_of(prompts)
    drawn = draw(pairs, Draw(rounds=rounds, descriptions=times), seed)
    each = len(drawn) // rounds
    for start in range(0, len(drawn), each):
        counts = Counter(pairs[index].prompt for index in drawn[start : start + each])
        assert counts == {prompt: times if long else 1 for prompt, (_, long) in enumerate(prompts)}


@given(prompts=PROMPTS, rounds=st.integers(1, 12), seed=st.integers(0, 5))
def test_no_pair_comes_twice_before_all_of_its_prompt_have_come(
    prompts: list[tuple[int, bool]], rounds: int, seed: int
) -> None:
    pairs = pairs_of(prompts)
    times_drawn = Counter(draw(pairs, Draw(rounds=rounds), seed))
    for prompt in range(len(prompts)):
        times = [times_drawn[index] for index, pair in enumerate(pairs) if pair.prompt == prompt]
        assert max(times) - min(times) <= 1


@given(prompts=PROMPTS, data=st.data(), seed=st.integers(0, 3))
def test_what_is_drawn_depends_neither_on_the_order_of_pairs_nor_on_other_prompts(
    prompts: list[tuple[int, bool]], data: Any, seed: int
) -> None:
    def ids(pairs: list[Drawable], prompt: object = None) -> Counter[str]:
        wanted = [pair for pair in pairs if prompt in (None, pair.prompt)]
        return Counter(wanted[index].id for index in draw(wanted, Draw(rounds=2), seed))

    pairs = pairs_of(prompts)
    shuffled = data.draw(st.permutations(pairs))
    assert ids(shuffled) == ids(pairs)
    assert sum((ids(pairs, prompt) for prompt in range(len(prompts))), Counter()) == ids(pairs)


def test_another_seed_draws_others() -> None:
    pairs = pairs_of([(6, True)] * 4)
    assert len({tuple(draw(pairs, Draw(), seed)) for seed in range(8)}) > 4


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("There is a red sun.", True), ("Yes, I see one in there.", False), ("no a b c d", False), ("It is red.", False)],
)
def test_a_description_has_some_words_and_is_no_yes_or_no(answer: str, expected: bool) -> None:
    assert describes(answer) is expected


# --------------------------------------------------------------------------------------------------- in a training run


def config_of(**changes: Any) -> TrainConfig:
    return make_config({"model": "m", "dataset": "d", "output_dir": "o", "objective": "dpo", **changes})


def worded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Three wordings of the right and the wrong answer to the first prompt, and one pair of the second."""
    right, wrong = (f"this is a {c} square" for c in ("red", "green", "blue")), ("white", "black", "yellow")
    wordings = [(good, f"{other} square") for good in right for other in wrong]
    sides = [{"chosen": [{"role": "assistant", "content": a}], "rejected": [{"role": "assistant", "content": b}]}
             for a, b in wordings]  # fmt: skip
    texts = {"chosen": "nothing", "rejected": "it"}
    answer = {side: [{"role": "assistant", "content": text}] for side, text in texts.items()}
    return [*({**rows[0], **side} for side in sides), {**rows[1], **answer}]


def test_the_tokenised_dataset_has_the_pairs_that_were_drawn(
    rows: list[dict[str, Any]], publish: Callable[..., Any], processor: Any
) -> None:
    data = formats.read(publish(worded(rows)), None, "memory")
    assert len(prepare(data, processor, config_of()).pairs) == 10
    prepared = prepare(data, processor, config_of(draw={"descriptions": 2}))
    assert [pair.row < 9 for pair in prepared.pairs] == [True, True, False]
    assert prepared.pairs[0] != prepared.pairs[1]
    assert prepared == prepare(data, processor, config_of(draw={}))
    every = prepare(data, processor, config_of(draw={"rounds": 9, "descriptions": 1}))
    assert sorted(pair.row for pair in every.pairs) == [*range(9), *[9] * 9]


def test_a_draw_is_an_option_of_the_result_and_without_one_nothing_is_said_of_it() -> None:
    assert "draw" not in config_of().result_options()
    assert config_of(draw={}).result_options()["draw"] == {"rounds": 1, "descriptions": 2}
    with pytest.raises(ConfigError, match=r"did you mean draw\.rounds\?"):
        config_of(draw={"round": 2})


def test_a_run_on_drawn_pairs_takes_a_step_for_each_of_them(
    configure: Callable[..., TrainConfig], rows: list[dict[str, Any]], publish: Callable[..., Any], tmp_path: Any
) -> None:
    publish(worded(rows)).save_to_disk(str(tmp_path / "worded"))
    changes = {"objective": "dpo", "dataset": str(tmp_path / "worded"), "epochs": 1, "batch_size": 1}
    result = train(configure(**changes, micro_batch_size=1, draw={"rounds": 2}))
    assert result.steps == 6


def test_examples_of_the_documentation_hold() -> None:
    assert doctest.testmod(module).failed == 0
