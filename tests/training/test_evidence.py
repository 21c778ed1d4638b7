"""The tables of the evidence page."""

from __future__ import annotations

import pytest

from training.evidence import table


def summary(before: float, after: float) -> dict[str, object]:
    return {"evaluation": {"before": {"chair_s": before}, "after": {"chair_s": after}}}


def test_a_row_has_means_deviations_and_the_change_of_the_means() -> None:
    lines = table([summary(0.4, 0.1), summary(0.2, 0.2)]).splitlines()
    assert lines[2] == "| chair_s | 0.300 ± 0.141 | 0.150 ± 0.071 | -0.150 | -50.0 % |"
    assert len(lines) == 3


@pytest.mark.parametrize("before", [0.0])
def test_no_relative_change_from_nothing(before: float) -> None:
    assert table([summary(before, 0.1)]).splitlines()[2].endswith("| +0.100 | - |")
