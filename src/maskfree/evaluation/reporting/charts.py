"""Charts of results as PNG or SVG: bars of IoU by class, curves over a setting, bars of rankings.

With one version of matplotlib, equal input gives a byte-identical file. No display is needed.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskfree.evaluation.reporting.results import Row
from maskfree.evaluation.reporting.tables import threshold_of
from maskfree.files.atomic import replace_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
# A palette that is safe for color blindness.
COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#555555",
)
MARKERS = "osD^vPX"
# Up to this many bars are vertical; beyond, names need the room of horizontal bars.
MOST_UPRIGHT = 40
_STYLE = {
    # The font comes with matplotlib, so that files do not depend on the machine.
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.facecolor": "white",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.9,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    # Fixes the ids in SVG files, which are random otherwise.
    "svg.hashsalt": "maskfree",
    "savefig.dpi": 200,
}


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
                f"{self.label}: {len(self.settings)} settings and {len(self.scores)} scores, not as many"
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
    known = [(name, 100 * value) for name, value in iou.items() if value is not None]

    if not known:
        raise ValueError(f"{title}: no class has an IoU, so there is nothing to draw")

    level = sum(value for _, value in known) / len(known) if mean is None else 100 * mean
    bars = known if in_order else sorted(known, key=lambda bar: -bar[1])
    names, values = [name for name, _ in bars], [value for _, value in bars]
    upright = len(bars) <= MOST_UPRIGHT

    with style():
        # Sizes in inches; the figure grows with the number of bars.
        size = (max(3.5, 1.2 + 0.27 * len(bars)), 3.2) if upright else (5.5, 1 + 0.17 * len(bars))
        figure, (axes,) = _figure(size)

        label = f"mIoU {level:.1f}"

        if upright:
            axes.bar(names, values, width=0.7, color=COLORS[0])
            axes.axhline(level, color=COLORS[1], linewidth=1.2, linestyle="--", label=label)

            # Anchor the end of each rotated name at its bar.
            axes.tick_params("x", rotation=45, length=0)
            for tick in axes.get_xticklabels():
                tick.set(horizontalalignment="right", rotation_mode="anchor")
            axes.set(ylabel="IoU [%]", xlim=(-0.6, len(bars) - 0.4))
            axes.grid(visible=False, axis="x")
        else:
            axes.barh(names, values, height=0.7, color=COLORS[0])
            axes.axvline(level, color=COLORS[1], linewidth=1.2, linestyle="--", label=label)
            axes.tick_params("y", labelsize=7, length=0)
            axes.set(xlabel="IoU [%]", ylim=(len(bars) - 0.4, -0.6))
            axes.grid(visible=False, axis="y")

        _title(figure, axes, title)
        axes.legend(loc="upper right" if upright else "lower right")
        return save(figure, path)


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

    with style():
        # The legend of several runs stands below the axes and needs a line for each score.
        figure, (axes,) = _figure((5.2, 3.4 if len(runs) == 1 else 3 + 0.36 * len(runs)))

        for number, (label, run) in enumerate(runs.items()):
            thresholds = [threshold_of(row) for row in run]
            color, whose = COLORS[number % len(COLORS)], f" of {label}" if len(runs) > 1 else ""
            shown: dict[str, Any] = {"color": color, "marker": MARKERS[number % len(MARKERS)]}
            axes.plot(
                thresholds, _percents([row.mean_iou for row in run]), label=f"mIoU{whose}", **shown
            )

            accuracies = _percents([row.pixel_accuracy for row in run])

            lighter: dict[str, Any] = shown | {"markerfacecolor": "white", "linestyle": "--"}
            axes.plot(thresholds, accuracies, label=f"pixel accuracy{whose}", **lighter)

        if fixed is not None:
            axes.axvline(
                fixed,
                color="#555555",
                linewidth=1,
                linestyle=":",
                label=f"fixed beforehand: {fixed:g}",
            )

        axes.set(xlabel="background threshold", ylabel="[%]")
        axes.set_ylim(bottom=0)
        first = rows[0]
        alone = f", {next(iter(runs))}" if len(runs) == 1 else ""

        _title(figure, axes, f"{first.benchmark}, {first.num_photos} photos{alone}")

        if alone:
            axes.legend()
        else:
            figure.legend(loc="outside lower left")

        return save(figure, path)


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
        figure, (axes,) = _figure((4.6, 3.2))
        for number, each in enumerate(series):
            axes.errorbar(
                each.settings,
                _percents(each.scores),
                yerr=_percents(each.spreads) if each.spreads else None,
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

        _title(figure, axes, title)
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

    with style():
        figure, all_axes = _figure(
            (6.4, 0.26 * sum(bars) + 0.17 * lines + 0.25 * len(panels) + 0.3), bars
        )

        top = max(
            (100 * score for panel in panels for score in panel.scores if score is not None),
            default=1.0,
        )

        for axes, panel, title in zip(all_axes, panels, titles, strict=True):
            values = [0.0 if score is None else 100 * score for score in panel.scores]
            places = range(len(values))
            axes.barh(places, values, height=0.68, color=COLORS[0])

            # The score stands to the right of its bar.
            for place, value, score in zip(places, values, panel.scores, strict=True):
                text = "-" if score is None else f"{value:.1f}"
                axes.annotate(
                    text,
                    (value, place),
                    (3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )

            axes.set_yticks(places, panel.labels)
            axes.tick_params("y", length=0)
            axes.set(xlim=(0, 1.1 * top), ylim=(len(values) - 0.45, -0.55))
            axes.grid(visible=False, axis="y")
            axes.set_title(title, loc="left", fontsize=9)

        # Only the lowest panel shows the numbers of the common scale.
        for axes in all_axes[:-1]:
            axes.tick_params("x", labelbottom=False)
        all_axes[-1].set_xlabel("mIoU [%]")

        return save(figure, path)


def check_suffix(path: Path) -> None:
    """Check that an image has a supported format.

    Args:
        path: Image to write.

    Raises:
        ValueError: The suffix is neither .png nor .svg.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"the picture {path} must end in {' or '.join(SUFFIXES)}")


def style() -> AbstractContextManager[Any]:
    """Return the matplotlib context that gives all charts the same style.

    Returns:
        Context manager that sets and restores matplotlib's parameters.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ValueError("figures need matplotlib: pip install 'maskfree[evaluate]'") from error

    # Start from the defaults, so that a user's matplotlibrc changes nothing.
    style: dict[Any, Any] = {**mpl.rcParamsDefault, "backend": "agg", **_STYLE}
    return mpl.rc_context(style)


def _figure(
    size: tuple[float, float], heights: Sequence[float] = (1.0,)
) -> tuple[Figure, list[Axes]]:
    """Make a figure with axes below each other; sizes in inches, without pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(heights), squeeze=False, height_ratios=list(heights))
    return figure, [row[0] for row in grid]


def _title(figure: Figure, axes: Axes, title: str) -> None:
    """Set the title, wrapped to the width of the figure."""
    axes.set_title(textwrap.fill(title, max(30, int(11 * figure.get_figwidth()))), loc="left")


def _run_label(row: Row) -> str:
    """Legend label of a run."""
    return f"{row.model}, names {row.protocol['names']}, protocol {row.protocol_name}"


def _percents(fractions: Sequence[float | None]) -> list[float]:
    """Scores in percent; NaN for None."""
    return [float("nan") if fraction is None else 100 * fraction for fraction in fractions]


def save(figure: Figure, path: Path) -> Path:
    """Render a figure in memory and write it atomically, without date and program name.

    Args:
        figure: Figure to render.
        path: Image to write, PNG or SVG.

    Returns:
        `path`.
    """
    kind = path.suffix.lower().removeprefix(".")

    # Dates and versions would make equal figures differ.
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, metadata=metadata)
    replace_bytes(path, drawn.getvalue())
    return path
