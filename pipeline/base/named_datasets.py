"""A folder, or a name of a hub, as ``datasets`` opens it, but with its texts word for word."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base import compressed, json_files

if TYPE_CHECKING:
    import datasets


def load(path: str, config: str | None) -> datasets.DatasetDict:
    """Its splits. What is in JSON is read as ``json_files`` reads it, and every field of a CSV is a text, null
    where it is empty: the library takes ``007`` for a number, and ``NA`` or ``None`` for nothing.

    Raises:
        UnreadItem: as of ``json_files.load``.
    """
    import datasets
    from datasets.packaged_modules.csv.csv import Csv
    from datasets.packaged_modules.json.json import Json

    builder = datasets.load_dataset_builder(path, config)
    if isinstance(builder, Json) and builder.config.field is None and builder.config.encoding == "utf-8":
        splits = {str(split): _local(files, builder) for split, files in builder.config.data_files.items()}
        if all(compressed.is_readable(file) for files in splits.values() for file in files):
            return datasets.DatasetDict({split: json_files.load(files) for split, files in splits.items()})
    loaded = datasets.load_dataset(path, config)
    if isinstance(builder, Csv) and builder.config.features is None:
        names = next(iter(loaded.values())).column_names
        texts = datasets.Features({name: datasets.Value("string") for name in names})
        loaded = datasets.load_dataset(path, config, features=texts, keep_default_na=False, na_values=[""])
    return loaded


def _local(files: Iterable[str], builder: Any) -> list[Path]:
    """The files themselves, those of a hub as the library keeps them."""
    import datasets

    places = list(map(str, files))
    far = [place for place in places if not Path(place).is_file()]
    if far:
        options = datasets.DownloadConfig(token=builder.token, storage_options=builder.storage_options)
        fetched = datasets.DownloadManager(builder.dataset_name, download_config=options).download(far)
        places = [dict(zip(far, fetched, strict=True)).get(place, place) for place in places]
    return list(map(Path, places))
