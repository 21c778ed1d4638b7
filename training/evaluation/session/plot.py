"""Results as a picture: one panel a suite, one dot a metric, with its interval. Draws with matplotlib when called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.session.markdown import headline, units

#: Value and interval; None if nobody knows how sure the value is.
Bar = tuple[float, Sequence[float] | None]
_COLOUR, _ZERO = "#3f74e0", "#888888"


def results(content: Mapping[str, Any], file: Path) -> None:
    """Draw what ``results.json`` holds, in percent. Metrics in other units are left to the table."""
    _draw({suite: _bars(suite, of["metrics"], "value") for suite, of in content["suites"].items()}, file, "%")


def comparison(content: Mapping[str, Any], file: Path) -> None:
    """Draw the differences of two models, in points of percent."""
    panels = {suite: _bars(suite, of, "difference") for suite, of in content["suites"].items()}
    _draw(panels, file, "B - A, points", zero=True)


def _bars(suite: str, metrics: Mapping[str, Any], key: str) -> dict[str, Bar]:
    shown = [name for name in headline(suite, metrics) if name not in units(suite)]
    bars = {name: (metrics[name][key], metrics[name]["interval"]) for name in shown}
    # Of other people's benchmarks nobody has said which metrics are shares.
    return {name: bar for name, bar in bars.items() if bar[0] is not None and abs(bar[0]) <= 1}


def _draw(panels: Mapping[str, Mapping[str, Bar]], file: Path, label: str, zero: bool = False) -> None:
    import matplotlib

    matplotlib.use("Agg")  # no display is needed, nor asked for
    from matplotlib import pyplot as plt

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    most = max((len(bars) for bars in panels.values()), default=1)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.6 * columns, rows * (0.7 + 0.26 * most)), layout="constrained", squeeze=False
    )
    for axes, (suite, bars) in zip(grid.flat, panels.items(), strict=False):
        for place, (value, ends) in enumerate(bars.values()):
            # A bootstrap's interval need not hold the value.
            error = None
            if ends is not None:
                error = [[max(100 * (value - ends[0]), 0)], [max(100 * (ends[1] - value), 0)]]
            axes.errorbar(100 * value, place, xerr=error, fmt="o", color=_COLOUR, markersize=4, capsize=3)
        axes.set_yticks(range(len(bars)), list(bars), fontsize=8)
        axes.set_ylim(max(len(bars), 1) - 0.5, -0.5)
        axes.set_title(suite, fontsize=10, loc="left")
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if zero:
            axes.axvline(0, color=_ZERO, linewidth=0.8)
        else:
            axes.set_xlim(-2, 102)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    plt.close(figure)
