"""``sampling.py --questions N``: N prompts about each image, one after the other (grouped) or anywhere (scattered).

Grouped, an image is decoded and encoded once and its prefix lies in the cache; scattered, as much as the caches hold of
it. A turn samples in both orders, each over images of its own, because the caches outlive a turn. What counts is the
median over turns of the ratio within a turn. A large model's caches hold a small part of its data; those of a small
one do with ``--max-num-batched-tokens`` (which is the encoder's cache) and ``--engine-args``.
"""

from __future__ import annotations

import itertools
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

ORDERS = ("grouped", "scattered")


def prompts(count: int, questions: int, turn: int) -> list[dict[str, Any]]:
    """``count`` prompts, ``questions`` about each image, in the order of the turn."""
    from pipeline.scenes.prompts import build

    rows = list(itertools.islice(build(-(-count // questions) + 1, questions - 1, seed=77 + turn), count))
    if ORDERS[turn % 2] == "scattered":
        random.Random(turn).shuffle(rows)
    return rows


def compare(
    names: Sequence[str], turns: int, count: int, run: Callable[[str, int], tuple[int, float]]
) -> dict[str, Any]:
    """``run`` gives tokens and seconds of a way in a turn."""
    rates: dict[str, dict[str, list[float]]] = {name: {order: [] for order in ORDERS} for name in names}
    seconds: dict[str, dict[str, list[float]]] = {name: {order: [] for order in ORDERS} for name in names}
    for turn in range(turns):
        for name, number in itertools.product(names, range(2)):
            tokens, took = run(name, 2 * turn + number)
            order = ORDERS[number]
            rates[name][order].append(tokens / took)
            seconds[name][order].append(took)
            print(f"turn {turn}: {name}, {order}: {tokens / took:,.1f} tokens/s, {count / took:,.1f} prompts/s",
                  file=sys.stderr)  # fmt: skip
    result: dict[str, Any] = {}
    for name in names:
        ratios = [a / b for a, b in zip(rates[name]["grouped"], rates[name]["scattered"], strict=True)]
        result[name] = {
            **{f"{order}_tokens_per_s": round(statistics.median(rates[name][order]), 1) for order in ORDERS},
            **{f"{order}_prompts_per_s": round(count / statistics.median(seconds[name][order]), 1) for order in ORDERS},
            "grouped_over_scattered": round(statistics.median(ratios), 2),
            "of_each_turn": [round(ratio, 2) for ratio in ratios],
        }
    return result
