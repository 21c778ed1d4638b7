"""Scenes per second on one core: drawn pixels and exact facts.

    python benchmarks/scenes.py --json OUT

The PNG is what a run stores; without it the pixels alone are drawn.
"""

from __future__ import annotations

import time

import output

from pipeline.scenes import prompts, raster
from pipeline.scenes.world import scene

COUNT = 10_000


def rate(with_png: bool) -> float:
    start = time.perf_counter()
    for index in range(COUNT):
        drawing = scene(0, index)
        raster.png(drawing) if with_png else raster.pixels(drawing)
        prompts.facts(drawing)
    return COUNT / (time.perf_counter() - start)


def main() -> None:
    options = output.parser(__doc__).parse_args()
    rate(with_png=False)  # fills the glyph cache
    result = {
        "scenes_per_second": round(rate(with_png=False)),
        "scenes_per_second_with_png": round(rate(with_png=True)),
        **output.MACHINE,
    }
    output.tell(result, options.json)


if __name__ == "__main__":
    main()
