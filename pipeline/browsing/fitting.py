"""A run as far as its tables fit together: one that is made anew with other options has shards of before and of now."""

from __future__ import annotations

from pathlib import Path

from pipeline.running.joined import STAGES
from pipeline.running.prompt_rows import ASKED, DETECT
from pipeline.running.store import Run, Survey

_LOOKED_AT = frozenset({*STAGES, *ASKED, DETECT})


class FittingRun(Run):
    """Shows only shards that are of their stage as it is now, and were made from the shards that are there now. State:
    what shards have said of themselves, until ``forget``."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.forget()

    def forget(self) -> None:
        self._survey = Survey(Run(self.path))
        self._fitting: dict[tuple[str, int], bool] = {}

    def shards(self, stage: str) -> list[int]:
        shards = super().shards(stage)
        return [shard for shard in shards if self._fits(stage, shard)] if stage in _LOOKED_AT else shards

    def has_shard(self, stage: str, shard: int) -> bool:
        return super().has_shard(stage, shard) and self._fits(stage, shard)

    def _fits(self, stage: str, shard: int) -> bool:
        key = (stage, shard)
        if key not in self._fitting:
            self._fitting[key] = self._made_of_these(stage, shard)
        return self._fitting[key]

    def _made_of_these(self, stage: str, shard: int) -> bool:
        about, record = self._survey.about(stage, shard), self.record(stage)
        if about is None:
            return True  # whoever reads it says what is wrong
        if record is not None and not record.believes(about):
            return False
        inputs = ((name, digest, self._survey.about(name, shard)) for name, digest in about.inputs.items())
        return all(source is None or source.digest == digest for _, digest, source in inputs) and all(
            self._fits(name, shard) for name in about.inputs if name in _LOOKED_AT
        )
