"""Where a dataset lies: a folder, a file, or a name; opened as it is, in whatever schema."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets

from pipeline.base import compressed, json_files, named_datasets, nesting
from pipeline.base.dataset_files import READERS, check, is_missing, reader
from pipeline.base.errors import shorten
from training.errors import DataError

#: What rows are read from, in a folder. Image files are not among them: a row names them by their paths.
_DATA = frozenset({".arrow", ".parquet", ".json", ".jsonl", ".ndjson", ".csv", ".tsv"})
#: Written anew, with another content, whenever the same rows are saved.
_BESIDES = frozenset({"state.json", "dataset_info.json"})
_CACHES = tuple(map(str, (datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE)))


def load(path: str, split: str | None = None) -> datasets.Dataset:
    """The rows of a ``save_to_disk`` folder, of a .json, .jsonl or .parquet file, or of what ``load_dataset`` takes.

    Of a published dataset the config ``pairs`` is taken; of several splits ``split``, which is ``train`` by default.

    Raises:
        DataError: it cannot be opened, or has no such split.
    """
    place = Path(path)
    if is_missing(path):
        raise DataError(f"dataset {path}: cannot be opened (there is no such file or folder); check the path")
    try:
        if place.exists():
            check(place)
        if place.is_file():
            loaded = _load_file(place, path)
        else:
            saved = next((folder for folder in (place, place / "pairs") if _is_saved(folder)), None)
            if saved is None:
                _refuse(place.rglob("*") if place.is_dir() else ())
            loaded = datasets.load_from_disk(str(saved)) if saved else _load_named(path)
    except DataError:
        raise
    except json_files.UnreadItem as error:
        raise DataError(f"dataset {error}") from error
    except Exception as error:  # datasets, huggingface_hub and fsspec each raise their own kinds
        # What a builder met is the cause of an error that only says that there was one.
        reason = error.__cause__ or error
        message = shorten(" ".join(str(reason).split()), 500)
        if "corresponds to no data" in message:
            raise DataError(f"dataset {path}: has no rows; nothing to train on") from error
        raise DataError(
            f"dataset {path}: cannot be opened ({type(reason).__name__}: {message}); "
            "check the path, or the name and the network"
        ) from error
    return _rows(loaded, path, split)


def places(path: str) -> tuple[str, ...]:
    """Where a dataset's images may lie, if nothing else is said: in its folder; of a name, where the library puts what
    it fetches, and on the hub."""
    place = Path(path)
    if place.is_dir():
        return (path,)
    return (str(place.parent),) if place.exists() else (*_CACHES, f"hf://datasets/{path}")


def identity(path: str) -> str:
    """What makes a dataset the same one next time: the content of a local file or folder, wherever it lies; of any
    other its name with the revision that would be read now, ``owner/name@5a1b2c3``, and the name alone where that
    cannot be told."""
    place = Path(path)
    if not place.exists():
        revision = None if is_missing(path) else _revision(path)
        return path if revision is None else f"{path}@{revision}"
    data_files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if _holds_rows(file))
    digest = hashlib.sha256()
    for file in data_files:
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{'' if file == place else file.relative_to(place).as_posix()}|{content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _holds_rows(file: Path) -> bool:
    return file.is_file() and compressed.suffix(file) in _DATA and file.name not in _BESIDES


def _load_file(place: Path, path: str) -> Any:
    kind = reader(place)
    if kind is None:
        raise DataError(
            f"dataset {path}: is a file of no known kind (known: {', '.join(READERS)}, JSON also with "
            f"{', '.join(sorted(compressed.SUFFIXES))}); convert it, or give the folder that holds the dataset"
        )
    _refuse([place])
    if kind == "json":
        return datasets.DatasetDict({"train": json_files.load([place])})
    return datasets.load_dataset(kind, data_files=str(place))


def _refuse(data_files: Iterable[Path]) -> None:
    """
    Raises:
        DataError: a JSON file that its reader must not see.
    """
    for file in data_files:
        if reader(file) == "json" and file.is_file():
            try:
                nesting.refuse(file)
            except ValueError as error:
                raise DataError(f"dataset {file}: {error}") from error


def _revision(name: str) -> str | None:
    """The commit that ``load`` would read of a dataset of the hub: its newest, or without a network the one in the
    cache. The library's builders carry it; nothing but what describes the dataset is fetched."""
    try:
        found = datasets.load_dataset_builder(name, _config(name)).hash
    except Exception:  # whoever reads the rows says what is wrong with the name, or the network
        return None
    return found if isinstance(found, str) else None


def _config(path: str) -> str | None:
    return "pairs" if "pairs" in datasets.get_dataset_config_names(path) else None


def _load_named(path: str) -> Any:
    return named_datasets.load(path, _config(path))


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
