"""A pair policy that is not ours (``pipeline.base.plugins``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pipeline.base import plugins
from pipeline.base.errors import ConfigError

KIND = "policies"


def made(reference: str, options: Mapping[str, Any], built_in: tuple[str, ...]) -> Any:
    """An object with ``propose(able)``, which gives pairs (chosen, rejected) of a prompt's able texts.

    Raises:
        ConfigError: there is no such policy, or its options are wrong.
    """
    return _made(reference, json.dumps(options, sort_keys=True, default=str), built_in)


@lru_cache
def _made(reference: str, options: str, built_in: tuple[str, ...]) -> Any:
    found = plugins.make(plugins.find(KIND, reference, built_in), json.loads(options), reference)
    if not callable(getattr(found, "propose", None)):
        raise ConfigError(f"{reference} has no method propose(able)", "see docs/extending.md")
    plugins.identity(found, reference)  # it has a version
    return found
