"""Which models are asked, through which engine, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, Tag, field_validator, model_validator

from pipeline.base.config import (
    NEUTRAL,
    PLUGGED,
    SAME_KEYS,
    Count,
    Frozen,
    NonNegative,
    NotNegative,
    Place,
    PlugIn,
    Positive,
    Share,
    Workers,
    by_kind,
)
from pipeline.base.errors import ConfigError
from pipeline.engines.engine_args import NEUTRAL_ARGS, check

Temperature = NonNegative


class VllmOptions(Frozen):
    """vLLM inside the worker."""

    kind: Literal["vllm"] = Field("vllm", description="vLLM")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="of the weights; auto: the recipe's"
    )
    max_model_len: Count | None = Field(
        None, description="tokens of prompt and answer together, at most; default: as the model's config says"
    )
    max_num_seqs: Count | None = Field(
        None,
        description="sequences in one step of the engine; default: by the GPU's memory, 256 on CPU",
        json_schema_extra=NEUTRAL,
    )
    max_num_batched_tokens: Count | None = Field(
        None,
        description="tokens in one step of the engine; default: by the GPU's memory, 32768 on CPU",
        json_schema_extra=NEUTRAL,
    )
    gpu_memory_utilization: Annotated[Positive, Field(le=1)] = Field(
        0.9, description="share of the GPU's memory that the engine takes, or of its share", json_schema_extra=NEUTRAL
    )
    gpus: Share | None = Field(
        None,
        description="of a GPU that a copy takes; 0.25: four share one; default: tensor_parallel_size whole ones",
        json_schema_extra=NEUTRAL,
    )
    tensor_parallel_size: Count = Field(
        1, description="GPUs that one copy of the model is split over", json_schema_extra=NEUTRAL
    )
    load_format: Literal["auto", "safetensors", "dummy"] = Field(
        "safetensors", description="which weight files are read; dummy: random weights"
    )
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")
    overlap: bool | None = Field(
        None,
        description="send the next shard's requests while the last answers of this one are written; false: every shard "
        "runs alone, and log-probs repeat to the last bit; default: where there is a GPU",
        json_schema_extra=NEUTRAL,
    )
    late_decode: bool = Field(
        True,
        description="turn tokens into text when an answer is finished, not token by token",
        json_schema_extra=NEUTRAL,
    )
    workers: Workers = Field(
        "auto",
        description="copies of the engine; auto: as many as the cluster's GPUs have room for, and one without GPUs",
        json_schema_extra=NEUTRAL,
    )
    engine_args: dict[str, Any] = Field(
        {},
        description="further arguments of vLLM's EngineArgs, such as quantization, limit_mm_per_prompt or "
        "mm_processor_kwargs",
    )

    def result_options(self) -> dict[str, Any]:
        """Of ``engine_args`` those that may change the result, if there are any."""
        options = super().result_options()
        telling = {key: value for key, value in options.pop("engine_args").items() if key not in NEUTRAL_ARGS}
        return options | ({"engine_args": telling} if telling else {})

    @model_validator(mode="after")
    def _consistent(self) -> VllmOptions:
        if self.gpus is not None and self.gpus < 1 and self.tensor_parallel_size > 1:
            raise ValueError(
                f"gpus={self.gpus:g} is a share of one GPU, and tensor_parallel_size={self.tensor_parallel_size} needs "
                "whole ones; remove one of them"
            )
        try:
            check(self.engine_args)
        except ConfigError as error:
            raise ValueError(f"{error.message}; {error.remedy}") from error
        return self


class OpenAIOptions(Frozen):
    """Any server that speaks OpenAI's chat completions. The server decides about ``revision``."""

    kind: Literal["openai"] = Field(description="a server that speaks OpenAI's chat completions")
    base_url: str = Field(description="address of the server, such as http://host:8000/v1", json_schema_extra=NEUTRAL)
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="environment variable of the worker that has the key, which goes nowhere but to the server",
        json_schema_extra=NEUTRAL,
    )
    concurrency: Count = Field(64, description="requests at a time, per worker", json_schema_extra=NEUTRAL)
    timeout_s: Positive = Field(120.0, description="seconds until a request is given up", json_schema_extra=NEUTRAL)
    retries: NotNegative = Field(
        6, description="how often a request is sent again after an error that passes", json_schema_extra=NEUTRAL
    )
    workers: Count = Field(1, description="processes that send requests", json_schema_extra=NEUTRAL)

    @field_validator("base_url")
    @classmethod
    def _no_secrets(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url must be like http://host:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("base_url must not hold a user, password or query; set the variable api_key_env names")
        return value.rstrip("/")


class ScriptedOptions(Frozen):
    """Canned texts, for tests and for trying out a recipe."""

    kind: Literal["scripted"] = Field(description="canned texts, no model")
    texts: tuple[str, ...] = Field(
        ("a sun.", "a sun and a boat.", "a boat under a sun.", "an anchor."),
        description="the answers, picked by seed",
    )
    seconds_per_request: NonNegative = Field(0.0, description="pretended work, in seconds", json_schema_extra=NEUTRAL)
    workers: Count = Field(1, description="processes", json_schema_extra=NEUTRAL)


class GivenOptions(Frozen):
    """No model: the candidates are the answers that came with the prompts (``source.kind=pds``). The other keys of
    ``sample`` have no meaning then, and ``model`` may be left out."""

    kind: Literal["given"] = Field(description="the answers that come with the prompts")


class PluggedOptions(PlugIn):
    """Other people's code, with its options beside ``kind``. A worker has as many GPUs as it says, one if it says
    nothing, where there are any."""

    group: ClassVar[str] = "engines"
    method: ClassVar[str] = "open(model)"

    workers: Workers = Field(
        "auto",
        description="processes that open it; auto: as many as the cluster's GPUs have room for, and one without GPUs",
        json_schema_extra=NEUTRAL,
    )

    @property
    def gpus(self) -> float:
        return float(getattr(self.plug_in, "gpus", 1))

    @model_validator(mode="after")
    def _gpus_are_a_number(self) -> PluggedOptions:
        gpus = getattr(self.plug_in, "gpus", 1)
        if not isinstance(gpus, int | float) or not 0 <= gpus < math.inf:
            raise ValueError(f"{self.kind}: gpus is {gpus!r}; it is how many GPUs a worker needs, such as 1 or 0")
        return self


Engine = Annotated[
    Annotated[VllmOptions, Tag("vllm")]
    | Annotated[OpenAIOptions, Tag("openai")]
    | Annotated[ScriptedOptions, Tag("scripted")]
    | Annotated[GivenOptions, Tag("given")]
    | Annotated[PluggedOptions, Tag(PLUGGED)],
    by_kind("vllm", PluggedOptions.group, ("vllm", "openai", "scripted", "given")),
]


class DiffusionNoise(Frozen):
    """DDPM's forward process with the linear schedule of 1000 steps."""

    kind: Literal["diffusion"] = Field("diffusion", description="DDPM's forward process")
    step: Annotated[Count, Field(le=1000)] = Field(
        500, description="noise steps out of 1000; 500 leaves 8 % of the picture's variance"
    )

    @property
    def label(self) -> str:
        return f"noised-{self.step}"


class GaussianNoise(Frozen):
    """Normal noise added to every pixel."""

    kind: Literal["gaussian"] = Field(description="normal noise added to every pixel")
    std: Positive = Field(1.0, description="standard deviation; black to white is 1")

    @property
    def label(self) -> str:
        return f"noised-gaussian-{self.std:g}"


Noise = Annotated[
    Annotated[DiffusionNoise, Tag("diffusion")] | Annotated[GaussianNoise, Tag("gaussian")], by_kind("diffusion")
]


class Continuation(Frozen):
    """Further candidates: the beginning of every sampled text stays, and a model goes on from there."""

    share: Annotated[Positive, Field(lt=1)] = Field(0.5, description="share of the text's words that stays")
    images: bool = Field(False, description="let the model see the images")
    model: str | None = Field(None, description="who goes on; default: the model that is to be trained")
    temperature: Temperature | None = Field(None, description="default: that of the text")
    max_tokens: Count | None = Field(None, description="tokens that are added, at most; default: as in sample")


class Sample(Frozen):
    """The models that answer the prompts, and how they are asked."""

    # ``continue`` is a word of Python; in recipes and errors it is called that.
    model_config = ConfigDict(serialize_by_alias=True)

    model: str = Field(
        description="folder, built-in name or hub id; may be left out where models names them all, and where none is "
        "asked"
    )
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    chat_template: Place | None = Field(None, description="Jinja file; default: the processor's own")
    system_prompt: str | None = Field(None, description="message before every prompt")
    n: Count = Field(8, description="answers at each temperature")
    temperature: Temperature | Annotated[tuple[Temperature, ...], Field(min_length=1)] = Field(
        1.0, description="one or several; 0 is greedy"
    )
    top_p: Annotated[Positive, Field(le=1)] = Field(1.0, description="share of the probability that is sampled from")
    max_tokens: Count = Field(96, description="an answer is cut after so many tokens")
    stop: tuple[str, ...] = Field((), description="texts that end an answer")
    max_image_pixels: Count | None = Field(None, description="pixels; larger images are scaled down for the model")
    engine: Engine = Field(VllmOptions(), description="through what the model is asked")
    noise: Noise | None = Field(None, description="noise over the images that the model sees")
    models: Annotated[tuple[dict[str, Any], ...], SAME_KEYS] = Field(
        (), description="several models: each entry has the keys of sample in which it differs"
    )
    continuation: Continuation | None = Field(
        None, alias="continue", description="further candidates that go on from what all models said"
    )

    @property
    def temperatures(self) -> tuple[float, ...]:
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)

    def each(self) -> tuple[Sample, ...]:
        """One entry per model; ``models`` and ``continue`` are empty in each."""
        if not self.models:
            return (self.model_copy(update={"continuation": None}),)
        common = {name: getattr(self, name) for name in self.model_fields_set - {"models", "continuation"}}
        return tuple(Sample.model_validate({**common, **_with_model(entry)}) for entry in self.models)

    @model_validator(mode="before")
    @classmethod
    def _first_names_the_model(cls, values: Any) -> Any:
        """``model`` may be left out where ``models`` names them all, and where none is asked."""
        listed = values.get("models") if isinstance(values, Mapping) else None
        if isinstance(listed, list | tuple) and listed and "model" not in values:
            first = listed[0]
            return {"model": _with_model(first).get("model") if isinstance(first, Mapping) else None, **values}
        return _with_model(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _consistent(self) -> Sample:
        if 0 in self.temperatures and self.n > 1:
            raise ValueError(f"n={self.n} greedy samples are all the same; set n=1 or temperature above 0")
        if len(set(self.temperatures)) != len(self.temperatures):
            raise ValueError(f"temperature={list(self.temperatures)} names one twice; remove it")
        if self.chat_template is not None and isinstance(self.engine, OpenAIOptions):
            raise ValueError("chat_template is the server's affair with kind=openai; start it with the template")
        if any("models" in entry for entry in self.models):
            raise ValueError("an entry of models has models itself; write one list")
        if any("continue" in entry for entry in self.models):
            raise ValueError("continue goes on from the answers of all models; write it beside models, not in an entry")
        names = [(spec.model, spec.revision, spec.noise) for spec in self.each()] if self.models else []
        if len(set(names)) != len(names):
            raise ValueError("models names one twice; give it several temperatures, or a larger n")
        sampled = (spec for spec in self.each() if spec.noise is None and not isinstance(spec.engine, GivenOptions))
        if self.continuation is not None and not any(sampled):
            raise ValueError("continue has no sampled answers to go on from; ask a model without noise as well")
        return self


def _with_model(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """With a name for what stands where a model would, if none is asked."""
    engine = values.get("engine")
    kind = engine.get("kind") if isinstance(engine, Mapping) else getattr(engine, "kind", None)
    return {"model": kind, **values} if kind == "given" else values
