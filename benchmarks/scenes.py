"""Scenes per second on one core: drawn pixels and exact facts. Prints JSON. ``python -m benchmarks.scenes``"""

from __future__ import annotations

import json
import platform
import time

from pipeline.scenes import draw, prompts
from pipeline.scenes.world import scene

COUNT = 10_000


def rate(with_png: bool) -> float:
    start = time.perf_counter()
    for index in range(COUNT):
        one = scene(0, index)
        draw.png(one) if with_png else draw.pixels(one)
        prompts.facts(one)
    return COUNT / (time.perf_counter() - start)


if __name__ == "__main__":
    rate(with_png=False)  # fills the glyph cache
    result = {
        "machine": platform.processor() or platform.machine(),
        "scenes_per_second": round(rate(with_png=False)),
        "scenes_per_second_with_png": round(rate(with_png=True)),
    }
    print(json.dumps(result, indent=2))
