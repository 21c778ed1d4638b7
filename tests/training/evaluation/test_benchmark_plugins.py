"""A benchmark of another package: found, checked, asked and scored as ours are. docs/extending.md shows it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import help_kit
import pytest
from PIL import Image

from pipeline.base.errors import UserError
from training.evaluation import benchmarks
from training.evaluation.question import Answer
from training.evaluation.suite import Suite, load

PAGE = (help_kit.ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
(SHOWN,) = re.findall(r"```python\n# mylab/colours.py\n(.*?)```", PAGE, re.DOTALL)
PATH = "mylab.colours:Colours"
ANSWERS = {"1": Answer("It is red"), "2": Answer("blue"), "3": Answer("red and blue")}


def install(folder: Path, code: str) -> None:
    """A folder of packages as an installer leaves it."""
    (folder / "mylab").mkdir(parents=True)
    (folder / "mylab" / "colours.py").write_text(code)
    about = folder / "mylab-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(f"[vlm_preference.benchmarks]\ncolours = {PATH}\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three questions about two pictures."""
    folder = tmp_path / "data" / "colours"
    (folder / "images").mkdir(parents=True)
    rows = [("a.png", "sky", "red"), ("a.png", "sea", "blue"), ("b.png", "sun", "green")]
    lines = [json.dumps({"image": image, "thing": thing, "colour": colour}) for image, thing, colour in rows]
    (folder / "colours.jsonl").write_text("\n".join(lines))
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), "red" if name == "a.png" else "blue").save(folder / "images" / name)
    return folder.parent


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Installs the page's example with some of its lines changed, and gives the suite over ``data``."""

    def use(*changes: tuple[str, str]) -> None:
        code = SHOWN
        for old, new in changes:
            assert old in code
            code = code.replace(old, new)
        install(tmp_path / "site", code)
        monkeypatch.syspath_prepend(tmp_path / "site")

    yield use
    for name in ("mylab", "mylab.colours"):
        sys.modules.pop(name, None)


def suite(data: Path, name: str = PATH, **options: Any) -> Suite:
    (loaded,) = load([name], data, options={name: options})
    return loaded


def test_the_example_is_asked_and_scored_by_the_command(data: Path, tmp_path: Path) -> None:
    assert len(SHOWN.splitlines()) <= 40
    install(tmp_path / "site", SHOWN)
    command = [sys.executable, "-m", "training.evaluate", "canned", "--suite", PATH, "--data", str(data), "--output"]
    command += ["out", "--option", 'colours.suffix=" Be brief."', "--engine", "kind=scripted"]
    path = os.pathsep.join([str(tmp_path / "site"), str(help_kit.ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "RAY_ADDRESS": "local"}
    done = subprocess.run([*command, "--engine", "texts=[red]"], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "| colours | accuracy | 0.333 | 0.000 to 0.500 |" in done.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())["suites"]["colours"]
    assert results["suite"] == "colours@1" and results["counts"] == {"asked": 3, "failed": 0, "truncated": 0}
    about = results["provenance"]
    assert about["versions"] == {"benchmark": f'{PATH}@1 {{"suffix": " Be brief."}}'}
    assert about["prompt"] == "as in the data, and ' Be brief.' behind it" and about["data"] == "colours"


def test_a_name_that_a_package_offers_is_as_good_as_a_path(written: Any, data: Path) -> None:
    written()
    by_name, by_path = suite(data, "colours"), suite(data)
    assert by_name.score(ANSWERS).values() == by_path.score(ANSWERS).values() == {"accuracy": 2 / 3, "words": 7 / 3}
    assert by_name.versions == by_path.versions


def test_ours_and_others_are_asked_side_by_side_and_share_a_flag(written: Any, data: Path) -> None:
    written()
    assert [benchmark.name for benchmark in benchmarks.make(["mmhal", PATH])] == ["mmhal", "colours"]
    pope, colours = benchmarks.make(["pope", PATH], {"colours": {"suffix": "!"}}, {"suffix": "?", "seed": 3})
    assert (vars(pope)["suffix"], vars(colours)["suffix"]) == ("?", "!")


def test_a_changed_file_or_option_is_another_benchmark(written: Any, data: Path) -> None:
    written()
    first = suite(data)
    assert suite(data, suffix="?").versions != first.versions
    (data / "colours" / "colours.jsonl").write_text('{"image": "a.png", "thing": "sky", "colour": "red"}')
    assert suite(data).files != first.files


NO_VERSION = ('    version: ClassVar[str] = "1"\n', "")
OURS = ('name: ClassVar[str] = "colours"', 'name: ClassVar[str] = "pope"')


@pytest.mark.parametrize(
    ("name", "options", "changes", "reason"),
    [
        ("mylab.colors:Colours", {}, [], "there is no module mylab.colors\n  -> did you mean mylab.colours?"),
        ("mylab.colours:Colour", {}, [], "mylab.colours has no 'Colour'\n  -> did you mean Colours?"),
        ("colors", {}, [], "'colors' is none of the benchmarks\n  -> did you mean colours?"),
        (PATH, {"sufix": "?"}, [], "has no option 'sufix'\n  -> did you mean suffix?"),
        (PATH, {"suffix": 3}, [], "option suffix: Input should be a valid string"),
        (PATH, {}, [NO_VERSION], "has no version"),
        (PATH, {}, [OURS], "cannot be called 'pope'"),
        (PATH, {}, [("@dataclass(frozen=True)", "@dataclass")], "is no frozen dataclass"),
        (PATH, {}, [("class Colours(Benchmark)", "class Colours")], "let the class inherit training.evaluation"),
        (PATH, {}, [("def score(", "def scores(")], "has no method score"),
        (PATH, {}, [("def questions(", "def question(")], "has no method questions"),
        (PATH, {}, [("str(number)", '"1"')], "id '1' is there twice; every question needs an id of its own"),
        (PATH, {}, [('data / "colours.jsonl"', 'data / "colors.jsonl"')], "colors.jsonl is missing"),
        (PATH, {}, [('row, ("image",', 'row, ("picture",')], "line 1: key 'picture' is missing"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_anything_is_asked(
    written: Any, data: Path, name: str, options: dict[str, Any], changes: list[tuple[str, str]], reason: str
) -> None:
    written(*changes)
    with pytest.raises(UserError) as error:
        suite(data, name, **options)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([("pairs(questions, answers)", "pairs(questions[:2], answers)")], "id '3' is missing from the questions"),
        ([("for question, _, text in done]", "for question, _, text in done[:2]]")], "forgets 1 images with an answer"),
        ([(", counts=counts)", ")")], "score counts 0 of 3 questions; take the answers and the counts from"),
        ([("(question.image, self", '("c.png", self')], "terms of image 'c.png', which no question is about"),
        ([("return Tally.of(rows, [\"accuracy\", \"words\"], counts=counts)", "return rows")], "score returned list"),
    ],
)  # fmt: skip
def test_a_score_that_forgets_answers_is_told(
    written: Any, data: Path, changes: list[tuple[str, str]], reason: str
) -> None:
    written(*changes)
    with pytest.raises(ValueError, match=re.escape(reason)):
        suite(data).score(ANSWERS)


def test_answers_that_are_left_out_may_be_counted(written: Any, data: Path) -> None:
    written(("in done]", "in done[:2]]"), (", counts=counts)", ', counts={**counts, "unreadable": 1})'))
    assert suite(data).score(ANSWERS).images == ("a.png",)
