"""RLAIF-V's data: ``OUT/data/train-00000.parquet`` with its nine columns, one image and one question a row.

``idx`` numbers the rows. ``origin_split`` is JSON there, and has the pair's id here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from pipeline.exporting import parquet_files
from pipeline.exporting.export_format import ExportFormat
from pipeline.exporting.fit import one_image, one_question
from pipeline.exporting.image_folder import file_name
from pipeline.exporting.published_pairs import PublishedPair


def write(folder: Path, name: str, pairs: Iterator[PublishedPair]) -> int:
    import datasets

    numbers = count()

    def row(pair: PublishedPair, files: list[bytes]) -> dict[str, Any]:
        (data,) = files
        return {
            "ds_name": name,
            "image": {"bytes": data, "path": file_name(data)},
            "question": pair.prompt[0]["content"],
            "chosen": pair.chosen[0]["content"],
            "rejected": pair.rejected[0]["content"],
            "origin_dataset": pair.source,
            "origin_split": json.dumps({"id": pair.id}),
            "idx": next(numbers),
            "image_path": file_name(data),
        }

    text, number = datasets.Value("string"), datasets.Value("int64")
    features = {"ds_name": text, "image": datasets.Image(), "question": text, "chosen": text, "rejected": text}
    features |= {"origin_dataset": text, "origin_split": text, "idx": number, "image_path": text}
    return parquet_files.write(folder, datasets.Features(features), pairs, row)


def use(folder: str, name: str) -> str:
    """In a clone of the project, whose loader has the name of its own dataset in it."""
    loader = "muffin/data/datasets.py"
    return f"sed -i s#openbmb/RLAIF-V-Dataset#{folder}# {loader} && bash script/train/llava15_train.sh"


FORMAT = ExportFormat("rlaif_v", "RLAIF-V", write, use, (one_image, one_question))
