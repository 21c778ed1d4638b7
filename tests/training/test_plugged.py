"""Corruptions, losses, objectives and schemas of other people: what they may be, and what is said where they fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.base.errors import ConfigError
from training import formats
from training.config import TrainConfig, make_config
from training.config.objective import SIMILAR
from training.corruption import corrupt, identity
from training.data.dataset import prepare
from training.data.identity import Identity, Rows, Start
from training.errors import CheckpointError, DataError, DivergedError, PluginError
from training.formats.plugged import schema_of
from training.loop.resume import about, changes
from training.loop.trainer import train
from training.loss.measure import Measured, measure, metric_names
from training.loss.objectives import anchor_term, image_term, preference

Configure = Callable[..., TrainConfig]


@dataclass(frozen=True)
class Shifted:
    """A loss that can go wrong in every way."""

    by: float = 0.0
    mode: str = "good"
    version: ClassVar[str] = "1"

    def loss(self, responses: Any, beta: float, label_smoothing: float) -> Any:
        value = (self.by - responses.margin(beta)).exp()
        match self.mode:
            case "mean":
                return value.mean()
            case "number":
                return 0.5
            case "detached":
                return value.detach()
            case "slope":
                return responses.margin(beta).abs().sqrt()
            case "raises":
                return value / [][0]
            case "first is nan":
                return torch.cat([value[:1] * float("nan"), value[1:]])
        return value


@dataclass(frozen=True)
class Holds:
    """The similar image's own answer must not lose likelihood."""

    reads: ClassVar[tuple[str, ...]] = ("similar",)
    weights: ClassVar[dict[str, float]] = {"held": 1.0}
    version: ClassVar[str] = "1"

    def terms(self, rewards: Any, beta: float) -> dict[str, Tensor]:
        return {"held": anchor_term(rewards["similar"])}


@dataclass(frozen=True)
class Twin:
    """mDPO's own terms."""

    weight: float = 1.0
    named: str = "image"
    reads: ClassVar[tuple[str, ...]] = ("corrupted",)
    version: ClassVar[str] = "1"

    @property
    def weights(self) -> dict[str, float]:
        return {"image": self.weight, "anchor": 1.0}

    def terms(self, rewards: Any, beta: float) -> dict[str, Tensor]:
        image = image_term(rewards["chosen"], rewards["corrupted"])
        return {self.named: image, "anchor": torch.zeros_like(image) + anchor_term(rewards["chosen"])}


@dataclass(frozen=True)
class Smeared:
    """A corruption that can go wrong in every way."""

    mode: str = "good"
    version: ClassVar[str] = "1"
    calls: ClassVar[list[int]] = []

    def corrupt(self, image: Image.Image, rng: np.random.Generator, text: str) -> Any:
        self.calls.append(1)
        image.paste((int(rng.integers(256)), 0, 0), (0, 0, *image.size))
        match self.mode:
            case "size":
                return image.resize((3, 3))
            case "grey":
                return image.convert("L")
            case "array":
                return np.asarray(image)
            case "raises":
                raise RuntimeError("no\nluck")
            case "chance":
                image.putpixel((0, 0), (len(self.calls) % 256, 0, 0))
        return image


@dataclass(frozen=True)
class Columns:
    """A schema that can go wrong in every way."""

    mode: str = "good"
    reads: ClassVar[tuple[str, ...]] = ("q", "good", "bad", "extra")
    needs: ClassVar[tuple[str, ...]] = ("q", "good", "bad")
    version: ClassVar[str] = "1"

    def convert(self, row: dict[str, Any], images: int) -> Any:
        assert set(row) <= set(self.reads) and images in (0, 1)
        result = {"prompt": row["q"], "chosen": row["good"], "rejected": row["bad"]}
        match self.mode:
            case "tags":
                return {**result, "prompt": "<image><image>what"}
            case "tag in an answer":
                return {**result, "chosen": "<image> a"}
            case "roles":
                return {**result, "prompt": [{"role": "judge", "content": "what"}]}
            case "lacks":
                return {"prompt": row["q"]}
            case "none":
                return None
            case "raises":
                raise ValueError("not rated")
            case "tie":
                return {**result, "rejected": row["good"]}
        return result


@dataclass(frozen=True)
class NoVersion:
    def corrupt(self, *words: Any) -> Any: ...

    loss = terms = convert = corrupt


@dataclass
class Thawed:
    version: ClassVar[str] = "1"


@dataclass(frozen=True)
class Bare:
    version: ClassVar[str] = "1"


@dataclass(frozen=True)
class Short:
    version: ClassVar[str] = "1"

    def corrupt(self, image: Any) -> Any: ...

    loss = terms = convert = corrupt


@dataclass(frozen=True)
class OddReads(Twin):
    reads: ClassVar[tuple[str, ...]] = ("corruptd",)


@dataclass(frozen=True)
class OddWeights(Twin):
    @property
    def weights(self) -> dict[str, float]:
        return {"response": 1.0}


@dataclass(frozen=True)
class SpoiltWeights(Twin):
    @property
    def weights(self) -> dict[str, float]:
        return {"image": 1 / 0}


@dataclass(frozen=True)
class NoColumns(Columns):
    reads: ClassVar[Any] = "q"


def path(made: type) -> str:
    return f"{made.__module__}:{made.__name__}"


LOSS, TWIN, HOLDS, SMEARED, COLUMNS = map(path, (Shifted, Twin, Holds, Smeared, Columns))


def config(**changes: Any) -> TrainConfig:
    return make_config({"model": "m", "dataset": "d", "output_dir": "o", **changes})


def with_loss(**options: Any) -> dict[str, Any]:
    return {"loss_type": [LOSS], "loss_options": {LOSS: options}}


# What a configuration may say


def keyed(name: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("corruption: kind", {"corruption": {"kind": name}}),
        (f"loss_type.{name}", {"loss_type": ["sigmoid", name]}),
        ("objective", {"objective": name}),
        ("dataset_format", {"dataset_format": name}),
    ]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("training.nowher:X", "there is no module training.nowher; "),
        ("trainin.config:X", "there is no module trainin; did you mean training?"),
        (f"{__name__}:Shiftd", f"{__name__} has no 'Shiftd'; did you mean Shifted?"),
        (path(NoVersion), "has no version; give the class version"),
        (path(Thawed), "is no frozen dataclass; put @dataclass"),
        (path(Bare), "has no method "),
        (path(Short), "(image); make it "),
    ],
)
def test_a_wrong_path_or_class_is_one_line_for_every_kind(made: str, message: str) -> None:
    for key, values in keyed(made):
        with pytest.raises(ConfigError) as caught:
            config(**values)
        text = str(caught.value)
        assert text.startswith(f"{key}: ") and message in text and "\n" not in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"corruption": {"kind": "gausian"}}, "'gausian' is none of the corruptions; did you mean gaussian?"),
        ({"loss_type": ["sigmod"]}, "loss_type.sigmod: 'sigmod' is none of the losses; did you mean sigmoid?"),
        ({"objective": "mdp"}, "objective: 'mdp' is none of the objectives; did you mean mdpo?"),
        ({"dataset_format": "rlaif-v"}, "'rlaif-v' is none of the schemas; did you mean rlaif_v?"),
        ({"corruption": {"kind": SMEARED, "options": {"mod": 1}}}, "has no option 'mod'; did you mean mode?"),
        ({"loss_type": [LOSS], "loss_options": {LOSS: {"by": "much"}}}, "option by: Input should be a valid number"),
        ({"objective": TWIN, "objective_options": {"wieght": 1}}, "no option 'wieght'; did you mean weight?"),
        ({"dataset_format": COLUMNS, "dataset_format_options": {"mode": 1}}, "option mode: "),
        ({"corruption": {"options": {"mode": "x"}}}, "crop is; remove them"),
        ({"objective_options": {"weight": 1}}, "mdpo is; remove them"),
        ({"loss_options": {"sigmoid": {"by": 1}}}, "sigmoid is; remove them"),
        ({"loss_options": {LOSS: {"by": 1}}}, "is not in loss_type; name one of sigmoid"),
        (
            {"dataset_format_options": {"mode": "x"}},
            "are those of schemas that are not ours, and none is named",
        ),
        ({"objective": path(OddReads)}, "reads is ('corruptd',); give a tuple of some of corrupted, contrast"),
        ({"objective": path(OddWeights)}, "weights is {'response': 1.0}; give a dict of names"),
        ({"objective": path(SpoiltWeights)}, "SpoiltWeights raised ZeroDivisionError: division by zero ("),
        ({"objective": TWIN, "use_images": False}, "Twin nothing to compare"),
        ({"dataset_format": path(NoColumns)}, "reads is 'q'; give a tuple of the columns"),
    ],
)
def test_a_wrong_name_or_option_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**values)
    assert message in str(caught.value) and "\n" not in str(caught.value)


ALL: dict[str, Any] = {
    "corruption": {"kind": SMEARED},
    "objective": TWIN,
    "dataset_format": COLUMNS,
    "loss_type": ["sigmoid", LOSS],
}


def test_path_version_and_options_are_what_a_checkpoint_must_match(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Identity(Start("w", "c", "p"), {"dataset": Rows(2, "ab", "sorted")})
    options = config(**ALL).result_options()
    assert {key: value for key, value in options.items() if "plugin" in key} == {
        "plugins.corruption.kind": f'{SMEARED}@1 {{"mode": "good"}}',
        "plugins.objective": f'{TWIN}@1 {{"named": "image", "weight": 1.0}}',
        "plugins.dataset_format": f'{COLUMNS}@1 {{"mode": "good"}}',
        f"plugins.loss_type.{LOSS}": f'{LOSS}@1 {{"by": 0.0, "mode": "good"}}',
    }
    was = json.loads(json.dumps(about(config(**ALL), start)))
    assert changes(was, config(**ALL, loss_options={LOSS: {"by": 0}}), start) == []  # as by default
    assert changes(was, config(**ALL, objective_options={"weight": 2}), start) == [
        f"""plugins.objective was '{TWIN}@1 {{"named": "image", "weight": 1.0}}' """
        f"""and is '{TWIN}@1 {{"named": "image", "weight": 2.0}}'"""
    ]
    for made, key in (
        (Smeared, "corruption.kind"),
        (Twin, "objective"),
        (Columns, "dataset_format"),
        (Shifted, f"loss_type.{LOSS}"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(made, "version", "2")
            (change,) = changes(was, config(**ALL), start)
            assert change.startswith(f"plugins.{key} was '{path(made)}@1 ") and f"is '{path(made)}@2 " in change


def test_a_configuration_without_plug_ins_is_recorded_as_before_there_were_any() -> None:
    options = config().result_options()
    assert not [key for key in options if "options" in key or "plugins" in key]
    assert set(options["corruption"]) == {"kind", "keep_area", "strength", "steps", "candidates", "clip_model"}
    assert config().corruption.model_dump() == options["corruption"] | {"keep_area": (0.01, 0.2)}


# Losses and objectives


def measured(size: int = 3, without: int | None = None, **changes: Any) -> tuple[Measured, dict[Any, Tensor]]:
    """``without``: the pair that has no similar image."""
    torch.manual_seed(0)
    branches = config(**changes).branches
    values = torch.randn(2, len(branches), size, dtype=torch.float64)
    policy: dict[Any, Tensor] = {
        branch: value.clone().requires_grad_() for branch, value in zip(branches, values[0], strict=True)
    }
    ref: Any = dict(zip(branches, values[1], strict=True))
    tokens: Any = {branch: torch.arange(3, 3 + size) for branch in branches}
    for branch in SIMILAR if without is not None else ():
        tokens[branch] = torch.where(torch.arange(size) == without, 0, tokens.get(branch, 0))
    result = measure(policy, ref, tokens, 4.0, config(**changes))
    result.loss.sum().backward()
    return result, policy


def test_an_objective_of_others_gives_the_same_bits_as_ours() -> None:
    ours, policy = measured(objective="mdpo", weights={"image": 0.3})
    theirs, other = measured(objective=TWIN, objective_options={"weight": 0.3}, weights={"image": 7})
    assert metric_names(config(objective=TWIN)) == metric_names(config(objective="mdpo"))
    assert all(torch.equal(ours.metrics[name], value) for name, value in theirs.metrics.items())
    assert all(torch.equal(policy[branch].grad, other[branch].grad) for branch in policy)  # type: ignore[arg-type]


def test_terms_of_others_that_read_the_similar_image_are_0_for_pairs_without_one() -> None:
    full, _ = measured(objective=HOLDS)
    some, policy = measured(objective=HOLDS, without=1)
    assert some.metrics["loss/held"][1] == 0 and full.metrics["loss/held"].all()
    for name, value in full.metrics.items():
        assert torch.equal(some.metrics[name][::2], value[::2]), name
    assert torch.equal(some.metrics["loss"][1], full.metrics["loss/response"][1])
    assert policy["similar"].grad is not None and (policy["similar"].grad == 0).tolist() == [False, True, False]


def test_a_loss_of_others_is_summed_with_ours() -> None:
    both, policy = measured(objective="dpo", loss_type=["sigmoid", LOSS], loss_weights=[1, 2])
    sigmoid, _ = measured(objective="dpo")
    margins = both.metrics["rewards/margins"]
    torch.testing.assert_close(both.loss, sigmoid.loss + 2 * (-margins).exp(), rtol=0, atol=1e-12)
    assert all(value.grad is not None for value in policy.values())


def test_ours_are_summed_in_their_order_bit_for_bit() -> None:
    result, policy = measured(objective="mdpo", weights={"response": 0.7, "image": 0.3, "anchor": 0.1})
    again = [result.metrics[f"loss/{term}"] for term in ("response", "image", "anchor")]
    assert torch.equal(result.loss, 0 + 0.7 * again[0] + 0.3 * again[1] + 0.1 * again[2])
    assert torch.equal(again[0], preference(_responses(policy), ["sigmoid"], None, 0.1))


def _responses(policy: dict[Any, Tensor]) -> Any:
    from training.loss.objectives import Responses

    torch.manual_seed(0)
    ref = torch.randn(2, 3, 3, dtype=torch.float64)[1]
    count = torch.arange(3, 6)
    return Responses(policy["chosen"], policy["rejected"], ref[0], ref[1], count, count, 4.0)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("mean", r"\S+:Shifted gives a tensor of shape \[\] on cpu; give one value for each pair, \[3\]"),
        ("number", r"gives 0\.5; give a tensor with one value for each of 3 pairs"),
        ("detached", "gives a value without a gradient, so nothing is learnt from it"),
        ("raises", r"raised IndexError: list index out of range \(\S+, line \d+\); correct it"),
    ],
)
def test_what_a_loss_gives_is_looked_over(mode: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        measured(objective="dpo", **with_loss(mode=mode))
    assert measured(objective="dpo", **with_loss())  # or the message would be of something else


def test_an_objective_gives_the_terms_that_it_has_weights_for() -> None:
    with pytest.raises(PluginError, match=r"has weights for \['image', 'anchor'\] and gives the terms \['imge',"):
        measured(objective=TWIN, objective_options={"named": "imge"})


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (
            "first is nan",
            r"step 1: the loss is nan\. Log-probs of row \d \(id pair-\d\)[^.]* are finite and their loss",
        ),
        ("slope", r"step 1: the gradient's norm is nan\. .*Look at \S+:Shifted@1 .*where all rewards are 0"),
    ],
)
def test_a_loss_that_is_no_number_ends_the_run_and_names_code_and_pairs(
    configure: Configure, mode: str, message: str
) -> None:
    settings = configure(objective="dpo", batch_size=4, max_steps=2, save_steps=1, **with_loss(mode=mode))
    with pytest.raises(DivergedError, match=message) as caught:
        train(settings)
    assert f"Look at {LOSS}@1" in str(caught.value)
    assert not (settings.output_dir / "model").exists()


def test_a_run_is_not_resumed_with_another_version(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configure(objective=TWIN, corruption={"kind": SMEARED}, batch_size=4, max_steps=1)
    logged = train(settings).metrics
    assert set(metric_names(settings)) <= set(logged) and "loss/image" in logged
    assert train(settings).steps == 1
    monkeypatch.setattr(Twin, "version", "2")
    with pytest.raises(CheckpointError, match=r"plugins\.objective was '\S+:Twin@1 .*Twin@2 .*resume=never"):
        train(settings)


# Corruptions


def smeared(pair: str = "p", **options: Any) -> Image.Image:
    image = Image.new("RGB", (9, 7), "white")
    smeared_image = corrupt(image, config(corruption={"kind": SMEARED, "options": options}).corruption, 0, pair, 2)
    assert image.getpixel((0, 0)) == (255, 255, 255)  # its own copy was painted on
    return smeared_image


def test_a_corruption_draws_from_the_pair_alone() -> None:
    assert smeared().tobytes() == smeared().tobytes()
    assert len({smeared(pair).tobytes() for pair in "abcd"}) > 1


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("size", "gives an image of 3 x 3 and mode RGB; give one of 9 x 7 and mode RGB"),
        ("grey", "gives an image of 9 x 7 and mode L; give one of 9 x 7 and mode RGB"),
        ("array", "gives array"),
        ("raises", r"raised RuntimeError: no luck \(\S+, line \d+\); correct it"),
    ],
)
def test_what_a_corruption_gives_is_looked_over_and_the_pair_named(mode: str, message: str) -> None:
    with pytest.raises(PluginError, match=rf"pair p, image 2: \S+:Smeared {message}"):
        smeared(mode=mode)


def test_the_pixels_depend_on_version_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    corruption = config(corruption={"kind": SMEARED}).corruption
    assert identity(corruption) == f'1:{SMEARED}@1 {{"mode": "good"}}'
    monkeypatch.setattr(Smeared, "version", "2")
    assert "@2 " in identity(corruption)


def test_a_corruption_with_chance_of_its_own_is_found_out(
    publish: Callable[..., datasets.Dataset], rows: list[dict[str, Any]], processor: Any
) -> None:
    read = formats.read(publish(rows), None, "memory")
    assert prepare(read, processor, config(corruption={"kind": SMEARED}))
    chance = config(corruption={"kind": SMEARED, "options": {"mode": "chance"}})
    with pytest.raises(PluginError, match=r"row 0 \(id pair-0\): \S+:Smeared gives other pixels"):
        prepare(read, processor, chance)


# Schemas


def table(**columns: Any) -> datasets.Dataset:
    values = {"q": "what is this", "good": "a red square", "bad": "a blue square", "image": picture(), **columns}
    return datasets.Dataset.from_dict({name: [value] for name, value in values.items() if value is not None})


def picture() -> dict[str, Any]:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def read(mode: str = "good", **columns: Any) -> datasets.Dataset:
    settings = config(dataset_format=COLUMNS, dataset_format_options={"mode": mode})
    return formats.read(table(**columns), schema_of(settings), "memory")


def test_a_schema_of_others_is_read_like_ours() -> None:
    ours = formats.read(table().rename_columns({"q": "question", "good": "chosen", "bad": "rejected"}))
    assert read()[0] == ours[0]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("tags", r"row 0: as \S+:Columns gives it: 2 <image> tag\(s\) for 1 image\(s\)"),
        ("tag in an answer", r"row 0: as \S+:Columns gives it: column chosen holds <image>"),
        ("roles", r"row 0: as \S+:Columns gives it: column prompt has a turn of 'judge'"),
        ("lacks", r"row 0: \S+:Columns gives \{'prompt': 'what is this'\}; give a dict of prompt, chosen"),
        ("none", r"row 0: \S+:Columns gives None"),
        ("raises", r"row 0: \S+:Columns raised ValueError: not rated \(\S+, line \d+\)"),
    ],
)
def test_what_a_schema_gives_is_looked_over_and_the_row_named(mode: str, message: str) -> None:
    with pytest.raises(DataError, match=f"dataset memory: {message}"):
        read(mode)


def test_a_schema_cannot_get_round_what_every_dataset_must_be(processor: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing column\(s\) bad; it has .*Read as \S+:Columns"):
        read(bad=None)
    with pytest.raises(DataError, match="column `extra` holds images, and images are not read from there"):
        read(image=None, extra=picture())
    with pytest.raises(DataError, match="row 0: chosen and rejected are the same text"):
        prepare(read("tie"), processor, config(objective="dpo"))
    (tmp_path / "inside").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    settings = config(dataset_format=COLUMNS)
    with pytest.raises(DataError, match=r"row 0.*secret\.png"):
        formats.read(table(image="../secret.png"), schema_of(settings), "memory", str(tmp_path / "inside"))
