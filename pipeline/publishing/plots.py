"""The plots of the report and of the card. Those of both are figures, which ``svg`` or ``png`` makes into a file.

An SVG is placed inside an HTML page: text stays text and takes the page's font; lines and labels take the page's colour
(``currentColor``), so that one drawing serves light and dark. Nothing in it refers to anything outside it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

from pipeline.publishing.value_counts import Tally

matplotlib.use("Agg")  # before pyplot: no display is needed, nor asked for
from matplotlib import pyplot as plt

CHOSEN, REJECTED, BEFORE, AFTER, NEUTRAL = "#1a9a82", "#d6496a", "#8b94a7", "#3f74e0", "#7a6fd0"
# A colour that no plot uses; replaced by the page's own.
_INK = "#010203"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def svg(figure: Any) -> str:
    """A figure of this module for an HTML page."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with plt.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # an HTML parser knows them; left out, no URL remains
    svg = re.sub(r'<g id="[a-zA-Z0-9]+(_\d+)+">', "<g>", svg)  # these repeat from plot to plot
    svg = re.sub(r'(<svg)[^>]*?(viewBox="[^"]*")[^>]*>', r'\1 \2 role="img" aria-hidden="true">', svg, count=1)
    return svg.replace(_INK, "currentColor")


def png(figure: Any) -> bytes:
    """A figure of this module as a file; the same one gives the same bytes."""
    buffer = io.BytesIO()
    with plt.rc_context(_STYLE):
        figure.savefig(buffer, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def before_after(names: Sequence[str], before: Sequence[Bar], after: Sequence[Bar], labels: tuple[str, str]) -> str:
    """Two bars per metric, in percent, with their intervals; ``before`` and ``after`` are aligned to ``names``."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(9.2, 3.1), layout="constrained")
        for bars, shift, colour, label in ((before, -0.2, BEFORE, labels[0]), (after, 0.2, AFTER, labels[1])):
            places = [i + shift for i in range(len(names))]
            heights = [100 * bar[0] for bar in bars]
            below = [100 * max(bar[0] - bar[1], 0) for bar in bars]
            above = [100 * max(bar[2] - bar[0], 0) for bar in bars]
            axes.bar(places, heights, 0.36, color=colour, label=label)
            spread = [i for i, bar in enumerate(bars) if bar[2] > bar[1]]  # an unknown interval has no width
            x, y, low, high = ([values[i] for i in spread] for values in (places, heights, below, above))
            axes.errorbar(x, y, yerr=(low, high), fmt="none", ecolor=_INK, elinewidth=1.1, capsize=2.5)
            for place, height, top in zip(places, heights, above, strict=True):
                axes.text(place, height + top + 1.5, f"{height:.1f}", ha="center", va="bottom", fontsize=8)
        axes.set_xticks(range(len(names)), names)
        axes.set_ylim(0, min(118, max((100 * bar[2] for bar in (*before, *after)), default=0) + 12))
        axes.set_ylabel("%")
        _grid(axes)
        axes.legend(loc="upper left", ncols=2, bbox_to_anchor=(0, 1.14))
        return svg(figure)


#: (value, low end of its interval, high end)
Bar = tuple[float, float, float]


def curves(steps: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """One small plot per panel; each holds named series over ``steps`` (nan where a step has no value)."""
    colours = {"chosen": CHOSEN, "rejected": REJECTED}
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with plt.rc_context(_STYLE):
        figure, grid = plt.subplots(rows, columns, figsize=(9.2, 2.15 * rows), layout="constrained", squeeze=False)
        for axes, (title, series) in zip(grid.flat, panels.items(), strict=False):
            for name, values in series.items():
                axes.plot(steps, values, color=colours.get(name, AFTER), linewidth=1.4, label=name)
            axes.set_title(title)
            axes.margins(x=0.02)
            axes.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=False)
            _grid(axes)
            if len(series) > 1:
                axes.legend(fontsize=8, loc="best")
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes in grid[-1]:
            axes.set_xlabel("step")
        return svg(figure)


def histograms(scores: Mapping[str, tuple[Tally, Tally]]) -> Any:
    """Per score the share of chosen and of rejected texts by value; bars per value where there are few values."""
    columns = min(3, len(scores))
    rows = -(-len(scores) // columns)
    with plt.rc_context(_STYLE):
        figure, grid = plt.subplots(rows, columns, figsize=(9.2, 2.05 * rows), layout="constrained", squeeze=False)
        for axes, (title, (chosen, rejected)) in zip(grid.flat, scores.items(), strict=False):
            _two_histograms(axes, chosen, rejected)
            axes.set_title(title)
        for axes in grid.flat[len(scores) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("% of texts")
        _legend_above(figure, grid.flat[0])
        return figure


def _legend_above(figure: Any, axes: Any) -> None:
    """Where no bar can lie under it; on the left, which a phone shows first."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=8)


def lengths(chosen: Tally, rejected: Tally, difference: Tally) -> Any:
    """Words of chosen and rejected texts, and the difference within a pair."""
    with plt.rc_context(_STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 2.3), layout="constrained")
        _two_histograms(left, chosen, rejected)
        left.set_title("words per text")
        left.set_ylabel("% of texts")
        _legend_above(figure, left)
        right.hist(difference.values, bins=_edges([difference]), weights=_percent(difference), color=NEUTRAL)
        right.axvline(0, color=_INK, linewidth=1, linestyle=(0, (3, 3)))
        right.set_title("words of chosen − words of rejected")
        right.set_ylabel("% of pairs")
        _grid(right)
        return figure


def logp_gaps(kinds: Mapping[str, Tally]) -> str:
    """Per kind of prompt, how much likelier per token the chosen text is than the rejected one."""
    with plt.rc_context(_STYLE):
        figure, row = plt.subplots(1, len(kinds), figsize=(9.2, 2.3), layout="constrained", squeeze=False)
        for axes, (kind, gaps) in zip(row.flat, kinds.items(), strict=True):
            axes.hist(gaps.values, bins=_edges([gaps]), weights=_percent(gaps), color=NEUTRAL)
            axes.axvline(0, color=_INK, linewidth=1, linestyle=(0, (3, 3)))
            axes.set_title(kind)
            axes.set_xlabel("log-prob of chosen − of rejected, nats per token")
            _grid(axes)
        row[0, 0].set_ylabel("% of pairs")
        return svg(figure)


def outcomes(rows: Sequence[tuple[str, int]]) -> str:
    """Horizontal bars, first row on top and in the colour of what was wanted."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(9.2, 0.5 + 0.3 * len(rows)), layout="constrained")
        colours = [CHOSEN, *(REJECTED if name.startswith("failed") else BEFORE for name, _ in rows[1:])]
        axes.barh(range(len(rows)), [number for _, number in rows], color=colours, height=0.7)
        largest = max((number for _, number in rows), default=1)
        for i, (_, number) in enumerate(rows):
            axes.text(number + largest * 0.01, i, f"{number:,}", va="center", fontsize=8.5)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_xlim(0, largest * 1.1)
        axes.invert_yaxis()
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xticks([])
        return svg(figure)


def _two_histograms(axes: Any, chosen: Tally, rejected: Tally) -> None:
    _grid(axes)
    values = np.union1d(chosen.values, rejected.values)
    if not len(values):
        axes.text(0.5, 0.5, "no values", ha="center", transform=axes.transAxes)
        return
    if len(values) <= (8 if _whole([chosen, rejected]) else 5):
        for side, shift, colour, label in ((chosen, -0.2, CHOSEN, "chosen"), (rejected, 0.2, REJECTED, "rejected")):
            heights = np.zeros(len(values))
            heights[np.searchsorted(values, side.values)] = _percent(side)
            axes.bar(np.arange(len(values)) + shift, heights, 0.38, color=colour, label=label)
        axes.set_xticks(range(len(values)), [f"{value:.2g}" for value in values.tolist()])
        return
    edges = _edges([chosen, rejected])
    for side, colour, label in ((chosen, CHOSEN, "chosen"), (rejected, REJECTED, "rejected")):
        drawn: Any = {"bins": edges, "weights": _percent(side), "color": colour}
        axes.hist(side.values, alpha=0.28, **drawn)
        axes.hist(side.values, histtype="step", linewidth=1.4, label=label, **drawn)


def _percent(tally: Tally) -> Any:
    return 100 * tally.counts / max(len(tally), 1)


def _whole(tallies: Sequence[Tally]) -> bool:
    return all(bool((tally.values == np.floor(tally.values)).all()) for tally in tallies)


def _edges(tallies: Sequence[Tally], most: int = 24) -> list[float]:
    """Edges of equal bins; for whole numbers each bin is centred on one, or on as many as keep the bins few."""
    some = [tally for tally in tallies if len(tally)]
    low, high = min((tally.low for tally in some), default=0.0), max((tally.high for tally in some), default=1.0)
    if _whole(tallies):
        width = max(-(-(int(high) - int(low) + 1) // most), 1)
        return [low - 0.5 + width * i for i in range((int(high) - int(low)) // width + 2)]
    return [low + (high - low) * i / most for i in range(most + 1)]


def _grid(axes: Any) -> None:
    axes.grid(axis="y", color=_INK, alpha=0.12, linewidth=0.8)
