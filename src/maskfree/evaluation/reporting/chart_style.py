"""Style, figures and files of charts: equal input gives a byte-identical file.

The files are the same with one version of matplotlib. No display is needed.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def make_figure(
    size: tuple[float, float], heights: Sequence[float] = (1.0,)
) -> tuple[Figure, list[Axes]]:
    """Make a figure with axes below each other, without pyplot's global state.

    Args:
        size: Width and height in inches.
        heights: Relative height of each of the axes.

    Returns:
        The figure and its axes, from top to bottom.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(heights), squeeze=False, height_ratios=list(heights))
    return figure, [row[0] for row in grid]


def set_title(figure: Figure, axes: Axes, title: str) -> None:
    """Set the title, wrapped to the width of the figure.

    Args:
        figure: Figure of the axes.
        axes: Axes that get the title.
        title: Text of any length.
    """
    axes.set_title(textwrap.fill(title, max(30, int(11 * figure.get_figwidth()))), loc="left")


def percents(fractions: Sequence[float | None]) -> list[float]:
    """Convert scores to percent.

    Args:
        fractions: Scores in [0, 1], or None.

    Returns:
        Scores in percent; NaN for None, which leaves a gap in a line.
    """
    values = []
    for fraction in fractions:
        values.append(math.nan if fraction is None else 100 * fraction)
    return values


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
    metadata: dict[str, str | None] = {"Software": None}
    if kind == "svg":
        metadata = {"Date": None, "Creator": None}

    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, metadata=metadata)
    replace_bytes(path, drawn.getvalue())
    return path
