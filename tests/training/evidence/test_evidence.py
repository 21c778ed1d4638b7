"""The tables of the evidence page, and the experiments behind them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from pipeline.publishing import publish
from pipeline.recipe.load import RECIPES, load_recipe
from pipeline.recipe.plan import Plan
from pipeline.running.resume import describe
from pipeline.running.stage import Source
from pipeline.running.store import Run, Survey
from training.config import make_config
from training.evidence import __main__ as command
from training.evidence import before_after, held_out, kept, runs, seed_table, share
from training.evidence.experiments import EXPERIMENTS
from training.evidence.methods import METHODS, STEPS
from training.evidence.metric_columns import OBJECTS, PROBES, STYLE, TRAINED, Column, FinishedRun, Numbers, numbers
from training.evidence.runs import Variant

# ------------------------------------------------------------------------------------------------------------- tables


def summary(before: float, after: float) -> dict[str, Any]:
    return {"evaluation": {"before": {"chair_s": before}, "after": {"chair_s": after}}}


def test_a_row_has_means_deviations_and_the_change_of_the_means() -> None:
    lines = before_after.table([summary(0.4, 0.1), summary(0.2, 0.2)]).splitlines()
    assert lines[2] == "| chair_s | 0.300 ± 0.141 | 0.150 ± 0.071 | -0.150 | -50.0 % |"
    assert len(lines) == 3


def test_no_relative_change_from_nothing() -> None:
    assert before_after.table([summary(0.0, 0.1)]).splitlines()[2].endswith("| +0.100 | - |")


def test_a_metric_that_one_run_does_not_have_is_left_out() -> None:
    old, new = summary(0.4, 0.1), summary(0.2, 0.2)
    new["evaluation"]["before"]["shr"] = new["evaluation"]["after"]["shr"] = 0.1
    old["evaluation"]["before"]["shr"], old["evaluation"]["after"]["shr"] = 0.1, None
    assert len(before_after.table([old, new]).splitlines()) == 3
    old["evaluation"]["after"]["shr"] = 0.2
    assert "| shr | 0.100 ± 0.000 | 0.150 ± 0.071 |" in before_after.table([old, new])


def metrics_of(**values: float) -> dict[str, Any]:
    return {"metrics": {name: {"value": value, "interval": None} for name, value in values.items()}}


def measured(after: float, steps: int = 5, **more: Any) -> FinishedRun:
    keys = [column.key for column in OBJECTS]
    sides = {side: dict.fromkeys(keys, value) for side, value in (("before", 0.5), ("after", after))}
    logged = [{"step": i, "rewards/chosen": float(i)} for i in range(steps)]
    return FinishedRun({"evaluation": sides, **more.pop("summary", {})}, logged, **more)


def shown(run: FinishedRun, columns: tuple[Column, ...]) -> list[str]:
    values = seed_table.values({"DPO": [numbers(run, columns)] * 2}, "DPO")
    return seed_table.markdown(values, [column.title for column in columns]).splitlines()[2:]


def test_how_many_images_are_faithful_is_told_where_they_were_made() -> None:
    sides = {"evaluation": {"before": {"cover": 0.9}, "after": {"cover": 0.8}}}
    made = {**sides, "images": {"faithful_before": 0.25, "faithful_after": 0.75}}
    assert "| faithful_images | 0.250 | 0.750 | +0.500 | +200.0 % |" in before_after.table([made])
    assert "faithful" not in before_after.table([made, sides]) + before_after.table([{**sides, "images": None}])


def test_a_table_has_a_row_per_variant_and_a_dash_where_a_thing_was_not_measured() -> None:
    lines = shown(measured(0.25), (*OBJECTS, *TRAINED))
    assert lines[0] == "| before | " + " | ".join(["0.500 ± 0.000"] * len(OBJECTS) + ["-", "-"]) + " |"
    # The mean of the last three logged steps.
    assert lines[1] == "| DPO | " + " | ".join(["0.250 ± 0.000"] * len(OBJECTS) + ["3.000 ± 0.000", "-"]) + " |"


def test_the_probe_stands_beside_the_evaluation_and_tells_of_the_base_what_it_can() -> None:
    probe = {
        "conditional": metrics_of(
            accuracy_true=0.9, accuracy_gap_swapped=0.2, accuracy_gap_none=0.1, chosen_gap_swapped=20.0
        ),
        "drift": metrics_of(chosen=-2.5),
        "reference": metrics_of(accuracy_true=0.6, accuracy_gap_swapped=0.3, chosen_gap_swapped=19.0),
    }
    before, after = shown(measured(0.25, probe=probe), PROBES)
    # By implicit reward the base prefers nothing, and it has not drifted from itself.
    assert before == "| before | - | - | - | 19.000 ± 0.000 | - |"
    assert after == "| DPO | 0.900 ± 0.000 | 0.200 ± 0.000 | 0.100 ± 0.000 | 20.000 ± 0.000 | -2.500 ± 0.000 |"
    assert shown(measured(0.25), PROBES)[1] == "| DPO | - | - | - | - | - |"


def test_style_is_that_of_the_descriptions_and_a_dash_where_it_was_not_measured() -> None:
    style = {"descriptions": {"auc": 0.55, "logp_gap": -0.1, "length_gap": 0.5, "edit_distance": None}}
    before, after = shown(measured(0.25, summary={"style": style}), STYLE)
    assert before == "| before | - | - | - | - |"
    assert after == "| DPO | 0.550 ± 0.000 | -0.100 ± 0.000 | 0.500 ± 0.000 | - |"
    assert shown(measured(0.25), STYLE)[1] == "| DPO | - | - | - | - |"


def test_a_column_that_one_seed_does_not_have_is_a_dash() -> None:
    full, unknown = measured(0.25, summary={"style": {"descriptions": {"auc": 0.5}}}), measured(0.25)
    one, other = numbers(full, STYLE), numbers(unknown, STYLE)
    assert "style AUC" not in seed_table.values({"DPO": [one, other]}, None)["DPO"]
    assert seed_table.values({"DPO": [one, one]}, None)["DPO"]["style AUC"] == [0.5, 0.5]


def test_the_base_model_is_told_by_a_run_that_begins_with_it() -> None:
    rows = {"rounds": [Numbers({"Cover": 0.9}, {"Cover": 0.8})], "DPO": [Numbers({"Cover": 0.95}, {"Cover": 0.7})]}
    assert seed_table.values(rows, "DPO")["before"] == {"Cover": [0.95]}
    assert "before" not in seed_table.values(rows, None)


# -------------------------------------------------------------------------------------------------------- experiments


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_variant_is_a_valid_recipe_and_training_configuration(name: str) -> None:
    experiment = EXPERIMENTS[name]
    folders = {runs.folder(variant.recipe or experiment.recipe, 0, variant.name) for variant in experiment.variants}
    assert len({variant.label for variant in experiment.variants}) == len(folders) == len(experiment.variants)
    for variant in experiment.variants:
        train = load_recipe(variant.recipe or experiment.recipe, list(variant.overrides)).train
        values: dict[str, object] = {"model": "m", "dataset": "d", "output_dir": "o"}
        make_config(values | dict(train or {}))


def test_the_methods_take_equally_many_steps_of_equally_many_pairs() -> None:
    for variant in METHODS:
        recipe = load_recipe(variant.recipe or "mdpo", list(variant.overrides))
        train = recipe.train or {}
        assert (train["max_steps"], train["batch_size"]) == (STEPS, 32)
        # Two batches of pairs are enough for all steps; the quickstart has more than a hundred.
        assert train["epochs"] >= (STEPS / 2 if variant.overrides else 2)
        source: Any = recipe.source
        assert (source.texts.scenes if source.kind == "imagine" else source.scenes) == 700


@pytest.mark.parametrize("seeds", [[0, 1, 2], [7, 3]])
def test_held_out_pairs_are_another_seeds_and_every_seed_lends_its_own_once(seeds: list[int]) -> None:
    lent = [held_out.held_out_seed(seed, seeds) for seed in seeds]
    assert sorted(seed for seed in lent if seed is not None) == sorted(seeds)
    assert all(a != b for a, b in zip(seeds, lent, strict=True))


def test_a_probe_is_of_the_runs_own_model_on_the_next_seeds_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.evaluation.probing import probing

    requests: list[Any] = []
    monkeypatch.setattr(probing, "probe", lambda request: requests.append(request) or {"pairs": 1})
    run = runs.folder("mdpo", 1, "dpo")
    assert held_out.probe(run, "mdpo", "scenes-vlm", 1, [1, 2]) == {"pairs": 1}
    (probe,) = requests
    assert (probe.model, probe.dataset) == ("runs/mdpo-seed-1-dpo/train/model", "runs/mdpo-seed-2/dataset")
    assert (probe.output, probe.reference, probe.limit) == (run / "probe", "scenes-vlm", 300)
    # All variants of a seed share the base model's log-probs.
    assert probe.reference_logps == Path("runs/mdpo-seed-1/probe/reference")
    assert held_out.probe(run, "mdpo", "scenes-vlm", 1, [1]) is None


# ------------------------------------------------------------------------------------------------------------ sharing


def finish(recipe: str, path: Path, *overrides: str) -> Plan:
    """A run of ``recipe`` in which every stage up to the published dataset is finished, without its content."""
    plan = share.plan(recipe, overrides)
    run = Run(path)
    for stage in plan.generation():
        inputs = {} if isinstance(stage, Source) else {name: run.about(name, 0).digest for name in stage.inputs}
        run.write(stage.name, 0, pa.table({"id": [stage.name]}), inputs)
        run.save(replace(describe(run, stage, Survey(run)), finished=True))
    run.save(replace(publish.record(run, plan.recipe.publish), finished=True, made="a digest"))
    for name in ("dataset/pairs/data.arrow", "dataset-reference/key.arrow", "train/model/weights", "summary.json"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("x")
    (path / "dataset/dataset_dict.json").write_text('{"made": "a digest"}')
    return plan


def names(plan: Plan) -> set[str]:
    return {stage.name for stage in plan.generation()}


@pytest.fixture(scope="module")
def ha_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    path = tmp_path_factory.mktemp("runs") / "ha_dpo-seed-0"
    return path, finish("ha_dpo", path)


def test_a_variant_of_the_training_shares_everything_but_the_model(ha_run: tuple[Path, Plan], tmp_path: Path) -> None:
    path, plan = ha_run
    adopted = share.adopt(share.plan("ha_dpo", ["train.beta=0.5"]), tmp_path / "run", [path])
    assert set(adopted) == {*names(plan), "publish"}
    there = {file.name for file in (tmp_path / "run").iterdir()}
    assert there == {*names(plan), "publish", "dataset", "dataset-reference"}  # neither train nor summary.json
    # Linked, not copied.
    assert (tmp_path / "run" / "dataset/pairs/data.arrow").samefile(path / "dataset/pairs/data.arrow")


def test_without_restyling_descriptions_are_shared_and_rewritten_and_paired_anew(
    ha_run: tuple[Path, Plan], tmp_path: Path
) -> None:
    path, _ = ha_run
    other = share.plan("ha_dpo", ["rewrite.restyle=null"])
    adopted = set(share.adopt(other, tmp_path / "run", [path]))
    sampled = {"prompts", "sample-described", "sample-asked", "eval-source", "eval-before"}
    assert {*sampled, "detect", "sample-corrected", "sample-injected"} <= adopted
    assert not adopted & {"sample-restyled", "sample-rewritten", "sample", "score", "pair", "publish"}
    assert not (tmp_path / "run" / "sample-restyled").exists()
    # What was taken over is what the pipeline would keep, and nothing else is missing.
    pending = {outlook.stage for outlook in other.outlook(Run(tmp_path / "run")) if outlook.reasons}
    assert pending == {*names(other), "publish"} - adopted


def test_without_length_balance_only_pairs_are_made_anew(ha_run: tuple[Path, Plan], tmp_path: Path) -> None:
    path, plan = ha_run
    adopted = share.adopt(share.plan("ha_dpo", ["pair.balance_length=false"]), tmp_path / "run", [path])
    assert set(adopted) == names(plan) - {"pair"}


def test_the_same_training_that_is_measured_elsewhere_shares_the_model(
    ha_run: tuple[Path, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plan = ha_run
    trained = lambda given, run: path / "train/model" if given.recipe.train == plan.recipe.train else None  # noqa: E731
    monkeypatch.setattr(share.job, "trained_model", trained)
    wanted = ("publish", "train")
    elsewhere = share.adopt(share.plan("ha_dpo", ["evaluate.seed=910001"]), tmp_path / "same", [path])
    assert set(elsewhere) == {*names(plan), *wanted} - {"eval-source", "eval-before"}
    assert (tmp_path / "same" / "train/model/weights").samefile(path / "train/model/weights")
    assert "train" not in share.adopt(share.plan("ha_dpo", ["train.beta=0.5"]), tmp_path / "other", [path])


def test_another_seed_shares_the_evaluation_of_the_base_model_at_most(
    ha_run: tuple[Path, Plan], tmp_path: Path
) -> None:
    path, _ = ha_run
    adopted = share.adopt(share.plan("ha_dpo", ["seed=1"]), tmp_path / "run", [path])
    assert set(adopted) <= {"eval-source", "eval-before"}


def test_an_unfinished_stage_and_what_follows_it_are_not_shared(tmp_path: Path) -> None:
    plan = finish("mdpo", tmp_path / "base")
    run = Run(tmp_path / "base")
    record = run.record("score")
    assert record is not None
    run.save(replace(record, finished=False))
    adopted = share.adopt(share.plan("mdpo"), tmp_path / "run", [tmp_path / "base"])
    assert set(adopted) == names(plan) - {"score", "pair"}


def test_recipes_share_what_is_the_same_in_both(tmp_path: Path) -> None:
    finish("quickstart", tmp_path / "quickstart-seed-0")
    adopted = share.adopt(share.plan("mdpo"), tmp_path / "run", [tmp_path / "quickstart-seed-0"])
    assert set(adopted) == {"eval-source", "eval-before"}


def test_a_run_begins_with_what_others_of_its_seed_have_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = finish("mdpo", Path("runs/mdpo-seed-1"), "seed=1")
    finish("mdpo", Path("runs/mdpo-seed-10"), "seed=10")
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command[3:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    folder = runs.run("mdpo", 1, Variant("no-image-term", "", ("train.weights.image=0",)))
    assert folder == Path("runs/mdpo-seed-1-no-image-term")
    assert {path.name for path in folder.iterdir()} == {*names(plan), "publish", "dataset", "dataset-reference"}
    assert commands == [["mdpo", "name=mdpo-seed-1-no-image-term", "seed=1", "train.weights.image=0"]]
    (folder / "pair" / "data-00000.arrow").unlink()
    runs.run("mdpo", 1, Variant("no-image-term", "", ("train.weights.image=0",)))
    assert not (folder / "pair" / "data-00000.arrow").exists()  # a run that is there is the pipeline's alone


def test_a_variant_after_another_starts_from_the_model_that_it_has_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(share, "adopt", lambda *_: [])
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command[3:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(share, "plan", lambda *_: None)
    first = Variant("one", "", ("train.max_steps=5",), recipe="mdpo")
    assert runs.run("quickstart", 2, Variant("two", "", after=first)) == Path("runs/quickstart-seed-2-two")
    assert [command[:2] for command in commands] == [
        ["mdpo", "name=mdpo-seed-2-one"],
        ["quickstart", "name=quickstart-seed-2-two"],
    ]
    assert commands[1][-1] == "sample.model=./runs/mdpo-seed-2-one/train/model"


def test_validation_scenes_are_others_than_the_held_out_ones() -> None:
    variant = runs.on_validation_scenes(Variant("dpo", "DPO", ("train.objective=dpo",)))
    assert (variant.name, variant.overrides[0]) == ("dpo-validation", "train.objective=dpo")
    held: Any = load_recipe("mdpo", ["train.objective=dpo"]).evaluate
    chosen: Any = load_recipe("mdpo", list(variant.overrides)).evaluate
    assert {**held, "seed": None} == {**chosen, "seed": None} and held.get("seed", 900001) != chosen["seed"]


def test_a_run_that_fails_ends_the_command_with_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 3))
    with pytest.raises(SystemExit) as stopped:
        runs.run("mdpo", 0, Variant("", "mDPO"))
    assert stopped.value.code == 3


# ------------------------------------------------------------------------------------------------------------ command


@pytest.fixture
def fake_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run is there already; the value of a metric is its seed / 10."""
    monkeypatch.chdir(tmp_path)

    def run(recipe: str, seed: int, variant: Variant) -> Path:
        path = runs.folder(variant.recipe or recipe, seed, variant.name)
        (path / "train").mkdir(parents=True, exist_ok=True)
        columns = [column for experiment in EXPERIMENTS.values() for column in experiment.columns]
        keys = [column.key for column in columns if column.part == "evaluation"]
        sides = {side: dict.fromkeys(keys, seed / 10) for side in ("before", "after")}
        (path / "summary.json").write_text(json.dumps({"pairs": 7, "evaluation": sides}))
        lines = [{"step": i, "rewards/chosen": 0.1 * i, "rewards/rejected": -0.1 * i} for i in range(3 + seed)]
        (path / "train" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(held_out, "probe", lambda *_: {"drift": metrics_of(chosen=-1.5)})
    monkeypatch.setattr(command.label_accuracy, "measure", lambda _: {"answers": 0.75, "pairs": 0.9})


@pytest.mark.usefixtures("fake_runs")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_prints_its_rows_and_draws_its_figure(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if len(EXPERIMENTS[name].variants) > 6:  # all their points are one here, and to name them takes half a minute
        monkeypatch.setattr(command.figure, "_name", lambda *_: None)
    command.main(name, None, "0,1", Path("figures/one.png"))
    printed = capsys.readouterr().out
    for variant in EXPERIMENTS[name].variants:
        assert f"| {variant.label} | " in printed
    assert "0.050 ± 0.071" in printed and "seeds 0, 1" in printed
    drifts = any(column.part == "drift" for column in EXPERIMENTS[name].columns)
    assert ("-1.500 ± 0.000" in printed) == (EXPERIMENTS[name].probed and drifts)
    assert ("| 0.750 ± 0.000 | 0.900 ± 0.000 |" in printed) == EXPERIMENTS[name].accuracy
    accuracy = ["one-accuracy.png"] if EXPERIMENTS[name].accuracy else []
    front = ["one-front.png"] if EXPERIMENTS[name].front else []
    drawn = sorted(path.name for path in Path("figures").iterdir())
    assert drawn == [*accuracy, "one-curves.png", *front, "one.png"]


@pytest.mark.usefixtures("fake_runs")
def test_single_rows_can_be_asked_for_and_a_row_that_is_not_there_is_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command.main("methods", None, "0,1", only=["mDPO"], validation=True)
    printed = capsys.readouterr().out
    assert "| mDPO | " in printed and "| DPO | " not in printed
    assert Path("runs/mdpo-seed-0-budget-validation").is_dir()
    done = CliRunner().invoke(command.app, ["methods", "--only", "mdpo"])
    assert done.exit_code == 2 and "HA-DPO" in done.output


@pytest.mark.usefixtures("fake_runs")
def test_numbers_in_a_file_are_not_run_again_and_what_it_lacks_is_added(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, runs_made = Path("results/methods.json"), []
    really = command.run

    def counted(recipe: str, seed: int, variant: Variant) -> Path:
        runs_made.append((variant.label, seed))
        return really(recipe, seed, variant)

    monkeypatch.setattr(command, "run", counted)
    command.main("methods", None, "0,1", only=["mDPO"], results=file)
    first = capsys.readouterr().out
    assert runs_made == [("mDPO", 0), ("mDPO", 1)]
    command.main("methods", None, "0,1", Path("one.png"), only=["mDPO"], results=file)
    assert capsys.readouterr().out == first and len(runs_made) == 2
    assert Path("one.png").is_file() and Path("one-front.png").is_file() and not Path("one-curves.png").exists()
    command.main("methods", None, "0,1,2", only=["mDPO", "DPO"], results=file)
    assert runs_made[2:] == [("DPO", 0), ("DPO", 1), ("DPO", 2), ("mDPO", 2)]
    # Another setting of the same name is another row, and a file of something else is not written over.
    content = json.loads(file.read_text())
    content["rows"]["mDPO"]["settings"] = "0123"
    file.write_text(json.dumps(content))
    command.main("methods", None, "1", only=["mDPO"], results=file)
    assert runs_made[6:] == [("mDPO", 1)] and list(json.loads(file.read_text())["rows"]["mDPO"]["seeds"]) == ["1"]
    file.write_text("{}")
    done = CliRunner().invoke(command.app, ["methods", "--only", "mDPO", "--results", str(file)])
    assert done.exit_code == 2 and "has no numbers" in done.output and file.read_text() == "{}"


@pytest.mark.usefixtures("fake_runs")
def test_a_run_that_could_not_be_probed_is_not_kept_as_one_without_probes() -> None:
    file = Path("results.json")
    command.main("shortcut", None, "0", only=["SymMPO; in all"], results=file)
    assert not file.exists()
    command.main("shortcut", None, "0,1", only=["SymMPO; in all"], results=file)
    assert list(json.loads(file.read_text())["rows"]["SymMPO; in all"]["seeds"]) == ["0", "1"]


def test_a_row_measured_without_a_column_or_with_other_settings_is_measured_again(tmp_path: Path) -> None:
    file, row = tmp_path / "numbers.json", kept.Row("DPO", ("mdpo",), "5f2c")
    kept.add(file, row, 0, Numbers({"Cover": 0.9}, {"Cover": 0.1234567, "SHR": None}))
    assert kept.read(file, row, ["Cover", "SHR"])[0].after == {"Cover": 0.123457, "SHR": None}
    assert kept.read(file, row, ["Cover", "CHAIRs"]) == {} == kept.read(file, replace(row, settings="5f2d"), ["Cover"])
    assert kept.read(file, replace(row, label="mDPO"), ["Cover"]) == {} == kept.read(tmp_path / "none", row, [])


def test_the_words_of_a_row_hold_those_of_the_runs_before_it() -> None:
    first = Variant("one", "first", ("train.max_steps=5",), recipe="quickstart")
    assert runs.row("mdpo", Variant("two", "second", ("train.beta=0.2",), after=first)).words == (
        *("quickstart", "train.max_steps=5", "then", "mdpo", "train.beta=0.2"),
    )


def test_the_settings_of_a_row_are_what_recipe_and_overrides_set_together(tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    text = (RECIPES / "quickstart.yaml").read_text()
    recipe.write_text(text)

    def settings(*overrides: str, name: str = "", after: Variant | None = None) -> str:
        return runs.row(str(recipe), Variant(name, "label", overrides, after=after)).settings

    plain, half = settings(), settings("train.learning_rate=2.0e-5")
    assert plain == settings("train.learning_rate=4.0e-5", name="other") and plain != half
    after = [settings(after=Variant("one", "first", overrides)) for overrides in ((), ("train.beta=0.2",))]
    assert len({plain, half, *after}) == 4
    recipe.write_text("# a remark\n" + text.replace("learning_rate: 4.0e-5", "learning_rate: 2.0e-5"))
    assert settings() == half and settings("train.learning_rate=4.0e-5") == plain


@pytest.mark.usefixtures("fake_runs")
def test_a_recipe_is_told_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    command.main("quickstart", ["train.beta=0.2"], "0,1", Path("one.png"))
    printed = capsys.readouterr().out
    assert "| chair_s | 0.050 ± 0.071 | 0.050 ± 0.071 | +0.000 |" in printed and "pairs 7, 7" in printed
    assert Path("one.png").is_file() and Path("one-curves.png").is_file()


def test_a_wrong_recipe_is_an_error_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command.app, ["quickstar", "--seeds", "0"])
    assert done.exit_code == 2 and "did you mean 'quickstart'" in done.output and "Traceback" not in done.output
