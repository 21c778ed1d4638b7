"""TRL's vision preference data as parquet: ``OUT/data/train-00000.parquet``, the images inside.

Without tags: TRL puts its placeholders before the first text of the user.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.exporting import parquet_files
from pipeline.exporting.export_format import ExportFormat
from pipeline.exporting.image_folder import file_name
from pipeline.exporting.published_pairs import PublishedPair


def row(pair: PublishedPair, files: list[bytes]) -> dict[str, Any]:
    return {
        "id": pair.id,
        "images": [{"bytes": data, "path": file_name(data)} for data in files],
        "prompt": pair.prompt,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
    }


def write(folder: Path, name: str, pairs: Iterator[PublishedPair]) -> int:
    import datasets

    text = datasets.Value("string")
    messages = datasets.List({"role": text, "content": text})
    images = datasets.List(datasets.Image())
    features = {"id": text, "images": images, "prompt": messages, "chosen": messages, "rejected": messages}
    return parquet_files.write(folder, datasets.Features(features), pairs, row)


def use(folder: str, name: str) -> str:
    return f"trl dpo --dataset_name {folder} --model_name_or_path MODEL --output_dir saves"


FORMAT = ExportFormat("trl", "TRL", write, use)
