"""Scatter plots of segment embeddings of several models, projected to the plane, colored by class.

Source: CLIP-S4 (CVPR 2023), Fig. 4a.

Differs: Principal components, since the paper does not name its projection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskfree.evaluation.reporting.chart_style import COLORS, MARKERS, check_suffix, save, style

Labeled = tuple[Tensor, Tensor]
"""Embeddings (n d) and the class of each (n), an index into the class names."""
# Maximum number of rows of a legend column.
_LEGEND_ROWS = 12


def draw_projection(
    embeddings: Mapping[str, Labeled],
    class_names: Sequence[str],
    path: Path,
    fit: Literal["each", "union"] = "each",
    title: str = "",
) -> Path:
    """Draw a panel for each model, with its embeddings along two principal components.

    Equal input gives an equal file.

    Args:
        embeddings: Embeddings and classes of the segments, by model name.
        class_names: Names of the classes.
        path: Image to write, PNG or SVG.
        fit: "each" fits principal components for each model. "union" fits them to all embeddings
            together and shares the axes, so that positions are comparable; all models must then
            have a common embedding space.
        title: Title of the figure.

    Returns:
        `path`.

    Raises:
        ValueError: `path` is neither PNG nor SVG, there is nothing to draw, or embeddings and
            classes do not match.
    """
    check_suffix(path)
    if fit not in ("each", "union"):
        raise ValueError(f"fit is {fit!r}: each or union")
    _check(embeddings, class_names, fit)

    values = {name: each.float().cpu() for name, (each, _) in embeddings.items()}
    labels = {name: classes.cpu() for name, (_, classes) in embeddings.items()}

    if fit == "union":
        together = torch.cat(list(values.values()))
        planes = {name: project(each, together) for name, each in values.items()}
    else:
        planes = {name: project(each, each) for name, each in values.items()}

    return _draw(planes, labels, class_names, path, fit == "union", title)


def project(values: Float[Tensor, "n d"], fitted_on: Float[Tensor, "m d"]) -> Float[Tensor, "n 2"]:
    """Project embeddings to the first two principal components of a set of embeddings.

    The sign of a component makes its largest coefficient positive, so that equal input gives an
    equal picture.

    Args:
        values: Embeddings to project.
        fitted_on: Embeddings that give the mean and the components.

    Returns:
        Coordinates in the plane.
    """
    mean = fitted_on.double().mean(0)
    centered = fitted_on.double() - mean

    # eigh sorts eigenvalues in ascending order: the last two have the largest variance.
    _, axes = torch.linalg.eigh(centered.T @ centered)
    axes = axes[:, -2:].flip(1)  # d 2

    # Fix the sign, which eigh leaves open.
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return ((values.double() - mean) @ (axes * largest.sign())).float()


def _draw(
    planes: Mapping[str, Float[Tensor, "n 2"]],
    labels: Mapping[str, Int[Tensor, " n"]],
    class_names: Sequence[str],
    path: Path,
    shared: bool,
    title: str,
) -> Path:
    """Draw the projected embeddings of each model, with one legend for all."""
    occurring = sorted({int(number) for each in labels.values() for number in each.unique()})
    with style():
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

        columns = math.ceil(len(occurring) / _LEGEND_ROWS)
        figure = Figure(figsize=(3.1 * len(planes) + 1.3 * columns, 3.3), layout="constrained")
        grid = figure.subplots(1, len(planes), squeeze=False, sharex=shared, sharey=shared)

        # Color and marker depend on the class only, so that they agree across panels.
        looks = {
            number: (COLORS[i % len(COLORS)], _marker(i)) for i, number in enumerate(occurring)
        }

        for axes, (name, plane) in zip(grid[0], planes.items(), strict=True):
            for number in occurring:
                color, marker = looks[number]
                points = plane[labels[name] == number].numpy()
                axes.scatter(
                    *points.T, s=9, c=color, marker=marker, linewidths=0, alpha=0.7, rasterized=True
                )

            axes.set_title(name, loc="left")
            axes.tick_params(labelbottom=False, labelleft=False, length=0)

            # Shared axes keep their limits, so that the box has to give way.
            adjustable: Literal["box", "datalim"] = "box" if shared else "datalim"
            axes.set_aspect("equal", adjustable=adjustable)

        handles = [
            Line2D([], [], linestyle="none", color=color, marker=marker, label=class_names[number])
            for number, (color, marker) in looks.items()
        ]
        figure.legend(
            handles=handles, loc="outside right upper", ncols=columns, fontsize=8, handletextpad=0.2
        )

        if title:
            figure.suptitle(title, fontsize=10)
        return save(figure, path)


def _marker(place: int) -> str:
    """Marker of a class: the next one after each round of the colors."""
    return MARKERS[place // len(COLORS) % len(MARKERS)]


def _check(embeddings: Mapping[str, Labeled], class_names: Sequence[str], fit: str) -> None:
    """Check that embeddings and classes match."""
    if not embeddings:
        raise ValueError("no embeddings to draw")
    for name, (values, labels) in embeddings.items():
        if values.ndim != 2 or min(values.shape) < 2:
            raise ValueError(
                f"{name} has embeddings of shape {tuple(values.shape)}: at least 2 of 2 values are "
                "needed"
            )
        if len(values) != len(labels):
            raise ValueError(
                f"{name} has {len(values)} embeddings but {len(labels)} classes of them"
            )
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
            raise ValueError(f"{name} has a class outside 0 to {len(class_names) - 1}")

    # Components of a union need a common number of dimensions.
    widths = {values.shape[1] for values, _ in embeddings.values()}
    if fit == "union" and len(widths) > 1:
        raise ValueError(
            f"the embeddings have {' and '.join(map(str, sorted(widths)))} dimensions: fit each by "
            "itself"
        )
