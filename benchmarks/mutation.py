"""How many small changes of the code do the tests notice?

    python benchmarks/mutation.py [--each N] [--seed S] [--only MUTANT ...] [MODULE ...]

Mutants are cosmic-ray's (``pip install cosmic-ray``). Of each module a seeded sample is tried: the file is changed in
place, its tests run, the file is put back. Mutants inside annotations are left out, as nothing evaluates them. Run it
in a clone of its own: while it runs, the working tree holds a mutant. Prints the survivors, and one line of JSON.
``--only`` tries again, once a test has been written for them, mutants that an earlier run has named.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).resolve().parent.parent
#: Where a mutant lies; tests are written, and code moves, while its operator and number stay.
_LINE = re.compile(r":\d+")
#: A test that runs longer than this many times what the unchanged code takes is in an endless loop: killed.
PATIENCE = 5
#: Of pairing and its parts; the quick ones first, as a run ends with the first failure.
PAIRS = (
    "pipeline/pairing/test_pair.py",
    "pipeline/rewriting/test_rewrite_stages.py",
    "pipeline/pairing/test_policies.py",
)
#: Of whether an answer is right, and what is the same answer.
ANSWERS = (
    "reward/scorers/test_correctness.py",
    "reward/answers/test_match_answer.py",
    "reward/text/test_same_text.py",
)
#: Module -> the tests that specify it, in tests/.
TESTS: dict[str, tuple[str, ...]] = {
    "pipeline/pairing/rule.py": PAIRS,
    "pipeline/pairing/stage.py": PAIRS,
    "pipeline/pairing/policies.py": PAIRS,
    "pipeline/pairing/balance.py": PAIRS,
    "reward/gates.py": ("reward/test_gates.py",),
    "reward/scorers/objects.py": ("reward/scorers/test_objects.py",),
    "reward/scorers/correctness.py": ANSWERS,
    "reward/answers/match_answer.py": ANSWERS,
    "reward/answers/short_answer.py": ANSWERS,
    "reward/answers/quantity.py": ANSWERS,
    "reward/text/same_text.py": ANSWERS,
    "reward/answers/answer_words.py": ANSWERS,
    "reward/asking/judge.py": ("reward/asking/test_judge.py",),
    "training/loss/objectives.py": ("training/loss/test_objectives.py",),
    "training/data/schedule.py": ("training/data/test_schedule.py",),
    "training/evaluation/pope.py": ("training/evaluation/test_evaluation_pope.py",),
    "pipeline/rewriting/correct.py": (
        "pipeline/rewriting/test_correct.py",
        "pipeline/rewriting/test_checked.py",
    ),
    "pipeline/running/resume.py": (
        "pipeline/running/test_resume.py",
        "pipeline/running/test_salvage.py",
        "pipeline/running/test_store.py",
        "pipeline/running/test_executor.py",
    ),
}


@dataclass(frozen=True)
class Mutant:
    """One change: which operator, at which of its places in the module."""

    module: str
    operator: str
    occurrence: int
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.operator.removeprefix('core/')} #{self.occurrence}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=list(TESTS))
    parser.add_argument("--each", type=int, default=20, help="mutants of each module (0: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="MUTANT", help="'MODULE OPERATOR #N', with or without its line")
    options = parser.parse_args()
    killed, survived = Counter[str](), list[Mutant]()
    only = {_LINE.sub("", name) for name in options.only or ()}
    modules = list(dict.fromkeys(name.split()[0] for name in sorted(only))) or options.modules
    for module in modules:
        mutants = sorted(mutants_of(module), key=str)
        if only:
            mutants = [mutant for mutant in mutants if _LINE.sub("", str(mutant)) in only]
        elif options.each:
            mutants = random.Random(f"{options.seed}:{module}").sample(mutants, min(options.each, len(mutants)))
        seconds = baseline_seconds(module)
        for mutant in mutants:
            if alive(mutant, seconds * PATIENCE + 10):
                survived.append(mutant)
                print(f"alive: {mutant}", flush=True)
            else:
                killed[module] += 1
        tried = killed[module] + sum(mutant.module == module for mutant in survived)
        print(f"{module}: {killed[module]} of {tried} killed ({seconds:.0f} s a run)", file=sys.stderr, flush=True)
    total = killed.total() + len(survived)
    share = round(killed.total() / total, 3) if total else None
    print(json.dumps({"mutants": total, "killed": killed.total(), "share": share, "alive": [str(m) for m in survived]}))


def mutants_of(module: str) -> list[Mutant]:
    """Every mutant of a module that can change what it does."""
    path = ROOT / module
    inert = inert_places(path.read_text())
    tree, mutants = get_ast(path.read_text()), list[Mutant]()
    for name in plugins.operator_names():
        cls = plugins.get_operator(name)
        if cls.arguments():  # those that rename variables: not meant for a run over everything
            continue
        places = (start for node in ast_nodes(tree) for start, _ in cls().mutation_positions(node))
        mutants += [Mutant(module, name, at, start[0]) for at, start in enumerate(places) if start not in inert]
    return mutants


def inert_places(text: str) -> set[tuple[int, int]]:
    """(line, column) of all that annotations span, and of what only type checkers read."""
    spans: list[ast.AST] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            spans.append(node.annotation)
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            spans.append(node.returns)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            spans.append(node)
    lines = text.splitlines()
    return {
        (line, column)
        for node in spans
        for line in range(node.lineno, node.end_lineno + 1)
        for column in range(
            node.col_offset if line == node.lineno else 0,
            node.end_col_offset if line == node.end_lineno else len(lines[line - 1]) + 1,
        )
    }


def baseline_seconds(module: str) -> float:
    """Seconds that the tests of a module take on the code as it is.

    Raises:
        SystemExit: they fail.
    """
    start = time.monotonic()
    if tests(module, None) != 0:
        raise SystemExit(f"error: the tests of {module} fail as it is: {', '.join(TESTS[module])}")
    return time.monotonic() - start


def alive(mutant: Mutant, timeout: float) -> bool:
    path = ROOT / mutant.module
    original = path.read_text()
    operator = plugins.get_operator(mutant.operator)()
    try:
        path.write_text(mutate_code(original, operator, mutant.occurrence))
        return tests(mutant.module, timeout) == 0
    finally:
        path.write_text(original)


def tests(module: str, timeout: float | None) -> int:
    """Exit status of the tests of a module; 1 for a run that had to be ended."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", "--durations=0"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    try:
        run = subprocess.run(
            [*command, *(f"tests/{name}" for name in TESTS[module])],
            cwd=ROOT,
            env=environment,
            timeout=timeout,
            capture_output=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1
    return run.returncode


if __name__ == "__main__":
    main()
