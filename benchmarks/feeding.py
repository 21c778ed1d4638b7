"""What reading images costs a training step, and what preparing a dataset of photos costs, the old way and the new.

    python benchmarks/feeding.py --json OUT [--pairs 24] [--compute 1.0]

Pairs are about photos of 1 to 2 megapixels (JPEG), for mDPO: each image is shown whole and cropped. The processors are
those of LLaVA-1.5 (336 x 336) and of Qwen2.5-VL (up to 1,280 x 960). Nothing is trained: a pass of four pairs takes
``--compute`` seconds of a GPU, in which Python sleeps, and what is measured is how long the trainer waits for images
beyond that. ``ahead`` reads in ``--threads`` threads, ``now`` when they are wanted and every image once for both views,
``twice`` once for each. Preparing is measured with nothing kept beside the dataset and with it.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import output

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "kit")]
ANSWER = "a red car stands before a house, and two people wait beside a tree"


def photos(folder: Path, count: int) -> tuple[Path, int]:
    """A dataset of pairs, each about a photo of its own; where it is, and the bytes of an image in the mean."""
    import io

    import datasets
    from PIL import Image, ImageFilter

    rng, rows, sizes = random.Random(0), [], []
    for _ in range(count):
        pixels = rng.uniform(1e6, 2e6)
        width = int((pixels * rng.choice((4 / 3, 3 / 4, 3 / 2))) ** 0.5)
        size = (width, int(pixels / width))
        # Clouds with a little grain: as large a file as a photo's.
        clouds = Image.frombytes("RGB", (24, 18), rng.randbytes(24 * 18 * 3)).resize(size, Image.Resampling.BICUBIC)
        grain = Image.frombytes("L", (512, 384), rng.randbytes(512 * 384)).resize(size).filter(ImageFilter.SMOOTH)
        file = io.BytesIO()
        Image.blend(clouds, grain.convert("RGB"), 0.15).save(file, "JPEG", quality=90)
        sizes.append(file.tell())
        say = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
        rows.append(
            {
                "images": [{"bytes": file.getvalue(), "path": None}],
                "prompt": say("user", "What is in the picture?"),
                "chosen": say("assistant", ANSWER),
                "rejected": say("assistant", ANSWER.replace("two", "nine")),
            }
        )
    message = [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    features = datasets.Features(
        images=datasets.List(datasets.Image()), prompt=message, chosen=message, rejected=message
    )
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(folder / "pairs"))
    return folder / "pairs", round(statistics.mean(sizes))


def waits(dataset: Any, reader: Any, read: Callable[..., Any], compute: float, size: int) -> tuple[list[float], float]:
    """Seconds that each pass waits for its images, and those of CPU that all have taken; the pass itself is ``compute``
    seconds of sleep."""
    from training.data.schedule import Pass
    from training.forward.batch import collate

    branches = ("chosen", "rejected", "corrupted")
    places = range(len(dataset.pairs))
    share = [Pass(list(places[at : at + size]), True) for at in range(0, len(places), size)]
    seconds, before = [], time.process_time()
    for indices, _ in reader.over(dataset, share, branches):
        start = time.perf_counter()
        collate(dataset, indices, branches, read=read)
        seconds.append(time.perf_counter() - start)
        time.sleep(compute)
    return seconds, time.process_time() - before


def measure(family: str, path: Path, compute: float, threads: int) -> dict[str, Any]:
    import torch
    from gpu_models import build

    from training.config import make_config
    from training.forward.read_ahead import ReadAhead
    from training.forward.views import read_views
    from training.loop import inputs
    from training.loop.worker import Worker

    _, processor, _ = build(family, torch.device("cpu"), tiny=True)
    if family == "qwen":
        processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 1280 * 960}
    config = make_config(
        {"model": "none", "dataset": str(path), "output_dir": str(path.parent / family), "batch_size": 8}
    )
    worker, preparing = Worker(torch.device("cpu")), {}
    for name in ("anew", "kept"):
        start = time.perf_counter()
        dataset = inputs.read(config, processor, None, visible=False, worker=worker).train
        len(list(dataset.pairs))
        preparing[name] = time.perf_counter() - start
    ahead, plain = ReadAhead(threads), ReadAhead()
    ways = {
        "twice": partial(waits, dataset, plain, partial(read_views, decode_once=False)),
        "now": partial(waits, dataset, plain, read_views),
        "ahead": partial(waits, dataset, ahead, ahead.read),
    }
    seconds = {name: way(compute, 4) for name, way in ways.items()}
    ahead.close()
    # The first pass has nothing before it, and a step is two passes of four pairs.
    step = {name: 2 * statistics.median(each[1:]) for name, (each, _) in seconds.items()}
    steps = len(dataset.pairs) / 8
    return {
        "wait_s_per_step_of_8_pairs": {name: round(value, 4) for name, value in step.items()},
        "share_of_the_step": {name: round(value / (value + 2 * compute), 4) for name, value in step.items()},
        "cpu_s_per_step": {name: round(cpu / steps, 4) for name, (_, cpu) in seconds.items()},
        "prepare_ms_per_row": {name: round(1000 * value / len(dataset.pairs), 2) for name, value in preparing.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--compute", type=float, default=1.0, help="seconds of a pass on the GPU")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="feeding-") as folder:
        path, size = photos(Path(folder), options.pairs)
        result = {family: measure(family, path, options.compute, options.threads) for family in ("llava", "qwen")}
    about = {"pairs": options.pairs, "compute_s_per_pass": options.compute, "threads": options.threads}
    load = round(os.getloadavg()[0], 1)
    output.tell({**result, **about, "jpeg_bytes": size, "load": load, **output.MACHINE}, options.json)


if __name__ == "__main__":
    main()
