"""An Arrow table as a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import datasets


def in_memory(table: pa.Table, features: datasets.Features) -> datasets.Dataset:
    """The table as a dataset; buffers are not copied."""
    import datasets

    return datasets.Dataset(
        datasets.table.InMemoryTable(table.cast(features.arrow_schema)),
        info=datasets.DatasetInfo(features=features),
        # datasets would read every byte for one of its own.
        fingerprint=datasets.fingerprint.generate_random_fingerprint(),
    )


def retype(dataset: datasets.Dataset, features: datasets.Features) -> datasets.Dataset:
    """The same table under other features that are stored alike; ``cast_column`` would write lists of images anew."""
    import datasets

    return datasets.Dataset(
        dataset.data,
        info=datasets.DatasetInfo(features=features),
        indices_table=dataset._indices,
        fingerprint=datasets.fingerprint.generate_random_fingerprint(),
    )
