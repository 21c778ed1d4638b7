"""What a card says to the Hub: its YAML header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.publishing.findings import Findings

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
TAGS = ("preference", "dpo", "trl", "vision-language", "hallucination", "synthetic")


def header(findings: Findings, recipe: Mapping[str, Any], content: str | None) -> str:
    """The lines between the two ``---``. ``content`` identifies the published rows."""
    size = next((label for bound, label in _SIZES if findings.pairs < bound), "n>1M")
    # ``load_dataset`` of a local folder caches by the folder's last name and by this header, not by place or content:
    # without a word that changes with the rows, it hands out those of whatever run was loaded before.
    described = {"description": f"rows {content}"} if content else {}
    publish = recipe.get("publish") or {}
    told = {
        **(licence_of(recipe) or {"license": "other"}),
        "task_categories": ["image-text-to-text"],
        "size_categories": [size],
        "tags": list(dict.fromkeys((*TAGS, *(publish.get("tags") or ())))),
        **_blindness(findings),
        "pretty_name": str(recipe.get("name") or "preference pairs"),
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": "train", "path": f"{name}/data-*.arrow"}],
                **described,
                **default,
            }
            for name, default in (("pairs", {"default": True}), ("candidates", {}))
        ],
    }
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True).rstrip()


def _blindness(findings: Findings) -> dict[str, Any]:
    """No key of the Hub's: it keeps those that it does not know."""
    measured = findings.blindness
    if measured is None:
        return {}
    bounds = list(measured.interval) if measured.interval is not None else None
    return {"blindness": {"value": measured.value, "interval": bounds, "pairs": measured.pairs}}


def licence_of(recipe: Mapping[str, Any]) -> dict[str, str] | None:
    """The licence under the Hub's keys; None where nobody has said which.

    >>> licence_of({"publish": {"license": "other", "license_name": "Ours"}})
    {'license': 'other', 'license_name': 'Ours'}
    """
    publish = recipe.get("publish") or {}
    keys = {key: value for key in ("license", "license_name", "license_link") if (value := publish.get(key))}
    # The built-in world is the project's own; of anybody else's images only they can say.
    built_in = (recipe.get("source") or {}).get("kind", "scenes") == "scenes"
    return keys or ({"license": "apache-2.0"} if built_in else None)
