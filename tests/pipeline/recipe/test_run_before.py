"""Runs that were made before: of one of today's tables what models made is found, and what rules made of it is made
anew where the rules have changed since; one of earlier tables is read and left alone.

``run_of_schema_4`` was made by the commit that raised the schema to 4, ``run_of_schema_3`` by b4cf193, before the files
moved into rooms.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline import browse, export
from pipeline import run as command
from pipeline.base.errors import StoreError
from pipeline.browsing.catalog import Catalog
from pipeline.recipe.load import load_recipe
from pipeline.recipe.plan import Plan, generate, publish_run
from pipeline.running.executor import Executor
from pipeline.running.store import Run
from training import formats

HERE = Path(__file__).parent
runner = CliRunner()


def unpack(name: str, folder: Path) -> Path:
    with tarfile.open(HERE / f"{name}.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    (run,) = (path for path in folder.iterdir() if (path / "recipe.yaml").is_file())
    return run


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return unpack("run_of_schema_4", tmp_path / "runs")


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return unpack("run_of_schema_3", tmp_path / "old")


def content(run: Path) -> dict[str, tuple[bytes, int]]:
    """What is in every file, and when it was written."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file())
    return {str(path.relative_to(run)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def shards(run: Path) -> dict[str, tuple[bytes, int]]:
    return {name: file for name, file in content(run).items() if name.endswith(".arrow")}


def plan_of(run: Path, *overrides: str) -> Plan:
    return Plan(load_recipe(run / "recipe.yaml", [f"output_dir={run.parent}", *overrides]))


def carry_on(run: Path, *overrides: str, stages: str = "source,sample,rewrite,score,pair", resume: str = "") -> None:
    with Executor(store := Run(run)) as executor:
        generate(plan_of(run, *overrides), store, executor, resume or "if-possible", stages.split(","))  # type: ignore[arg-type]


def test_of_a_run_of_before_what_models_made_stays(made: Path) -> None:
    was = shards(made)
    carry_on(made)
    now = shards(made)
    # Since then the versions of the source, of finding and correcting by facts, of correctness, of objects and of the
    # rule for pairs have gone up. What was sampled and asked holds.
    assert len(was) == 14 and now.keys() == was.keys()
    assert {name.partition("/")[0] for name in was if now[name] != was[name]} == {
        *("source", "detect", "sample-corrected", "score", "pair")
    }
    assert Run(made).table("pair").column("chosen").to_pylist() == pairs_of_before(made.parent / "again")
    carry_on(made)
    assert shards(made) == now, "and then it is finished"


def pairs_of_before(folder: Path) -> list[int | None]:
    return Run(unpack("run_of_schema_4", folder)).table("pair").column("chosen").to_pylist()  # type: ignore[no-any-return]


def test_another_recipe_makes_it_anew(made: Path) -> None:
    carry_on(made)
    was = shards(made)
    carry_on(made, "pair.margin=0.75")
    changed = {name for name, shard in shards(made).items() if was.get(name) != shard}
    assert changed == {"pair/data-00000.arrow", "pair/data-00001.arrow"}


@pytest.mark.parametrize(
    "options", [[], ["--plan"], ["--plan", "--measure"], ["--stages", "pair,publish"], ["pair.margin=0.75"]]
)
def test_a_run_with_tables_of_another_schema_is_told_apart_and_stays_as_it_is(before: Path, options: list[str]) -> None:
    was = content(before)
    refused = runner.invoke(command.app, [str(before / "recipe.yaml"), f"output_dir={before.parent}", *options])
    message = " ".join(refused.output.split())
    assert refused.exit_code == 2 and "its tables have schema 3, those of this version 4" in message
    assert "another name or output_dir" in message and "Traceback" not in message
    assert content(before) == was


def test_it_is_not_mixed_with_tables_of_today_and_made_anew_where_that_is_said(before: Path) -> None:
    was = content(before)
    for resume, stages in (("if-possible", "source"), ("always", "pair"), ("never", "pair")):
        with pytest.raises(StoreError, match="nothing there was changed"):
            carry_on(before, resume=resume, stages=stages)
    assert content(before) == was
    carry_on(before, resume="never", stages="source")
    ids = Run(before).table("source")["id"].to_pylist()
    assert len(ids) == 8 and {len(row_id) for row_id in ids} == {32}


def test_its_prompts_are_shown_and_its_dataset_is_exported_and_read(
    before: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog([Run(before)])
    catalog.refresh()
    assert (catalog.facets[0].prompts, catalog.facets[0].pairs) == (8, 5)
    # The dataset as it was published then: what is published of a table did not change.
    published, _ = publish_run(plan_of(before), Run(before), ["a command"])
    assert published.pairs == 5
    out = before.parent / "exported"
    exported = runner.invoke(export.app, ["trl", str(published.path), str(out)])
    assert exported.exit_code == 0 and "5 pairs" in exported.output, exported.output
    assert len(formats.open(str(published.path / "pairs"))) == 5
    # Beside a run of today its prompts have nobody.
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: pytest.fail("it was shown"))
    both = runner.invoke(browse.app, [str(made), "--compare", str(before), "--no-open"])
    assert both.exit_code == 2 and "have schema 4" in (told := " ".join(both.output.split())) and "other ids" in told
