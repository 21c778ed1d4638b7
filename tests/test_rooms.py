"""The order of the rooms: who may import whom. docs/architecture.md draws it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import help_kit
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "reward", "training", "vlm_preference")
#: From the ground up: a room imports only itself and rooms above it in this list.
ROOMS = (
    "pipeline.base",
    "reward.text",
    "reward.answers",
    "reward.forward",
    "reward.models",
    "reward.scorers",
    "reward.asking",
    "reward",
    "pipeline.engines",
    "pipeline.running",
    "pipeline.scenes",
    "pipeline.sampling",
    "pipeline.scoring",
    "pipeline.sources",
    "pipeline.rewriting",
    "pipeline.pairing",
    "pipeline.blindness",
    "pipeline.publishing",
    "pipeline.exporting",
    "pipeline.browsing",
    "pipeline.recipe",
    "pipeline.publish",
    "training.errors",
    "training.config",
    "training.formats",
    "training.corruption",
    "training.data",
    "training.forward",
    "training.loss",
    "training.sizing",
    "training.loop",
    "training.evaluation",
    "training.job",
    "training.planning",
    "training.evidence",
    "pipeline.run",
    "pipeline.export",
    "pipeline.browse",
    "training.run",
    "training.evaluate",
    "training.probe",
    "pipeline.blindness.__main__",
    "pipeline.commands",
    "pipeline.cli",
    "vlm_preference",
)
#: Whole files that only start something: nobody imports them.
COMMANDS = (
    "pipeline.run",
    "pipeline.export",
    "pipeline.browse",
    "pipeline.publish",
    "training.run",
    "training.evaluate",
    "training.evaluation.lmms_eval",
    "training.probe",
    "pipeline.blindness.__main__",
    "pipeline.cli",
    "vlm_preference",
)
Imports = dict[str, set[str]]


def modules() -> dict[str, Path]:
    files = (path for folder in PACKAGES for path in sorted((ROOT / folder).rglob("*.py")))
    return {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
            for path in files}  # fmt: skip


def imported(source: str) -> Iterator[str]:
    """Every name that an import statement asks for, wherever in the file it is."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph(sources: Mapping[str, str]) -> Imports:
    """Module -> the modules among ``sources`` that it imports."""

    def owner(name: str) -> str | None:
        return name if name in sources else name.rpartition(".")[0] if name.rpartition(".")[0] in sources else None

    return {
        module: {other for name in imported(source) if (other := owner(name)) is not None} - {module}
        for module, source in sources.items()
    }


def room_of(module: str) -> str | None:
    """The smallest room that a module lies in; None for the empty packages that hold the rooms."""
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len, default=None)


def forbidden(imports: Imports) -> set[tuple[str, str]]:
    """Imports that go up: (module, what it imports)."""
    places = {module: ROOMS.index(room) for module in imports if (room := room_of(module)) is not None}
    return {
        (module, other)
        for module, others in imports.items()
        for other in others
        if module in places and other in places and places[other] > places[module]
    }


def circle(imports: Imports) -> list[str] | None:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


SOURCES = {module: path.read_text(encoding="utf-8") for module, path in modules().items()}
IMPORTS = graph(SOURCES)


def test_imports_go_one_way() -> None:
    assert forbidden(IMPORTS) == set()


def test_no_files_import_each_other() -> None:
    assert circle(IMPORTS) is None


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("pipeline.base.seeds", "from pipeline.running import store"),
        ("reward.gates", "from pipeline.running.store import Run"),
        ("pipeline.pairing.policies", "import training.config"),
        ("training.loop.log", "def late():\n    from training.evaluation.benchmarks.pope import score"),
    ],
)
def test_an_import_that_goes_up_would_be_found(module: str, statement: str) -> None:
    changed = graph({**SOURCES, module: f"{SOURCES[module]}\n{statement}\n"})
    assert {importer for importer, _ in forbidden(changed)} == {module}


def test_a_circle_would_be_found() -> None:
    file = "pipeline.base.files"
    changed = graph({**SOURCES, file: SOURCES[file] + "\nimport pipeline.base.lock\n"})
    assert set(circle(changed) or ()) == {"pipeline.base.files", "pipeline.base.lock"}


def test_every_module_lies_in_a_room() -> None:
    assert {module for module in SOURCES if room_of(module) is None} == {"pipeline", "training"}
    assert not any(SOURCES[package] for package in ("pipeline", "reward", "training"))


def test_reward_knows_of_the_pipeline_only_what_lies_at_its_ground() -> None:
    outside = {
        other
        for module, others in IMPORTS.items()
        if module.startswith("reward")
        for other in others
        if not other.startswith(("reward", "pipeline.base"))
    }
    assert outside == set()


def test_nobody_imports_a_command() -> None:
    assert {other for others in IMPORTS.values() for other in others} & set(COMMANDS) == set()


@pytest.mark.parametrize("package", ["pipeline", "training"])
def test_few_files_lie_beside_the_rooms(package: str) -> None:
    assert len(list((ROOT / package).glob("*.py"))) <= 6


@pytest.mark.parametrize(
    ("package", "only"),
    [
        ("ray", "pipeline.running.pool"),
        ("vllm", " ".join(f"pipeline.engines.vllm{part}" for part in ("", "_requests", "_rewards", "_start"))),
        ("openai", "pipeline.engines.openai"),
        ("diffusers", "pipeline.engines.diffusion"),
        ("duckdb", "pipeline.browsing.catalog"),
        ("starlette", "pipeline.browsing.app"),
    ],
)
def test_ray_and_the_engines_are_imported_in_their_own_files_alone(package: str, only: str) -> None:
    importers = {
        module
        for module, source in SOURCES.items()
        if any(f"{name}.".startswith(f"{package}.") for name in imported(source))
    }
    assert importers == set(only.split())


LIGHT = (
    *(module for module in SOURCES if module.startswith(("reward.text", "reward.answers"))),
    *(module for module in SOURCES if module.startswith("pipeline.base") and module != "pipeline.base.export"),
    *(module for module in SOURCES if module.startswith(("reward.scorers", "reward.asking"))),
    "reward.gates",
    "pipeline.recipe.recipe",
    "pipeline.recipe.plan",
    "pipeline.recipe.preview",
    "pipeline.run",
    "pipeline.export",
    "pipeline.exporting.formats",
    "pipeline.running.pool",
    "pipeline.pairing.rule",
    "pipeline.scenes.scene_words",
    "pipeline.sources.stage",
    *(module for module in SOURCES if module.startswith("pipeline.rewriting")),
    "pipeline.engines.vllm",
    "pipeline.engines.openai",
)


def test_what_is_light_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'ray', 'vllm', 'transformers', 'datasets', 'open_clip', 'matplotlib'}"
    code = f"import sys, {', '.join(LIGHT)}; print(sorted({heavy} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert process.stdout.strip() == "[]"


def test_help_answers_in_under_a_second() -> None:
    text, seconds = help_kit.told("pipeline.run")
    assert "--resume" in text and seconds < 1


def missing(source: str, ours: Mapping[str, str]) -> list[str]:
    """The names that ``source`` imports of ours and that are not there."""

    def defined(module: str) -> set[str]:
        tree = ast.parse(ours[module])
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        names |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        return names | {name.rpartition(".")[2] for name in imported(ours[module])}

    names = (name for name in imported(source) if name.split(".")[0] in ("pipeline", "reward", "training"))
    return [
        name
        for name in names
        if name not in ours and (name.rpartition(".")[0] not in ours or name.rpartition(".")[2] not in
                                 defined(name.rpartition(".")[0]))
    ]  # fmt: skip


def test_scripts_import_what_is_there() -> None:
    """mypy reads the packages; the benchmarks are run now and then, and must not have been left behind by then."""
    ours = {name: path.read_text(encoding="utf-8") for name, path in modules().items()}
    scripts = sorted((ROOT / "benchmarks").glob("*.py"))
    lost = {path.name: names for path in scripts if (names := missing(path.read_text(encoding="utf-8"), ours))}
    assert scripts and lost == {}
    assert missing("from reward.forward.parts import Parts, Pieces\nimport pipeline.none", ours) == [
        "reward.forward.parts.Pieces",
        "pipeline.none",
    ]
