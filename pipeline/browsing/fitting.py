"""A run as far as its tables fit together: one that is made anew with other options has shards of before and of now."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pipeline.running.joined import STAGES
from pipeline.running.prompt_rows import ASKED, DETECT
from pipeline.running.store import Record, Run, Survey

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
        self._records: dict[str, Record | None] = {}

    def shards(self, stage: str) -> list[int]:
        shards = super().shards(stage)
        return [shard for shard in shards if self._fits(stage, shard)] if stage in _LOOKED_AT else shards

    def has_shard(self, stage: str, shard: int) -> bool:
        return super().has_shard(stage, shard) and self._fits(stage, shard)

    def read(self, stage: str, shard: int) -> pa.Table:
        # What fits has been held against its record, which need not be read for every shard again.
        return (
            self.peek(stage, shard) if stage in _LOOKED_AT and self._fits(stage, shard) else super().read(stage, shard)
        )

    def _fits(self, stage: str, shard: int) -> bool:
        key = (stage, shard)
        if key not in self._fitting:
            self._fitting[key] = self._made_of_these(stage, shard)
        return self._fitting[key]

    def _made_of_these(self, stage: str, shard: int) -> bool:
        about = self._survey.about(stage, shard)
        if about is None:
            return True  # whoever reads it says what is wrong
        if stage not in self._records:
            self._records[stage] = self.record(stage)
        record = self._records[stage]
        if record is not None and not record.believes(about):
            return False
        for name, digest in about.inputs.items():
            source = self._survey.about(name, shard)
            if source is not None and source.digest != digest:
                return False
        return all(self._fits(name, shard) for name in about.inputs if name in _LOOKED_AT)
