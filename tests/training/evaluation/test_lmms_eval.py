"""``training.evaluation.lmms_eval``: a stand-in for lmms-eval that writes what the real one (0.7.3) writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import help_kit
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.base.errors import ConfigError
from training import evaluate
from training.errors import DataError
from training.evaluation.compare import unpaired
from training.evaluation.lmms_eval import app
from training.evaluation.session import lmms_eval_results, stored
from training.evaluation.session.lmms_eval_call import LmmsEval

#: Writes two tasks. ``exact_match`` is a mean of samples, ``graded`` a hundred times one of records, ``f1`` neither.
STAND_IN = """
import argparse, json, sys
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("model", "model_args", "tasks", "output_path", "batch_size", "limit", "include_path"):
    parser.add_argument(f"--{name}")
parser.add_argument("--log_samples", action="store_true")
given = parser.parse_args()
print("Model Responding", flush=True)
if given.model == "broken":
    print("ValueError: no such model", file=sys.stderr)  # and a status of 0, as the real one
    sys.exit(0)
if given.model == "dead":
    sys.exit(7)
arguments = dict(part.split("=", 1) for part in given.model_args.split(","))
right = [float(letter == "1") for letter in arguments.get("right", "1101")][: int(given.limit or 99)]
folder = Path(given.output_path) / "owner__model"
folder.mkdir(parents=True, exist_ok=True)
(folder / "argv.json").write_text(json.dumps(vars(given)))
date = f"20261127_22194{len(list(folder.glob('*_results.json')))}"
share = sum(right) / len(right)
configs = {
    task: {"task": task, "dataset_path": "owner/data", "dataset_name": "test", "metadata": [{"version": 0.0}],
           "generation_kwargs": {"max_new_tokens": 16}, "score_key": "score"}
    for task in given.tasks.split(",")
}
results = {
    task: {"alias": task, "exact_match,none": share, "exact_match_stderr,none": 0.2, "exact_match_stderr_clt,none": 0.2,
           "graded,none": 100 * share, "graded_stderr,none": "N/A", "f1,none": share / 2, "f1_stderr,none": 0.05,
           "submission,none": None, " ,none": " "}
    for task in configs
}
content = {"results": results, "configs": configs, "versions": {task: "Yaml" for task in configs},
           "n-shot": {task: 0 for task in configs},
           "n-samples": {task: {"original": 4, "effective": len(right)} for task in configs},
           "config": {"model": given.model, "model_args": given.model_args, "gen_kwargs": ""}, "git_hash": "abc"}
(folder / f"{date}_results.json").write_text(json.dumps(content))
for task in configs:
    with (folder / f"{date}_samples_{task}.jsonl").open("w") as file:
        for place, value in enumerate(right):
            sample = {"doc_id": place, "target": "A", "filtered_resps": "A", "doc_hash": "same", "exact_match": value,
                      "graded": {"id": "x", "score": value}, "f1": {"pred": "A", "gold": "B"}, "input": f"? {place}"}
            file.write(json.dumps(sample) + chr(10))
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages with the stand-in; the place of results beside it."""
    package = tmp_path / "site" / "lmms_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STAND_IN)
    about = tmp_path / "site" / "lmms_eval-0.7.3.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lmms_eval\nVersion: 0.7.3\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return tmp_path


def invoke(*words: object):
    return CliRunner().invoke(app, [*map(str, words)])


def ask(place: Path, *words: object, model: str = "scenes-vlm"):
    return invoke(model, "--tasks", "mmstar, ocrbench", "--output", place, "--model-arg", 'right="1101"', *words)


# A call --------------------------------------------------------------------------------------------------------------


def test_the_results_are_kept_as_ours_are(installed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = ask(installed / "out", "--option", "batch_size=8", "--option", "include_path=/my/tasks")
    assert done.exit_code == 0, done.output
    assert "| lmms_eval:mmstar | exact_match | 0.750 | 0.250 to 1.000 |" in done.stdout
    assert "| lmms_eval:ocrbench | graded | 75.000 | 25.000 to 100.000 |" in done.stdout
    assert "| lmms_eval:mmstar | f1 | 0.375 | 0.277 to 0.473 |" in done.stdout
    assert "Model Responding" in capfd.readouterr().err and "Model Responding" not in done.stdout
    suites = json.loads((installed / "out" / "results.json").read_text())["suites"]
    assert list(suites) == ["lmms_eval:mmstar", "lmms_eval:ocrbench"]
    mmstar = suites["lmms_eval:mmstar"]
    assert list(mmstar["metrics"]) == ["exact_match", "graded", "f1"] and mmstar["counts"] == {"asked": 4}
    assert mmstar["metrics"]["f1"]["stderr"] == 0.05 and "stderr" not in mmstar["metrics"]["graded"]
    about = mmstar["provenance"]
    assert (about["suite"], about["model"], about["data"]) == ("lmms_eval:mmstar@0.0", "scenes-vlm", "owner/data/test")
    assert about["model_revision"].startswith("sha256:") and about["versions"] == {"lmms_eval": "0.7.3"}
    assert about["decoding"] == {"max_new_tokens": 16}
    assert about["image_preprocessing"] == "that of lmms-eval's vllm, right=1101"
    argv = json.loads((installed / "out" / "lmms_eval" / "owner__model" / "argv.json").read_text())
    model = argv.pop("model_args").partition(",")[0]
    assert model.startswith("model=/") and model.endswith("/scenes/models/vlm")
    assert argv == {
        "model": "vllm",
        "tasks": "mmstar,ocrbench",
        "output_path": str(installed / "out" / "lmms_eval"),
        "batch_size": "8",
        "limit": None,
        "include_path": "/my/tasks",
        "log_samples": True,
    }
    assert (installed / "out" / "results.png").is_file() and (installed / "out" / "results.md").is_file()


def test_another_call_reads_what_it_has_written_itself(installed: Path) -> None:
    assert ask(installed / "out").exit_code == 0
    done = ask(installed / "out", "--limit", 2)
    assert "| lmms_eval:mmstar | exact_match | 1.000 |" in done.stdout, done.output
    assert "- lmms_eval:mmstar: 2 images; 2 asked" in done.stdout


def test_two_models_are_compared_sample_by_sample(installed: Path) -> None:
    assert ask(installed / "a").exit_code == 0
    assert ask(installed / "b", "--model-arg", "right='0000'", model="scenes-vlm-weak").exit_code == 0
    refused = CliRunner().invoke(evaluate.app, ["--compare", str(installed / "a"), str(installed / "b")])
    assert (
        refused.exit_code == 2 and "mmstar.image_preprocessing: that of lmms-eval's vllm, right=1101" in refused.output
    )
    for path in (installed / "a", installed / "b"):
        file = path / "results.json"
        file.write_text(file.read_text().replace("right=1101", "x").replace("right=0000", "x"))
    done = CliRunner().invoke(evaluate.app, ["--compare", str(installed / "a"), str(installed / "b")])
    assert done.exit_code == 0, done.output
    compared = json.loads((installed / "b" / "compare.json").read_text())["suites"]["lmms_eval:mmstar"]
    assert compared["exact_match"]["difference"] == -0.75 and 0 < compared["exact_match"]["p_value"] <= 1
    # Nothing is known of its samples: two independent standard errors of 0.05.
    assert compared["f1"]["interval"] == pytest.approx([-0.375 - 0.13859, -0.375 + 0.13859], abs=1e-4)
    assert compared["f1"]["p_value"] is None
    assert "| lmms_eval:mmstar | f1 | 0.375 | 0.000 | -0.375 | -0.514 to -0.236 | - |" in done.stdout


@pytest.mark.parametrize(("backend", "message"), [("broken", "status 0 and no results"), ("dead", "status 7 and no")])
def test_a_call_without_results_is_an_error_whatever_its_status(installed: Path, backend: str, message: str) -> None:
    done = ask(installed / "out", "--backend", backend)
    assert done.exit_code == 2 and f"lmms-eval ended with {message}" in done.output and "Traceback" not in done.output
    assert not (installed / "out" / "results.json").exists()


def test_old_results_are_not_taken_for_new_ones(installed: Path) -> None:
    assert ask(installed / "out").exit_code == 0
    done = ask(installed / "out", "--backend", "broken")
    assert done.exit_code == 2 and "and no results" in done.output


def test_where_it_is_not_installed_the_remedy_is_named(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    python.chmod(0o755)
    done = ask(tmp_path / "out", "--python", python)
    assert done.exit_code == 2 and f"lmms-eval is not installed for {python}\n" in done.output
    assert "pip install lmms-eval there, or give --python PATH" in done.output
    done = ask(tmp_path / "out", "--python", tmp_path / "none")
    assert done.exit_code == 2 and "none cannot be run: No such file or directory" in done.output


def test_an_adapter_is_refused_with_the_model_beside_it(tmp_path: Path) -> None:
    for name, file in (("adapter", "adapter_config.json"), ("model", "config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
    call = LmmsEval(sys.executable, str(tmp_path / "adapter"), ("mmstar",))
    with pytest.raises(ConfigError, match="adapter is an adapter, which") as caught:
        call.command(tmp_path)
    assert f"give {tmp_path / 'model'}" in str(caught.value)
    (tmp_path / "a,b").mkdir()
    with pytest.raises(ConfigError, match="takes no path with a comma"):
        LmmsEval(sys.executable, str(tmp_path / "a,b"), ("mmstar",)).command(tmp_path)


def test_what_a_backend_calls_the_model() -> None:
    words = LmmsEval(
        "py", "owner/model", ("a", "b"), "llava_hf", {"n": 2, "eager": True, "s": "x"}, {"tui": True}
    ).command(Path("out"))
    assert words[:3] == ["py", "-m", "lmms_eval"] and words[-1] == "--tui"
    assert words[words.index("--model_args") + 1] == "pretrained=owner/model,n=2,eager=true,s=x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scenes-vlm"], "give either --tasks mmstar,ocrbench or --results DIR"),
        (["scenes-vlm", "--tasks", "a", "--results", "b"], "give either --tasks"),
        (["scenes-vlm", "--tasks", " , "], "give either --tasks"),
        (["scenes-vllm", "--tasks", "a"], "did you mean 'scenes-vlm'?"),
        (["scenes-vlm", "--tasks", "a", "--option", "batch_size"], "--option batch_size: write KEY=VALUE, such as ba"),
        (["scenes-vlm", "--tasks", "a", "--model-arg", "=3"], "--model-arg =3: write KEY=VALUE"),
        (["scenes-vlm", "--results", "none"], "none holds no DATE_results.json"),
    ],
)
def test_what_is_wrong_with_a_call_is_named(installed: Path, words: Sequence[str], message: str) -> None:
    done = invoke(*words, "--output", installed / "out")
    assert done.exit_code == 2 and message in " ".join(done.output.split()), done.output


def test_results_of_other_suites_are_not_replaced(installed: Path) -> None:
    (installed / "out").mkdir()
    (installed / "out" / "results.json").write_text('{"suites": {"pope": {}}}')
    done = ask(installed / "out")
    assert done.exit_code == 2 and "has results of pope" in done.output and "give an --output of its own" in done.output


def test_a_suite_of_its_name_leads_here() -> None:
    done = CliRunner().invoke(evaluate.app, ["scenes-vlm", "--suite", "pope,lmms_eval:mmstar", "--data", "x"])
    assert done.exit_code == 2 and "python -m training.evaluation.lmms_eval MODEL --tasks mmstar" in done.output


def test_help_answers_in_under_a_second() -> None:
    text, seconds = help_kit.told("training.evaluation.lmms_eval")
    assert "--tasks" in text and seconds < 1


# What it has written -------------------------------------------------------------------------------------------------


def write(
    folder: Path, values: Mapping[str, Any], samples: Sequence[Mapping[str, Any]] | None, task: str = "t", **more: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"results": {task: {"alias": task, **values}}, "configs": {task: {}}, "config": {"model": "vllm"}, **more}
    path = folder / "20261127_000000_results.json"
    path.write_text(json.dumps(content))
    if samples is not None:
        lines = [json.dumps({"doc_id": at, **sample}) for at, sample in enumerate(samples)]
        (folder / f"20261127_000000_samples_{task}.jsonl").write_text("\n".join(lines))
    return path


def read(path: Path) -> lmms_eval_results.TaskResult:
    (suite,) = lmms_eval_results.read(path, "m", "build").values()
    return suite


@pytest.mark.parametrize(
    ("reported", "samples", "value"),
    [
        (0.5, [1, 0], 0.5),
        (0.5, [True, False], 0.5),
        (50.0, [1, 0], 50.0),
        (0.66667, [1, 1, 0], 2 / 3),  # rounded by the task
        (0.4, [{"score": 0.3}, {"score": 0.5}], 0.4),
        (0.9, [1, 0], None),  # no mean of these
        (0.5, [1, None], None),
        (0.5, [{"pred": "A"}, {"pred": "B"}], None),
        (0.5, ["1", "0"], None),
        (1000.0, [{"score": 1}, {"score": 0}], None),  # a sum, as MME's
        (0.5, [[1], [0]], None),
    ],
)
def test_a_metric_is_a_tally_only_if_it_is_the_mean_of_its_samples(
    tmp_path: Path, reported: float, samples: Sequence[Any], value: float | None
) -> None:
    suite = read(write(tmp_path, {"acc,none": reported}, [{"acc": sample} for sample in samples]))
    if value is None:
        assert suite.tally.sums == {} and suite.pooled["acc"] == {"value": reported, "interval": None, "stderr": None}
    else:
        assert suite.tally.values() == {"acc": pytest.approx(value)} and suite.pooled == {}
    assert suite.tally.images == tuple(f"sample {at}" for at in range(len(samples)))


def test_without_samples_there_is_the_standard_error(tmp_path: Path) -> None:
    suite = read(write(tmp_path, {"acc,none": 0.5, "acc_stderr,none": 0.1, "acc,strict": 0.2}, None))
    assert suite.tally.images == () and suite.pooled["acc"]["interval"] == [0.304, 0.696]
    assert suite.pooled["acc,strict"]["stderr"] is None
    assert suite.provenance.data == "group t" and suite.provenance.data_revision == "unknown, ? samples"
    stored.save(tmp_path, "m", {"t": suite.tally}, {"t": suite.provenance}, {}, {"t": suite.pooled})
    content, tallies = stored.read(tmp_path)
    assert tallies["t"].images == () and content["suites"]["t"]["metrics"]["acc"]["value"] == 0.5


def test_samples_that_come_once_for_each_filter_are_nobodys(tmp_path: Path) -> None:
    path = write(tmp_path, {"acc,none": 0.5, "acc,strict": 0.5}, [{"acc": 1}, {"acc": 0}, {"acc": 1, "doc_id": 0}])
    suite = read(path)
    assert suite.tally.images == () and set(suite.pooled) == {"acc", "acc,strict"}


def test_other_questions_are_another_revision_of_the_data(tmp_path: Path) -> None:
    revisions = set()
    for name, sample in (("a", {"input": "1"}), ("b", {"input": "2"}), ("c", {"input": "1", "target": "B"})):
        revisions.add(read(write(tmp_path / name, {"acc,none": 1.0}, [{"acc": 1, **sample}])).provenance.data_revision)
    assert len(revisions) == 3


def test_what_a_file_does_not_tell_of_a_task_is_unknown(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"n-samples": None, "versions": None, "n-shot": None}
    about = read(write(tmp_path / "a", {"acc,none": 1.0}, None, **nothing)).provenance
    assert (about.data_revision, about.prompt) == ("unknown, ? samples", "lmms-eval's, 0 examples before it")
    path = write(tmp_path / "b", {"acc,none": 1.0}, None, configs={"t": {"generation_kwargs": "greedy"}})
    assert read(path).provenance.decoding == {"generation_kwargs": "greedy"}


def test_the_newest_of_several_is_read(tmp_path: Path) -> None:
    write(tmp_path / "old", {"acc,none": 0.0}, None)
    new = write(tmp_path / "new", {"acc,none": 1.0}, None)
    new.rename(new.with_name("20261128_000000_results.json"))
    assert read(tmp_path).pooled["acc"]["value"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_text("{"), "not valid JSON"),
        (lambda path: path.write_text("{}"), "key 'results' is missing"),
        (lambda path: path.write_text('{"results": [], "configs": {}, "config": {}}'), "is not laid out as lmms-eval"),
        (lambda path: path.write_text('{"results": {"t": 1}, "configs": {}, "config": {}}'), "is not laid out as"),
        (lambda path: path.write_text('{"results": {"t": {"acc,none": "N/A"}}, "configs": {}, "config": {}}'),
         "holds no metric; run lmms-eval without --predict_only"),
        (lambda path: path.with_name("20261127_000000_samples_t.jsonl").write_text("{"), "line 1: not valid JSON"),
        (lambda path: path.with_name("20261127_000000_samples_t.jsonl").write_text("{}"), "key 'doc_id' is missing"),
    ],
)  # fmt: skip
def test_a_file_that_is_malformed_is_named(tmp_path: Path, change: Callable[[Path], Any], message: str) -> None:
    path = write(tmp_path, {"acc,none": 0.5}, [{"acc": 1}, {"acc": 0}])
    change(path)
    with pytest.raises(DataError, match=message):
        read(path)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.sampled_from([1, 100]))
def test_a_tally_says_what_was_reported(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], scale: int
) -> None:
    reported = scale * sum(values) / len(values)
    path = write(tmp_path_factory.mktemp("r"), {"acc,none": reported}, [{"acc": value} for value in values])
    assert read(path).tally.values()["acc"] == pytest.approx(reported, abs=2e-4 * scale)


def test_only_what_both_know_with_an_error_is_compared_without_pairs() -> None:
    known, exact = {"value": 0.5, "interval": None, "stderr": None}, {"value": 0.5, "interval": [0.4, 0.6]}
    assert unpaired({"a": known, "b": exact}, {"a": known, "b": exact})["a"].interval is None
    assert set(unpaired({"a": known, "b": exact, "c": known}, {"a": known, "b": exact})) == {"a"}
