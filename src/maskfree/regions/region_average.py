"""Scores averaged within the regions of a hierarchy, at fine and coarse levels together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, Integer

# Mean size in pixels of the regions of the finest and the coarsest level. Sizes instead of contour
# strengths, as the contours of a blurred video frame are so weak that a fixed strength merges road
# and sky.
FINE_PX, COARSE_PX = 100, 1000
# Smaller regions are crumbs: as a share of the photo, they take the scores of a larger one.
MIN_SHARE = 0.003


def average_over_levels(
    means: Float64[np.ndarray, "n k"],
    sizes: Integer[np.ndarray, " n"],
    parents: Int64[np.ndarray, " m"],
) -> Float64[np.ndarray, "n k"]:
    """Average the means of all regions that a smallest region lies in, one for each level.

    A level is a number of regions. Levels whose regions have `FINE_PX` to `COARSE_PX` pixels in the
    mean count equally on a logarithmic scale. A region that is a crumb is replaced by the next
    larger one that is none.

    Args:
        means: Mean score of each smallest region for each class.
        sizes: Pixels of each smallest region, at least 1.
        parents: Parent of each node of the hierarchy: first the smallest regions, then each merge
            of two nodes in the order of merging, last the root, which is its own parent.

    Returns:
        Average score of each smallest region for each class.
    """
    num_leaves, num_nodes = len(sizes), len(parents)

    # Sizes and means of all nodes; parents come after their children.
    counts = np.zeros(num_nodes)
    counts[:num_leaves] = sizes
    sums = np.zeros((num_nodes, means.shape[1]))
    sums[:num_leaves] = means * counts[:num_leaves, None]
    for node in range(num_nodes - 1):
        counts[parents[node]] += counts[node]
        sums[parents[node]] += sums[node]
    node_means = sums / counts[:, None]

    # Share of the levels that have more regions than are left once a node exists.
    left = num_leaves - np.arange(num_nodes - num_leaves) - 1
    born = np.zeros(num_nodes)
    born[num_leaves:] = np.log(counts[-1] / FINE_PX / left) / np.log(COARSE_PX / FINE_PX)
    born = born.clip(0, 1)

    # From the root down, add the levels at which a node is a region.
    averages = np.empty_like(sums)
    averages[-1] = (1 - born[-1]) * node_means[-1]
    least = MIN_SHARE * counts[-1]
    for node in range(num_nodes - 2, -1, -1):
        parent = parents[node]
        if counts[node] < least:
            node_means[node] = node_means[parent]
        averages[node] = averages[parent] + (born[parent] - born[node]) * node_means[node]

    return averages[:num_leaves]
