"""Contours to regions: oriented watershed, ultrametric contour map, and a cut with few enough regions.

Source: Arbelaez et al. 2011, TPAMI 33(5), section 3, as the library higra has it; the cut by the rule of Hwang et al.
2019 (SegSort, arXiv:1910.06962) and its followers: a threshold of .25, raised by .01 until at most 48 regions are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64


@dataclass(frozen=True, eq=False)
class ContourHierarchy:
    """Nested segmentations of one photo: regions part at the mean strength of the contour between them."""

    tree: Any
    """A higra tree over the pieces of the watershed."""
    altitudes: Float[np.ndarray, " n"]
    size: tuple[int, int]
    """Height and width."""

    @classmethod
    def build(
        cls, strength: Float32[np.ndarray, "h w"], direction: Float32[np.ndarray, "h w"] | None
    ) -> ContourHierarchy:
        """Build the hierarchy of a contour STRENGTH in [0, 1] and the DIRECTION across, as `contour_strength` gives.

        Without a direction the strength counts alike for pieces of contour of any direction.

        Raises:
            ValueError: higra is not installed.
        """
        try:
            import higra
        except ImportError as error:
            raise ValueError("a hierarchy of contours needs higra: pip install 'maskfree[regions]'") from error
        graph = higra.get_4_adjacency_graph(strength.shape)
        weights = higra.weight_graph(graph, strength.astype(np.float64), higra.WeightFunction.mean)
        angles = None
        if direction is not None:
            double = np.exp(2j * direction.ravel().astype(np.float64))  # directions half a turn apart are the same
            first, second = graph.edge_list()
            angles = np.angle(double[first] + double[second]) / 2 % np.pi
        tree, altitudes = higra.mean_pb_hierarchy(graph, weights, strength.shape, angles)
        return cls(tree, altitudes, (strength.shape[0], strength.shape[1]))

    def cuts(self, thresholds: Sequence[float]) -> list[Int64[np.ndarray, "h w"]]:
        """Return for each threshold the regions, from 0 on, between which the contour is stronger."""
        return [self._labels(self._explorer().horizontal_cut_from_altitude(threshold)) for threshold in thresholds]

    def regions(self, threshold: float, step: float, most: int) -> Int64[np.ndarray, "h w"]:
        """Return the regions at THRESHOLD, raised by STEP until there are at most MOST."""
        explorer = self._explorer()
        while True:
            cut = explorer.horizontal_cut_from_altitude(threshold)
            if len(cut.nodes()) <= most:
                return self._labels(cut)
            threshold += step

    def contour_map(self) -> Float[np.ndarray, "hk wk"]:
        """Return the ultrametric contour map on the Khalimsky grid, whose size is 2h-1 by 2w-1.

        Pixels lie at even rows and columns; between two lies the threshold at which they fall into one region.
        """
        import higra

        saliency = higra.saliency(self.tree, self.altitudes)
        return higra.graph_4_adjacency_2_khalimsky(self._graph(), saliency)

    def _explorer(self) -> Any:
        import higra

        return higra.HorizontalCutExplorer(self.tree, self.altitudes)

    def _graph(self) -> Any:
        import higra

        return higra.CptRegionAdjacencyGraph.get_pre_graph(higra.CptHierarchy.get_leaf_graph(self.tree))

    def _labels(self, cut: Any) -> Int64[np.ndarray, "h w"]:
        labels = np.asarray(cut.labelisation_leaves(self.tree))
        return np.unique(labels, return_inverse=True)[1].reshape(self.size).astype(np.int64)
