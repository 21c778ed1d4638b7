"""LLaMA-Factory's ranking data: ``OUT/NAME.json``, its entry in ``OUT/dataset_info.json``, and the images.

Its loader looks for images below ``media_dir``, which is ``dataset_dir`` unless it is said, so the folder can be moved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.conversations import turns
from pipeline.exporting import json_file
from pipeline.exporting.export_format import ExportFormat
from pipeline.exporting.fit import alternate
from pipeline.exporting.image_folder import ImageFolder, with_tags
from pipeline.exporting.published_pairs import PublishedPair


def item(pair: PublishedPair, images: Sequence[str]) -> dict[str, Any]:
    (chosen,), (rejected,) = turns(pair.chosen), turns(pair.rejected)
    conversation = turns(with_tags(pair.prompt, len(images)))
    return {
        "id": pair.id,
        "conversations": conversation,
        "chosen": chosen,
        "rejected": rejected,
        "images": list(images),
    }


def entry(file: str) -> Mapping[str, Any]:
    """What ``dataset_info.json`` says of the dataset."""
    names = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"}
    return {"file_name": file, "formatting": "sharegpt", "ranking": True, "columns": names}


def write(folder: Path, name: str, pairs: Iterator[PublishedPair]) -> int:
    images = ImageFolder(folder)
    json_file.write_list(folder / f"{name}.json", (item(pair, images.keep(pair)) for pair in pairs))
    (folder / "dataset_info.json").write_text(json.dumps({name: entry(f"{name}.json")}, indent=2) + "\n")
    return images.count


def use(folder: str, name: str) -> str:
    return (
        f"llamafactory-cli train --stage dpo --do_train --dataset_dir {folder} --dataset {name} "
        "--model_name_or_path MODEL --template TEMPLATE --output_dir saves"
    )


FORMAT = ExportFormat("llama_factory", "LLaMA-Factory", write, use, (alternate,))
