"""Two stored results against each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.base.files import write_text
from training.errors import DataError
from training.evaluation.compare import as_json, compare, unpaired
from training.evaluation.result import Provenance, differing
from training.evaluation.session import markdown, plot, stored

#: What a comparison leaves, for programs.
COMPARISON = "compare.json"


def versus(a: Path, b: Path, output: Path) -> str:
    """Compare every suite that both have; writes ``compare.json``, ``compare.md`` and ``compare.png`` into ``output``
    and returns the Markdown.

    Raises:
        DataError: one is no result, they have no suite in common, or they were not made alike; the message names the
            fields in which they differ.
    """
    (first, tallies), (second, others) = stored.read(a), stored.read(b)
    shared = [name for name in tallies if name in others]
    if not shared:
        raise DataError(f"{a} has {', '.join(tallies)} and {b} has {', '.join(others)}; evaluate both on one suite")
    problems: list[str] = []
    for name in shared:
        of_a, of_b = stored.provenance(first, name), stored.provenance(second, name)
        for field in differing(of_a, of_b):
            problems.append(f"{name}.{field}: {_quote(of_a, field)} and {_quote(of_b, field)}")
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise DataError(f"{a} and {b} cannot be compared; they differ in\n{lines}\n  -> evaluate both models alike")
    alone = sorted(set(tallies) ^ set(others))
    content: dict[str, Any] = {"a": first["model"], "b": second["model"], "suites": {}, "not_compared": alone}
    for name in shared:
        try:
            paired = compare(tallies[name], others[name])
            pooled = unpaired(first["suites"][name]["metrics"], second["suites"][name]["metrics"])
            content["suites"][name] = as_json({**paired, **pooled})
        except ValueError as error:
            raise DataError(f"{a} and {b}, suite {name}: {error}") from error
    text = markdown.comparison(content)
    write_text(output / COMPARISON, json.dumps(content, indent=2) + "\n")
    write_text(output / "compare.md", text + "\n")
    plot.comparison(content, output / "compare.png")
    return text


def _quote(provenance: Provenance, field: str) -> str:
    value = getattr(provenance, field)
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 120 else f"{text[:120]}..."
