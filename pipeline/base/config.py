"""What every group of options is made of: frozen, typed, each field with a description."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from pipeline.base import plugins
from pipeline.base.errors import ConfigError
from pipeline.base.hardware import Auto

#: The tag of a ``PlugIn`` in a union.
PLUGGED = "plugged"


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number; write one")
    return value


def _at_home(value: Any) -> Any:
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value


#: Mark of what names a file or folder: a shell expands no ``~`` in a YAML file, and a folder would be called so.
AT_HOME = BeforeValidator(_at_home)
# YAML's yes and true would be 1.
_Number = BeforeValidator(_no_truth)

Whole = Annotated[int, _Number]
NotNegative = Annotated[int, Field(ge=0), _Number]
#: What a column of 32 bits can count.
Count = Annotated[int, Field(ge=1, le=2**31 - 1), _Number]
#: What every generator of random numbers takes.
Seed = Annotated[int, Field(ge=0, lt=2**32), _Number]
Real = Annotated[float, Field(allow_inf_nan=False), _Number]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), _Number]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), _Number]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), _Number]
#: Below 1: how much of a running mean stays.
Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), _Number]
#: Of one GPU.
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), _Number]
Name = Annotated[str, Field(min_length=1)]
#: A file or folder of this machine; a dataset may also have the name of one on the hub.
Place = Annotated[Path, AT_HOME]
DatasetName = Annotated[str, Field(min_length=1), AT_HOME]
#: A number of processes; ``auto``: as many as the cluster's GPUs have room for (``pipeline.base.hardware``).
Workers = Count | Auto

#: ``json_schema_extra`` of a field that changes how a step runs and not what comes out of it.
NEUTRAL: dict[str, Any] = {"changes_result": False}


class Frozen(BaseModel):
    """A group of options. Every field has a description; one that leaves the result as it is is marked ``NEUTRAL``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def neutral(cls) -> frozenset[str]:
        """The fields that leave the result as it is."""
        return frozenset(name for name, field in cls.model_fields.items() if field.json_schema_extra == NEUTRAL)

    def result_options(self) -> dict[str, Any]:
        """The options that decide about the result, those of inner groups too, as JSON values."""
        options = self.model_dump(mode="json", exclude=set(self.neutral()))
        inner = {name: getattr(self, name) for name in options if name in type(self).model_fields}
        return options | {name: group.result_options() for name, group in inner.items() if isinstance(group, Frozen)}


def name_or_path(ours: Sequence[str]) -> WithJsonSchema:
    """Mark of a name of ours, or of a path to code that is not (``pipeline.base.plugins``)."""
    return WithJsonSchema({"anyOf": [{"enum": list(ours)}, {"type": "string", "pattern": ":"}]})


#: Mark of a list whose entries have keys of the group that holds it.
SAME_KEYS = "entries have the keys of their group"


@dataclass(frozen=True)
class ReadAs:
    """Mark of a mapping that is checked as a ``group``, or as one of a union of groups, and kept as it was written."""

    group: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def keep(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
            check(value)
            return value

        plain = core_schema.plain_serializer_function_ser_schema(lambda value: value)
        checked = handler.generate_schema(self.group | None)
        return core_schema.no_info_wrap_validator_function(keep, checked, serialization=plain)


class PlugIn(Frozen):
    """The member of a union for other people's code: ``kind`` is its path or the name of an entry point
    (docs/extending.md), and what is no field here is one of its options."""

    model_config = ConfigDict(extra="allow")

    #: What ``pipeline.base.plugins`` calls its like, and the method that it must have.
    group: ClassVar[str]
    method: ClassVar[str]

    kind: Annotated[str, WithJsonSchema({"type": "string", "pattern": ":", "examples": ["mylab.module:Name"]})] = Field(
        description="path or entry point of other people's code; its options stand beside it"
    )

    @property
    def plug_in(self) -> Any:
        return plugins.plug(self.group, self.kind, self.options, self.method, taken=type(self).model_fields)

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}

    @property
    def identity(self) -> str:
        """What a fingerprint says of it."""
        return plugins.identity(self.plug_in, self.kind)

    def result_options(self) -> dict[str, Any]:
        """Without its own, which ``identity`` has."""
        return {key: value for key, value in super().result_options().items() if key not in self.options}

    @model_validator(mode="after")
    def _can_be_made(self) -> PlugIn:
        try:
            _ = self.plug_in
        except ConfigError as error:
            raise ValueError(f"{error.message}; {error.remedy}") from error
        return self


def by_kind(default: str, group: str = "", built_in: Collection[str] = ()) -> Discriminator:
    """Tell apart the members of a union by ``kind``, which may be left out. With ``group``, which is that of a
    ``PlugIn``, it may also name other people's code; a name that is ``built_in`` stays ours."""

    def read(value: Any) -> str:
        kind = str(value.get("kind", default) if isinstance(value, Mapping) else getattr(value, "kind", default))
        return PLUGGED if group and plugins.names_one(group, kind, built_in) else kind

    return Discriminator(read)


def flatten(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; an empty mapping stays a value.

    >>> flatten({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    flat: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
