"""Hierarchical regions from contours: oriented watershed and ultrametric contour map.

Source: Arbelaez et al. 2011, TPAMI 33(5), section 3, built from higra's parts; regions are cut by
the rule of Hwang et al. 2019 (SegSort, arXiv:1910.06962) and its followers: a threshold of .25,
raised by .01 until at most 48 regions are left.
Differs: the direction of a watershed segment is that of a straight line through those of its pixel
edges that lie in one small square, where the paper splits segments at their bends. (higra's
`mean_pb_hierarchy` fits lines as the paper does, but in 0.6.13 a vertical contour gets a fifth of
its strength with its own direction.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, Integer

# Side of the squares in which watershed edges are fitted by lines.
_SQUARE_PX = 16

# Edges that a line needs for its direction to count.
_FEWEST_EDGES = 3


@dataclass(frozen=True, eq=False)
class ContourHierarchy:
    """Nested segmentations of one photo.

    Regions are merged in order of the mean contour strength between them.
    """

    tree: Any
    """higra tree over the watershed basins; None if there is only one."""
    altitudes: Float[np.ndarray, " n"]
    """Contour strength at which each node of the tree merges."""
    size: tuple[int, int]
    """Height and width in pixels."""

    @classmethod
    def build(
        cls, strength: Float32[np.ndarray, "h w"], direction: Float32[np.ndarray, "h w"] | None
    ) -> ContourHierarchy:
        """Build the hierarchy from contours.

        Args:
            strength: Contour strength in [0, 1].
            direction: Angle across the contour, as `contour_strength` returns it; None ignores
                directions.

        Returns:
            The hierarchy.

        Raises:
            ValueError: higra is not installed.
        """
        higra = _higra()

        # Watershed of the contour strength.
        graph = higra.get_4_adjacency_graph(strength.shape)
        weights = higra.weight_graph(graph, strength.astype(np.float64), higra.WeightFunction.mean)
        pieces = higra.labelisation_watershed(graph, weights)
        if direction is not None:
            weights = _oriented(weights, graph.edge_list(), pieces, direction)

        # Merge basins in order of the mean strength between them.
        adjacent = higra.make_region_adjacency_graph_from_labelisation(graph, pieces)
        strengths = higra.rag_accumulate_on_edges(adjacent, higra.Accumulators.mean, weights)
        lengths = higra.rag_accumulate_on_edges(adjacent, higra.Accumulators.counter, weights)
        # Only one basin: higra makes no tree without an edge.
        if not len(strengths):
            return cls(None, np.zeros(1), (strength.shape[0], strength.shape[1]))

        tree, altitudes = higra.binary_partition_tree_average_linkage(adjacent, strengths, lengths)
        return cls(tree, altitudes, (strength.shape[0], strength.shape[1]))

    def cuts(self, thresholds: Sequence[float]) -> list[Int64[np.ndarray, "h w"]]:
        """Return the regions at several thresholds.

        Args:
            thresholds: Contour strengths above which regions stay apart.

        Returns:
            Region of each pixel, from 0 on, for each threshold.
        """
        if self.tree is None:
            return [np.zeros(self.size, np.int64) for _ in thresholds]

        explorer, cuts = self._explorer(), []
        for threshold in thresholds:
            cut = explorer.horizontal_cut_from_altitude(threshold)
            cuts.append(self._labels(cut))
        return cuts

    def regions(self, threshold: float, step: float, max_regions: int) -> Int64[np.ndarray, "h w"]:
        """Return the regions at a threshold that is raised until there are few enough.

        Args:
            threshold: Contour strength to start from.
            step: Increase of the threshold while there are too many regions; positive.
            max_regions: Largest number of regions.

        Returns:
            Region of each pixel, from 0 on.
        """
        if self.tree is None:
            return np.zeros(self.size, np.int64)
        explorer = self._explorer()

        while True:
            cut = explorer.horizontal_cut_from_altitude(threshold)
            if len(cut.nodes()) <= max_regions:
                return self._labels(cut)
            threshold += step

    def merges(self) -> tuple[Int64[np.ndarray, "h w"], Int64[np.ndarray, " n"]]:
        """Return the smallest regions and the order in which they merge.

        Returns:
            Smallest region of each pixel, from 0 on, and the parent of each node: first the
            smallest regions, then each merge of two nodes in order, last the root, its own parent.
        """
        if self.tree is None:
            return np.zeros(self.size, np.int64), np.zeros(1, np.int64)

        higra = _higra()
        numbers = np.arange(self.tree.num_leaves())
        basins = higra.rag_back_project_vertex_weights(
            higra.CptHierarchy.get_leaf_graph(self.tree), numbers
        )
        return basins.reshape(self.size).astype(np.int64), self.tree.parents().astype(np.int64)

    def _explorer(self) -> Any:
        """Explorer of horizontal cuts of the tree."""
        return _higra().HorizontalCutExplorer(self.tree, self.altitudes)

    def _labels(self, cut: Any) -> Int64[np.ndarray, "h w"]:
        """Consecutive region numbers of a cut."""
        labels = np.asarray(cut.labelisation_leaves(self.tree))
        return np.unique(labels, return_inverse=True)[1].reshape(self.size).astype(np.int64)


def _higra() -> Any:
    """Import higra, most of whose names its type stubs lack."""
    try:
        return import_module("higra")
    except ImportError as error:
        raise ValueError(
            "a hierarchy of contours needs higra: pip install 'maskfree[regions]'"
        ) from error


def _oriented(
    weights: Float64[np.ndarray, " e"],
    ends: tuple[Int64[np.ndarray, " e"], Int64[np.ndarray, " e"]],
    pieces: Integer[np.ndarray, "h w"],
    direction: Float32[np.ndarray, "h w"],
) -> Float64[np.ndarray, " e"]:
    """Weaken edges between watershed basins that do not run along the contour direction.

    A line through few edges, or through edges that bend, has an uncertain direction and weakens
    little.
    """
    width, labels = pieces.shape[1], pieces.ravel().astype(np.int64)
    parting = np.flatnonzero(labels[ends[0]] != labels[ends[1]])
    one, other = ends[0][parting], ends[1][parting]
    y, x = (one // width + other // width) / 2, (one % width + other % width) / 2

    # A line is fitted to the edges of one pair of basins in one square.
    square = (y // _SQUARE_PX).astype(np.int64) * (width // _SQUARE_PX + 1) + (
        x // _SQUARE_PX
    ).astype(np.int64)
    count = int(labels.max()) + 1
    pair = np.minimum(labels[one], labels[other]) * count + np.maximum(labels[one], labels[other])
    _, line = np.unique(pair * (int(square.max(initial=0)) + 1) + square, return_inverse=True)

    # Principal axis of each line, and how straight it is in [0, 1].
    number = np.bincount(line)
    dy, dx = y - (np.bincount(line, y) / number)[line], x - (np.bincount(line, x) / number)[line]
    xx, yy, xy = np.bincount(line, dx * dx), np.bincount(line, dy * dy), np.bincount(line, dx * dy)
    along = np.arctan2(2 * xy, xx - yy) / 2
    straight = np.hypot(xx - yy, 2 * xy) / np.maximum(xx + yy, 1e-9) * (number >= _FEWEST_EDGES)
    # Double angles, as directions half a turn apart are the same.
    double = np.exp(2j * direction.ravel().astype(np.float64))
    across = np.angle(double[one] + double[other]) / 2

    agreement = np.abs(np.sin(across - along[line]))
    weakened = weights.copy()
    weakened[parting] *= 1 - straight[line] * (1 - agreement)

    return weakened
