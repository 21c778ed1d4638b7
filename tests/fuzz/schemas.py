"""The six schemas of the trainer: an odd dataset is read whole, or one error names the file, the column or the row."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import mutate
from sources import picture, talk

from training import formats

IMAGE = ["a.png"]
SAID = [{"role": "user", "content": "What is it?"}]
YES, NO = ([{"role": "assistant", "content": text}] for text in ("A dog.", "A cat."))
ROWS: dict[str, dict[str, Any]] = {
    "trl": {"images": IMAGE, "prompt": SAID, "chosen": YES, "rejected": NO},
    "rlaif_v": {"image": "a.png", "question": "What is it?", "chosen": "A dog.", "rejected": "A cat."},
    "mdpo": {"img_path": "a.png", "prompt": "What is it?", "chosen": "A dog.", "rejected": "A cat."},
    "llamafactory": {"images": IMAGE, "conversations": talk()[:1], "chosen": talk()[1], "rejected": talk("No.")[1]},
    "swift": {"images": IMAGE, "messages": [{"role": "user", "content": "<image>?"}, *YES], "rejected_response": "No."},
    "pds_dpo": {"id": 1, "image": "a.png", "conversations": talk(), "rejected_conversations": talk("A cat.")},
}  # fmt: skip
KINDS = tuple(ROWS)


def check(kind: str, rng: random.Random, folder: Path) -> str:
    """
    Raises:
        DataError: it is refused, by name.
        AssertionError: a row was lost.
    """
    import datasets

    (folder / "a.png").write_bytes(picture())
    rows = mutate.structure([ROWS[kind], ROWS[kind]], rng)
    rows = rows if isinstance(rows, list) and rows else [rows]
    if rng.random() < 0.5:  # through the reader of files, which is slow
        path = folder / rng.choice(("a.json", "a.jsonl"))
        whole = mutate.written(rows, rng)
        path.write_bytes(whole if path.suffix == ".json" else b"\n".join(mutate.written(row, rng) for row in rows))
        dataset = formats.open(str(path))
        if path.suffix == ".jsonl" and b"\0" not in path.read_bytes():
            assert dataset.num_rows >= 1
        return "accepted"
    try:
        made = datasets.Dataset.from_list(json.loads(json.dumps(rows)))
        count = len(made)
    except Exception:  # what the library cannot hold is no input
        made, count = datasets.Dataset.from_list([ROWS[kind]]), 1
    dataset = formats.read(made, path="odd", image_root=str(folder))
    assert dataset.num_rows == count, f"{count} rows in, {dataset.num_rows} out"
    return "accepted"


def quiet(folder: Path) -> None:
    """Keep the library's cache and its progress out of the way."""
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = folder
    os.environ["HF_DATASETS_CACHE"] = str(folder)
