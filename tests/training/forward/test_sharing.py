"""Sharing a prefix changes no log-prob and no gradient; where it would, it is switched off and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_kit import stretch_by_stretch

from reward.forward import attention, last_layer, shareable
from reward.forward.packing import Group, Packed, pack
from reward.forward.shareable import enable
from reward.forward.token_logps import Forward
from training.data.pairs import PairDataset
from training.errors import ModelError
from training.forward import sharing
from training.forward.batch import answer, collate
from training.forward.logps import sequence_logps
from training.forward.sharing import decide, differences

ALL = ("chosen", "rejected", "corrupted")
SHARED, ALONE = Forward(), Forward(share_prefix=False)
PLAN, CALL = attention.plan, attention.call


@pytest.fixture(autouse=True, params=[256, 0, None], ids=["side by side", "group by group", "one call"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ways to attend to groups pass every test. The kernel of the last is for GPUs; here a loop stands for it."""
    monkeypatch.setattr(attention, "SIDE_BY_SIDE", request.param)
    if request.param is None:
        monkeypatch.setattr(attention, "plan", lambda *given, one_call: PLAN(*given, one_call=True))
        monkeypatch.setattr(attention, "call", stretch_by_stretch)


@pytest.fixture
def model(make_model: Callable[..., Any]) -> Any:
    made = make_model()
    enable(made)
    return made


def difference(model: Any, pairs: PairDataset, indices: range, forward: Forward, other: Forward) -> float:
    """The largest of a sequence's log-prob between two ways, in nats per response token."""
    apart = differences(model, pairs, indices, ALL, forward, other)
    tokens = torch.tensor([[len(answer(pairs.pairs[index], branch)) for index in indices] for branch in ALL])
    return (apart.abs() / tokens).max().item()


def logps_and_gradients(model: Any, pairs: PairDataset, forward: Forward) -> tuple[Any, dict[str, Any]]:
    model.zero_grad()
    batch = collate(pairs, range(8), ALL, share_prefix=forward.share_prefix)
    logps = sequence_logps(model, batch, forward)
    # Weighted, so that a swap of two sequences would show.
    (logps * torch.arange(1.0, 1 + logps.numel()).reshape(logps.shape)).sum().backward()
    return logps.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(computed: dict[str, Any], gradients: dict[str, Any]) -> None:
    assert computed.keys() == gradients.keys()
    # Relative to the parameter's own gradient, or to a thousandth of the largest: a key's bias has none but rounding.
    floor = 1e-3 * max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (computed[name] - gradient).abs().max() / gradient.abs().max().clamp(min=floor) < 1e-4, name


@pytest.mark.parametrize("other", [ALONE, SHARED.naive], ids=["one row a sequence", "without any saving"])
def test_log_probs_and_gradients_are_those_of_separate_rows(model: Any, pairs: PairDataset, other: Forward) -> None:
    shared, shared_gradients = logps_and_gradients(model, pairs, SHARED)
    alone, gradients = logps_and_gradients(model, pairs, other)
    torch.testing.assert_close(shared, alone, atol=1e-4, rtol=0)
    assert_same(shared_gradients, gradients)


def test_in_double_precision_they_agree_to_many_more_digits(model: Any, pairs: PairDataset) -> None:
    # RMSNorm and RoPE run in float32 inside transformers, so not to all sixteen.
    model.double()
    with torch.no_grad():
        apart = difference(model, pairs, range(8), SHARED, ALONE)
    assert apart < 1e-6


@pytest.mark.parametrize("damage", ["no mask", "plain causal", "positions"])
def test_negative_control_a_wrong_mask_or_position_shows(
    model: Any, pairs: PairDataset, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    def one_group(packed: Packed) -> Packed:
        end = packed.groups[-1].end
        return replace(packed, groups=(Group(0, end, (end,)),))

    def restarted(packed: Packed) -> Packed:
        return replace(packed, offsets=torch.arange(len(packed.ids)))

    if damage == "no mask":
        real = attention.scaled_dot_product_attention
        monkeypatch.setattr(
            attention,
            "scaled_dot_product_attention",
            lambda q, k, v, is_causal=False, attn_mask=None, **options: real(q, k, v, **options),
        )
        monkeypatch.setattr(attention, "call", lambda *given, causal: stretch_by_stretch(*given, causal=False))
    else:
        change = one_group if damage == "plain causal" else restarted
        monkeypatch.setattr("reward.forward.token_logps.pack", lambda groups: change(pack(groups)))
    with torch.no_grad():
        assert difference(model, pairs, range(8), SHARED, ALONE) > 0.05


def test_gradient_checkpointing_keeps_the_groups(model: Any, pairs: PairDataset) -> None:
    plain, gradients = logps_and_gradients(model, pairs, SHARED)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    again, checkpointed = logps_and_gradients(model, pairs, SHARED)
    torch.testing.assert_close(again, plain, atol=1e-5, rtol=0)
    assert_same(checkpointed, gradients)


def test_the_head_in_pieces_gives_the_same_log_probs_and_gradients(model: Any, pairs: PairDataset) -> None:
    whole, gradients = logps_and_gradients(model, pairs, SHARED)
    pieces, chunked = logps_and_gradients(model, pairs, replace(SHARED, head_chunk=3))
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)
    assert_same(chunked, gradients)


def test_the_last_layer_skips_what_is_not_read_without_changing_what_is(model: Any, pairs: PairDataset) -> None:
    seen: list[int] = []
    last = model.model.language_model.layers[-1]
    handle = last.mlp.down_proj.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    whole, gradients = logps_and_gradients(model, pairs, replace(SHARED, last_layer_on_responses=False))
    short, narrowed = logps_and_gradients(model, pairs, SHARED)
    handle.remove()
    torch.testing.assert_close(short, whole, atol=1e-5, rtol=0)
    assert_same(narrowed, gradients)
    layout = pack(collate(pairs, range(8), ALL).groups)
    assert seen == [len(layout.ids), len(torch.unique(layout.read))]
    hooked = (last.mlp, last.self_attn.q_proj, last.self_attn.o_proj)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hooked)


def test_side_by_side_the_last_layer_asks_for_what_is_read_alone(
    model: Any, pairs: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "SIDE_BY_SIDE", 256)
    monkeypatch.setattr(attention, "plan", PLAN)
    seen: list[int] = []
    real = attention.scaled_dot_product_attention

    def counting(query: Any, *rest: Any, **options: Any) -> Any:
        seen.append(query.shape[2])
        return real(query, *rest, **options)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", counting)
    batch = collate(pairs, range(8), ALL)
    sequence_logps(model, batch, SHARED)
    groups = pack(batch.groups).groups
    assert seen == [max(group.end - group.start for group in groups), max(group.end - group.read for group in groups)]
    sequence_logps(model, batch, replace(SHARED, last_layer_on_responses=False))
    assert seen[2] == seen[3] == seen[0] > seen[1]


def test_negative_control_skipping_a_position_that_is_read_shows(
    model: Any, pairs: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "reward.forward.token_logps.only", lambda model, positions: last_layer.only(model, positions[1:])
    )
    with torch.no_grad():
        assert difference(model, pairs, range(8), SHARED, ALONE) > 0.01


def test_a_batch_of_padded_rows_is_read_as_before_once_sharing_is_enabled(
    make_model: Callable[..., Any], model: Any, pairs: PairDataset
) -> None:
    batch = collate(pairs, range(8), ALL, share_prefix=False)
    with torch.no_grad():
        torch.testing.assert_close(
            sequence_logps(model, batch, ALONE), sequence_logps(make_model(), batch, ALONE), atol=1e-5, rtol=0
        )


def test_the_decision_is_said_with_its_reason(make_model: Callable[..., Any], pairs: PairDataset) -> None:
    forward, note = decide(make_model(), pairs, ALL, SHARED)
    assert forward.share_prefix and note.startswith("prefix sharing: on (log-probs apart by at most")
    forward, note = decide(make_model(), pairs, ALL, ALONE)
    assert not forward.share_prefix and "share_prefix=false" in note
    windowed = make_model()
    windowed.config.text_config.layer_types = ["sliding_attention", "full_attention"]
    forward, note = decide(windowed, pairs, ALL, SHARED)
    assert not forward.share_prefix and note.endswith("off, as its language model has sliding_attention layers")


def test_a_model_that_would_compute_something_else_is_found_out(
    make_model: Callable[..., Any], pairs: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = torch.tensor([[0.0], [0.0], [1.8]])
    monkeypatch.setattr(sharing, "differences", lambda *_: apart)
    forward, note = decide(make_model(), pairs, ALL, SHARED)
    assert not forward.share_prefix and "apart by 0.3 nats per token" in note and "times what rounding" in note

    def broken(*_: Any) -> float:
        raise TypeError("unexpected argument")

    monkeypatch.setattr(sharing, "differences", broken)
    forward, note = decide(make_model(), pairs, ALL, SHARED)
    assert not forward.share_prefix and "TypeError: unexpected argument" in note


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pairs_with_images_are_tried_where_others_are_of_text_alone(
    make_model: Callable[..., Any], pairs: PairDataset, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    def blind(index: int) -> Any:
        pair = pairs.pairs[index]
        return replace(pair, prompt=replace(pair.prompt, images=()))

    tried: list[int] = []
    monkeypatch.setattr(
        sharing, "differences", lambda _, dataset, indices, *more: tried.extend(indices) or torch.zeros(3, 1)
    )
    mixed = replace(pairs, pairs=tuple(pairs.pairs[i] if i in (3, 6) else blind(i) for i in range(8)))
    decide(make_model(), mixed, ALL, Forward(dtype=dtype))
    assert tried == ([3] if dtype == torch.float32 else [3, 6])
    text = replace(pairs, pairs=tuple(map(blind, range(8))))
    assert sharing.to_try(text, 2) == [0, 4]


def test_a_model_that_changes_its_logits_behind_the_head_is_refused(
    make_model: Callable[..., Any], pairs: PairDataset
) -> None:
    capped = make_model()
    capped.config.text_config.final_logit_softcapping = 30.0
    for forward in (SHARED, ALONE):
        with pytest.raises(ModelError, match=r"final_logit_softcapping=30\.0"):
            decide(capped, pairs, ALL, forward)


def test_images_whose_tokens_see_each_other_are_not_shared(make_model: Callable[..., Any]) -> None:
    model = make_model()
    assert shareable.why_not(model) is None
    model.config.text_config.use_bidirectional_attention = True
    assert shareable.why_not(model) == "its image tokens see each other in both directions"


def test_in_bfloat16_prompts_are_shared_too(make_model: Callable[..., Any], pairs: PairDataset) -> None:
    forward, note = decide(make_model(), pairs, ALL, Forward(dtype=torch.bfloat16))
    assert forward.share_prefix, note


@pytest.mark.parametrize("heads", [1, 2])
def test_fewer_key_heads_are_spread_where_no_fast_kernel_takes_them(
    heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = (Group(0, 5, (8, 10), 4), Group(10, 12, (12, 15), 11))
    query, key, value = torch.randn(1, 2, 15, 8), *torch.randn(2, 1, heads, 15, 8)

    def attended() -> torch.Tensor:
        plan = attention.plan(groups, query.device, one_call=False)
        return attention.attend(torch.nn.Module(), query, key, value, None, prefix_plan=plan)[0]

    plain = attended()
    monkeypatch.setattr(attention, "takes_groups", lambda *_: False)
    real = attention.scaled_dot_product_attention

    def even(q: Any, k: Any, v: Any, **options: Any) -> Any:
        assert q.shape[1] == k.shape[1] == v.shape[1] and not options.get("enable_gqa")
        return real(q, k, v, **options)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", even)
    monkeypatch.setattr(attention, "call", stretch_by_stretch)
    torch.testing.assert_close(attended(), plain)


def test_which_kernels_take_fewer_key_heads() -> None:
    half, single = torch.bfloat16, torch.float32
    takes = attention.takes_groups
    assert takes("cpu", single, True) and takes("cuda", half, False)
    assert not takes("cuda", single, False) and not takes("cuda", half, True)


def test_the_one_call_is_used_only_where_it_gives_what_the_other_way_does(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, half = torch.device("cpu"), torch.bfloat16
    assert not attention.can_call_once(cpu, half) and not attention.can_call_once(torch.device("cuda"), torch.float32)
    monkeypatch.setattr(attention, "plan", PLAN)
    monkeypatch.setattr(attention, "call", CALL)
    works = attention._one_call_works.__wrapped__
    assert not works(cpu, half)  # there is no such kernel for a CPU
    monkeypatch.setattr(attention, "call", stretch_by_stretch)
    assert works(cpu, half)
    monkeypatch.setattr(attention, "call", lambda *given, causal: stretch_by_stretch(*given, causal=False))
    assert not works(cpu, half)
