"""What is wrong is said at once, before anything runs: files, vocabularies, models, hubs, servers, benchmarks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi, constants
from stage_kit import pending, recipe
from typer.testing import CliRunner, Result

from pipeline import run as module
from pipeline.base.errors import EngineError
from pipeline.base.model_files import require_model
from pipeline.base.model_names import BUILT_IN

runner = CliRunner()


def write(tmp: Path, **changes: Any) -> Path:
    path = tmp / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp, **changes).model_dump(mode="json")))
    return path


def invoke(*arguments: object) -> Result:
    return runner.invoke(module.app, [str(argument) for argument in arguments])


def folder(place: Path, *files: str) -> Path:
    place.mkdir()
    for name in files:
        (place / name).write_text("{}")
    return place


@pytest.mark.parametrize("plan", [["--plan"], []])
def test_everything_that_is_wrong_is_said_in_one_go(tmp_path: Path, plan: list[str]) -> None:
    model = folder(tmp_path / "vlm", "config.json", "tokenizer.json", "pytorch_model.bin")
    path = write(
        tmp_path,
        source={"kind": "jsonl", "path": str(tmp_path / "lost.jsonl")},
        sample={"model": str(model)},
        score={"scorers": ["objects"], "objects": {"vocabulary": str(tmp_path / "words.json")}},
        pair={"weights": {"objects.hallucinated": -1}},
        train={"eval_dataset": str(tmp_path / "rows.jsonl")},
        evaluate={"kind": "benchmarks", "suites": ["pope", "chair"], "data": str(folder(tmp_path / "data"))},
    )
    result = invoke(path, *plan)
    lines = [line for line in result.output.splitlines() if line.startswith("  - ")]
    assert result.exit_code == 2 and "things keep this run from starting" in result.output
    for part in ("lost.jsonl", "words.json", "has no weights", "no dataset", "suite pope", "suite chair"):
        assert sum(part in line for line in lines) == 1, (part, result.output)
    assert len(lines) == 6 and not (tmp_path / "run").exists()


def test_ten_problems_are_ten_lines_however_long(tmp_path: Path) -> None:
    """Nothing is left out in the middle, as it is of other long messages."""
    names = [f"{'very-long-name-' * 12}{number}" for number in range(14)]
    models = [{"model": f"nobody/{name[:60]}-{number}"} for number, name in enumerate(names)]
    path = write(
        tmp_path,
        source={"kind": "jsonl", "path": str(tmp_path / f"{names[0]}.jsonl")},
        sample={"models": models, "n": 1},
        score={"scorers": ["objects"], "objects": {"vocabulary": str(tmp_path / f"{names[1]}.json")}},
        pair={"weights": {"objects.hallucinated": -1}},
    )
    result = invoke(path, "--plan")
    lines = [line for line in result.output.splitlines() if line.startswith("  - ")]
    assert result.exit_code == 2 and len(lines) == 16 and "16 things keep this run" in result.output
    assert len(result.output) > 2_000 and " characters) ..." not in result.output
    for number in range(14):
        assert sum(f"-{number}'" in line for line in lines) == 1


def test_a_plan_is_of_the_stages_that_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, sample={"model": "nobody/has-this"}, train={"model": "nobody/has-this", "epochs": 1})
    planned = invoke(path, "--plan", "--stages", "source")
    assert planned.exit_code == 0 and list(pending(planned.output)) == ["source"]
    lost = invoke(path, "--plan", "--stages", "score,pair")
    assert lost.exit_code == 2 and "score, pair would read 'source', which nobody has made" in lost.output
    assert "score, pair would read 'sample', which nobody has made; add its stage to --stages" in lost.output
    assert "nobody/has-this" in invoke(path, "--plan", "--stages", "source,sample").output


def test_an_option_of_training_that_does_not_go_with_the_model_is_said_before_sampling(tmp_path: Path) -> None:
    path = write(tmp_path, train={"model": "scenes-vlm", "tuning": "lora", "lora": {"target_modules": ["qkv"]}})
    for arguments in ([path], [path, "--plan"]):
        result = invoke(*arguments)
        assert result.exit_code == 2 and "train.lora.target_modules=['qkv'] match no linear layer" in result.output
    assert not (tmp_path / "run").exists()


def test_a_hub_that_is_not_asked_is_said_before_anything_starts(tmp_path: Path) -> None:
    path = write(tmp_path, sample={"model": "nobody/has-this"})
    for arguments in ([path], [path, "--plan"]):
        result = invoke(*arguments)
        assert result.exit_code == 2 and "'nobody/has-this' is in no cache" in result.output
        assert "HF_HUB_OFFLINE=0" in result.output
    assert not (tmp_path / "run").exists()
    assert "HF_HUB_OFFLINE" not in invoke(path, "--stages", "score").output  # which asks nobody


def test_a_hub_that_cannot_be_reached_and_one_without_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(HfApi, "model_info", away)
    with pytest.raises(EngineError, match=r"cannot be reached \(ConnectionError\)"):
        require_model("nobody/has-this")
    with pytest.raises(EngineError, match="the hub has no model"):
        require_model("nobody/has--this")
    monkeypatch.setenv("RAY_ADDRESS", "ray://cluster:10001")
    require_model("nobody/has-this")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "no config.json"),
        (["config.json"], "no weights"),
        (["config.json", "a.safetensors"], "no tokenizer"),
        (["config.json", "a.safetensors", "tokenizer.json"], "no processor"),
    ],
)
def test_a_folder_that_is_no_model(tmp_path: Path, files: list[str], reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        require_model(str(folder(tmp_path / "model", *files)), images=True)


@pytest.mark.parametrize("name", ["scenes-vlm", "scenes-vlm-strong", "scenes-vlm-weak"])
def test_the_built_in_models_are_there(name: str) -> None:
    require_model(name, images=True)
    assert name in BUILT_IN


@pytest.fixture
def server() -> Iterator[str]:
    """Serves one model, and is silent about everything else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"object": "list", "data": [{"id": "served", "object": "model"}]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/v1"
        http.shutdown()


def test_a_server_is_asked_what_it_serves(tmp_path: Path, server: str) -> None:
    def planned(model: str, url: str) -> Result:
        return invoke(write(tmp_path, sample={"model": model, "engine": {"kind": "openai", "base_url": url}}), "--plan")

    fine = planned("served", server)
    assert fine.exit_code == 0 and "never ran" in fine.output
    other = planned("serve", server)
    assert other.exit_code == 2 and "does not serve 'serve'" in other.output and "'served'" in other.output
    started = time.monotonic()
    silent = planned("served", "http://127.0.0.1:9/v1")
    assert silent.exit_code == 2 and "no usable answer from http://127.0.0.1:9/v1" in silent.output
    assert time.monotonic() - started < 15
