"""ms-swift's data: ``OUT/NAME.jsonl`` and the images.

Its loader looks for images from the folder in which it is started, or below ``ROOT_IMAGE_DIR``; with that, the folder
can be moved. A row without two answers it takes for damaged, and leaves out without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.exporting import json_file
from pipeline.exporting.export_format import ExportFormat
from pipeline.exporting.fit import alternate, two_answers
from pipeline.exporting.image_folder import ImageFolder, with_tags
from pipeline.exporting.published_pairs import PublishedPair


def item(pair: PublishedPair, images: Sequence[str]) -> dict[str, Any]:
    return {
        "id": pair.id,
        "messages": [*with_tags(pair.prompt, len(images)), *pair.chosen],
        "rejected_response": pair.rejected[0]["content"],
        "images": list(images),
    }


def write(folder: Path, name: str, pairs: Iterator[PublishedPair]) -> int:
    images = ImageFolder(folder)
    json_file.write_lines(folder / f"{name}.jsonl", (item(pair, images.keep(pair)) for pair in pairs))
    return images.count


def use(folder: str, name: str) -> str:
    return f"ROOT_IMAGE_DIR={folder} swift rlhf --rlhf_type dpo --model MODEL --dataset {folder}/{name}.jsonl"


FORMAT = ExportFormat("ms_swift", "ms-swift", write, use, (alternate, two_answers))
