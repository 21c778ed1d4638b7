"""What the built-in models can do: ``python -m pipeline.scenes.models_build.card_numbers`` prints the numbers of their
cards as JSON.

Read with ``transformers`` and ``open_clip`` alone, so that the figures do not depend on the engine under test.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.base.command import command
from pipeline.base.model_names import SCENES as MODELS
from pipeline.base.model_names import resolve
from pipeline.scenes import grammar, raster
from pipeline.scenes.models_build.build import SKILLS
from pipeline.scenes.models_build.describing import ask, describing
from pipeline.scenes.models_build.train_reward_model import BACKBONE, pair
from pipeline.scenes.vocabulary import OBJECTS, THEMES
from pipeline.scenes.world import Scene, scene

HELD_OUT = 8_000_001


def answering(model: Any, processor: Any, scenes: Sequence[Scene]) -> dict[str, float]:
    """Existence questions over every present object, and as many absent ones: half of them typical, half any."""
    import random

    from sklearn.metrics import roc_auc_score

    questions: list[tuple[Scene, str, bool, bool]] = []
    for i, shown in enumerate(scenes):
        rng = random.Random(f"measure:{i}")
        for name in shown.names:
            questions.append((shown, name, True, True))
            absent = [n for n in THEMES[shown.theme] if n not in shown.names] if rng.random() < 0.5 else []
            typical = bool(absent)
            absent = absent or [n for n in OBJECTS if n not in shown.names]
            questions.append((shown, rng.choice(absent), False, typical))
    logits = ask(
        model, processor, [a[0] for a in questions], [grammar.existence(a[1]) for a in questions], max_new_tokens=0
    )
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Yes", "No"])
    scores = [(row.softmax(-1)[yes] - row.softmax(-1)[no]).item() for row in logits]
    truth = [a[2] for a in questions]
    hard = [i for i, a in enumerate(questions) if a[2] or a[3]]
    absent_yes = [score > 0 for score, a in zip(scores, questions, strict=True) if not a[2]]
    typical_yes = [score > 0 for score, a in zip(scores, questions, strict=True) if not a[2] and a[3]]
    return {
        "auc": float(roc_auc_score(truth, scores)),
        "auc_typical": float(roc_auc_score([truth[i] for i in hard], [scores[i] for i in hard])),
        "accuracy": sum((score > 0) == t for score, t in zip(scores, truth, strict=True)) / len(truth),
        "yes_ratio": sum(score > 0 for score in scores) / len(scores),
        "yes_when_absent": sum(absent_yes) / len(absent_yes),
        "yes_when_absent_but_typical": sum(typical_yes) / len(typical_yes),
    }


def clip_sees(folder: Path, scenes: Sequence[Scene]) -> dict[str, float]:
    """How often the true description scores above the same with one object exchanged for one of its theme."""
    import random
    from dataclasses import replace

    from reward.scorers.clip import ClipScorer

    rows = []
    for i, shown in enumerate(scenes):
        rng = random.Random(f"clip-measure:{i}")
        items = grammar.reading_order(shown)
        pool = [n for n in THEMES[shown.theme] if n not in shown.names] or [n for n in OBJECTS if n not in shown.names]
        k = rng.randrange(len(items))
        other = [*items[:k], replace(items[k], name=rng.choice(pool)), *items[k + 1 :]]
        texts = (grammar.describe(items, random.Random(i)), grammar.describe(other, random.Random(i)))
        rows.append({"images": [raster.png(shown)], "candidates": [{"text": text} for text in texts]})
    values = ClipScorer(folder).score(rows)["clip.cosine"]  # type: ignore[arg-type]
    return {"true_above_exchanged": sum(bool(a > b) for a, b in values) / len(values)}  # type: ignore[operator]


def prefers(folder: Path, base: Path, pairs: int) -> dict[str, dict[str, float]]:
    """How often the reward model in ``folder`` gives the better text of a held-out pair more, by kind of error, for
    descriptions and for answers; ``all`` of them together, and ``median_margin``, by how much the two rewards differ:
    a model may be right about what is better and yet say so with differences that are lost in a margin."""
    from reward.scorers.reward_model import RewardModelScorer

    made = [pair(HELD_OUT, index) for index in range(pairs)]
    rows: list[Any] = [
        {
            "images": list(edited.images),
            "prompt": [{"role": role, "content": content} for role, content in edited.prompt],
            "facts": None,
            "candidates": [{"text": edited.chosen}, {"text": edited.rejected}],
        }
        for edited in made
    ]
    values = RewardModelScorer(folder, base=str(base), batch_size=64).score(rows)["reward_model"]
    preferred: dict[str, dict[str, list[bool]]] = {"descriptions": {}, "answers": {}}
    margins: dict[str, list[float]] = {name: [] for name in preferred}
    for edited, (chosen, rejected) in zip(made, values, strict=True):
        name = "answers" if edited.chosen.strip(".") in ("Yes", "No") else "descriptions"
        margins[name].append(abs(chosen - rejected))  # type: ignore[operator]
        for kind in ("all", edited.kind or ""):
            preferred[name].setdefault(kind, []).append(bool(chosen > rejected))  # type: ignore[operator]
    return {
        name: {kind: sum(w) / len(w) for kind, w in sorted(group.items())}
        | {"median_margin": statistics.median(margins[name])}
        for name, group in preferred.items()
    }


def main(
    folder: Annotated[Path, typer.Option(help="Where the models are.")] = MODELS,
    scenes: Annotated[int, typer.Option(help="Held-out scenes.")] = 500,
    model: Annotated[
        str | None, typer.Option(help="Of this vision-language model alone: a folder, or a built-in name.")
    ] = None,
) -> None:
    """Print how well the built-in models see, and how they hallucinate."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    torch.manual_seed(0)
    held_out = [scene(HELD_OUT, i) for i in range(scenes)]
    numbers: dict[str, Any] = {"scenes": scenes}

    def seeing(place: Path) -> dict[str, Any]:
        network = LlavaForConditionalGeneration.from_pretrained(place, dtype=torch.float32).eval()
        processor = AutoProcessor.from_pretrained(place)
        return {
            "parameters": sum(p.numel() for p in network.parameters()),
            "greedy": describing(network, processor, held_out, do_sample=False),
            "sampled": describing(network, processor, held_out, do_sample=True, temperature=1.0, top_k=0),
            "existence": answering(network, processor, held_out),
        }

    if model is not None:
        print(json.dumps(numbers | {model: seeing(Path(resolve(model)))}, indent=2))
        return
    numbers |= {name: seeing(folder / name) for name in ("vlm", *SKILLS) if (folder / name).is_dir()}
    if (folder / "clip").is_dir():
        numbers["clip"] = clip_sees(folder / "clip", held_out)
    for name in ("reward", "reward-blind"):
        if (folder / name).is_dir():
            numbers[name] = prefers(folder / name, folder / BACKBONE, 2 * scenes)
    print(json.dumps(numbers, indent=2))


app = command(main)

if __name__ == "__main__":
    app()
