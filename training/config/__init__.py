"""A training run as typed, frozen data. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.base import config_file
from pipeline.base.config import NEUTRAL, DatasetName, Name, Place, Seed
from training.config.draw import Draw
from training.config.objective import Branch, Corruption, Sft
from training.config.options import TrainOptions

__all__ = [
    "Branch",
    "Corruption",
    "Draw",
    "Sft",
    "TrainConfig",
    "TrainOptions",
    "load_config",
    "make_config",
]


class TrainConfig(TrainOptions):
    """One run of preference training on any dataset."""

    model: Name = Field(description="folder, built-in name or hub id of where to start, which is also the reference")
    dataset: DatasetName = Field(
        description="folder or hub name of a dataset of pairs, in any schema of training.formats"
    )
    output_dir: Place = Field(description="folder of checkpoints, metrics and the model", json_schema_extra=NEUTRAL)
    seed: Seed = Field(0, description="of the order of pairs and of corruption")

    def _problems(self) -> list[str]:
        problems = super()._problems()
        if str(self.output_dir) == ".":
            problems.append(
                "output_dir is empty or the working directory, whose model/ would be replaced; name a folder"
            )
        if (self.output_dir / "model").resolve() == Path(self.model).resolve():
            problems.append(
                f"model={self.model} lies where the trained model goes; name another output_dir than {self.output_dir}"
            )
        return problems


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply ``key=value`` overrides; a dot reaches into a group (``lora.r=8``).

    Values are read as YAML, so ``max_steps=null`` and ``corruption.keep_area=[0.01,0.1]`` work.

    Raises:
        ConfigError: listing every problem found.
    """
    return config_file.load(TrainConfig, Path(path), overrides)


def make_config(values: Mapping[str, Any]) -> TrainConfig:
    """Check a plain mapping and freeze it.

    Raises:
        ConfigError: listing every problem found.
    """
    return config_file.make(TrainConfig, values)
