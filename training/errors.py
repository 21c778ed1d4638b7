"""The errors a user of ``training`` can meet. Each message names the row, column or key, and the remedy."""

from __future__ import annotations

from pipeline.base.errors import UserError


class TrainingError(UserError):
    """Root of what training adds to the tree of ``pipeline.base.errors``."""


class ModelError(TrainingError):
    """The model or its processor cannot be loaded, or lacks a part that training needs."""


class DataError(TrainingError):
    """The dataset cannot be opened, lacks a column, or holds a row that cannot be trained on."""


class PluginError(TrainingError):
    """Other people's code has raised something, or has given what it may not."""


class ReferenceCacheError(TrainingError):
    """The stored reference log-probs miss a row or hold a value that is not finite."""


class StepZeroError(TrainingError):
    """Policy and reference disagree before the first update, so every reward would be wrong."""


class DivergedError(TrainingError):
    """Loss, gradient or weights are not finite."""


class MemoryFullError(TrainingError):
    """A single pair does not fit into the GPU's memory."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be resumed from with this configuration."""
