"""Charts of results as PNG or SVG: bars of IoU by class, curves over a setting, bars of
rankings.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from maskfree.evaluation.reporting.chart_style import (
    COLORS,
    MARKERS,
    check_suffix,
    make_figure,
    percents,
    save,
    set_title,
    style,
)
from maskfree.evaluation.reporting.results import Row
from maskfree.evaluation.reporting.tables import threshold_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Chart: TypeAlias = "tuple[Figure, Axes]"
"""A figure and its only axes."""

# Up to this many bars are vertical; beyond, names need the room of horizontal bars.
MAX_UPRIGHT = 40
# The line at the mean.
_LEVEL: dict[str, Any] = {"color": COLORS[1], "linewidth": 1.2, "linestyle": "--"}


@dataclass(frozen=True)
class Series:
    """One line of a chart, with a point for each value of the setting."""

    label: str
    """Name in the legend."""
    settings: Sequence[float]
    """Values of the setting."""
    scores: Sequence[float | None]
    """Score in [0, 1] at each value; None leaves a gap."""
    spreads: Sequence[float] = ()
    """Spread of each score, drawn as error bars; empty for none."""

    def __post_init__(self) -> None:
        if not self.settings or len(self.scores) != len(self.settings):
            raise ValueError(
                f"{self.label}: {len(self.settings)} settings and "
                f"{len(self.scores)} scores, not as "
                "many"
            )

        if self.spreads and len(self.spreads) != len(self.settings):
            raise ValueError(
                f"{self.label}: {len(self.settings)} settings and {len(self.spreads)} spreads"
            )


@dataclass(frozen=True)
class Panel:
    """One ranking of `ranking_bars`, with a bar for each run from top to bottom."""

    title: str
    """Title of the panel."""
    labels: Sequence[str]
    """Label of each bar."""
    scores: Sequence[float | None]
    """Score in [0, 1] of each bar, or None."""


def class_bars(
    iou: Mapping[str, float | None],
    title: str,
    path: Path,
    mean: float | None = None,
    in_order: bool = False,
) -> Path:
    """Draw a bar of IoU for each class and a line at the mean.

    Args:
        iou: IoU in [0, 1] by class; a class with None has no bar.
        title: Title of the figure.
        path: Image to write, PNG or SVG.
        mean: Mean IoU in [0, 1] for the line; by default the mean of the bars.
        in_order: Keep the order of `iou`; by default the highest bar comes first.

    Returns:
        `path`.

    Raises:
        ValueError: `path` is neither PNG nor SVG, or no class has an IoU.

    Source: arXiv:2207.08455, Fig. 6.
    """
    check_suffix(path)
    known = {name: 100 * value for name, value in iou.items() if value is not None}
    if not known:
        raise ValueError(f"{title}: no class has an IoU, so there is nothing to draw")

    names = list(known)
    if not in_order:
        names.sort(key=lambda name: -known[name])
    values = [known[name] for name in names]

    level = sum(known.values()) / len(known)
    if mean is not None:
        level = 100 * mean

    with style():
        if len(names) <= MAX_UPRIGHT:
            figure, axes = _upright_bars(names, values, level)
            place = "upper right"
        else:
            figure, axes = _level_bars(names, values, level)
            place = "lower right"

        set_title(figure, axes, title)
        axes.legend(loc=place)
        return save(figure, path)


def _upright_bars(names: Sequence[str], values: Sequence[float], level: float) -> Chart:
    """Draw vertical bars and a line at a level, in percent."""
    # Sizes in inches; the figure grows with the number of bars.
    figure, (axes,) = make_figure((max(3.5, 1.2 + 0.27 * len(names)), 3.2))
    axes.bar(names, values, width=0.7, color=COLORS[0])
    axes.axhline(level, label=f"mIoU {level:.1f}", **_LEVEL)

    # Anchor the end of each rotated name at its bar.
    axes.tick_params("x", rotation=45, length=0)
    for tick in axes.get_xticklabels():
        tick.set(horizontalalignment="right", rotation_mode="anchor")

    axes.set(ylabel="IoU [%]", xlim=(-0.6, len(names) - 0.4))
    axes.grid(visible=False, axis="x")
    return figure, axes


def _level_bars(names: Sequence[str], values: Sequence[float], level: float) -> Chart:
    """Draw horizontal bars from top to bottom and a line at a level, in percent."""
    figure, (axes,) = make_figure((5.5, 1 + 0.17 * len(names)))
    axes.barh(names, values, height=0.7, color=COLORS[0])
    axes.axvline(level, label=f"mIoU {level:.1f}", **_LEVEL)

    axes.tick_params("y", labelsize=7, length=0)
    axes.set(xlabel="IoU [%]", ylim=(len(names) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    return figure, axes


def threshold_curve(rows: Sequence[Row], path: Path, fixed: float | None = None) -> Path:
    """Draw mIoU (solid) and pixel accuracy (dashed) over the background threshold.

    Each model and protocol has a color. The best threshold of a sweep is not marked, since it was
    found on the evaluated photos.

    Args:
        rows: Rows of sweeps on one benchmark.
        path: Image to write, PNG or SVG.
        fixed: Threshold that was chosen before the evaluation, to mark.

    Returns:
        `path`.

    Raises:
        ValueError: `path` is neither PNG nor SVG, there are no rows, or a row has no threshold.
    """
    check_suffix(path)
    if not rows:
        raise ValueError("no rows of a sweep to draw")

    runs: dict[str, list[Row]] = {}
    for row in sorted(rows, key=threshold_of):
        runs.setdefault(_run_label(row), []).append(row)

    # The legend of several runs stands below the axes and needs a line for each score.
    is_alone = len(runs) == 1
    height = 3.4
    if not is_alone:
        height = 3 + 0.36 * len(runs)

    with style():
        figure, (axes,) = make_figure((5.2, height))
        for number, (label, run) in enumerate(runs.items()):
            whose = "" if is_alone else f" of {label}"
            _draw_sweep(axes, run, whose, number)

        if fixed is not None:
            label = f"fixed beforehand: {fixed:g}"
            axes.axvline(fixed, color="#555555", linewidth=1, linestyle=":", label=label)
        axes.set(xlabel="background threshold", ylabel="[%]")
        axes.set_ylim(bottom=0)

        title = f"{rows[0].benchmark}, {rows[0].num_photos} photos"
        if is_alone:
            set_title(figure, axes, f"{title}, {next(iter(runs))}")
            axes.legend()
        else:
            set_title(figure, axes, title)
            figure.legend(loc="outside lower left")

        return save(figure, path)


def _draw_sweep(axes: Axes, run: Sequence[Row], whose: str, number: int) -> None:
    """Draw mIoU and pixel accuracy of a run over its thresholds."""
    thresholds = list(map(threshold_of, run))
    look: dict[str, Any] = {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
    }
    scores = percents([row.mean_iou for row in run])
    axes.plot(thresholds, scores, label=f"mIoU{whose}", **look)

    accuracies = percents([row.pixel_accuracy for row in run])
    look |= {"markerfacecolor": "white", "linestyle": "--"}
    axes.plot(thresholds, accuracies, label=f"pixel accuracy{whose}", **look)


def curve(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    title: str,
    path: Path,
    fixed: float | None = None,
) -> Path:
    """Draw scores in percent over a setting, with error bars where a series has spreads.

    Args:
        series: Lines of the chart.
        x_label: Name of the setting.
        y_label: Name of the score, without unit.
        title: Title of the figure.
        path: Image to write, PNG or SVG.
        fixed: Value of the setting that is used, to mark.

    Returns:
        `path`.

    Raises:
        ValueError: `path` is neither PNG nor SVG, or there is nothing to draw.

    Source: arXiv:2207.08455, Fig. 5.
    """
    check_suffix(path)
    if not series:
        raise ValueError(f"{title}: no series to draw")

    with style():
        figure, (axes,) = make_figure((4.6, 3.2))
        for number, each in enumerate(series):
            axes.errorbar(
                each.settings,
                percents(each.scores),
                yerr=percents(each.spreads) or None,
                label=each.label,
                color=COLORS[number % len(COLORS)],
                marker=MARKERS[number % len(MARKERS)],
                capsize=3,
                elinewidth=1,
            )

        if fixed is not None:
            axes.axvline(fixed, color="#555555", linewidth=1, linestyle=":")
        axes.set(xlabel=x_label, ylabel=f"{y_label} [%]")

        # Ticks at the measured values only.
        axes.set_xticks(sorted({setting for each in series for setting in each.settings}))

        set_title(figure, axes, title)
        if len(series) > 1:
            axes.legend()
        return save(figure, path)


def ranking_bars(panels: Sequence[Panel], path: Path) -> Path:
    """Draw a panel for each ranking, with a bar of mIoU for each run and one common scale.

    Args:
        panels: Rankings to draw.
        path: Image to write, PNG or SVG.

    Returns:
        `path`.

    Raises:
        ValueError: `path` is neither PNG nor SVG, or there is no panel.
    """
    check_suffix(path)
    if not panels:
        raise ValueError("no ranking to draw")

    # The height of the figure follows from the number of bars and of lines of the titles.
    titles = [textwrap.fill(panel.title, 56) for panel in panels]
    bars = [len(panel.labels) + 0.1 for panel in panels]
    lines = sum(title.count("\n") + 1 for title in titles)

    scores = [score for panel in panels for score in panel.scores if score is not None]
    top = 100 * max(scores, default=0.01)

    with style():
        height = 0.26 * sum(bars) + 0.17 * lines + 0.25 * len(panels) + 0.3
        figure, all_axes = make_figure((6.4, height), bars)
        for axes, panel, title in zip(all_axes, panels, titles, strict=True):
            _draw_ranking(axes, panel)
            axes.set_xlim(0, 1.1 * top)
            axes.set_title(title, loc="left", fontsize=9)

        # Only the lowest panel shows the numbers of the common scale.
        for axes in all_axes[:-1]:
            axes.tick_params("x", labelbottom=False)
        all_axes[-1].set_xlabel("mIoU [%]")

        return save(figure, path)


def _draw_ranking(axes: Axes, panel: Panel) -> None:
    """Draw the bars of a ranking from top to bottom, each with its score."""
    for place, score in enumerate(panel.scores):
        value, text = 0.0, "-"
        if score is not None:
            value, text = 100 * score, f"{100 * score:.1f}"
        axes.barh(place, value, height=0.68, color=COLORS[0])

        # The score stands to the right of its bar.
        beside = {"xytext": (3, 0), "textcoords": "offset points"}
        axes.annotate(text, (value, place), **beside, va="center", fontsize=8)

    axes.set_yticks(range(len(panel.labels)), panel.labels)
    axes.tick_params("y", length=0)
    axes.set_ylim(len(panel.scores) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")


def _run_label(row: Row) -> str:
    """Legend label of a run."""
    return f"{row.model}, names {row.protocol['names']}, protocol {row.protocol_name}"
