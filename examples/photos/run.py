"""From a folder of photos with COCO annotations to pairs, a trained model, its numbers on one's own benchmarks, and
a dataset that others can take: ``python examples/photos/run.py``.

Without an argument the photos are those that scikit-image brings along, all of them CC0 or in the public domain, and
the model is a tiny one of random weights: the way is the point, not the numbers. With ``--photos``, ``--annotations``
and ``--model`` it is about yours.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import own_benchmarks
import tiny_qwen
import yaml

HERE = Path(__file__).parent
SCIKIT_IMAGE = {"license": "cc0-1.0", "authors": ["The photographers of scikit-image's examples"]}
FORMATS = ("llama_factory", "ms_swift", "trl", "rlaif_v", "pds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of the photos; left out, scikit-image's")
    parser.add_argument(
        "--annotations", type=Path, default=HERE / "annotations", help="COCO's instances_*.json and captions_*.json"
    )
    parser.add_argument("--model", help="folder or hub id; left out, a tiny Qwen2.5-VL of random weights")
    parser.add_argument("--out", type=Path, default=Path("runs/photos-example"), help="where everything is written")
    options = parser.parse_args()
    photos = options.photos or _photos_of_scikit_image()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    content = json.loads(own_benchmarks.coco_file(options.annotations, "instances").read_text())
    nouns = [category["name"] for category in content["categories"]]
    model = options.model or str(tiny_qwen.save(out / "model", nouns))
    data = own_benchmarks.write(out / "benchmarks", photos, options.annotations)
    recipe = out / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(
            _recipe(photos, options.annotations, len(content["images"]), data, model, out, ours=options.photos is None),
            sort_keys=False,
        )
    )
    _call("pipeline.run", recipe)
    for name in FORMATS:
        _call("pipeline.export", name, out / "photos" / "dataset", out / "exports" / name)
    _call("pipeline.publish", "hub", out / "photos", "example/photos", "--dry-run")


def _recipe(
    photos: Path, annotations: Path, images: int, data: Path, model: str, out: Path, ours: bool
) -> dict[str, object]:
    return {
        "name": "photos",
        "output_dir": str(out),
        "source": {
            "kind": "coco",
            "path": str(own_benchmarks.coco_file(annotations, "instances")),
            "captions": str(own_benchmarks.coco_file(annotations, "captions")),
            "root": str(photos),
        },
        # Answers that are cut at max_tokens are no data, and this model seldom ends one.
        "sample": {"model": model, "n": 8, "temperature": 1.0, "max_tokens": 96, "max_image_pixels": tiny_qwen.PIXELS},
        "score": {"scorers": ["objects"]},
        "pair": {
            "policy": "all_above_margin",
            "max_pairs": 3,
            "weights": {"objects.covered": 1.0, "objects.hallucinated": -1.0},
            "max_length_ratio": 8.0,
        },
        # Whose photos they are, and what may be done with them, is for whoever brings others to say.
        "publish": {"tags": ["example"], **(SCIKIT_IMAGE if ours else {})},
        "train": {"objective": "dpo", "max_steps": 4, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 1e-3},
        "evaluate": {
            "kind": "benchmarks",
            "suites": ["pope", "chair", "mme"],
            "data": str(data),
            "images": str(photos),
            "max_tokens": 32,
            # The list of synonyms that CHAIR brings is not shipped; MME is asked about one of its subtasks.
            "limit": images,
            "options": {"chair": {"variant": "coco80"}, "mme": {"subtasks": ["existence"]}},
        },
    }


def _photos_of_scikit_image() -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        sys.exit("scikit-image is not installed; pip install scikit-image, or give --photos DIR --annotations DIR")
    return Path(found.origin).parent / "data"


def _call(module: str, *arguments: object) -> None:
    words = [sys.executable, "-m", module, *map(str, arguments)]
    print("$", " ".join(["python", *words[1:]]), flush=True)
    done = subprocess.run(words, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
