"""The reference's key: whatever one input is changed to, the key is another one or the log-probs are the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from training import formats
from training.config import TrainConfig, make_config
from training.data.dataset import prepare
from training.data.identity import Start, start_of
from training.forward.model import prepare_tuning
from training.forward.policy import make_policy, pair_logps
from training.loop import reference

CPU = torch.device("cpu")
COLOURS = ("red", "green", "blue")
QUESTIONS = ("what is this", "describe it")
#: What a row is made of, and how many values each part may take.
PARTS = {
    "id": 2,
    "images": 3,
    "prompt": 2,
    "chosen": 2,
    "rejected": 2,
    "rejected_images": 3,
    "similar_images": 3,
    "similar_chosen": 2,
}
KINDS: dict[str, dict[str, Any]] = {
    "dpo": {"objective": "dpo"},
    "crop": {"objective": "mdpo"},
    "gaussian": {"objective": "mdpo", "corruption": {"kind": "gaussian"}},
    "data": {"objective": "mdpo", "corruption": {"kind": "data"}},
    "other": {"objective": "mdpo", "corruption": {"kind": "other"}},
    "symmpo": {"objective": "symmpo"},
}


def a_config(**values: Any) -> TrainConfig:
    return make_config(
        {"model": "m", "dataset": "d", "output_dir": "o", "tuning": "full", "micro_batch_size": 2, **values}
    )


def message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def a_row(values: tuple[int, ...]) -> dict[str, Any]:
    of = dict(zip(PARTS, values, strict=True))

    def picture(key: str, base: int) -> list[Image.Image]:
        fades = Image.linear_gradient("L").resize((40, 36))  # so that no two pieces of it look the same
        plain = Image.new("L", fades.size, base + 40 * of[key])
        return [Image.merge("RGB", (plain, fades, Image.new("L", fades.size, 250 - base)))]

    return {
        "id": f"id-{of['id']}",
        "images": picture("images", 10),
        "prompt": message("user", QUESTIONS[of["prompt"]]),
        "chosen": message("assistant", f"this is a {COLOURS[of['chosen']]} square"),
        "rejected": message("assistant", f"a {COLOURS[of['rejected']]} square and nothing"),
        "rejected_images": picture("rejected_images", 60),
        "similar_images": picture("similar_images", 110),
        "similar_chosen": message("assistant", f"the {COLOURS[of['similar_chosen']]} square"),
    }


def a_dataset(values: list[tuple[int, ...]]) -> datasets.Dataset:
    message = [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    image = datasets.List(datasets.Image())
    features = {"id": datasets.Value("string"), "images": image, "prompt": message, "chosen": message}
    features |= {"rejected": message, "rejected_images": image, "similar_images": image, "similar_chosen": message}
    rows = datasets.Dataset.from_list([a_row(value) for value in values], features=datasets.Features(features))
    return formats.read(rows, None, "memory")


@dataclass(frozen=True)
class Case:
    """All that reference log-probs are computed from."""

    values: tuple[tuple[int, ...], ...]
    config: TrainConfig
    model: Any
    processor: Any

    def prepared(self) -> tuple[Any, Any]:
        pairs = prepare(a_dataset(list(self.values)), self.processor, self.config)
        return make_policy(prepare_tuning(copy.deepcopy(self.model), self.config), CPU, self.config, pairs), pairs

    def key(self) -> str:
        policy, pairs = self.prepared()
        return reference.fingerprint(
            pairs, start_of(self.model, self.processor), self.config, policy.forward.share_prefix
        )

    def logps(self) -> torch.Tensor:
        """[branches, pairs]"""
        policy, pairs = self.prepared()
        with torch.no_grad():
            by_branch = pair_logps(policy, pairs, range(len(pairs.pairs)), self.config)
        return torch.stack([by_branch[branch] for branch in self.config.branches])


@pytest.fixture(scope="module")
def start(make_model: Callable[..., Any], processor: Any) -> Case:
    return Case(((0,) * len(PARTS), (1, 1, 1, 1, 0, 1, 1, 1)), a_config(**KINDS["crop"]), make_model(), processor)


def alike(case: Case, other: Case) -> bool:
    a, b = case.logps(), other.logps()
    return a.shape == b.shape and (a - b).abs().max().item() < 1e-5


#: Rows whose parts are drawn, so that many are equal in most of them, or in all.
ROWS = st.lists(st.tuples(*(st.integers(0, count - 1) for count in PARTS.values())), min_size=2, max_size=4)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=ROWS, kind=st.sampled_from(sorted(KINDS)), place=st.integers(0, 3), part=st.integers(0, len(PARTS) - 1))
def test_another_value_of_any_part_of_any_row_is_another_key_or_changes_nothing(
    start: Case, values: list[tuple[int, ...]], kind: str, place: int, part: int
) -> None:
    if kind == "other" and len({row[1] for row in values}) == 1:
        return  # refused: no row has another image
    config = a_config(**KINDS[kind])
    changed = list(values)
    row, count = changed[place % len(values)], list(PARTS.values())[part]
    changed[place % len(values)] = (*row[:part], (row[part] + 1) % count, *row[part + 1 :])
    if kind == "other" and len({row[1] for row in changed}) == 1:
        return
    case = replace(start, values=tuple(values), config=config)
    other = replace(case, values=tuple(changed))
    assert case.key() != other.key() or alike(case, other)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=ROWS, kind=st.sampled_from(sorted(KINDS)))
def test_every_row_finds_its_own_values_however_alike_rows_are(
    start: Case, tmp_path_factory: pytest.TempPathFactory, values: list[tuple[int, ...]], kind: str
) -> None:
    if kind == "other" and len({row[1] for row in values}) == 1:
        return
    case = replace(start, values=tuple(values), config=a_config(**KINDS[kind]))
    policy, pairs = case.prepared()
    folder = tmp_path_factory.mktemp("reference")
    for _ in ("computed", "read"):
        look_up = reference.load_or_compute(policy, pairs, case.config, Start("w", "c", "p"), folder)
        by_branch = look_up(range(len(values)))
        torch.testing.assert_close(
            torch.stack([by_branch[branch] for branch in case.config.branches]), case.logps(), atol=1e-4, rtol=0
        )


def test_two_pairs_alike_but_for_their_rejected_images_keep_their_own(start: Case, tmp_path: Path) -> None:
    case = replace(start, values=((0,) * 8, (0, 0, 0, 0, 0, 1, 0, 0)), config=a_config(**KINDS["data"]))
    policy, pairs = case.prepared()
    by_branch = reference.load_or_compute(policy, pairs, case.config, Start("w", "c", "p"), tmp_path)(range(2))
    assert pairs.pairs[0].id == pairs.pairs[1].id
    assert abs(by_branch["corrupted"][0] - by_branch["corrupted"][1]) > 1e-3
    torch.testing.assert_close(by_branch["corrupted"], case.logps()[2], atol=1e-4, rtol=0)


def reconfigured(case: Case, change: Callable[[Any], Any]) -> Case:
    model = copy.deepcopy(case.model)
    change(model)
    return replace(case, model=model)


def with_processor(case: Case, change: Callable[[Any], Any]) -> Case:
    processor = copy.deepcopy(case.processor)
    change(processor)
    return replace(case, processor=processor)


def another_theta(model: Any) -> None:
    # The frequencies are no weights: only the configuration tells such a model from the first.
    from transformers import LlavaForConditionalGeneration

    model.config.text_config.rope_parameters["rope_theta"] = 7.0
    fresh = LlavaForConditionalGeneration(model.config).eval()
    model.model.language_model.rotary_emb = fresh.model.language_model.rotary_emb


def looser_norm(model: Any) -> None:
    model.config.text_config.rms_norm_eps = 0.5
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 0.5


def other_layer(model: Any) -> None:
    model.config.vision_feature_layer = -1


def one_weight(model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight[9, 3] += 1.0


CHANGES: dict[str, Callable[[Case], Case]] = {
    "rope_theta": lambda case: reconfigured(case, another_theta),
    "rms_norm_eps": lambda case: reconfigured(case, looser_norm),
    "vision_feature_layer": lambda case: reconfigured(case, other_layer),
    "one weight": lambda case: reconfigured(case, one_weight),
    "half precision weights": lambda case: reconfigured(case, lambda model: model.to(torch.bfloat16)),
    "dtype": lambda case: replace(case, config=a_config(**KINDS["crop"], dtype="bfloat16")),
    "seed": lambda case: replace(case, config=a_config(**KINDS["crop"], seed=1)),
    "corruption": lambda case: replace(case, config=a_config(**KINDS["gaussian"])),
    "keep_area": lambda case: replace(case, config=a_config(corruption={"keep_area": [0.5, 0.6]})),
    "strength": lambda case: replace(
        case, config=a_config(objective="mdpo", corruption={"kind": "gaussian", "strength": 0.2})
    ),
    "objective": lambda case: replace(case, config=a_config(**KINDS["dpo"])),
    "no images": lambda case: replace(case, config=a_config(**KINDS["dpo"], use_images=False)),
    "first token": lambda case: with_processor(case, adds_bos),
    "chat template": lambda case: with_processor(case, longer_template),
    "image mean": lambda case: with_processor(
        case, lambda p: setattr(p.image_processor, "image_mean", [0.1, 0.2, 0.9])
    ),
    "no scale": lambda case: with_processor(case, lambda p: setattr(p.image_processor, "do_rescale", False)),
    "cut": lambda case: replace(case, config=a_config(max_length=14, too_long="cut")),
    "another order": lambda case: replace(case, values=case.values[::-1]),
    "one row less": lambda case: replace(case, values=case.values[:1]),
    "a row twice": lambda case: replace(case, values=(*case.values, case.values[0])),
}


def adds_bos(processor: Any) -> None:
    from tokenizers import processors

    bos = processor.tokenizer.bos_token
    processor.tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, processor.tokenizer.bos_token_id)]
    )


def longer_template(processor: Any) -> None:
    processor.chat_template = processor.chat_template.replace("<assistant>", "nothing<assistant>")


@pytest.mark.parametrize("change", CHANGES)
def test_another_model_processor_or_option_is_another_key(start: Case, change: str) -> None:
    other = CHANGES[change](start)
    assert other.key() != start.key()
    if change not in ("half precision weights", "dtype"):
        assert not alike(start, other)  # or the change would show nothing


def test_the_layout_and_quantization_are_in_the_key(start: Case) -> None:
    _, pairs = start.prepared()
    begin = start_of(start.model, start.processor)
    keys = {
        reference.fingerprint(pairs, begin, start.config),
        reference.fingerprint(pairs, begin, start.config, share_prefix=False),
        reference.fingerprint(pairs, begin, a_config(tuning="lora", quantization="nf4")),
    }
    assert len(keys) == 3


def test_what_changes_nothing_keeps_the_key(start: Case) -> None:
    saved = reconfigured(start, lambda model: setattr(model.config, "_name_or_path", "elsewhere"))
    assert saved.key() == start.key()
    options = {
        "learning_rate": 1.0,
        "batch_size": 8,
        "micro_batch_size": 8,
        "beta": 0.7,
        "gradient_checkpointing": True,
    }
    assert replace(start, config=a_config(**KINDS["crop"], **options)).key() == start.key()
