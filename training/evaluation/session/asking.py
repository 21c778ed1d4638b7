"""How a model is asked in an evaluation, from what the command line says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.base import config_file
from pipeline.base import yaml_file as read
from pipeline.base.errors import ConfigError
from pipeline.sampling.config import Sample


def sample_of(
    model: str,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    revision: str | None = None,
    base_url: str | None = None,
    engine: Sequence[str] | None = None,
) -> Sample:
    """One answer per prompt.

    Args:
        base_url: of a server that speaks OpenAI's chat completions; None for vLLM in a worker of its own. Its key is
            read from the environment variable OPENAI_API_KEY, or the one that ``engine`` names (``api_key_env=NAME``).
        engine: ``KEY=VALUE`` of ``sample.engine`` in a recipe, such as ``tensor_parallel_size=2``; values are YAML.

    Raises:
        ConfigError: an option is unknown, or has a value that is not possible.
    """
    options: dict[str, Any] = {} if base_url is None else {"kind": "openai", "base_url": base_url}
    options |= key_values("--engine", engine or (), "tensor_parallel_size=2")
    values = {"model": model, "revision": revision, "n": 1, "temperature": temperature, "max_tokens": max_tokens}
    return config_file.make(Sample, {**values, "engine": options}, what=f"how {model} is asked")


def by_suite(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options of suites, ``SUITE.KEY=VALUE`` each.

    >>> by_suite(["chair.limit=50", "mylab.colours:Colours.suffix=Briefly."])
    {'chair': {'limit': 50}, 'mylab.colours:Colours': {'suffix': 'Briefly.'}}

    Raises:
        ConfigError: one is not written so.
    """
    options: dict[str, dict[str, Any]] = {}
    for place, value in key_values("--option", texts, "chair.variant=original").items():
        suite, dot, key = place.rpartition(".")
        if not dot:
            raise ConfigError(f"--option {place}: write SUITE.KEY=VALUE, such as chair.variant=original")
        options.setdefault(suite, {})[key] = value
    return options


def key_values(flag: str, texts: Sequence[str], example: str) -> dict[str, Any]:
    """``KEY=VALUE`` each; values are YAML.

    >>> key_values("--engine", ["dtype=float32", "max_num_seqs=8"], "")
    {'dtype': 'float32', 'max_num_seqs': 8}

    Raises:
        ConfigError: one is not written so.
    """
    values: dict[str, Any] = {}
    for pair in texts:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{flag} {pair}: write KEY=VALUE, such as {example}")
        try:
            values[key.strip()] = read.text(text)
        except read.BadYaml as error:
            raise ConfigError(f"{flag} {read.name(key)}: the value is not valid YAML ({error}); quote it") from error
    return values
