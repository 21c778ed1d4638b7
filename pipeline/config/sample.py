"""Which models are asked, through which engine, and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, Tag, field_validator, model_validator

from pipeline.config.base import Count, Frozen, Positive, by_kind

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


Engine = Annotated[
    Annotated[VllmEngine, Tag("vllm")]
    | Annotated[OpenAIEngine, Tag("openai")]
    | Annotated[ScriptedEngine, Tag("scripted")],
    by_kind("vllm"),
]


class Sample(Frozen):
    """One model and how it is asked: ``n`` answers at each temperature.

    ``chat_template`` is a Jinja file; without it the processor's own is used. ``max_image_pixels`` scales larger images
    down before the model sees them. ``models`` asks several: each entry holds the keys in which it differs.
    """

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
    models: tuple[dict[str, Any], ...] = ()

    @property
    def temperatures(self) -> tuple[float, ...]:
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)

    def each(self) -> tuple[Sample, ...]:
        """One entry per model; ``models`` is empty in each."""
        if not self.models:
            return (self,)
        own = {name: getattr(self, name) for name in self.model_fields_set - {"models"}}
        return tuple(Sample.model_validate({**own, **entry}) for entry in self.models)

    @model_validator(mode="before")
    @classmethod
    def _first_names_the_model(cls, values: Any) -> Any:
        """``model`` may be left out where ``models`` names them all."""
        if isinstance(values, Mapping) and values.get("models") and "model" not in values:
            first = values["models"][0]
            return {"model": first.get("model") if isinstance(first, Mapping) else None, **values}
        return values

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
        names = [(one.model, one.revision) for one in self.each()] if self.models else []
        if len(set(names)) != len(names):
            raise ValueError("models names one twice; give it several temperatures, or a larger n")
        return self
