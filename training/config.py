"""A training run as typed, frozen data.

Every error names the key, the value and the remedy, and all errors are reported at once. The defaults are the
published mDPO settings (arXiv 2406.11839, section 4 and the authors' configuration file). Imports no torch.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from training.errors import ConfigError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Weights(_Frozen):
    """The weights of mDPO's three terms; ``dpo`` reads none of them."""

    response: NonNegative = 1.0
    image: NonNegative = 1.0
    anchor: NonNegative = 1.0


class Corruption(_Frozen):
    """How the rejected image is made. ``keep_area`` is the share of the image's area that is KEPT, (low, high)."""

    kind: Literal["crop"] = "crop"
    keep_area: tuple[Fraction, Fraction] = (0.01, 0.2)

    @field_validator("keep_area")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("needs 0 < low <= high <= 1, for instance [0.01, 0.2]")
        return value


class Lora(_Frozen):
    """Low-rank adapters on linear layers of the language model only.

    ``target_modules`` is ``"all-linear"`` or a list of layer names such as ``["q_proj", "v_proj"]``.
    """

    r: Count = 64
    alpha: Positive = 128.0
    dropout: float = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"

    @field_validator("dropout")
    @classmethod
    def _no_dropout(cls, value: float) -> float:
        if value != 0:
            raise ValueError("must be 0: the implicit reward compares policy and reference without dropout noise")
        return value


class TrainConfig(_Frozen):
    """One run of preference training. Sizes count preference pairs, not sequences."""

    # What
    model: str = Field(description="folder or hub id of the model to start from, which is also the reference")
    model_revision: str | None = None
    dataset: str = Field(description="folder or hub name of a published dataset (config `pairs`)")
    output_dir: Path
    trust_remote_code: bool = False

    # Objective
    objective: Literal["dpo", "mdpo"] = "mdpo"
    beta: Positive = 0.1
    weights: Weights = Weights()
    anchor_delta: float = 0.0
    corruption: Corruption = Corruption()
    probe_image: bool = Field(False, description="with dpo: also measure the chosen answer on the corrupted image")

    # Optimisation
    learning_rate: Positive = 1e-5
    epochs: Count = 3
    max_steps: Count | None = None
    batch_size: Count = Field(32, description="pairs per optimiser step, over all processes")
    micro_batch_size: Count = Field(4, description="pairs per forward pass and process")
    warmup_ratio: Fraction = 0.1
    weight_decay: NonNegative = 0.05
    adam_betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    adam_epsilon: Positive = 1e-8
    max_grad_norm: Positive = 1.0
    seed: int = 0

    # What moves
    tuning: Literal["full", "lora"] = "lora"
    lora: Lora = Lora()
    freeze_vision: bool = True
    freeze_projector: bool = True

    # How it runs
    dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    share_image_features: bool = Field(True, description="run the vision tower once per distinct image of a batch")
    cache_image_features: bool = Field(False, description="keep features between batches while memory lasts")
    logging_steps: Count = 10
    save_steps: Count = 100
    resume: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.micro_batch_size > self.batch_size:
            raise ValueError(
                f"micro_batch_size={self.micro_batch_size} is larger than batch_size={self.batch_size}; lower it"
            )
        if self.tuning == "lora" and not (self.freeze_vision and self.freeze_projector):
            raise ValueError(
                "tuning=lora trains the language model only; set freeze_vision=true and freeze_projector=true, "
                "or tuning=full"
            )
        if self.cache_image_features and not (
            self.share_image_features and self.freeze_vision and self.freeze_projector
        ):
            raise ValueError(
                "cache_image_features=true needs features that never change: set share_image_features=true, "
                "freeze_vision=true and freeze_projector=true, or cache_image_features=false"
            )
        return self

    @property
    def needs_corrupted(self) -> bool:
        """Whether the chosen answer is also read next to the corrupted image."""
        return self.objective == "mdpo" or self.probe_image

    def result_options(self) -> dict[str, Any]:
        """The options that change the trained weights, as JSON values; a checkpoint of others is not resumed."""
        return self.model_dump(mode="json", exclude=set(RESULT_NEUTRAL))


#: Options that leave the trained weights as they are (up to rounding).
RESULT_NEUTRAL = (
    "output_dir",
    "trust_remote_code",
    "probe_image",
    "gradient_checkpointing",
    "share_image_features",
    "cache_image_features",
    "logging_steps",
    "save_steps",
    "resume",
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply ``key=value`` overrides; a dot reaches into a group (``lora.r=8``).

    Values are read as YAML, so ``max_steps=null`` and ``corruption.keep_area=[0.01,0.1]`` work.
    Raises ``ConfigError`` listing every problem found.
    """
    source = Path(path)
    try:
        values = yaml.safe_load(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {source}: {error.strerror}; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source} holds a {type(values).__name__}; write one `key: value` per line")
    for override in overrides:
        values = _override(values, override)
    return make_config(values)


def make_config(values: Mapping[str, Any]) -> TrainConfig:
    """Check a plain mapping and freeze it; raises ``ConfigError`` listing every problem found."""
    problems = list(_unknown_keys(TrainConfig, values))
    try:
        config = TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        problems += [_explain(item) for item in error.errors() if item["type"] != "extra_forbidden"]
        raise ConfigError("\n".join(problems)) from error
    return config


def _override(values: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override {override!r} is not of the form key=value, for instance learning_rate=5e-6")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: the value {text!r} is not valid YAML: {error}; quote it") from error
    return _with(values, parts, value, key)


def _with(values: dict[str, Any], parts: Sequence[str], value: Any, key: str) -> dict[str, Any]:
    if len(parts) == 1:
        return {**values, parts[0]: value}
    inner = values.get(parts[0])
    if inner is not None and not isinstance(inner, dict):
        raise ConfigError(f"{key}: {parts[0]} is {inner!r}, not a group; write {parts[0]}=... instead")
    return {**values, parts[0]: _with(inner or {}, parts[1:], value, key)}


def _group(annotation: Any) -> type[BaseModel] | None:
    """The configuration group behind a field's annotation, if it is one (also within ``X | None``)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for arg in get_args(annotation) if (found := _group(arg)) is not None), None)
    return None


def _unknown_keys(model: type[BaseModel], values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    fields = model.model_fields
    for key, value in values.items():
        if key in fields:
            group = _group(fields[key].annotation)
            if group is not None and isinstance(value, Mapping):
                yield from _unknown_keys(group, value, f"{prefix}{key}.")
            continue
        close = difflib.get_close_matches(str(key), fields, n=1)
        remedy = f"did you mean {prefix}{close[0]}?" if close else f"known keys: {', '.join(fields)}"
        yield f"{prefix}{key}: unknown key (value {value!r}); {remedy}"


def _explain(item: Any) -> str:
    """One line for one pydantic error: key, what is wrong, value."""
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"{key}: missing; add `{key}: ...` to the file or {key}=... to the command line"
    message: str = item["msg"].removeprefix("Value error, ")
    if not key:  # a rule between keys names them itself
        return message
    return f"{key}: {message[0].lower()}{message[1:]} (value {item['input']!r})"
