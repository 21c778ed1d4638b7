"""Everything that a recipe can say, as a JSON Schema (draft 2020-12) for editors and for the page of the options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pipeline.base.config import SAME_KEYS
from pipeline.sampling.config import Sample
from training.config import TrainConfig
from training.config.recipe import WholeRecipe

Node = dict[str, Any]
#: What pydantic calls a bound behind another validator; it is the narrower one.
_BOUNDS = {
    "ge": "minimum",
    "le": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}


def recipe_schema() -> Node:
    """Of a recipe's file: what the loader fills in may be left out."""
    schema = _schema(WholeRecipe)
    schema["required"].remove("name")
    sample = schema["$defs"][Sample.__name__]
    sample["required"].remove("model")  # `models` may name them all, and given answers have none
    for name, field in Sample.model_fields.items():
        if SAME_KEYS in field.metadata:
            sample["properties"][name]["items"] = {"$ref": f"#/$defs/{Sample.__name__}"}
    for group in (schema, sample):
        if not group["required"]:
            del group["required"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Recipe of vlm-preference", **schema}


def trainer_schema() -> Node:
    """Of a file for ``python -m training.run``."""
    return _schema(TrainConfig)


def _schema(group: type[BaseModel]) -> Node:
    return _plain(group.model_json_schema())


def _plain(node: Any, names: bool = False) -> Any:
    """Without titles that repeat the key, in the words of the draft and of Markdown. ``names``: its keys are names."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    plain: Node = {}
    for key, value in node.items():
        if names:
            plain[key] = _plain(value)
        elif key == "default" and isinstance(value, Mapping) and value:
            continue  # the group has the defaults of its keys
        elif key in ("default", "examples", "enum", "const"):
            plain[key] = value
        elif key == "oneOf":  # a path of a plug-in and a name of ours are both texts
            plain["anyOf"] = _plain(value)
        elif key == "description":
            plain[key] = " ".join(value.replace("``", "`").split()) if "\n- " not in value else value.replace("``", "`")
        elif key != "title" and key not in _BOUNDS:
            plain[key] = _plain(value, names=key in ("properties", "$defs"))
    return plain | ({} if names else {name: node[key] for key, name in _BOUNDS.items() if key in node})
