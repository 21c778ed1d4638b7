"""The plots of the evidence page: what is drawn is what the table says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from training.evidence import figure

VALUES = {
    "before": {"Cover": [0.9, 0.9]},
    "DPO": {"Cover": [0.5, 0.7], "drift": [-2.0, -4.0]},
    "mDPO": {"Cover": [0.8, 0.8], "drift": [1.0, 1.0]},
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The figures that were saved, still open."""
    figures: list[Any] = []
    monkeypatch.setattr(figure, "_save", lambda drawing, file: figures.append(drawing))
    yield figures
    for drawing in figures:
        figure._pyplot().close(drawing)


def panels(drawing: Any) -> dict[str, Any]:
    return {axes.get_title(loc="left"): axes for axes in drawing.axes if axes.axison}


def test_every_metric_has_a_panel_and_every_row_a_bar_as_long_as_its_mean(drawn: list[Any]) -> None:
    figure.bars(VALUES, ["Cover", "drift", "nothing"], Path("x.png"))
    axes = panels(drawn[0])
    assert set(axes) == {"Cover", "drift"}  # what nobody measured has no panel
    assert [bar.get_width() for bar in axes["Cover"].patches] == pytest.approx([0.9, 0.6, 0.8])
    assert [bar.get_width() for bar in axes["drift"].patches] == pytest.approx([-3.0, 1.0])
    assert [label.get_text() for label in axes["Cover"].get_yticklabels()] == ["before", "DPO", "mDPO"]
    low, high = axes["drift"].get_xlim()
    assert low < -3 - 2**0.5 and high > 1  # bars, their spread and their numbers are inside


def test_thousands_are_written_out(drawn: list[Any]) -> None:
    figure.bars({"before": {"pairs": [2789.0, 2790.0]}, "DPO": {"pairs": [829.3]}}, ["pairs"], Path("x.png"))
    assert [text.get_text() for text in panels(drawn[0])["pairs"].texts] == ["2,790", "829"]


def test_nothing_but_zeros_is_drawn_as_such(drawn: list[Any]) -> None:
    figure.bars({"before": {"CHAIRs": [0.0, 0.0]}}, ["CHAIRs"], Path("x.png"))
    low, high = panels(drawn[0])["CHAIRs"].get_xlim()
    assert low == 0 < high


def test_the_spread_is_the_standard_deviation_over_seeds_and_each_seed_a_dot(drawn: list[Any]) -> None:
    figure.bars(VALUES, ["Cover"], Path("x.png"))
    (axes,) = panels(drawn[0]).values()
    segments = [segment for lines in axes.collections for segment in lines.get_segments()]
    ends = sorted(round(float(x), 4) for segment in segments for x, _ in segment)
    assert round(0.6 - 0.02**0.5, 4) in ends and round(0.6 + 0.02**0.5, 4) in ends
    dots = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]
    assert dots == [[0.9, 0.9], [0.5, 0.7], [0.8, 0.8]]


def steps(count: int, chosen: float) -> list[dict[str, float]]:
    return [{"step": i, "rewards/chosen": chosen * i, "rewards/rejected": -chosen * i} for i in range(count)]


def test_curves_are_means_over_the_steps_that_every_seed_has(drawn: list[Any]) -> None:
    rows = {"DPO": [steps(4, 1.0), steps(3, 3.0)], "mDPO": [steps(2, 1.0), steps(2, 1.0)]}
    figure.curves(rows, Path("x.png"))
    axes = panels(drawn[0])
    lines = {line.get_label(): line for line in axes["DPO"].lines}
    assert list(lines["rewards/chosen"].get_xdata()) == [0, 1, 2]
    assert list(lines["rewards/chosen"].get_ydata()) == [0.0, 2.0, 4.0]
    # Told apart by dashes as well as by colour.
    assert lines["rewards/chosen"].get_linestyle() != lines["rewards/rejected"].get_linestyle()


def test_rows_of_one_name_are_a_line_over_their_levels(drawn: list[Any]) -> None:
    rows = {
        "before": {"Cover": [0.9]},
        "DPO; none": {"Cover": [0.5, 0.7]},
        "DPO; all": {"Cover": [0.4, 0.4]},
        "mDPO; none": {"Cover": [0.8, 0.8]},
    }
    figure.over_levels(rows, ["Cover", "SHR"], Path("levels.png"))
    (axes,) = (axes for axes in drawn[0].axes if axes.get_title(loc="left"))
    lines = {container.get_label(): container.lines[0].get_ydata() for container in axes.containers}
    assert list(lines) == ["DPO", "mDPO"]
    assert list(lines["DPO"]) == pytest.approx([0.6, 0.4]) and list(lines["mDPO"]) == pytest.approx([0.8])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "all"]


def test_what_was_gained_is_drawn_over_how_often_labels_are_right(drawn: list[Any]) -> None:
    rows = {
        "before": {"CHAIRs": [0.4]},
        "CLIP": {"pairs right": [0.6, 0.8], "CHAIRs": [0.1, 0.3]},
        "500 pairs; noise 0": {"pairs right": [0.9], "CHAIRs": [0.05]},
        "500 pairs; noise 4": {"pairs right": [0.55], "CHAIRs": [0.3]},
        "not looked at": {"CHAIRs": [0.5]},
    }
    figure.over_accuracy(rows, Path("accuracy.png"))
    axes = panels(drawn[0])["CHAIRs (less is better)"]
    lines = {container.get_label(): container.lines[0] for container in axes.containers}
    assert list(lines["500 pairs"].get_xdata()) == [0.55, 0.9]  # by accuracy, not in the table's order
    assert list(lines["500 pairs"].get_ydata()) == [0.3, 0.05]
    assert len(axes.containers) == 2 and [text.get_text() for text in axes.texts] == ["CLIP"]
    (clip,) = (container.lines[0] for container in axes.containers if container.get_label() != "500 pairs")
    assert [*clip.get_xdata(), *clip.get_ydata()] == pytest.approx([0.7, 0.2])
    assert axes.get_xlabel() == "share of pairs whose chosen text is the better one"
    empty = panels(drawn[0])["SHR (less is better)"]
    assert not any(len(container.lines[0].get_xdata()) for container in empty.containers) and not empty.texts


def test_no_curves_where_a_run_has_logged_no_rewards() -> None:
    assert figure.has_curves({"DPO": [steps(2, 1.0)]})
    assert not figure.has_curves({"DPO": [steps(2, 1.0), []]})


def test_the_figures_are_files(tmp_path: Path) -> None:
    figure.bars(VALUES, ["Cover", "drift"], tmp_path / "new" / "bars.png")
    figure.curves({"DPO": [steps(3, 1.0)]}, tmp_path / "new" / "curves.png")
    for name in ("bars.png", "curves.png"):
        assert (tmp_path / "new" / name).read_bytes().startswith(b"\x89PNG")
