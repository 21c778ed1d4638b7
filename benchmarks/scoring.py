"""How much faster the likelihood scores when prompt and images run once for all answers of a row, beside one by one.

    python benchmarks/scoring.py --geometry llava --json OUT

Turns of both ways alternate, in one process and from the same weights: ``scenes`` is the built-in model (64 image
tokens), ``llava`` a small one with LLaVA-1.5's 576 image tokens and random weights. Every row has one image, one
question of some 60 tokens and ``--answers`` answers of some 50.
"""

from __future__ import annotations

import io
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import output
import trainer

from pipeline.base import model_names
from pipeline.scenes import raster
from pipeline.scenes.vocabulary import OBJECTS
from pipeline.scenes.world import scene
from reward.scorers.likelihood import LikelihoodScorer


def rows(count: int, answers: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    made = []
    for index in range(count):
        image = io.BytesIO(raster.png(scene(3, index))).getvalue()
        texts = [{"text": " ".join(rng.choices(list(OBJECTS), k=50))} for _ in range(answers)]
        question = " ".join(rng.choices(list(OBJECTS), k=58))
        prompt = [{"role": "user", "content": question}]
        made.append({"images": [image], "prompt": prompt, "facts": None, "candidates": texts})
    return made


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--geometry", choices=("scenes", "llava"), default="llava")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scenes = options.geometry == "scenes"
        model = model_names.resolve("scenes-vlm") if scenes else str(trainer.llava(Path(folder), 1, seven_b=False)[0])
        ways = {way: LikelihoodScorer(model, share_prompt=way == "shared") for way in ("alone", "shared")}
        wanted = rows(options.rows, options.answers)
        values, seconds = {}, {way: list[float]() for way in ways}
        for scorer in ways.values():
            scorer.score(wanted[:1])  # opens the model, and tries sharing
        for _ in range(options.turns):
            for way, scorer in ways.items():
                started = time.perf_counter()
                values[way] = scorer.score(wanted)["likelihood"]
                seconds[way].append(time.perf_counter() - started)
    apart = [
        abs(one - other)
        for of_row, others in zip(values["alone"], values["shared"], strict=True)
        for one, other in zip(of_row, others, strict=True)
        if one is not None and other is not None
    ]
    rates = {way: options.rows * options.answers / statistics.median(of_way) for way, of_way in seconds.items()}
    result = {
        "geometry": options.geometry,
        "rows": options.rows,
        "answers": options.answers,
        "answers_per_second": {way: round(rate, 2) for way, rate in rates.items()},
        "shared_to_alone": round(rates["shared"] / rates["alone"], 2),
        "apart_nats_per_token": max(apart),
        **output.MACHINE,
    }
    output.tell(result, options.json)


if __name__ == "__main__":
    main()
