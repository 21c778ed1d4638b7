"""Where a dataset lies: a folder, a file, or a name; opened as it is, in whatever schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from training.errors import DataError

_FILES = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def load(path: str, split: str | None = None) -> datasets.Dataset:
    """The rows of a ``save_to_disk`` folder, of a .json, .jsonl or .parquet file, or of what ``load_dataset`` takes.

    Of a published dataset the config ``pairs`` is taken; of several splits ``split``, which is ``train`` by default.

    Raises:
        DataError: it cannot be opened, or has no such split.
    """
    place = Path(path)
    try:
        if place.is_file():
            loaded = _load_file(place, path)
        else:
            saved = next((folder for folder in (place, place / "pairs") if _is_saved(folder)), None)
            loaded = datasets.load_from_disk(str(saved)) if saved else _load_named(path)
    except DataError:
        raise
    except Exception as error:  # datasets, huggingface_hub and fsspec each raise their own kinds
        # What a builder met is the cause of an error that only says that there was one.
        reason = error.__cause__ or error
        raise DataError(
            f"dataset {path}: cannot be opened ({type(reason).__name__}: {reason}); "
            "check the path, or the name and the network"
        ) from error
    return _rows(loaded, path, split)


def folder(path: str) -> str | None:
    """What a local dataset's image paths are relative to: its folder."""
    place = Path(path)
    if place.is_dir():
        return path
    return str(place.parent) if place.is_file() else None


def _load_file(place: Path, path: str) -> Any:
    kind = _FILES.get(place.suffix.lower())
    if kind is None:
        raise DataError(
            f"dataset {path}: is a file of no known kind (known: {', '.join(_FILES)}); "
            "convert it, or give the folder that holds the dataset"
        )
    return datasets.load_dataset(kind, data_files=str(place))


def _load_named(path: str) -> Any:
    configs = datasets.get_dataset_config_names(path)
    return datasets.load_dataset(path, "pairs" if "pairs" in configs else None)


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _rows(loaded: Any, path: str, split: str | None) -> datasets.Dataset:
    for key in ("pairs", split or "train"):  # a published dataset opened whole: its configs are the keys
        if isinstance(loaded, dict) and (key in loaded or key != "pairs"):
            if key not in loaded:
                raise DataError(
                    f"dataset {path}: has the splits {sorted(loaded)}, none named {key}; point at one split"
                )
            loaded = loaded[key]
    return loaded
