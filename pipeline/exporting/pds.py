"""PDS-DPO's data: ``OUT/NAME.json`` with LLaVA's conversations twice, once with each answer, and the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.conversations import SIDES, turns
from pipeline.exporting import json_file
from pipeline.exporting.export_format import ExportFormat
from pipeline.exporting.image_folder import ImageFolder, with_tags
from pipeline.exporting.published_pairs import PublishedPair


def item(pair: PublishedPair, images: Sequence[str]) -> dict[str, Any]:
    """``image`` is one path, a list of several, or not there."""
    prompt = with_tags(pair.prompt, len(images), joint="\n")
    conversations = (turns([*prompt, *answer]) for answer in (pair.chosen, pair.rejected))
    image = {"image": images[0] if len(images) == 1 else list(images)} if images else {}
    return {"id": pair.id, **image, **dict(zip(SIDES, conversations, strict=True))}


def write(folder: Path, name: str, pairs: Iterator[PublishedPair]) -> int:
    images = ImageFolder(folder)
    json_file.write_list(folder / f"{name}.json", (item(pair, images.keep(pair)) for pair in pairs))
    return images.count


def use(folder: str, name: str) -> str:
    return f"--data_path {folder}/{name}.json --image_folder {folder} of a trainer of LLaVA's line"


FORMAT = ExportFormat("pds", "PDS-DPO", write, use)
