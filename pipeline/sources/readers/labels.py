"""Class labels of the ``datasets`` library: what is stored is a number, what is meant is its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_LISTS = ("Sequence", "List", "LargeList")


class NoLabel(ValueError):
    """A number without a name."""


def of_arrow(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """The features that the library keeps in the schema of its Arrow and Parquet files; empty for other files."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def name_labels(feature: Any, value: Any) -> Any:
    """``value`` with names for the numbers of class labels in it. ``feature`` is as ``Features.to_dict()`` writes it;
    -1 is a label that nobody gave.

    Raises:
        NoLabel: the feature has no name for the number.

    >>> label = {"names": ["yes", "no"], "_type": "ClassLabel"}
    >>> name_labels(label, 1), name_labels({"feature": label, "_type": "List"}, [0, None])
    ('no', ['yes', None])
    >>> name_labels({"dtype": "int64"}, 3)
    3
    """
    if value is None or feature is None:
        return value
    if isinstance(feature, list) and feature:
        return [name_labels(feature[0], item) for item in value] if isinstance(value, list) else value
    if not isinstance(feature, Mapping):
        return value
    kind = feature.get("_type")
    if kind == "ClassLabel":
        return _name(feature.get("names") or (), value)
    if kind in _LISTS:
        inner = feature.get("feature")
        if isinstance(value, list):
            return [name_labels(inner, item) for item in value]
        # A sequence of structs is stored as a struct of lists.
        return name_labels({key: [of] for key, of in inner.items()}, value) if isinstance(inner, Mapping) else value
    if isinstance(kind, str) or not isinstance(value, Mapping):
        return value
    return {key: name_labels(feature.get(key), item) for key, item in value.items()}


def _name(names: Any, value: Any) -> str | None:
    if value == -1 and not isinstance(value, bool):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(names):
        raise NoLabel(f"{value!r:.40} is none of the {len(names)} class labels")
    return str(names[value])
