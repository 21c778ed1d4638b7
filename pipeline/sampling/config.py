"""Which models are asked, through which engine, and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, Tag, field_validator, model_validator

from pipeline.base.config import Count, Frozen, Positive, by_kind

Temperature = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class VllmEngine(Frozen):
    """vLLM inside the worker. With ``overlap`` the next shard's requests join while the last answers of this one are
    written; without it every shard runs alone, and log-probs repeat to the last bit. Left out, it is on where there is
    a GPU. ``late_decode`` turns tokens into text when an answer is finished; without it vLLM does so token by token."""

    kind: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    max_model_len: Count | None = None
    max_num_seqs: Count = 256
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    tensor_parallel_size: Count = 1
    load_format: Literal["auto", "safetensors", "dummy"] = "safetensors"
    trust_remote_code: bool = False
    overlap: bool | None = None
    late_decode: bool = True
    workers: Count = 1


class OpenAIEngine(Frozen):
    """Any server that speaks OpenAI's chat completions. The key is read by the worker from the environment
    variable that ``api_key_env`` names; it goes nowhere but to the server, which also decides about ``revision``."""

    kind: Literal["openai"]
    base_url: str
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: Count = 64
    timeout_s: Positive = 120.0
    retries: Annotated[int, Field(ge=0)] = 6
    workers: Count = 1

    @field_validator("base_url")
    @classmethod
    def _no_secrets(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url must be like http://host:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("base_url must not hold a user, password or query; set the variable api_key_env names")
        return value.rstrip("/")


class ScriptedEngine(Frozen):
    """Canned texts, picked by seed; for tests and for trying out a recipe."""

    kind: Literal["scripted"]
    texts: tuple[str, ...] = ("a sun.", "a sun and a boat.", "a boat under a sun.", "an anchor.")
    seconds_per_request: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    workers: Count = 1


class GivenEngine(Frozen):
    """No model: the candidates are the answers that came with the prompts (``source.kind=pds``). The other keys of
    ``sample`` have no meaning then, and ``model`` may be left out."""

    kind: Literal["given"]


Engine = Annotated[
    Annotated[VllmEngine, Tag("vllm")]
    | Annotated[OpenAIEngine, Tag("openai")]
    | Annotated[ScriptedEngine, Tag("scripted")]
    | Annotated[GivenEngine, Tag("given")],
    by_kind("vllm"),
]


class DiffusionNoise(Frozen):
    """``step`` of DDPM's 1000 noise steps with the linear schedule; 500 leaves 8 % of the picture's variance."""

    kind: Literal["diffusion"] = "diffusion"
    step: Annotated[int, Field(ge=1, le=1000)] = 500

    @property
    def label(self) -> str:
        return f"noised-{self.step}"


class GaussianNoise(Frozen):
    """Normal noise added to every pixel; ``std`` is its standard deviation, where black to white is 1."""

    kind: Literal["gaussian"]
    std: Positive = 1.0

    @property
    def label(self) -> str:
        return f"noised-gaussian-{self.std:g}"


Noise = Annotated[
    Annotated[DiffusionNoise, Tag("diffusion")] | Annotated[GaussianNoise, Tag("gaussian")], by_kind("diffusion")
]


class Continuation(Frozen):
    """Of every sampled text, the first ``share`` of its words stays, and ``model`` goes on from there; without the
    images, unless ``images``. Left out, ``model`` is the one that is to be trained, ``temperature`` that of the text,
    and ``max_tokens`` what the model has in ``sample``."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    images: bool = False
    model: str | None = None
    temperature: Temperature | None = None
    max_tokens: Count | None = None


class Sample(Frozen):
    """One model and how it is asked: ``n`` answers at each temperature.

    ``chat_template`` is a Jinja file; without it the processor's own is used. ``max_image_pixels`` scales larger images
    down before the model sees them. With ``noise`` it sees them under noise. ``models`` asks several: each entry holds
    the keys in which it differs. ``continue`` makes further candidates of what all of them said.
    """

    # ``continue`` is a word of Python; in recipes and errors it is called that.
    model_config = ConfigDict(serialize_by_alias=True)

    model: str
    revision: str | None = None
    chat_template: Path | None = None
    system_prompt: str | None = None
    n: Count = 8
    temperature: Temperature | Annotated[tuple[Temperature, ...], Field(min_length=1)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Count = 96
    stop: tuple[str, ...] = ()
    max_image_pixels: Count | None = None
    engine: Engine = VllmEngine()
    noise: Noise | None = None
    models: tuple[dict[str, Any], ...] = ()
    continuation: Annotated[Continuation | None, Field(alias="continue")] = None

    @property
    def temperatures(self) -> tuple[float, ...]:
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)

    def each(self) -> tuple[Sample, ...]:
        """One entry per model; ``models`` and ``continue`` are empty in each."""
        if not self.models:
            return (self.model_copy(update={"continuation": None}),)
        own = {name: getattr(self, name) for name in self.model_fields_set - {"models", "continuation"}}
        return tuple(Sample.model_validate({**own, **_named(entry)}) for entry in self.models)

    @model_validator(mode="before")
    @classmethod
    def _first_names_the_model(cls, values: Any) -> Any:
        """``model`` may be left out where ``models`` names them all, and where none is asked."""
        listed = values.get("models") if isinstance(values, Mapping) else None
        if isinstance(listed, list | tuple) and listed and "model" not in values:
            first = listed[0]
            return {"model": _named(first).get("model") if isinstance(first, Mapping) else None, **values}
        return _named(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _consistent(self) -> Sample:
        if 0 in self.temperatures and self.n > 1:
            raise ValueError(f"n={self.n} greedy samples are all the same; set n=1 or temperature above 0")
        if len(set(self.temperatures)) != len(self.temperatures):
            raise ValueError(f"temperature={list(self.temperatures)} names one twice; remove it")
        if self.chat_template is not None and isinstance(self.engine, OpenAIEngine):
            raise ValueError("chat_template is the server's affair with kind=openai; start it with the template")
        if any("models" in entry for entry in self.models):
            raise ValueError("an entry of models has models itself; write one list")
        if any("continue" in entry for entry in self.models):
            raise ValueError("continue goes on from the answers of all models; write it beside models, not in an entry")
        names = [(one.model, one.revision, one.noise) for one in self.each()] if self.models else []
        if len(set(names)) != len(names):
            raise ValueError("models names one twice; give it several temperatures, or a larger n")
        sampled = (one for one in self.each() if one.noise is None and not isinstance(one.engine, GivenEngine))
        if self.continuation is not None and not any(sampled):
            raise ValueError("continue has no sampled answers to go on from; ask a model without noise as well")
        return self


def _named(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """With a name for what stands where a model would, if none is asked."""
    engine = values.get("engine")
    kind = engine.get("kind") if isinstance(engine, Mapping) else getattr(engine, "kind", None)
    return {"model": kind, **values} if kind == "given" else values
