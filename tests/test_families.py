"""Tiny models of real families through everything: sampled, scored by CLIP and by how likely the texts are, paired,
published, trained with LoRA and mDPO in bfloat16, merged, opened by vLLM again, measured before and after.

``make families`` takes all of them; otherwise two do, one that shares prefixes in training and one that cannot.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open
from tiny_models import FAMILIES, Family, image, save

ROOT = Path(__file__).parents[1]
USUAL = ("LLaVA-1.5", "Gemma 3")
TRIED = [family for family in FAMILIES if os.environ.get("FAMILIES") == "all" or family.name in USUAL]
IMAGES = 3


def recipe(folder: Path) -> dict[str, object]:
    """Answers of a random model end nowhere, so a frequent letter ends them."""
    return {
        "name": "family",
        "output_dir": str(folder / "runs"),
        "source": {"kind": "jsonl", "path": str(folder / "prompts.jsonl")},
        "sample": {
            "model": str(folder / "model"),
            "n": 6,
            "max_tokens": 48,
            "stop": list("aeiou"),
            "engine": {"kind": "vllm", "dtype": "bfloat16"},
        },
        "score": {"scorers": ["clip", "likelihood"], "clip": {"model": "scenes-clip"}},
        "pair": {"weights": {"clip.cosine": 1.0}, "margin": 1e-9, "max_length_ratio": 50.0},
        "train": {
            "objective": "mdpo",
            "tuning": "lora",
            "lora": {"r": 4, "alpha": 8},
            "dtype": "bfloat16",
            "learning_rate": 1e-2,
            "max_steps": 3,
            "batch_size": 4,
            "micro_batch_size": 2,
        },
        "evaluate": {"kind": "scenes", "scenes": 2, "max_tokens": 24},
    }


@pytest.mark.parametrize("family", TRIED, ids=attrgetter("name"))
def test_a_family_from_images_to_a_measured_model(family: Family, tmp_path: Path) -> None:
    save(family, tmp_path / "model")
    lines = []
    for number in range(IMAGES):
        (tmp_path / f"{number}.png").write_bytes(image(1 + number % 2, 1, number))
        lines += [{"image": f"{number}.png", "prompt": prompt} for prompt in ("Describe it.", "What is here?")]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TORCH_COMPILE_DISABLE": "1"}
    command = [sys.executable, "-m", "pipeline.run", str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs" / "family"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["pairs"] > 0 and summary["stages"]["sample"]["rows"] == len(lines)
    for name in ("before", "after"):
        assert summary["evaluation"][name]
    assert differ(tmp_path / "model", run / "train" / "model")


def differ(base: Path, trained: Path) -> set[str]:
    """The weights that training has changed."""
    with (
        safe_open(base / "model.safetensors", "pt") as before,
        safe_open(trained / "model.safetensors", "pt") as after,
    ):
        assert set(before.keys()) == set(after.keys())
        return {
            name
            for name in before.keys()  # noqa: SIM118 (no mapping)
            if not before.get_tensor(name).float().equal(after.get_tensor(name).float())
        }
