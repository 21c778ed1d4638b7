"""The plots of the evidence page, as PNG: bars with the spread over seeds, and what was logged while training.

Colours are from the palette of Okabe and Ito, which keeps apart for all kinds of colour vision; lines differ in their
dashes as well, and no bar is told from another by its colour alone.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evidence.label_places import FONT_SIZE, Box, Point, Segment, middles
from training.evidence.seed_table import BEFORE, Values, deviation

BLUE, ORANGE, GREY, INK = "#0072B2", "#E69F00", "#999999", "#222222"
_COLUMNS = 4
#: Metric, its colour, its dashes. Not the image margin: it is ten times as large, and has a column of its own.
_CURVES = (("rewards/chosen", BLUE, "-"), ("rewards/rejected", ORANGE, "--"))
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "legend.frameon": False,
}

#: Per label, for each seed, the lines of ``metrics.jsonl``.
Logged = Mapping[str, Sequence[Sequence[Mapping[str, float]]]]


def bars(by_label: Values, titles: Sequence[str], file: Path) -> None:
    """One panel a metric, one bar a row: the mean over seeds, its standard deviation, and a dot for each seed."""
    plt = _pyplot()
    titles = [title for title in titles if any(title in cells for cells in by_label.values())]
    labels = list(by_label)
    columns = min(_COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    with plt.rc_context(_STYLE):
        size = (2.7 * columns + 1.6, rows * (0.7 + 0.27 * len(labels)))
        figure, grid = plt.subplots(rows, columns, figsize=size, sharey=True, layout="constrained", squeeze=False)
        for axes, title in zip(grid.flat, titles, strict=False):
            _panel(axes, [by_label[label].get(title) for label in labels], labels)
            axes.set_title(title)
        grid[0][0].invert_yaxis()  # shared: the first row on top everywhere
        for axes in grid.flat[len(titles) :]:
            axes.set_axis_off()
        _save(figure, file)


def _panel(axes: Any, cells: Sequence[Sequence[float] | None], labels: Sequence[str]) -> None:
    drawn = [(place, label, of) for place, (label, of) in enumerate(zip(labels, cells, strict=True)) if of]
    ends = [statistics.fmean(of) + (1 if statistics.fmean(of) >= 0 else -1) * deviation(of) for _, _, of in drawn]
    reach = max((abs(value) for _, _, of in drawn for value in (*of, *ends)), default=1.0) or 1.0
    for (place, label, of), end in zip(drawn, ends, strict=True):
        mean = statistics.fmean(of)
        side = 1 if mean >= 0 else -1
        axes.barh(place, mean, height=0.66, color=GREY if label == BEFORE else BLUE, alpha=0.75)
        axes.errorbar(mean, place, xerr=deviation(of), fmt="none", ecolor=INK, elinewidth=1.1, capsize=2.5)
        axes.plot(of, [place] * len(of), linestyle="none", marker="o", markersize=2.2, color=INK)
        far = side * max(side * end, *(side * value for value in of), 0.0)
        shown = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.3g}"
        axes.text(far + side * 0.03 * reach, place, shown, va="center", ha="left" if side > 0 else "right",
                  fontsize=7.5, color=INK)  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.8)
    values = [value for _, _, of in drawn for value in of] + ends
    low, high = min(values, default=0.0), max(values, default=1.0)
    # Room for the numbers behind the bars.
    axes.set_xlim(low - 0.3 * reach if low < 0 else 0.0, high + 0.3 * reach if high > 0 or low == 0 else 0.0)


#: Between a row's name and its level: "DPO; in half".
LEVEL = "; "
#: Okabe and Ito's others, with a mark each.
_LINES = (("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#D55E00", "P"),
          ("#000000", "X"))  # fmt: skip


def over_levels(by_label: Values, titles: Sequence[str], file: Path) -> None:
    """One panel a metric, one line a name over the levels that rows of that name have: mean and standard deviation."""
    plt = _pyplot()
    rows = [(label.rpartition(LEVEL), cells) for label, cells in by_label.items() if LEVEL in label]
    names = list(dict.fromkeys(name for (name, _, _), _ in rows))
    places = {level: place for place, level in enumerate(dict.fromkeys(level for (_, _, level), _ in rows))}
    titles = [title for title in titles if any(title in cells for _, cells in rows)]
    columns = min(_COLUMNS, len(titles))
    lines = -(-len(titles) // columns)
    with plt.rc_context(_STYLE):
        size = (2.7 * columns + 0.4, 2.3 * lines + 0.7)
        figure, grid = plt.subplots(lines, columns, figsize=size, layout="constrained", squeeze=False)
        for axes, title in zip(grid.flat, titles, strict=False):
            for at, (name, (colour, mark)) in enumerate(zip(names, itertools.cycle(_LINES), strict=False)):
                of = {
                    places[level]: cells[title] for (other, _, level), cells in rows if other == name and title in cells
                }
                # Beside each other, so that no bar hides another.
                x = [place + 0.06 * (at - (len(names) - 1) / 2) for place in of]
                means, spreads = [statistics.fmean(v) for v in of.values()], [deviation(v) for v in of.values()]
                axes.errorbar(x, means, yerr=spreads, color=colour, marker=mark, markersize=4, linewidth=1.2,
                              elinewidth=0.8, capsize=2, label=name)  # fmt: skip
            if title in by_label.get(BEFORE, {}):
                axes.axhline(statistics.fmean(by_label[BEFORE][title]), color=GREY, linewidth=0.9, linestyle=":")
            axes.set_title(title)
            axes.set_xticks(range(len(places)), list(places))
            axes.margins(x=0.1)
            axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
        for axes in grid.flat[len(titles) :]:
            axes.set_axis_off()
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
        _save(figure, file)


#: What labels are for, with the direction that is better.
_GAINS = (("CHAIRs", "less"), ("Cover", "more"), ("SHR", "less"), ("POPE F1", "more"))


def over_accuracy(by_label: Values, file: Path, across: str = "pairs right") -> None:
    """Four panels of what was gained, over how often the labels are right: rows of one name with levels as a line, the
    others as points with names; mean and standard deviation."""
    plt = _pyplot()
    rows = {label: cells for label, cells in by_label.items() if across in cells}
    lines: dict[str, list[str]] = {}
    for label in rows:
        lines.setdefault(label.rpartition(LEVEL)[0] or label, []).append(label)
    with plt.rc_context(_STYLE):
        figure, grid = plt.subplots(2, 2, figsize=(10.5, 7.8), layout="constrained", squeeze=False)
        placed: list[tuple[Any, dict[str, Point], list[Segment], list[Point]]] = []
        for axes, (title, better) in zip(grid.flat, _GAINS, strict=True):
            named: dict[str, Point] = {}
            bars: list[Segment] = []
            unnamed: list[Point] = []
            styles = iter(itertools.cycle(_LINES[1:]))
            for name, labels in lines.items():
                at = sorted((statistics.fmean(rows[label][across]), label) for label in labels if title in rows[label])
                x, y = [place for place, _ in at], [statistics.fmean(rows[label][title]) for _, label in at]
                wide, tall = ([deviation(rows[label][of]) for _, label in at] for of in (across, title))
                single = labels == [name]
                colour, mark = (BLUE, "o") if single else next(styles)
                axes.errorbar(x, y, xerr=wide, yerr=tall, color=colour, marker=mark, markersize=4.5, linewidth=1.2,
                              elinewidth=0.8, capsize=2, label=None if single else name)  # fmt: skip
                bars += list(itertools.pairwise(zip(x, y, strict=True)))
                if single and at:
                    named[name] = (x[0], y[0])
                else:
                    unnamed += zip(x, y, strict=True)
            if title in by_label.get(BEFORE, {}):
                axes.axhline(statistics.fmean(by_label[BEFORE][title]), color=GREY, linewidth=0.9, linestyle=":")
            axes.set_title(f"{title} ({better} is better)")
            axes.set_xlabel("share of pairs whose chosen text is the better one")
            axes.margins(x=0.12, y=0.12)
            axes.grid(color=INK, alpha=0.12, linewidth=0.8)
            placed.append((axes, named, bars, unnamed))
        handles, labels = grid[0][0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=len(handles))
        for axes, named, bars, unnamed in placed:
            _name(axes, named, bars, unnamed)
        _save(figure, file)


def front(by_label: Values, file: Path, across: str = "Cover", up: str = "CHAIRs") -> None:
    """Every row as a point with its spread over seeds. The line joins those that no other beats in both: less
    hallucination at as much Cover."""
    plt = _pyplot()
    cells = {label: of for label, of in by_label.items() if across in of and up in of}
    points = {label: (statistics.fmean(of[across]), statistics.fmean(of[up])) for label, of in cells.items()}
    best = on_front(points)
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 5.2), layout="constrained")
        line = sorted(points[label] for label in best)
        axes.plot(*zip(*line, strict=True), color=ORANGE, linewidth=1.2, linestyle="--", zorder=1)
        bars: list[Segment] = list(itertools.pairwise(line))
        for label, (right, high) in points.items():
            colour = GREY if label == BEFORE else ORANGE if label in best else BLUE
            wide, tall = deviation(cells[label][across]), deviation(cells[label][up])
            axes.errorbar(right, high, xerr=wide, yerr=tall, fmt="s" if label in best else "o", color=colour,
                          ecolor=GREY, elinewidth=0.9, capsize=2, markersize=5)  # fmt: skip
            bars += [((right - wide, high), (right + wide, high)), ((right, high - tall), (right, high + tall))]
        axes.set_xlabel(f"{across} (more is better)")
        axes.set_ylabel(f"{up} (less is better)")
        _upwards(axes, [high for _, high in points.values()])
        axes.margins(x=0.18)
        axes.grid(color=INK, alpha=0.12, linewidth=0.8)
        _name(axes, points, bars)
        _save(figure, file)


def _name(axes: Any, points: Mapping[str, Point], bars: Sequence[Segment], unnamed: Sequence[Point] = ()) -> None:
    """Write each point's name where it is on no other."""
    axes.figure.draw_without_rendering()  # the limits are what they will be
    low, inch = axes.get_ylim()[0], axes.figure.dpi

    def drawn(point: Point) -> Point:
        # Where ratios are drawn a bar may reach down to nothing.
        x, y = axes.transData.transform((point[0], max(point[1], low))) * 72 / inch
        return float(x), float(y)

    shown = {label: drawn(point) for label, point in points.items()}
    edges = Box(*(float(edge) * 72 / inch for edge in axes.bbox.extents))
    lines = [(drawn(start), drawn(end)) for start, end in bars]
    for label, (x, y) in middles(shown, lines, edges, list(map(drawn, unnamed))).items():
        axes.annotate(label, points[label], xytext=(x - shown[label][0], y - shown[label][1]),
                      textcoords="offset points", va="center", ha="center", fontsize=FONT_SIZE, color=INK,
                      bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
                      arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.6, "shrinkB": 3})  # fmt: skip


def _upwards(axes: Any, values: Sequence[float]) -> None:
    """From nothing on; or by ratios, where those near nothing would lie on each other."""
    if min(values) <= 0 or max(values) < 10 * min(values):
        axes.set_ylim(bottom=0)
        return
    axes.set_yscale("log")
    ticks = [tick for tick in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if min(values) / 2 < tick < 2 * max(values)]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.margins(y=0.08)


def on_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Which (Cover, hallucination) no other beats: has at least as much Cover and at most as much hallucination, and
    one of them strictly.

    >>> on_front({"a": (0.9, 0.1), "b": (0.8, 0.2), "c": (0.95, 0.3)})
    ['a', 'c']
    """
    return [
        label
        for label, (cover, made_up) in points.items()
        if not any(
            other >= cover and less <= made_up and (other, less) != (cover, made_up) for other, less in points.values()
        )
    ]


def has_curves(rows: Logged) -> bool:
    """Whether rewards were logged in every run."""
    return all(any("rewards/chosen" in line for line in run) for runs in rows.values() for run in runs)


def curves(rows: Logged, file: Path) -> None:
    """Rewards over training, mean and range over seeds, one panel a row of the table."""
    plt = _pyplot()
    columns = min(_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    with plt.rc_context(_STYLE):
        size = (2.7 * columns + 0.6, 2.2 * lines + 0.3)
        figure, grid = plt.subplots(lines, columns, figsize=size, sharey=True, layout="constrained", squeeze=False)
        handles: dict[str, Any] = {}
        for axes, (label, runs) in zip(grid.flat, rows.items(), strict=False):
            for key, colour, dashes in _CURVES:
                steps, at_step = over_seeds(runs, key)
                if not steps:
                    continue
                means = [statistics.fmean(values) for values in at_step]
                (line,) = axes.plot(steps, means, color=colour, linestyle=dashes, linewidth=1.5, label=key)
                axes.fill_between(steps, list(map(min, at_step)), list(map(max, at_step)), color=colour, alpha=0.25)
                handles.setdefault(key, line)
            axes.axhline(0, color=GREY, linewidth=0.8)
            axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
            axes.set_title(label)
            axes.set_xlabel("step")
        for axes in grid.flat[len(rows) :]:
            axes.set_axis_off()
        for line in grid:
            line[0].set_ylabel("reward")
        figure.legend(handles=list(handles.values()), loc="outside upper center", ncols=len(handles) or 1)
        _save(figure, file)


def over_seeds(runs: Sequence[Sequence[Mapping[str, float]]], key: str) -> tuple[list[float], list[list[float]]]:
    """The steps at which every seed has logged ``key``, and the seeds' values at each: runs end at different steps.

    >>> over_seeds([[{"step": 1, "a": 0.5}, {"step": 2, "a": 0.6}], [{"step": 1, "a": 0.7}]], "a")
    ([1], [[0.5, 0.7]])
    """
    logged = [{line["step"]: line[key] for line in run if key in line} for run in runs]
    steps = sorted(set.intersection(*(set(at_step) for at_step in logged))) if logged else []
    return steps, [[at_step[step] for at_step in logged] for step in steps]


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    _pyplot().close(figure)
