"""A run directory as a finished quickstart leaves it, made in a second from scenes and canned captions."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.base.tables import CANDIDATES, OK, PAIRS, PROMPTS, SCORES, error_status
from pipeline.running.store import Run, make_record
from pipeline.scenes import prompts, raster
from pipeline.scenes.vocabulary import OBJECTS, VOCABULARY, article
from pipeline.scenes.world import Scene, scene
from reward.scorers.correctness import CorrectnessScorer
from reward.scorers.objects import ObjectScorer

RECIPE: dict[str, Any] = {
    "name": "quickstart",
    "seed": 0,
    "source": {"kind": "scenes", "scenes": 45},
    "sample": {
        "model": "scenes-vlm",
        "revision": None,
        "n": 4,
        "temperature": 1.0,
        "max_tokens": 96,
        "engine": {"kind": "vllm", "dtype": "auto", "api_key": "sk-very-secret-0123456789"},
    },
    "score": {"scorers": ["objects", "correctness", "clip"]},
    "pair": {
        "policy": "best_vs_worst",
        "weights": {"objects.hallucinated": -1, "objects.covered": 0.25},
        "margin": 0.5,
    },
}
COMMAND = "HF_TOKEN=hf_secretsecret python -m pipeline.run quickstart sample.engine.api_key=sk-very-secret-0123456789"
FAILED = 3  # prompts 0, 1 and 2 fail, each in another stage


def make(run_dir: Path, prompts_count: int = 90, shards: int = 2, unfinished: int = 0) -> Path:
    """``prompts_count`` prompts, every third a question; the last ``unfinished`` have no row after ``source``."""
    rng = random.Random(0)
    rows = [_prompt(index, rng) for index in range(prompts_count)]
    rows[0].update(error_status("unreadable_image", "prompt 0: truncated PNG"))
    answered = rows[: prompts_count - unfinished]
    candidates = [_candidates(row, rng) for row in answered]
    candidates[1].update(
        candidates=None, **error_status("engine", "prompt too long: 5000 tokens, api_key=sk-hidden-0123456789")
    )
    scores = [_scores(row, some, rng) for row, some in zip(answered, candidates, strict=True)]
    scores[2].update(scores=None, **error_status("scorer", "row 2: | cannot be <decoded>"))
    pairs = [_pair(row, some, of) for row, some, of in zip(answered, candidates, scores, strict=True)]
    run = Run(run_dir)
    size = -(-prompts_count // shards)
    for name, schema, table, inputs in (
        ("source", PROMPTS, rows, ()),
        ("sample", CANDIDATES, candidates, ("source",)),
        ("score", SCORES, scores, ("source", "sample")),
        ("pair", PAIRS, pairs, ("source", "sample", "score")),
    ):
        options = {**RECIPE[name], "model_identity": "sha256:0123456789abcdef"} if name == "sample" else RECIPE[name]
        record = make_record(name, 1, options, dict.fromkeys(inputs, "f" * 24))
        broken = sum(row["status"] != "ok" for row in table)
        run.save(
            type(record)(**{**vars(record), "seconds": 12.5, "rows": len(table), "failed": broken, "finished": True})
        )
        for shard in range(shards):
            part = table[shard * size : (shard + 1) * size]
            if part:
                run.write(name, shard, pa.Table.from_pylist(part, schema=schema))
    return run_dir


def add_training(run_dir: Path) -> None:
    """``train/metrics.jsonl`` with TRL's names, and ``summary.json`` with an evaluation before and after."""
    (run_dir / "train").mkdir(exist_ok=True)
    rng = random.Random(1)
    lines = []
    for step in range(1, 61):
        grown = 1 - math.exp(-step / 20)
        lines.append(
            {
                "step": step,
                "loss": 2.1 - 0.9 * grown + rng.gauss(0, 0.04),
                "rewards/chosen": 0.3 * grown + rng.gauss(0, 0.03),
                "rewards/rejected": -1.1 * grown + rng.gauss(0, 0.05),
                "rewards/margins": 1.4 * grown + rng.gauss(0, 0.06),
                "rewards/accuracies": min(1.0, 0.5 + 0.42 * grown + rng.gauss(0, 0.03)),
                "rewards/image_margins": 0.8 * grown + rng.gauss(0, 0.06),
                "learning_rate": 5e-6 * (1 - step / 60),
            }
        )
    (run_dir / "train" / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 61, "lo'
    )

    def summary(chair_i: float, chair_s: float, cover: float, words: float, pope: float, yes: float) -> dict[str, Any]:
        values = {"chair_i": chair_i, "chair_s": chair_s, "cover": cover, "pope_f1": pope - 0.01, "pope_yes_ratio": yes}
        values |= {
            f"pope_{split}_accuracy": pope - i * 0.03 for i, split in enumerate(("random", "popular", "adversarial"))
        }
        intervals = {f"{name}_ci": [value - 0.02, value + 0.022] for name, value in values.items()}
        counts = {"captions": 500, "pope_questions": 3600, "images": 500, "unparseable": 0, "failed": 0, "truncated": 2}
        return {**values, **intervals, **counts, "mean_length": words, "mean_length_ci": [words - 0.4, words + 0.4]}

    before = summary(0.130, 0.378, 0.912, 13.1, 0.81, 0.62)
    after = summary(0.075, 0.208, 0.892, 12.8, 0.86, 0.53)
    (run_dir / "summary.json").write_text(json.dumps({"before": before, "after": after}))


def _prompt(index: int, rng: random.Random) -> dict[str, Any]:
    picture = scene(7, index)
    text, source, facts = "Describe the image.", "scenes:7:describe", prompts.facts(picture)
    if index % 3 == 2:
        name = rng.choice(OBJECTS)
        text, source = f"Is there {article(name)} {name} in the image?", "scenes:7:existence"
        facts |= {"question_type": "existence", "answer": "yes" if name in picture.names else "no"}
    images = [{"bytes": raster.png(picture), "path": f"scene-7-{index}.png"}]
    message = [{"role": "user", "content": text}]
    return {"id": f"{index:05d}", "images": images, "prompt": message, "facts": facts, "source": source, **OK}


def _caption(picture: Scene, rng: random.Random) -> str:
    names = [name for name in sorted(picture.names) if rng.random() < 0.85]
    names += [rng.choice(OBJECTS)] if rng.random() < 0.45 else []
    phrases = [f"{article(name)} {name}" for name in names or [rng.choice(OBJECTS)]]
    return "The image shows " + ", ".join(phrases[:-1]) + (" and " if phrases[1:] else "") + phrases[-1] + "."


def _candidates(row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    picture, question = scene(7, int(row["id"])), row["facts"]["answer"] is not None
    texts = [rng.choice(("Yes.", "No.")) if question else _caption(picture, rng) for _ in range(4)]
    return {
        "id": row["id"],
        "candidates": [
            {
                "text": text,
                "origin": "sampled",
                "parent": None,
                "model": "scenes-vlm",
                "revision": "main",
                "seed": rng.getrandbits(40),
                "temperature": 1.0,
                "n_tokens": len(text.split()) + 2,
                "finish_reason": "stop",
                "logprob": -len(text.split()) * rng.random(),
                "edits": [],
            }
            for text in texts
        ],
        **OK,
    }


def _scores(row: dict[str, Any], some: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    ready = {"images": [], "prompt": row["prompt"], "facts": row["facts"], "candidates": some["candidates"] or []}
    scores = []
    for scorer in (ObjectScorer(VOCABULARY), CorrectnessScorer()):
        for name, values in scorer.score([ready]).items():
            scores.append({"name": name, "version": scorer.version, "values": values[0]})
    cosines = [rng.gauss(0.27, 0.04) for _ in ready["candidates"]]
    scores.append({"name": "clip.cosine", "version": "1:sha256:0123456789abcdef", "values": cosines})
    return {"id": row["id"], "scores": scores, **OK}


def _pair(row: dict[str, Any], some: dict[str, Any], of: dict[str, Any]) -> dict[str, Any]:
    empty = dict.fromkeys(("chosen", "rejected", "chosen_score", "rejected_score", "margin", "reason"))
    base = {"id": row["id"], "policy": "best_vs_worst", **empty, **OK}
    if "failed" in (row["status"], some["status"], of["status"]):
        return {**base, **error_status("upstream", "an earlier stage failed")}
    values = {score["name"]: score["values"] for score in of["scores"]}
    ranked = [
        value if value is not None else (covered or 0) * 0.25 - (wrong or 0)
        for value, covered, wrong in zip(
            values["correctness"], values["objects.covered"], values["objects.hallucinated"], strict=True
        )
    ]
    best, worst = max(ranked), min(ranked)
    if best - worst < 0.5:
        return {**base, "reason": "margin" if best > worst else "tie"}
    chosen, rejected = ranked.index(best), ranked.index(worst)
    return {
        **base,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_score": best,
        "rejected_score": worst,
        "margin": best - worst,
    }
