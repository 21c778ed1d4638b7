"""What docs/extending.md shows runs as it is written, from a package that is not part of the project."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import help_kit
import pytest
import yaml
from PIL import Image
from stage_kit import pending

from pipeline.base.errors import ConfigError
from training.config import make_config

PAGE = (help_kit.ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
CODE = dict(re.findall(r"```python\n# (mylab/\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
SHOWN = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
RECIPES = [yaml.safe_load(text) for text in SHOWN if not text.startswith("# train.yaml")]
#: Of ``python -m training.run``; together they are one configuration.
TRAINING = [yaml.safe_load(text) for text in SHOWN if text.startswith("# train.yaml")]
POINTS = "".join(re.findall(r"```toml\n\[project.entry-points.\"(.*?)\"\]\n(.*?)```", PAGE, re.DOTALL)[0][1])
OFFERED = (
    "corruptions]\nmosaic = mylab.mosaic:Mosaic",
    "losses]\noffset = mylab.offset:Offset",
    "objectives]\ngrounded = mylab.grounded:Grounded",
    "schemas]\nrated = mylab.rated:Rated",
    # Two of these are called as some of ours, which they do not replace.
    "sources]\narchive = mylab.archive:Archive\nscenes = mylab.archive:Archive",
    "engines]\nhouse = mylab.server:Server\nscripted = mylab.server:Server",
    "detectors]\nfinder = mylab.finder:Finder",
)
TEXTS = ["The image shows a sun.", "The image shows a sun and an anchor.", "Yes.", "No.", "a cup, a horse and a king"]
BASE: dict[str, Any] = {
    "name": "run",
    "shard_size": 4,
    "source": {"scenes": 6, "questions_per_scene": 1},
    "sample": {"model": "canned", "n": 4, "engine": {"kind": "scripted", "texts": TEXTS}},
    "pair": {"weights": {"objects.hallucinated": -1, "correctness": 1}, "margin": 0.05, "max_length_ratio": 9},
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the page's one in it, as an installer leaves it."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in CODE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    about = folder / "mylab-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 0.1\n")
    points = f"[vlm_preference.scorers]\n{POINTS.replace(chr(34), '')}"
    (about / "entry_points.txt").write_text(points + "".join(f"[vlm_preference.{line}\n" for line in OFFERED))
    return folder


def run(installed: Path, folder: Path, recipe: dict[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**BASE, "output_dir": str(folder), **recipe}))
    command = [sys.executable, "-m", "pipeline.run", str(folder / "recipe.yaml"), *words]
    path = os.pathsep.join([str(installed), str(help_kit.ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "RAY_ADDRESS": "local"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)


def merged(recipe: dict[str, Any]) -> dict[str, Any]:
    pair = {**BASE["pair"], **recipe.get("pair", {})}
    return {**recipe, "pair": {**pair, "margin": 0.05}}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """What the page's engine asks: the address of a server that answers as many texts as it is asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert request["model"] == "house-vlm" and request["images"] and request["messages"][0][0] == "user"
            count = request["n"] - ("few" in self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps([TEXTS[(request["seed"] + i) % len(TEXTS)] for i in range(count)]).encode())

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()


def zipped(path: Path, *rows: dict[str, Any]) -> None:
    """The input of the page's source."""
    with ZipFile(path, "w") as archive:
        for number, row in enumerate(rows):
            Image.new("RGB", (16, 16), (number * 40, 0, 90)).save(picture := io.BytesIO(), "PNG")
            archive.writestr(f"{number}.png", picture.getvalue())
            archive.writestr(f"{number}.json", json.dumps(row))


def photos(count: int = 6) -> list[dict[str, Any]]:
    facts = {"objects": [{"name": "sun", "count": 1}]}
    return [{"prompt": f"Describe image {number}.", "facts": facts} for number in range(count)]


def test_every_example_is_short() -> None:
    assert len(CODE) == 10 and all(len(text.splitlines()) <= 40 for text in CODE.values())


@pytest.mark.parametrize("keys", [("source", "sample", "score"), ("rewrite", "pair")], ids="-".join)
def test_examples_run(installed: Path, server: str, tmp_path: Path, keys: tuple[str, ...]) -> None:
    """Each under the key that it is about; those of two runs are all."""
    zipped(tmp_path / "photos.zip", *photos())
    shown = {next(iter(recipe)): recipe for recipe in RECIPES}
    assert len(shown) == len(RECIPES) == 5
    recipe = merged({key: value for about in keys for key, value in shown[about].items()})
    if "engine" in recipe.get("sample", {}):
        recipe["sample"] = {**recipe["sample"], "engine": {**recipe["sample"]["engine"], "url": server}}
    done = run(installed, tmp_path, recipe, "--stages", "source,sample,rewrite,score,pair,publish")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["pairs"] > 0 and not any(stage["failed"] for stage in summary["stages"].values())
    card = (tmp_path / "run" / "dataset" / "README.md").read_text()
    ours = {
        "source": "archive:Archive",
        "rewrite": "finder:Finder",
        "score": "brevity:Brevity",
        "pair": "nearest:Nearest",
    }
    assert all(f"mylab.{ours[about]}@1" in card for about in keys if about in ours)
    if "score" in keys:
        record = json.loads((tmp_path / "run" / "score" / "stage.json").read_text())
        assert record["options"]["scorers.brevity"].startswith("mylab.brevity:Brevity@1")
        assert '"most_words": 20' in record["options"]["scorers.brevity"]


def test_source_engine_detector_and_scorer_by_the_names_that_a_package_offers(
    installed: Path, server: str, tmp_path: Path
) -> None:
    """From the first stage to the last, with a row that is none; and the same once more has nothing to do."""
    zipped(tmp_path / "photos.zip", *photos(), {"prompt": 3}, photos()[0])
    recipe = {
        "max_failure_rate": 0.3,
        "source": {"kind": "archive", "path": "photos.zip"},
        "sample": {"model": "house-vlm", "n": 4, "engine": {"kind": "house", "url": server}},
        "rewrite": {"detect": {"by": "finder", "options": {"words": ["anchor"]}}},
        "score": {"scorers": ["objects", "correctness", "brevity"]},
        "pair": {**BASE["pair"], "policy": "rewritten", "weights": {"objects.hallucinated": -1}},
    }
    done = run(installed, tmp_path, recipe, "--stages", "source,sample,rewrite,score,pair,publish")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["pairs"] > 0 and summary["stages"]["source"]["failed"] == 1
    assert summary["stages"]["detect"]["extras"]["true_positives"] > 0
    record = json.loads((tmp_path / "run" / "score" / "stage.json").read_text())
    assert record["options"]["scorers.brevity"].startswith("brevity@1")
    planned = run(installed, tmp_path, recipe, "--plan")
    assert planned.returncode == 0 and planned.stdout.count("holds") == len(summary["stages"])
    zipped(tmp_path / "photos.zip", *photos(3))
    planned = run(installed, tmp_path, recipe, "--plan")
    assert pending(planned.stdout)["source"].startswith("content.stamp")
    looked = run(installed, tmp_path, recipe, "--preview", "1")
    assert looked.returncode == 0 and "Describe image" in looked.stdout


def test_an_engine_with_too_few_answers_fails_its_rows(installed: Path, server: str, tmp_path: Path) -> None:
    engine = {"kind": "mylab.server:Server", "url": f"{server}few"}
    recipe = {"sample": {"model": "house-vlm", "n": 2, "engine": engine}}
    done = run(installed, tmp_path, recipe, "--stages", "source,sample")
    assert done.returncode == 3 and "too_few_answers" in done.stderr and "Traceback" not in done.stderr


def test_an_engine_that_raises_fails_its_rows_in_a_line(installed: Path, tmp_path: Path) -> None:
    code = CODE["mylab/server.py"].replace("        images = ", "        raise KeyError(request.id)\n        images = ")
    (tmp_path / "breaks.py").write_text(code)
    recipe = {"shard_retries": 0, "sample": {"model": "m", "engine": {"kind": "breaks:Server", "url": "-"}}}
    done = run(installed, tmp_path, recipe, "--stages", "source,sample")
    assert done.returncode == 3 and "KeyError" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        ({"source": {"kind": "mylab.archve:Archive"}}, "no module mylab.archve; did you mean mylab.archive?"),
        ({"source": {"kind": "archve"}}, "source.kind: unknown (value 'archve'); did you mean archive?"),
        ({"source": {"kind": "scenes", "path": "photos.zip"}}, "source.path: unknown key"),
        ({"sample": {"model": "m", "engine": {"kind": "house", "ulr": "-"}}}, "did you mean url?"),
        ({"sample": {"model": "m", "engine": {"kind": "scripted", "url": "-"}}}, "sample.engine.url: unknown key"),
        ({"rewrite": {"detect": {"by": "mylab.finder:Findr"}}}, "did you mean Finder?"),
        ({"score": {"scorers": ["mylab.brevty:Brevity"]}}, "no module mylab.brevty; did you mean mylab.brevity?"),
        ({"score": {"scorers": ["mylab.brevity:Brevty"]}}, "mylab.brevity has no 'Brevty'; did you mean Brevity?"),
        ({"score": {"scorers": ["brevty"]}}, "'brevty' is none of the scorers; did you mean brevity?"),
        ({"score": {"scorers": ["objcts"]}}, "'objcts' is none of the scorers; did you mean objects?"),
        (
            {"score": {"scorers": ["mylab.brevity:Brevity"], "options": {"mylab.brevity:Brevity": {"most_word": 3}}}},
            "has no option 'most_word'; did you mean most_words?",
        ),
        (
            {"score": {"scorers": ["mylab.brevity:Brevity"], "options": {"mylab.brevity:Brevity": {"most_words": []}}}},
            "option most_words: Input should be a valid integer",
        ),
        ({"pair": {**BASE["pair"], "policy": "mylab.nearest:Neerest"}}, "has no 'Neerest'; did you mean Nearest?"),
        ({"pair": {**BASE["pair"], "policy": "top_kk"}}, "'top_kk' is none of the policies; did you mean top_k?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(installed: Path, tmp_path: Path, recipe: dict[str, Any], wanted: str) -> None:
    if "score" in recipe:
        recipe = {**recipe, "pair": {**BASE["pair"], "weights": {"objects.hallucinated": -1}}}
        recipe["score"]["scorers"] = ["objects", *(name for name in recipe["score"]["scorers"])]
    done = run(installed, tmp_path, recipe, "--plan")
    assert done.returncode == 2 and wanted in done.stderr and "Traceback" not in done.stderr


def train(installed: Path, folder: Path, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    (folder / "train.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "training.run", str(folder / "train.yaml")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(help_kit.ROOT)])}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)


def rated(folder: Path) -> Path:
    """Four questions with three rated answers each."""
    rows = []
    for number, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (32, 32), colour).save(folder / f"{number}.png")
        ratings = {f"a {colour} sun": 5.0, "a cup": 1.0, "an anchor": 3.0}
        answers = [{"text": text, "rating": rating} for text, rating in ratings.items()]
        rows.append({"image": f"{number}.png", "question": "What is in the picture?", "answers": answers})
    (folder / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rated.jsonl"


def test_the_examples_of_training_run_together_and_are_recorded(installed: Path, tmp_path: Path) -> None:
    values = {key: value for shown in TRAINING for key, value in shown.items()}
    sizes = {"model": "scenes-vlm", "max_steps": 1, "batch_size": 4, "logging_steps": 1, "lora": {"r": 4}}
    values |= {**sizes, "dataset": str(rated(tmp_path)), "output_dir": str(tmp_path / "out")}
    done = train(installed, tmp_path, values)
    assert done.returncode == 0, done.stderr
    logged = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert logged["loss/grounded"] == 0.5  # rewards are zero before the first update
    assert logged["loss/response"] == pytest.approx(math.log(2) + 0.5 * math.log(1 + math.exp(0.25)))
    options = json.loads((tmp_path / "out" / "trained.json").read_text())["options"]
    assert {key: value for key, value in options.items() if key.startswith("plugins.")} == {
        "plugins.corruption.kind": 'mylab.mosaic:Mosaic@1 {"across": 4}',
        "plugins.objective": 'mylab.grounded:Grounded@1 {"gap": 0.5, "weight": 1.0}',
        "plugins.loss_type.mylab.offset:Offset": 'mylab.offset:Offset@1 {"ahead": 0.25}',
        "plugins.dataset_format": 'mylab.rated:Rated@1 {"apart": 2.0}',
    }


@pytest.fixture
def importable(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package in this process, where nothing heavy is needed to read a configuration."""
    monkeypatch.syspath_prepend(str(installed))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "mylab"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"corruption": {"kind": "mylab.mosiac:Mosaic"}}, "no module mylab.mosiac; did you mean mylab.mosaic?"),
        ({"corruption": {"kind": "mosiac"}}, "'mosiac' is none of the corruptions; did you mean mosaic?"),
        ({"loss_type": ["mylab.offset:Offst"]}, "mylab.offset has no 'Offst'; did you mean Offset?"),
        ({"loss_type": ["ofset"]}, "'ofset' is none of the losses; did you mean offset?"),
        ({"objective": "groundet"}, "'groundet' is none of the objectives; did you mean grounded?"),
        ({"objective": "grounded", "objective_options": {"gab": 1}}, "has no option 'gab'; did you mean gap?"),
        ({"dataset_format": "ratet"}, "'ratet' is none of the schemas; did you mean rated?"),
        ({"dataset_format": "rated", "dataset_format_options": {"apart": "far"}}, "option apart: Input should be a "),
    ],
)
def test_a_mistake_in_a_training_is_one_line(importable: None, values: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({"model": "m", "dataset": "d", "output_dir": "o", **values})
    assert wanted in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_a_package_offers_is_as_good_in_a_training(importable: None) -> None:
    values = {"corruption": {"kind": "mosaic"}, "loss_type": ["offset"], "objective": "grounded"}
    config = make_config({"model": "m", "dataset": "d", "output_dir": "o", "dataset_format": "rated", **values})
    assert config.plugins == {
        "corruption.kind": 'mosaic@1 {"across": 6}',
        "objective": 'grounded@1 {"gap": 1.0, "weight": 1.0}',
        "loss_type.offset": 'offset@1 {"ahead": 0.5}',
        "dataset_format": 'rated@1 {"apart": 1.0}',
    }
    assert "torch" not in vars(sys.modules["mylab.offset"])
