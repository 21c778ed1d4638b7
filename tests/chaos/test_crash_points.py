"""At every change that a run makes on the disk the process is stopped; then the same recipe is run again, or another
one and then the first. What comes out is, byte for byte, what comes of a recipe that was left in peace.

``make chaos`` tries every point, ``make test`` some of them. A kill leaves what was written; a power cut, besides, only
half of what was not synced.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import pickle
import random
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from crash_kit import STOPPED, Change, Watch, child, files, quiet, tree, unfinished, unsafe, unseen

#: How many points of each scenario; all of them with CHAOS_POINTS=all.
POINTS = os.environ.get("CHAOS_POINTS", "2")
TEXTS = ["The image shows a sun.", "The image shows a sun and an anchor.", "Yes.", "No.", "a cup, a horse and a king"]
FIRST: dict[str, Any] = {
    "name": "run",
    "output_dir": ".",
    "shard_size": 4,
    "source": {"scenes": 4, "questions_per_scene": 1},
    "sample": {"model": "canned", "n": 4, "engine": {"kind": "scripted", "texts": TEXTS}},
    "score": {"scorers": ["objects", "correctness"]},
    "pair": {"weights": {"objects.hallucinated": -1, "correctness": 1}, "margin": 0.5, "max_length_ratio": 9},
    "evaluate": {"scenes": 2, "per_image": 1, "max_tokens": 16},
}
#: Recipes that change what an early stage makes, a late one, which stages there are, and how the rows lie.
OTHERS: dict[str, dict[str, Any]] = {
    "margin": {"pair": {**FIRST["pair"], "margin": 1.5}},
    "fewer prompts": {"source": {"scenes": 3, "questions_per_scene": 1}},
    "more tokens": {"sample": {**FIRST["sample"], "max_tokens": 400}},
    "other answers": {"sample": {**FIRST["sample"], "n": 3}},
    "no questions scored": {
        "score": {"scorers": ["objects"]},
        "pair": {**FIRST["pair"], "weights": {"objects.hallucinated": -1}},
        "evaluate": None,
    },
    "images twice": {"publish": {"images_in_candidates": True, "rows_per_shard": 3}},
    "larger shards": {"shard_size": 5},
    "benchmarks": {"evaluate": {"kind": "benchmarks", "suites": ["pope"], "data": "../benchmarks"}},
}


def drive(changes: dict[str, Any]) -> None:
    """The run of a recipe, here."""
    from pipeline import run
    from pipeline.recipe.load import make_recipe
    from pipeline.recipe.plan import Plan
    from training import job

    recipe = make_recipe({**FIRST, **changes})
    plan = Plan(recipe, job.evaluation_of(recipe))
    run._start(plan, "if-possible", None, ["python", "-m", "pipeline.run", "recipe.yaml"])


def pope_files(folder: Path) -> None:
    """POPE about two images, which a scripted engine has answers to."""
    from PIL import Image

    (folder / "pope" / "images").mkdir(parents=True)
    lines = []
    for number in range(2):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / "pope" / "images" / f"{number}.png")
        for name, label in (("sun", "yes"), ("cup", "no")):
            row = {"image": f"{number}.png", "text": f"Is there a {name} in the image?", "label": label}
            lines.append(json.dumps(row) + "\n")
    for split in ("random", "popular", "adversarial"):
        (folder / "pope" / f"coco_pope_{split}.json").write_text("".join(lines))


@dataclass
class Runs:
    """Runs of recipes in ``folder``, each in a process of its own. Everything heavy is imported here, once."""

    folder: Path
    clean: dict[str, dict[str, str]] = field(default_factory=dict)

    def warm(self, changes: dict[str, Any]) -> None:
        """Import here what a run of the recipe imports as it goes."""

        def work() -> None:
            os.chdir(self.place)
            quiet()
            drive(changes)
            (self.folder / "modules").write_text("\n".join(sys.modules))

        self.put(None)
        self.place.mkdir()
        assert child(work, self.folder / "log.txt") == 0, self.log_tail()
        for name in (self.folder / "modules").read_text().splitlines():
            with contextlib.suppress(Exception):  # some are no files
                importlib.import_module(name)

    def __post_init__(self) -> None:
        pope_files(self.folder / "benchmarks")
        for name in ("torch", "safetensors.torch"):  # whose writers are wrapped in every child
            importlib.import_module(name)
        self.warm({})

    @property
    def place(self) -> Path:
        return self.folder / "now"

    def run(self, changes: dict[str, Any], watch: Watch | None = None) -> int:
        """The exit status."""

        def work() -> None:
            os.chdir(self.place)
            quiet()
            if watch is not None:
                watch.start()
            drive(changes)
            if watch is not None:
                done = list(watch.changes), dict(watch.left)
                (self.folder / "changes").write_bytes(pickle.dumps(done))

        self.place.mkdir(exist_ok=True)
        return child(work, self.folder / "log.txt")

    def changes(self, before: Path | None, changes: dict[str, Any]) -> list[Change]:
        """Every change that the recipe makes on the disk, which begins where ``before`` is."""
        self.put(before)
        assert self.run(changes, Watch(str(self.place))) == 0, self.log_tail()
        recorded: list[Change] = pickle.loads((self.folder / "changes").read_bytes())[0]
        return recorded

    def finish(self, changes: dict[str, Any]) -> dict[str, str]:
        assert self.run(changes) == 0, self.log_tail()
        return outputs(self.place / "run", changes)

    def alone(self, name: str, changes: dict[str, Any]) -> dict[str, str]:
        """What comes of a recipe that nothing was before."""
        if name not in self.clean:
            self.put(None)
            self.clean[name] = self.finish(changes)
        return self.clean[name]

    def put(self, state: Path | None) -> None:
        """Have the run be as it is in ``state``."""
        shutil.rmtree(self.place, ignore_errors=True)
        if state is not None:
            shutil.copytree(state, self.place)

    def keep(self, name: str) -> Path:
        """Keep the run as it is."""
        kept = self.folder / name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.place, kept)
        return kept

    def log_tail(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")[-3000:]


def outputs(run: Path, changes: dict[str, Any]) -> dict[str, str]:
    """Digests of all that a run is made for, and of the rows of each of its stages in whatever shards they lie."""
    from pipeline.recipe.load import make_recipe
    from pipeline.recipe.plan import Plan
    from pipeline.running.store import Run
    from training import job

    assert unfinished(run) == []
    digests = {f"dataset/{name}": digest for name, digest in tree(run / "dataset").items()}
    digests |= {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in ("summary.json", "report.html")}
    recipe = make_recipe({**FIRST, **changes})
    for stage in Plan(recipe, job.evaluation_of(recipe)).generation():
        rows = Run(run).table(stage.name).sort_by("id").to_pylist()
        digests[f"rows of {stage.name}"] = hashlib.sha256(repr(rows).encode()).hexdigest()
    if (changes.get("evaluate") or {}).get("kind") == "benchmarks":
        before = run / "evaluate" / "before"
        digests |= {f"before/{name}": digest for name, digest in tree(before).items() if name.startswith("results.")}
    if changes.get("train"):
        for name in ("model", "adapter"):
            digests |= {f"{name}/{file}": digest for file, digest in tree(run / "train" / name).items()}
        digests["metrics"] = (run / "train" / "metrics.jsonl").read_text()
    return digests


def differing(result: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    return sorted(name for name in result.keys() | wanted.keys() if result.get(name) != wanted.get(name))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    yield Runs(tmp_path_factory.mktemp("crash"))


@dataclass
class Tried:
    """Of one scenario: every difference found. What a stop leaves is tried once, at whichever points it was."""

    points: int = 0
    states: set[str] = field(default_factory=set)
    differences: list[str] = field(default_factory=list)

    def check(self, what: str, result: dict[str, str], wanted: dict[str, str]) -> None:
        if lost := differing(result, wanted):
            self.differences.append(f"{what}: {', '.join(lost)}")


def crash(
    runs: Runs, before: Path | None, stopped: tuple[str, dict[str, Any]], other: tuple[str, dict[str, Any]]
) -> tuple[Tried, int]:
    """Stop the recipe ``stopped``, which begins where ``before`` is, at its points: run it again; or ``other``, then
    it. Returns also how many points there are."""
    wanted = {name: runs.alone(name, changes) for name, changes in (stopped, other)}
    draw = random.Random(f"{stopped[0]}/{other[0]}/{before is None}")
    chosen = None
    if POINTS != "all":
        every = [(point, power) for point in range(len(runs.changes(before, stopped[1]))) for power in (False, True)]
        chosen = frozenset(draw.sample(every, int(POINTS)))
    states = runs.folder / "states"
    shutil.rmtree(states, ignore_errors=True)
    runs.put(before)
    assert runs.run(stopped[1], Watch(str(runs.place), keep=states, wanted=chosen)) == 0, runs.log_tail()
    changes, left = pickle.loads((runs.folder / "changes").read_bytes())
    assert unsafe(changes) == [] and (before is not None or unseen(runs.place, changes) == [])
    if stopped[1].get("train"):
        # The tokenizer is written in Rust, into a folder that is synced whole before it gets its name.
        assert {Path(path).name for path in unseen(runs.place / "run" / "train", changes)} == {"tokenizer.json"}
    tried = Tried(points=len(left))
    for (point, power), name in left.items():
        if name in tried.states:
            continue
        tried.states.add(name)
        at = f"point {point} ({changes[point].what} {changes[point].paths[-1]}{', power cut' if power else ''})"
        runs.put(states / name)
        tried.check(f"{at}, the same again", runs.finish(stopped[1]), wanted[stopped[0]])
        runs.put(states / name)
        tried.check(f"{at}, {other[0]}", runs.finish(other[1]), wanted[other[0]])
        tried.check(f"{at}, {other[0]} and back", runs.finish(stopped[1]), wanted[stopped[0]])
    return tried, 2 * len(changes)


def say(scenario: str, tried: Tried, of: int, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        count = f"{tried.points} of {of} crash points left {len(tried.states)} states"
        print(f"\n{scenario}: {count}, {len(tried.differences)} differences")
    assert tried.differences == []


def test_a_new_run(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    say("a new run", *crash(runs, None, ("first", {}), ("margin", OTHERS["margin"])), capsys)


@pytest.mark.parametrize("other", OTHERS)
def test_another_recipe_over_a_finished_run(runs: Runs, other: str, capsys: pytest.CaptureFixture[str]) -> None:
    runs.alone("first", {})
    runs.put(None)
    runs.finish({})
    finished = runs.keep("finished")
    say(f"{other} over a finished run", *crash(runs, finished, (other, OTHERS[other]), ("first", {})), capsys)


def test_the_harness_would_see_a_shard_of_another_recipe(runs: Runs) -> None:
    """A negative control: a store that believes shards by their record alone, as before."""
    from pipeline.running.store import Record

    believes = Record.believes
    try:
        Record.believes = lambda self, about: True  # type: ignore[method-assign]
        wanted = runs.alone("margin", OTHERS["margin"])
        runs.put(None)
        runs.finish({})
        (runs.place / "run" / "pair" / "stage.json").unlink()
        assert "rows of pair" in differing(runs.finish(OTHERS["margin"]), wanted)
    finally:
        Record.believes = believes  # type: ignore[method-assign]
        runs.put(None)


def test_what_is_kept_of_a_moment_is_what_a_stop_leaves(runs: Runs) -> None:
    """Of the harness, at some points. The lock and what is being written name the process."""

    def left(folder: Path) -> tuple[list[str], dict[str, bytes]]:
        folders = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir())
        held = {str(path.relative_to(folder)): path.read_bytes() for path in files(folder)}
        named = {re.sub(r"\.\d+\.tmp$", ".tmp", name): data for name, data in held.items()}
        return folders, {name: data for name, data in named.items() if not name.endswith(".lock")}

    changes = runs.changes(None, {})
    every = [(point, power) for point in range(len(changes)) for power in (False, True)]
    points = random.Random(0).sample(every, 6)
    states = runs.folder / "states"
    shutil.rmtree(states, ignore_errors=True)
    runs.put(None)
    assert runs.run({}, Watch(str(runs.place), keep=states, wanted=frozenset(points))) == 0, runs.log_tail()
    kept = pickle.loads((runs.folder / "changes").read_bytes())[1]
    for point, power in points:
        runs.put(None)
        assert runs.run({}, Watch(str(runs.place), point, power)) == STOPPED, runs.log_tail()
        now, then = left(runs.place), left(states / kept[point, power])
        assert now[0] == then[0] and differing(now[1], then[1]) == []


def test_what_is_stopped_is_told(tmp_path: Path) -> None:
    """Of the harness: it stops before the change, and a power cut takes half of what was not synced."""
    (tmp_path / "run").mkdir()

    def work(stop: int, power: bool) -> None:
        Watch(str(tmp_path / "run"), stop, power).start()
        with (tmp_path / "run" / "a.tmp").open("wb") as file:
            file.write(b"12345678")
            file.flush()
            if power is None:
                os.fsync(file.fileno())
        os.replace(tmp_path / "run" / "a.tmp", tmp_path / "run" / "a")
        (tmp_path / "run" / "a").unlink()

    def append(stop: int) -> None:
        Watch(str(tmp_path / "run"), stop, power=True).start()
        for data in (b"12345678", b"90ab"):
            with (tmp_path / "run" / "log").open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    left = []
    for stop, power in ((0, False), (1, False), (2, False), (2, True), (9, True)):
        code = child(lambda stop=stop, power=power: work(stop, power), tmp_path / "log")
        files = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
        left.append((code, files))
        for path in (tmp_path / "run").iterdir():
            path.unlink()
    whole = b"12345678"
    assert left == [
        (STOPPED, {}),
        (STOPPED, {"a.tmp": whole}),
        (STOPPED, {"a": whole}),
        (STOPPED, {"a": whole[:4]}),
        (0, {}),
    ]
    kept = []
    for stop in (1, 3):
        assert child(lambda stop=stop: append(stop), tmp_path / "log") == STOPPED
        kept.append((tmp_path / "run" / "log").read_bytes())
        (tmp_path / "run" / "log").unlink()
    assert kept == [b"1234", b"1234567890"], "what was synced before stays"
