"""From log-probs to loss and metrics: which terms an objective has, and what is logged under which name."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.config import make_config
from training.config.objective import SIMILAR, LossType
from training.loss import measure as measuring
from training.loss.measure import Measured, measure, metric_names

TRL_NAMES = {
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
}
#: Log-probs of one pair under policy and reference; with beta 0.1 the rewards are those of REWARDS.
REF = {
    "chosen": -12.0,
    "rejected": -11.0,
    "corrupted": -12.5,
    "contrast": -9.0,
    "similar": -8.0,
    "similar_swapped": -20.0,
}
REWARDS = {
    "chosen": 0.2,
    "rejected": -0.3,
    "corrupted": -0.05,
    "contrast": -0.1,
    "similar": 0.4,
    "similar_swapped": 0.15,
}
POLICY = {branch: REF[branch] + 10 * REWARDS[branch] for branch in REF}
BOTH = {"chosen", "rejected"}
TOKENS = {"chosen": 4, "rejected": 6, "contrast": 3, "similar": 3, "similar_swapped": 4}


def loss_of(x: float) -> float:
    return -math.log(1 / (1 + math.exp(-x)))


def config(**changes: Any) -> Any:
    return make_config({"model": "model", "dataset": "data", "output_dir": "out", **changes})


def column(values: dict[str, float]) -> dict[Any, Tensor]:
    return {branch: torch.tensor([value], dtype=torch.float64) for branch, value in values.items()}


def measured(policy: dict[str, float] = POLICY, without: tuple[str, ...] = (), **changes: Any) -> Measured:
    policy = {branch: value for branch, value in policy.items() if branch not in without}
    return measure(column(policy), column(REF), column(TOKENS), 5.0, config(**changes))


def values(result: Measured) -> dict[str, float]:
    return {name: value.item() for name, value in result.metrics.items()}


MPO = {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}
SETTINGS = [
    {"objective": "dpo"},
    {"objective": "dpo", "probe_image": True},
    {"objective": "dpo", **MPO},
    {"objective": "mdpo"},
    {"objective": "mdpo", "anchors": ["chosen", "rejected", "corrupted"]},
    {"objective": "symmpo"},
    {"objective": "symmpo", "anchors": ["chosen", "rejected"]},
]


@pytest.mark.parametrize("changes", SETTINGS)
def test_what_is_measured_is_what_was_announced(changes: dict[str, Any]) -> None:
    names = metric_names(config(**changes))
    assert len(set(names)) == len(names)
    assert tuple(measured(**changes).metrics) == names
    assert set(names) >= TRL_NAMES


@pytest.mark.parametrize("changes", SETTINGS)
def test_metrics_are_one_detached_value_per_pair_and_the_loss_alone_has_a_gradient(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    policy: Any = {branch: torch.randn(3, requires_grad=True) for branch in REF}
    ref: Any = {branch: torch.randn(3) for branch in REF}
    tokens: Any = {branch: torch.tensor([3, 4, 5]) for branch in TOKENS}
    result = measure(policy, ref, tokens, 4.0, config(**changes))
    assert result.loss.requires_grad and result.loss.shape == (3,)
    assert torch.equal(result.metrics["loss"], result.loss)
    for value in result.metrics.values():
        assert value.shape == (3,) and value.dtype == torch.float32 and not value.requires_grad


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"objective": "dpo"}, {"chosen", "rejected"}),
        ({"objective": "dpo", "probe_image": True}, {"chosen", "rejected"}),
        ({"objective": "mdpo"}, {"chosen", "rejected", "corrupted"}),
        ({"objective": "symmpo"}, {"chosen", "rejected", "contrast", "similar", "similar_swapped"}),
    ],
)
def test_an_objective_trains_on_its_own_branches(changes: dict[str, Any], read: set[str]) -> None:
    policy = {branch: value.requires_grad_() for branch, value in column(POLICY).items()}
    measure(policy, column(REF), column(TOKENS), 5.0, config(**changes)).loss.sum().backward()
    assert {branch for branch, value in policy.items() if value.grad is not None and value.grad.item() != 0} == read


def test_a_missing_branch_is_an_error_and_not_a_smaller_loss() -> None:
    with pytest.raises(KeyError, match="corrupted"):
        measured(objective="mdpo", without=("corrupted",))
    with pytest.raises(KeyError, match="similar"):
        measured(objective="symmpo", without=("similar",))


def test_trls_metrics_carry_beta_and_compare_chosen_with_rejected() -> None:
    logged = values(measured(objective="dpo"))
    assert logged == pytest.approx(
        {
            "loss": loss_of(0.5),
            "rewards/chosen": 0.2,
            "rewards/rejected": -0.3,
            "rewards/accuracies": 1,
            "rewards/margins": 0.5,
            "logps/chosen": -10,
            "logps/rejected": -14,
        }
    )
    worse = values(measured({**POLICY, "rejected": -8.0}, objective="dpo"))
    assert (worse["rewards/accuracies"], worse["rewards/margins"]) == pytest.approx((0, -0.1))


def test_mdpo_is_the_weighted_sum_of_response_image_and_anchor() -> None:
    logged = values(measured(objective="mdpo"))
    assert logged["loss/response"] == pytest.approx(loss_of(0.2 + 0.3))
    assert logged["loss/image"] == pytest.approx(loss_of(0.2 + 0.05))
    assert logged["loss/anchor"] == pytest.approx(loss_of(0.2))
    assert logged["loss"] == pytest.approx(loss_of(0.5) + loss_of(0.25) + loss_of(0.2))
    weighted = values(measured(objective="mdpo", weights={"response": 2, "image": 3, "anchor": 0.5}))
    assert weighted["loss"] == pytest.approx(2 * loss_of(0.5) + 3 * loss_of(0.25) + 0.5 * loss_of(0.2))
    assert weighted["loss/image"] == logged["loss/image"]


def test_the_image_metrics_compare_the_image_with_the_corrupted_one() -> None:
    logged = values(measured(objective="mdpo"))
    assert logged["rewards/chosen_corrupted"] == pytest.approx(-0.05)
    assert logged["rewards/image_margins"] == pytest.approx(0.25)
    assert logged["rewards/image_accuracies"] == 1
    assert logged["logps/chosen_corrupted"] == pytest.approx(-13)
    blind = values(measured({**POLICY, "corrupted": -9.0}, objective="mdpo"))
    assert (blind["rewards/image_accuracies"], blind["rewards/image_margins"]) == pytest.approx((0, -0.15))


@pytest.mark.parametrize(
    ("anchors", "by_hand"),
    [
        ([], 0),
        (["rejected"], loss_of(0.05 + 0.3)),
        (["chosen", "rejected"], loss_of(0.2 - 0.05) + loss_of(0.05 + 0.3)),
        (["chosen", "rejected", "corrupted"], loss_of(0.2 - 0.05) + loss_of(0.05 + 0.3) + loss_of(0.05 + 0.05)),
    ],
)
def test_anchors_hold_the_chosen_reward_above_delta_and_the_others_below(anchors: list[str], by_hand: float) -> None:
    logged = values(measured(objective="mdpo", anchors=anchors, anchor_delta=0.05))
    assert logged["loss/anchor"] == pytest.approx(by_hand)
    assert logged["loss"] == pytest.approx(loss_of(0.5) + loss_of(0.25) + by_hand)


@given(st.lists(st.floats(-100, 0), min_size=3, max_size=3))
def test_mdpo_without_image_and_anchor_is_sigmoid(logps: list[float]) -> None:
    policy = dict(zip(("chosen", "rejected", "corrupted"), logps, strict=True))
    mdpo = measured(policy, objective="mdpo", weights={"image": 0, "anchor": 0})
    assert torch.equal(mdpo.loss, measured(policy, objective="dpo").loss)


def test_probing_the_image_measures_and_does_not_train() -> None:
    probed, plain = measured(objective="dpo", probe_image=True), measured(objective="dpo")
    assert torch.equal(probed.loss, plain.loss)
    assert values(probed)["rewards/image_margins"] == pytest.approx(0.25)


@pytest.mark.parametrize("objective", ["dpo", "mdpo", "symmpo"])
def test_the_response_term_is_any_weighted_list_of_losses(objective: str) -> None:
    mpo = 0.8 * loss_of(0.5) + 0.2 * (loss_of(0.2) + loss_of(0.3)) + 10 / 5
    extra = values(measured(objective=objective))["loss"] - loss_of(0.5)
    assert values(measured(objective=objective, **MPO))["loss"] == pytest.approx(mpo + extra)


def test_label_smoothing_reaches_robust() -> None:
    logged = values(measured(objective="dpo", loss_type=["robust"], label_smoothing=0.1))
    assert logged["loss"] == pytest.approx((0.9 * loss_of(0.5) - 0.1 * loss_of(-0.5)) / 0.8)


def test_token_counts_reach_the_losses_per_token() -> None:
    logged = values(measured(objective="dpo", loss_type=["sigmoid_norm"]))
    assert logged["loss"] == pytest.approx(loss_of(0.1 * (2 / 4 + 3 / 6)))


def test_symmpo_adds_symmetric_anchor_and_margin_with_the_papers_weights() -> None:
    # D1 = r(m, y_w) - r(m, y') = 0.2 + 0.1, D2 = r(m', y') - r(m', y_w) = 0.4 - 0.15
    logged = values(measured(objective="symmpo"))
    symmetric, anchor, margin = loss_of(0.3) + loss_of(0.25), loss_of(0.2) + loss_of(0.4), (0.05 / 0.1) ** 2
    assert logged["loss/response"] == pytest.approx(loss_of(0.5))
    assert logged["loss/symmetric"] == pytest.approx(symmetric)
    assert logged["loss/anchor"] == pytest.approx(anchor)
    assert logged["loss/margin"] == pytest.approx(margin)
    assert logged["loss"] == pytest.approx(loss_of(0.5) + 0.5 * symmetric + anchor + 1e-4 * margin)


#: Log-probs and tokens as they are of a pair without a similar image: 0 for all that would read it.
ABSENT = dict.fromkeys(SIMILAR, 0.0)


def both_kinds(**changes: Any) -> tuple[Measured, dict[Any, Tensor]]:
    """A pair with a similar image, and one without."""
    policy: Any = {branch: torch.tensor([POLICY[branch], {**POLICY, **ABSENT}[branch]]).double() for branch in POLICY}
    ref: Any = {branch: torch.tensor([REF[branch], {**REF, **ABSENT}[branch]]).double() for branch in REF}
    tokens: Any = {branch: torch.tensor([TOKENS[branch], {**TOKENS, **ABSENT}[branch]]) for branch in TOKENS}
    for value in policy.values():
        value.requires_grad_()
    return measure(policy, ref, tokens, 5.0, config(objective="symmpo", **changes)), policy


@pytest.mark.parametrize("anchors", [["chosen"], ["chosen", "rejected"], ["rejected"], []])
def test_a_pair_without_a_similar_image_has_the_terms_that_do_not_read_it(anchors: list[str]) -> None:
    result, policy = both_kinds(anchors=anchors)
    with_one = measured(objective="symmpo", anchors=anchors)
    for name, value in result.metrics.items():
        assert torch.equal(value[:1], with_one.metrics[name]), name  # not one bit is another
    plain = values(measured(objective="mdpo", anchors=anchors, weights={"image": 0}))
    without = {name: value[1].item() for name, value in result.metrics.items()}
    assert without["loss"] == plain["loss"] and without["loss/anchor"] == plain["loss/anchor"]
    assert [without[name] for name in ("loss/symmetric", "loss/margin", "rewards/symmetric_accuracies")] == [0, 0, 0]
    result.loss[1].backward()
    assert {branch for branch, value in policy.items() if value.grad is not None and value.grad.any()} == BOTH


def test_without_the_rule_a_pair_would_be_compared_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    right, _ = both_kinds()
    monkeypatch.setattr(measuring, "_where_similar", lambda tokens, config: lambda values: values)
    wrong, _ = both_kinds()
    assert torch.equal(wrong.loss[0], right.loss[0]) and wrong.loss[1] > right.loss[1] + 1


def test_symmpo_without_its_terms_is_sigmoid() -> None:
    bare = measured(objective="symmpo", weights={"symmetric": 0, "anchor": 0, "margin": 0})
    assert torch.equal(bare.loss, measured(objective="dpo").loss)


@pytest.mark.parametrize(
    ("contrast", "similar_swapped", "accuracy"), [(-0.1, 0.15, 1), (0.3, 0.15, 0.5), (-0.1, 0.5, 0.5), (0.3, 0.5, 0)]
)
def test_symmetric_accuracies_count_the_images_that_prefer_their_own_answer(
    contrast: float, similar_swapped: float, accuracy: float
) -> None:
    changed = {"contrast": contrast, "similar_swapped": similar_swapped}
    policy = POLICY | {branch: REF[branch] + 10 * value for branch, value in changed.items()}
    assert values(measured(policy, objective="symmpo"))["rewards/symmetric_accuracies"] == accuracy


def test_equal_models_have_no_rewards_and_no_margin() -> None:
    logged = values(measured(REF, objective="symmpo"))
    assert [logged[f"rewards/{name}"] for name in ("chosen", "rejected", "margins", "accuracies")] == [0, 0, 0, 0]
    assert logged["loss/margin"] == 0
    assert logged["loss"] == pytest.approx((1 + 0.5 * 2 + 2) * math.log(2))


def documented() -> str:
    return (Path(__file__).parents[3] / "docs" / "objectives.md").read_text(encoding="utf-8")


def test_the_examples_in_the_documentation_are_configurations_with_these_defaults() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", documented(), flags=re.DOTALL)
    examples = [config(**yaml.safe_load(block)) for block in blocks]
    assert {example.objective for example in examples} == {"dpo", "mdpo", "symmpo"}
    assert examples[0] == config()


def test_the_documentation_names_every_loss_and_every_metric() -> None:
    names = {f"| `{name}`" for name in get_args(LossType)}
    names |= {f"`{name}`" for changes in SETTINGS for name in metric_names(config(**changes))}
    assert [name for name in sorted(names) if name not in documented()] == []
