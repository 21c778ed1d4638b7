"""The tables of the evidence page."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.config.load import load_recipe
from training.config.load import make_config
from training.evidence import ablation
from training.evidence.__main__ import ABLATIONS
from training.evidence.before_after import table
from training.evidence.runs import run_variant


def summary(before: float, after: float) -> dict[str, object]:
    return {"evaluation": {"before": {"chair_s": before}, "after": {"chair_s": after}}}


def test_a_row_has_means_deviations_and_the_change_of_the_means() -> None:
    lines = table([summary(0.4, 0.1), summary(0.2, 0.2)]).splitlines()
    assert lines[2] == "| chair_s | 0.300 ± 0.141 | 0.150 ± 0.071 | -0.150 | -50.0 % |"
    assert len(lines) == 3


@pytest.mark.parametrize("before", [0.0])
def test_no_relative_change_from_nothing(before: float) -> None:
    assert table([summary(before, 0.1)]).splitlines()[2].endswith("| +0.100 | - |")


def test_an_ablation_has_a_row_per_variant_and_a_dash_where_a_thing_was_not_measured() -> None:
    keys = [key for _, key in ablation.COLUMNS]
    run = {"evaluation": {side: dict.fromkeys(keys, value) for side, value in (("before", 0.5), ("after", 0.25))}}
    steps = [{"step": i, "rewards/chosen": float(i)} for i in range(5)]
    lines = ablation.table({"DPO": [(run, steps), (run, steps)]}).splitlines()
    assert lines[2] == "| before | " + " | ".join(["0.500 ± 0.000"] * len(keys) + ["-", "-"]) + " |"
    assert lines[3] == "| DPO | " + " | ".join(["0.250 ± 0.000"] * len(keys) + ["3.000 ± 0.000", "-"]) + " |"


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_variant_is_a_valid_recipe_and_training_configuration(name: str) -> None:
    recipe, variants = ABLATIONS[name]
    assert len({variant.label for variant in variants}) == len({variant.name for variant in variants}) == len(variants)
    for variant in variants:
        train = load_recipe(recipe, list(variant.overrides)).train
        values: dict[str, object] = {"model": "m", "dataset": "d", "output_dir": "o"}
        make_config(values | dict(train or {}))


def test_a_variant_shares_the_data_and_trains_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        folder = Path("runs") / next(word for word in command if word.startswith("name="))[5:]
        if "name=mdpo-seed-1" in command:
            for file in ("pair/data-0.arrow", "train/model/weights", "eval-after/data-0.arrow", "summary.json"):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_text("x")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    found = run_variant("mdpo", 1, ablation.TERMS[1])
    assert sorted(path.name for path in found.iterdir()) == ["pair"]
    assert [command[3:] for command in commands][-1] == [
        *("mdpo", "name=mdpo-seed-1-no-image-term", "seed=1", "train.weights.image=0")
    ]
