"""POPE, CHAIR and MME about one's own annotated photos, in the files that these benchmarks have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.evaluation.benchmarks import pope


def write(folder: Path, photos: Path, annotations: Path) -> Path:
    """Write ``pope``, ``chair`` and ``mme`` into ``folder``, about the images that COCO's annotations list."""
    content = json.loads(coco_file(annotations, "instances").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    objects: dict[str, list[str]] = {file: [] for file in files.values()}
    for box in content["annotations"]:
        objects[files[box["image_id"]]].append(names[box["category_id"]])
    _pope(folder / "pope", objects)
    _mme(folder / "mme", photos, objects)
    # CHAIR reads COCO's own files.
    shutil.copytree(annotations, folder / "chair", dirs_exist_ok=True)
    return folder


def coco_file(annotations: Path, kind: str) -> Path:
    """The only file ``KIND_*.json`` of a folder; ``kind`` is instances or captions."""
    files = sorted(annotations.glob(f"{kind}_*.json"))
    if len(files) != 1:
        raise SystemExit(f"{annotations} has {len(files)} files {kind}_*.json; give a folder with one")
    return files[0]


def _pope(folder: Path, objects: Mapping[str, Sequence[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = [file for file, names in objects.items() if names]
    questions = pope.build([objects[file] for file in files])
    for split in pope.SPLITS:
        rows = [
            {"question_id": number, "image": files[item.image], "text": item.text, "label": item.answer}
            for number, item in enumerate(questions, 1)
            if split in item.splits
        ]
        (folder / f"coco_pope_{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _mme(folder: Path, photos: Path, objects: Mapping[str, Sequence[str]]) -> None:
    """The subtask of existence: of every photo one question to be answered with yes and one with no."""
    place = folder / "existence"
    place.mkdir(parents=True, exist_ok=True)
    everything = sorted({name for names in objects.values() for name in names})
    for file, names in objects.items():
        if not names:
            continue
        absent = next(name for name in everything if name not in names)
        shutil.copy(photos / file, place / file)
        lines = [
            f"Is there {pope.a_or_an(name)} {name} in this image? Please answer yes or no.\t{answer}\n"
            for name, answer in ((names[0], "Yes"), (absent, "No"))
        ]
        (place / file).with_suffix(".txt").write_text("".join(lines))
