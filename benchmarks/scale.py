"""What limits a large run: per-row costs of this machine's CPU, the driver beside many workers, and GPU time computed.

    python benchmarks/scale.py --json OUT

- ``images``: CPU milliseconds of one 1280 x 960 JPEG in the source (decoded, checked, hashed), and in the image
  processor of Qwen2.5-VL, one thread
- ``driver``: per shard, CPU microseconds and bytes to find out that it holds, measured over ``--shards`` shards; where
  the run's folder is ``--latency`` seconds away, seconds by a thousand shards of a stage for that, and to read the
  tables of a thousand shards as publishing does; ``one_by_one``: the same with one file at a time
- ``cluster``: ``pipeline.run`` on a Ray cluster of ``--nodes`` nodes, each with processes of its own, where the
  scripted engine takes ``--answer-seconds`` for each prompt: how busy the workers were, from the first shards on, and
  the driver's CPU milliseconds by a shard
- ``gpu``: hours of one H100, at best and at worst, computed by ``training.sizing.speed``

CPU time rather than time, so that a busy machine says the same.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import orchestration  # noqa: E402
import output  # noqa: E402
import yaml  # noqa: E402

IMAGES, ANSWERS = 100_000, 8
TEXT, TOKENS = 60, 150
#: What a judge reads beside the image, and writes, for each answer.
JUDGE_TEXT, JUDGE_TOKENS = 400, 200
#: Arithmetic and memory that an engine reaches, at best and at worst: assumed.
BEST, WORST = (0.5, 0.8), (0.25, 0.5)
#: CLIP ViT-L/14 at 336 pixels: parameters and tokens of its towers.
CLIP = {"image": (304e6, 577), "text": (123e6, 77)}


def cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def images(count: int) -> dict[str, float]:
    import numpy as np
    import torch
    from PIL import Image
    from transformers import Qwen2VLImageProcessor

    from pipeline.sources.admission.verdicts import Verdicts

    torch.set_num_threads(1)
    files = []
    for seed in range(count):
        file = io.BytesIO()
        noise = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((1280, 960), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    verdicts = Verdicts(50_000_000, 100_000_000, hashed=True)
    wanted: dict[str | bytes, Any] = {
        bytes([seed]): ({"bytes": data, "path": None}, None) for seed, data in enumerate(files)
    }
    source = cpu_seconds(lambda: verdicts.look(wanted))
    verdicts.close()
    processor = Qwen2VLImageProcessor(size={"shortest_edge": 3136, "longest_edge": 12845056})
    opened = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    processor(opened[0], return_tensors="pt")
    processed = cpu_seconds(lambda: [processor(image, return_tensors="pt") for image in opened])
    return {
        "bytes": round(sum(map(len, files)) / count),
        "source_cpu_ms": round(source / count * 1e3, 1),
        "processor_cpu_ms": round(processed / count * 1e3, 1),
    }


def driver(shards: int, far: int, latency: float) -> dict[str, Any]:
    from fsspec.implementations.memory import MemoryFileSystem

    from pipeline.base.files import locate
    from pipeline.running import joined
    from pipeline.running.store import Run, Survey

    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        run = Run(Path(name))
        _fill(run, ("source",), shards)
        gc.collect()
        survey, before = Survey(run), _resident()
        spent = cpu_seconds(lambda: survey.look("source", run.shards("source")))
        size = (_resident() - before) / shards
    run = Run(locate("memory://scale/run"))
    _fill(run, joined.STAGES, far)
    real = MemoryFileSystem._open

    def slow(self: Any, *args: Any, **options: Any) -> Any:
        time.sleep(latency)
        return real(self, *args, **options)

    MemoryFileSystem._open = slow
    try:
        start = time.monotonic()
        Survey(run).look("source", run.shards("source"))
        looked = time.monotonic() - start
        read = sum(1 for _ in joined.shards(run))
        joining = time.monotonic() - start - looked
        start, few = time.monotonic(), max(1, far // 10)
        for shard in range(few):
            run.about("source", shard)
        looked_alone = time.monotonic() - start
        for shard in range(few):
            for stage in joined.STAGES:
                run.read(stage, shard)
        joining_alone = time.monotonic() - start - looked_alone
    finally:
        MemoryFileSystem._open = real
    assert read == far
    return {
        "shards": shards,
        "look_cpu_us_per_shard": round(spent / shards * 1e6),
        "look_bytes_per_shard": round(size),
        "latency_s": latency,
        "far_look_s_per_1000": round(looked / far * 1e3, 1),
        "far_look_one_by_one": round(looked_alone / few * 1e3, 1),
        "far_join_s_per_1000": round(joining / far * 1e3, 1),
        "far_join_one_by_one": round(joining_alone / few * 1e3, 1),
    }


def _fill(run: Any, stages: tuple[str, ...], shards: int) -> None:
    from pipeline.base.tables import CANDIDATES, PAIRS, PROMPTS, SCORES
    from pipeline.running.store import make_record

    schemas = {"source": PROMPTS, "sample": CANDIDATES, "score": SCORES, "pair": PAIRS}
    for stage in stages:
        record = make_record(stage, 1, {}, {})
        run.save(record)
        for shard in range(shards):
            inputs, extras = dict.fromkeys(schemas, "0" * 32), {"candidates": shard, "tokens": shard}
            run.write(stage, shard, schemas[stage].empty_table(), inputs, extras=extras, by=record)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def cluster(nodes: int, per_node: int, prompts: int, shard: int, answer_seconds: float) -> dict[str, Any]:
    from ray.cluster_utils import Cluster

    workers = nodes * per_node
    there = Cluster(initialize_head=True, head_node_args={"num_cpus": per_node + 1, "object_store_memory": 1 << 27})
    try:
        for _ in range(nodes - 1):
            there.add_node(num_cpus=per_node, object_store_memory=1 << 27)
        there.wait_for_nodes()
        with tempfile.TemporaryDirectory(prefix="scale-") as name:
            folder = Path(name)
            orchestration.write_input(folder, prompts)
            recipe = orchestration.recipe(folder, shard, workers)
            recipe["sample"]["engine"]["seconds_per_request"] = answer_seconds
            (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
            env = {**os.environ, "RAY_ADDRESS": there.address, "HF_HUB_OFFLINE": "1"}
            command = [sys.executable, "-m", "pipeline.run", str(folder / "recipe.yaml"), "--stages", "source,sample"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, env=env, check=True, cwd=ROOT)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = sorted(path.stat().st_mtime for path in (folder / "run" / "sample").glob("data-*.arrow"))
    finally:
        there.shutdown()
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # A worker answers two shards at a time. The first of all of them come at once, after the start.
    together = 2 * workers
    rate = (len(done) - together) / (done[-1] - done[together - 1])
    return {
        "nodes": nodes,
        "workers": workers,
        "shards": len(done),
        "shard_size": shard,
        "answer_seconds": answer_seconds,
        "shards_per_s": round(rate, 2),
        "workers_busy": round(rate * shard * answer_seconds / together, 3),
        "driver_cpu_s": round(spent, 2),
        "driver_cpu_ms_per_shard": round(spent / len(done) * 1e3, 1),
    }


def gpu() -> dict[str, Any]:
    """Hours of one H100 for ``IMAGES`` images: at best, at worst."""
    from training.sizing.architecture import read_architecture
    from training.sizing.sample_memory import GIB, sample_memory
    from training.sizing.shapes import SHAPES
    from training.sizing.speed import Asked, Share, seconds
    from training.sizing.train_memory import Lengths

    report: dict[str, Any] = {}
    for name, shape in SHAPES.items():
        architecture = read_architecture(shape.config(), name)
        patches = shape.image * (1 if name.startswith("LLaVA") else 4)
        cards = 4 if name.endswith("72B") else 1
        prompt = shape.image + TEXT
        fit = sample_memory(architecture, 80 * GIB, cards, Lengths(prompt, TOKENS), ANSWERS).answers
        texts, judged = 3 * ANSWERS, JUDGE_TEXT + shape.image
        asked = {
            "sampling": (1, Asked(prompt, patches, ANSWERS, TOKENS, prompt)),
            # About each answer of three models; the image is computed for the first of them.
            "judging": (texts, Asked(JUDGE_TEXT + shape.image / texts, patches / texts, 1, JUDGE_TOKENS, judged)),
        }
        for stage, (times, request) in asked.items():
            both = [
                [IMAGES * times * part / 3600 for part in seconds(architecture, request, Share(*share), min(256, fit))]
                for share in (BEST, WORST)
            ]
            report[f"{stage}, {name}"] = _hours([sum(hours) for hours in both], both)
    work = 2 * IMAGES * (CLIP["image"][0] * CLIP["image"][1] + 3 * ANSWERS * CLIP["text"][0] * CLIP["text"][1])
    report["CLIP"] = _hours([work / 989e12 / share[0] / 3600 for share in (BEST, WORST)])
    return report


def _hours(hours: list[float], parts: list[list[float]] | None = None) -> dict[str, Any]:
    split: Mapping[str, Any] = {"prompts": [round(part[0], 1) for part in parts],
                                "answers": [round(part[1], 1) for part in parts]} if parts else {}  # fmt: skip
    return {"hours": [round(value, 2) for value in hours], **split}


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--far", type=int, default=200)
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--per-node", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=8_192)
    parser.add_argument("--shard-size", type=int, default=32)
    parser.add_argument("--answer-seconds", type=float, default=0.1)
    parser.add_argument("--only", choices=("images", "driver", "cluster", "gpu"))
    options: argparse.Namespace = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "gpu": gpu,
        "images": lambda: images(options.images),
        "driver": lambda: driver(options.shards, options.far, options.latency),
        "cluster": lambda: cluster(
            options.nodes, options.per_node, options.prompts, options.shard_size, options.answer_seconds
        ),
    }
    chosen = [options.only] if options.only else list(parts)
    output.tell({**{name: parts[name]() for name in chosen}, **output.MACHINE}, options.json)


if __name__ == "__main__":
    main()
