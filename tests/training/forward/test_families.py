"""Every model family of ``docs/models.md`` is trained as its own code would be: same inputs, same numbers.

The models are tiny and random, each of its family's class and with its family's processor. The rows hold images of
several shapes, two images in one prompt, and one image in two prompts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_models import FAMILIES, Family, idefics3, image, qwen2_vl, smolvlm_model

from reward.forward.features import SHARES_FEATURES, FeatureCache, can_share, tower_features
from reward.forward.packing import Packed
from reward.forward.shareable import enable, why_not
from reward.forward.token_logps import Forward, token_logps
from training import formats
from training.config import Branch, TrainConfig, make_config
from training.data.dataset import prepare
from training.data.pairs import PairDataset
from training.data.render import render
from training.data.tokens import begin_of_text
from training.errors import DataError
from training.forward.batch import PairBatch, answer, collate
from training.forward.check_features import check_features
from training.forward.logps import sequence_logps
from training.forward.model import prepare_tuning
from training.forward.policy import make_policy, pair_logps, response_lengths
from training.forward.saved_model import part_of
from training.forward.sharing import decide
from training.loop.optimise import make_optimizer
from training.loss.measure import measure

ALL: tuple[Branch, ...] = ("chosen", "rejected", "corrupted")
BOTH: tuple[Branch, ...] = ("chosen", "rejected")
CPU = torch.device("cpu")


def smolvlm2() -> tuple[Any, Any]:
    _, processor = idefics3()  # takes the same images to the same inputs; SmolVLM2's own needs the package num2words
    return smolvlm_model(processor.tokenizer), processor


TRAINED = (
    *(replace(family, build=smolvlm2) if family.name == "SmolVLM2" else family for family in FAMILIES),
    Family("Qwen2-VL", "Qwen/Qwen2-VL-7B-Instruct", "Qwen2VLForConditionalGeneration", qwen2_vl, (8, 12)),
)


def only(*names: str) -> pytest.MarkDecorator:
    """The test runs with these families alone: what it asks of them the others do not have."""
    families = [family for family in TRAINED if family.name in names]
    assert len(families) == len(names)
    return pytest.mark.parametrize("tiny", families, ids=attrgetter("name"), indirect=True)


#: Families whose prompts cannot be shared, and why.
ALONE = {"Gemma 3": "its language model has sliding_attention layers"}
#: Parameters that the output does not depend on: what ``docs/models.md`` says of them, and how their names begin.
_BEHIND = (
    "all but the tower's last layer and norm, which come after the layer that is read (`vision_feature_layer=-2`)",
    ("model.vision_tower.encoder.layers.2.", "model.vision_tower.post_layernorm."),
)
UNUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "LLaVA-1.5": _BEHIND,
    "LLaVA-NeXT": _BEHIND,
    "LLaVA-OneVision": (
        "all but the tower's last norm: the layer before it is read",
        ("model.vision_tower.post_layernorm.",),
    ),
}
DOCS = Path(__file__).parents[3] / "docs" / "models.md"
#: What the three parts are, by the beginning of their names.
_LANGUAGE = {"model.language_model.": "language", "lm_head.": "language"}
_LLAVA = {**_LANGUAGE, "model.vision_tower.": "vision", "model.multi_modal_projector.": "projector"}
_TILED = {**_LLAVA, "model.image_newline": "projector"}
_IDEFICS = {
    "model.text_model.": "language",
    "lm_head.": "language",
    "model.vision_model.": "vision",
    "model.connector.": "projector",
}
_QWEN = {
    **_LANGUAGE,
    "model.visual.patch_embed.": "vision",
    "model.visual.pos_embed.": "vision",
    "model.visual.blocks.": "vision",
    "model.visual.merger.": "projector",
    "model.visual.deepstack_merger_list.": "projector",
}
PARTS = {
    "LLaVA-1.5": _LLAVA,
    "LLaVA-NeXT": _TILED,
    "LLaVA-OneVision": _TILED,
    "Qwen2-VL": _QWEN,
    "Qwen2.5-VL": _QWEN,
    "Qwen3-VL": _QWEN,
    "Idefics3, SmolVLM": _IDEFICS,
    "SmolVLM2": _IDEFICS,
    "InternVL (hf)": _LLAVA,
    "Gemma 3": _LLAVA,
}


@dataclass(frozen=True)
class Tiny:
    """A family's model, its pairs prepared for mDPO, and the same with a row without images prepared for DPO."""

    family: Family
    processor: Any
    pairs: PairDataset
    mixed: PairDataset

    @property
    def name(self) -> str:
        return self.family.name

    def model(self, shared: bool = False) -> Any:
        model, _ = self.family.build()
        if shared:
            enable(model)
        return model


def configured(**changes: Any) -> TrainConfig:
    return make_config({"model": "none", "dataset": "none", "output_dir": "none", **changes})


def rows() -> list[dict[str, Any]]:
    wide, square, tall = (Image.open(io.BytesIO(image(*shape, seed=7))) for shape in ((2, 1), (1, 1), (1, 2)))
    examples: list[tuple[str, list[Any], str, str]] = [
        ("What is this?", [wide], "A red square.", "A green one, and more."),
        ("Compare.", [wide, square], "Alike.", "All different."),
        ("Describe it.", [tall], "A tall thing", "A tall house"),
        ("And this?", [wide], "The same.", "Not the same as before."),
        ("Who are you?", [], "A tiny model.", "A very large model."),
    ]
    return [
        {
            "id": f"pair-{number}",
            "images": images,
            "prompt": [{"role": "user", "content": question}],
            "chosen": [{"role": "assistant", "content": good}],
            "rejected": [{"role": "assistant", "content": bad}],
        }
        for number, (question, images, good, bad) in enumerate(examples)
    ]


def prepared(processor: Any, publish: Callable[..., Any], objective: str, **changes: Any) -> PairDataset:
    config = configured(objective=objective, **changes)
    chosen = rows() if objective == "dpo" else rows()[:4]
    return prepare(formats.read(publish(chosen), None, "memory"), processor, config)


@pytest.fixture(scope="module", params=TRAINED, ids=attrgetter("name"))
def tiny(request: pytest.FixtureRequest, publish: Callable[..., Any]) -> Tiny:
    _, processor = request.param.build()
    return Tiny(request.param, processor, prepared(processor, publish, "mdpo"), prepared(processor, publish, "dpo"))


# What the model is given


def test_padded_rows_give_the_log_probs_that_the_model_gives_the_processors_own_output(tiny: Tiny) -> None:
    model = tiny.model()
    for dataset, branches in ((tiny.pairs, ALL), (tiny.mixed, BOTH)):
        indices = range(len(dataset.pairs))
        batch = collate(dataset, indices, branches, share_prefix=False)
        with torch.no_grad():
            layout, logps = token_logps(model, batch, Forward(share_prefix=False).naive)
            for row, branch in enumerate(branches):
                for index in indices:
                    ours = logps[layout.owners == batch.order[row, index]]
                    torch.testing.assert_close(ours, direct(model, dataset, index, branch), atol=1e-5, rtol=0)


@only("LLaVA-1.5", "Gemma 3", "Qwen2-VL")
def test_prompts_are_trls_where_no_token_is_to_be_added(tiny: Tiny, publish: Callable[..., Any]) -> None:
    dataset = prepared(tiny.processor, publish, "dpo", add_bos="never")
    for pair in dataset.pairs:
        row = dataset.rows[pair.row]
        images = [dataset.image(pair, number) for number in range(len(row["images"]))]
        text, _, _ = render(tiny.processor, row["prompt"], [row["chosen"], row["rejected"]], len(images))
        theirs = tiny.processor(text=[text], images=[images] if images else None, add_special_tokens=False)
        assert pair.prompt.ids == tuple(theirs["input_ids"][0])


def direct(model: Any, dataset: PairDataset, index: int, branch: Branch) -> torch.Tensor:
    """Log-probs of an answer's tokens, from prompt and answer put through processor and model as one text."""
    pair = dataset.pairs[index]
    row = dataset.rows[pair.row]
    read = dataset.corrupted_image if branch == "corrupted" else dataset.image
    images = [read(pair, number) for number in range(len(row["images"]))]
    prompt, good, bad = render(dataset.processor, row["prompt"], [row["chosen"], row["rejected"]], len(images))
    text = prompt + (bad if branch == "rejected" else good)
    # As the engine that samples asks it: what the tokenizer adds is left to the tokenizer.
    added = begin_of_text(dataset.processor.tokenizer)
    text = text.removeprefix(added[0] if added else "")
    inputs = dataset.processor(text=[text], images=[images] if images else None, return_tensors="pt")
    ids = inputs["input_ids"]
    assert tuple(ids[0].tolist()) == pair.prompt.ids + answer(pair, branch)
    logps = model(**inputs).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None]).flatten()
    return logps[-len(answer(pair, branch)) :]


@only("InternVL (hf)")
def test_images_are_cut_as_the_processor_cuts_them_whatever_its_image_processor_does_alone(
    tiny: Tiny, publish: Callable[..., Any]
) -> None:
    _, processor = tiny.family.build()
    processor.image_processor.crop_to_patches = False
    batch = collate(prepared(processor, publish, "mdpo"), [0], ("chosen",))
    assert batch.images[0] is not None and len(batch.images[0]["pixel_values"]) == 3  # thumbnail and two squares


# What moves


@pytest.mark.parametrize("tuning", ["projector and tower frozen", "everything", "lora"])
def test_one_step_moves_every_trainable_parameter_and_no_other(tiny: Tiny, tuning: str) -> None:
    frozen = tuning != "everything"
    config = configured(
        objective="mdpo",
        tuning="lora" if tuning == "lora" else "full",
        freeze_vision=frozen,
        freeze_projector=frozen,
        learning_rate=1e-2,
        weight_decay=0.0,
    )
    model = prepare_tuning(tiny.model(), config)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step(model, config, tiny.pairs)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    if tuning == "lora":
        # B starts at 0, so A has no gradient in the first step.
        expected = {name for name in before if "lora_B" in name}
        assert expected and all(".visual." not in name and ".vision_" not in name for name in expected)
    else:
        parts = {"language"} if frozen else {"language", "projector", "vision"}
        expected = {name for name in before if part(tiny, name) in parts and not name.startswith(unused(tiny))}
    assert moved == expected
    assert all(any(beginning in name for name in before) for beginning in unused(tiny))


def unused(tiny: Tiny) -> tuple[str, ...]:
    return UNUSED[tiny.name][1] if tiny.name in UNUSED else ()


def step(model: Any, config: TrainConfig, pairs: PairDataset) -> None:
    policy = make_policy(model, CPU, config, pairs)
    everyone = range(len(pairs.pairs))
    logps = pair_logps(policy, pairs, everyone, config)
    ref = {branch: values.detach() for branch, values in logps.items()}
    lengths = response_lengths(pairs, everyone, config, CPU)
    torch.autograd.backward(measure(logps, ref, lengths, 10.0, config).loss.mean())
    make_optimizer(model, config).step()


def part(tiny: Tiny, name: str) -> str:
    return next(part for beginning, part in PARTS[tiny.name].items() if name.startswith(beginning))


def test_every_parameter_belongs_to_the_part_that_its_place_says(tiny: Tiny) -> None:
    names = [name for name, _ in tiny.model().named_parameters()]
    assert {name: part_of(name) for name in names} == {name: part(tiny, name) for name in names}


# Prompts shared by answers


def test_sharing_is_decided_by_trying_or_the_reason_is_said(tiny: Tiny) -> None:
    forward, note = decide(tiny.model(), tiny.pairs, ALL, Forward(), pairs=4)
    if tiny.name in ALONE:
        assert not forward.share_prefix and note == f"prefix sharing: off, as {ALONE[tiny.name]}"
    else:
        assert forward.share_prefix and note.startswith("prefix sharing: on")


@pytest.mark.parametrize("rows", ["images alone", "some rows without"])
def test_shared_prompts_and_images_give_the_log_probs_and_gradients_of_the_naive_way(tiny: Tiny, rows: str) -> None:
    dataset, branches = (tiny.pairs, ALL) if rows == "images alone" else (tiny.mixed, BOTH)
    forward = Forward(share_prefix=tiny.name not in ALONE)
    model = tiny.model(forward.share_prefix)
    saved = logps_and_gradients(model, dataset, branches, forward)
    naive = logps_and_gradients(model, dataset, branches, forward.naive)
    assert_same(saved, naive)
    assert naive[1].keys() == {name for name, _ in model.named_parameters() if not name.startswith(unused(tiny))}


def logps_and_gradients(
    model: Any, dataset: PairDataset, branches: tuple[Branch, ...], forward: Forward
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    batch = collate(dataset, range(len(dataset.pairs)), branches, share_prefix=forward.share_prefix)
    logps = sequence_logps(model, batch, forward)
    # Weighted, so that a swap of two sequences would show.
    (logps * torch.arange(1.0, 1 + logps.numel()).reshape(logps.shape)).sum().backward()
    return logps.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(
    first: tuple[torch.Tensor, Mapping[str, torch.Tensor]], other: tuple[torch.Tensor, Mapping[str, torch.Tensor]]
) -> None:
    torch.testing.assert_close(first[0], other[0], atol=1e-4, rtol=0)
    assert first[1].keys() == other[1].keys()
    # Relative to the parameter's own gradient, or to a thousandth of the largest: a key's bias has none but rounding.
    floor = 1e-3 * max(gradient.abs().max() for gradient in other[1].values())
    for name, gradient in other[1].items():
        apart = (first[1][name] - gradient).abs().max() / gradient.abs().max().clamp(min=floor)
        assert apart < 1e-4, name


@only("Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL")
def test_negative_control_positions_of_text_differ_from_those_of_an_image_grid(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.model(shared=True)
    right = apart_from_naive(model, tiny)

    def of_text(model: Any, packed: Packed, prompts: Any) -> torch.Tensor:
        return packed.offsets[None]

    monkeypatch.setattr("reward.forward.token_logps.position_ids", of_text)
    assert right < 1e-4 < 0.1 < apart_from_naive(model, tiny)


def apart_from_naive(model: Any, tiny: Tiny) -> float:
    with torch.no_grad():
        packed = sequence_logps(model, collate(tiny.pairs, range(4), ALL), Forward())
        naive = sequence_logps(model, collate(tiny.pairs, range(4), ALL, (), False), Forward().naive)
    return (packed - naive).abs().max().item()


@only("Gemma 3")
def test_image_tokens_that_see_each_other_are_a_reason_of_their_own(tiny: Tiny) -> None:
    model = tiny.model()
    model.config.text_config.layer_types = ["full_attention"] * 2
    assert why_not(model) == "its image tokens see each other in both directions"


# Image features


def test_its_image_features_can_be_shared(tiny: Tiny) -> None:
    assert can_share(tiny.model())


def test_every_type_of_model_that_shares_features_is_tested_here() -> None:
    assert {family.build()[0].config.model_type for family in TRAINED} == SHARES_FEATURES


def test_features_of_an_image_do_not_depend_on_its_neighbours(tiny: Tiny) -> None:
    model = tiny.model()
    batch = collate(tiny.pairs, range(4), ALL)
    images = [picture for picture in batch.images if picture is not None]
    with torch.no_grad():
        together = tower_features(model, images, CPU)
        for picture, feature in zip(images, together, strict=True):
            torch.testing.assert_close(tower_features(model, [picture], CPU)[0], feature, atol=1e-4, rtol=1e-4)


def test_the_tower_runs_once_and_not_again_once_its_features_are_cached(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.model()
    calls = []
    real = type(model).get_image_features
    monkeypatch.setattr(type(model), "get_image_features", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    forward = Forward(share_prefix=False, cache=FeatureCache(budget=10**9))
    assert forward.cache is not None
    with torch.no_grad():
        naive = sequence_logps(model, collate(tiny.pairs, range(4), ALL, (), False), forward.naive)
        del calls[:]
        # Half of the images first, so that the next batch mixes known and new ones, and two images with one of them.
        sequence_logps(model, collate(tiny.pairs, [0, 2], ALL, (), False), forward)
        for _ in range(2):
            batch = collate(tiny.pairs, range(4), ALL, forward.cache.features, False)
            torch.testing.assert_close(sequence_logps(model, batch, forward), naive, atol=1e-4, rtol=0)
    assert len(calls) == 2 and batch.images == (None,) * len(batch.image_keys)


def test_negative_control_the_features_of_another_image_show(tiny: Tiny) -> None:
    model = tiny.model()
    batch = collate(tiny.pairs, range(4), ALL, share_prefix=False)
    with torch.no_grad():
        right = sequence_logps(model, batch, Forward(share_prefix=False))
        wrong = sequence_logps(model, swapped(batch), Forward(share_prefix=False))
    assert (right - wrong).abs().min() > 1e-3


def swapped(batch: PairBatch) -> PairBatch:
    """Clear images for corrupted ones and the other way round; both have the same shape."""
    chosen, _, corrupted = batch.order.tolist()
    other = {}
    for clear, damaged in zip(chosen, corrupted, strict=True):
        pairs = list(zip(batch.group_images[clear], batch.group_images[damaged], strict=True))
        other |= {a: b for a, b in pairs if a not in other} | {b: a for a, b in pairs}
    return replace(batch, group_images=tuple(tuple(other[i] for i in group) for group in batch.group_images))


def test_a_frozen_tower_runs_without_gradients_and_a_moving_one_with_them(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.Tensor] = []

    def features(*given: Any) -> list[torch.Tensor]:
        made.extend(tower_features(*given))
        return made

    monkeypatch.setattr("reward.forward.features.tower_features", features)
    for frozen in (True, False):
        made.clear()
        model = prepare_tuning(tiny.model(), configured(tuning="full", freeze_vision=frozen, freeze_projector=frozen))
        sequence_logps(model, collate(tiny.pairs, [0], ("chosen",), (), False), Forward(share_prefix=False))
        assert [feature.requires_grad for feature in made] == [not frozen]


# What is checked before training


def test_features_equal_placeholders(tiny: Tiny) -> None:
    check_features(tiny.model(), tiny.pairs, CPU)
    check_features(tiny.model(), tiny.mixed, CPU)


def test_a_lost_image_token_is_an_error_that_names_the_row(tiny: Tiny) -> None:
    model = tiny.model()
    pair = tiny.pairs.pairs[2]
    ids = list(pair.prompt.ids)
    ids.remove(model.config.image_token_id)
    lost = replace(pair, prompt=replace(pair.prompt, ids=tuple(ids)))
    with pytest.raises(DataError, match=r"row 2 \(id pair-2\)"):
        check_features(model, replace(tiny.pairs, pairs=(*tiny.pairs.pairs[:2], lost)), CPU)


def test_a_processor_of_another_model_is_an_error_that_names_the_row(tiny: Tiny, publish: Callable[..., Any]) -> None:
    _, processor = tiny.family.build()
    owner, setting, value = OTHER_SETTINGS[tiny.name]
    holder = processor if owner is None else getattr(processor, owner)
    assert getattr(holder, setting) not in (None, value)
    setattr(holder, setting, value)
    with pytest.raises(DataError, match=r"row 0 \(id pair-0\)"):
        check_features(tiny.model(), prepared(processor, publish, "mdpo"), CPU)


#: A setting of the processor (or of a part of it) that does not go with the model.
OTHER_SETTINGS: dict[str, tuple[str | None, str, Any]] = {
    "LLaVA-1.5": (None, "patch_size", 4),
    "LLaVA-NeXT": (None, "patch_size", 4),
    "LLaVA-OneVision": (None, "num_image_tokens", 64),
    "Qwen2-VL": ("image_processor", "merge_size", 1),
    "Qwen2.5-VL": ("image_processor", "merge_size", 1),
    "Qwen3-VL": ("image_processor", "patch_size", 4),
    "Idefics3, SmolVLM": (None, "image_seq_len", 8),
    "SmolVLM2": (None, "image_seq_len", 8),
    "InternVL (hf)": (None, "image_seq_length", 8),
    "Gemma 3": ("image_processor", "size", {"height": 64, "width": 64}),
}


def test_the_docs_list_what_is_proved_here() -> None:
    lines = DOCS.read_text().splitlines()
    start = lines.index("| Family | Prompt and images run once for all answers | Image features shared | Moves |") + 2
    assert lines[start : start + len(TRAINED) + 1] == [*map(documented, TRAINED), ""]


def documented(family: Family) -> str:
    shared = f"no: {ALONE[family.name]}" if family.name in ALONE else "yes"
    moves = UNUSED[family.name][0] if family.name in UNUSED else "all"
    return f"| {family.name} | {shared} | yes | {moves} |"
