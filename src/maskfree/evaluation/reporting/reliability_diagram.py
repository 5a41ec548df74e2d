"""Reliability diagram: accuracy over confidence, as SVG for a report or a page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

# Side of the plot and room for the text around it, in SVG units.
_SIDE, _MARGIN, _BELOW = 240, 44, 40
_BAR, _GAP, _LINE = "#0072b2", "#d55e00", "#8a8f98"


def reliability_diagram(reliability: Mapping[str, Any], title: str) -> str:
    """Draw the accuracy of each bin of confidence, and its gap to the confidence.

    Args:
        reliability: `Row.reliability` of a row of results.
        title: Title of the diagram.

    Returns:
        SVG element: a bar per bin for its accuracy, a line at its mean confidence, and below it the
        share of the pixels as a second row of bars.

    Source: Guo et al. 2017, Figure 1 (arXiv:1706.04599).
    """
    bins = reliability["bins"]
    width = _SIDE / len(bins)
    largest = max(share for share, _, _ in bins)

    shapes = []
    for place, (share, confidence, accuracy) in enumerate(bins):
        left = _MARGIN + place * width
        if not share:
            continue

        shapes.append(_bar(left, width, _SIDE * accuracy, _SIDE, _BAR))
        level = _MARGIN + _SIDE * (1 - confidence)
        shapes.append(
            f'<line x1="{left:.1f}" x2="{left + width:.1f}" y1="{level:.1f}" y2="{level:.1f}" '
            f'stroke="{_GAP}" stroke-width="2"/>'
        )
        bottom = _SIDE + _BELOW + 8
        shapes.append(_bar(left, width, _BELOW * share / largest, bottom, _LINE))

    top, right, bottom = _MARGIN, _MARGIN + _SIDE, _MARGIN + _SIDE
    axes = (
        f'<path d="M{_MARGIN} {top}V{bottom}H{right}" fill="none" stroke="currentColor"/>'
        f'<path d="M{_MARGIN} {bottom}L{right} {top}" stroke="{_LINE}" stroke-dasharray="4 4"/>'
    )
    texts = [
        _text(_MARGIN, 16, title),
        _text(_MARGIN, 32, f"ECE {100 * reliability['ece']:.1f} %"),
        _text(_MARGIN - 6, bottom + 4, "0", "end"),
        _text(_MARGIN - 6, top + 8, "1", "end"),
        _text(_MARGIN, bottom + _BELOW + 24, "confidence 0"),
        _text(right, bottom + _BELOW + 24, "1", "end"),
        _text(_MARGIN, bottom + _BELOW + 40, "bars: accuracy, below: share of the pixels;"),
        _text(_MARGIN, bottom + _BELOW + 56, "lines: mean confidence"),
    ]

    view = f"0 0 {_SIDE + 2 * _MARGIN} {_SIDE + _BELOW + 2 * _MARGIN + 24}"
    return (
        f'<svg viewBox="{view}" style="width:328px" role="img" font-family="sans-serif" '
        f'font-size="12" color="#5a6068">'
        f"<title>{escape(title)}</title>\n" + "\n".join([*shapes, axes, *texts]) + "\n</svg>\n"
    )


def as_file(element: str) -> str:
    """Make an SVG element the content of a file of its own.

    Args:
        element: SVG element without a name space, as in HTML.

    Returns:
        Content of the file.
    """
    return element.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _bar(left: float, width: float, height: float, bottom: float, color: str) -> str:
    """A bar that stands on a line, given from the top of the plot."""
    top = _MARGIN + bottom - height
    path = f"M{left + 1:.1f} {top:.1f}h{width - 2:.1f}v{height:.1f}h{2 - width:.1f}z"
    return f'<path d="{path}" fill="{color}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    """A line of text."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="currentColor">{escape(text)}</text>'
