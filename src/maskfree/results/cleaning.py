"""Label maps without crumbs, and without labels that are not to be trusted."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float16, Int64, UInt

from maskfree.results.components import Components, connect

UNLABELED = 255
"""Id of pixels without a label, as data sets write it."""


def without_crumbs(
    labels: UInt[np.ndarray, "h w"],
    scores: Float16[np.ndarray, "h w"],
    num_ids: int,
    min_area_px: int,
) -> UInt[np.ndarray, "h w"]:
    """Give each connected region that is too small to the neighboring region that scores best.

    Holes are small regions inside others and are filled so. A crumb between crumbs takes the region
    that those beside it were given to. If all regions are too small, the largest stays. Pixels
    without a label stay so, and so become crumbs that touch nothing else.

    Args:
        labels: Id of each pixel.
        scores: Winning score of each pixel; the mean over a region counts.
        num_ids: Ids from this one on are no labels.
        min_area_px: Smallest area of a region, in pixels.

    Returns:
        Id of each pixel; the labels themselves if no region is too small.

    Raises:
        ValueError: The extra `label` is not installed.
    """
    found = connect(labels)
    is_labeled = found.ids < num_ids
    # The number 0 is no component.
    is_labeled[0] = False
    is_crumb = is_labeled & (found.areas < min_area_px)
    if is_crumb.any() and (is_crumb == is_labeled).all():
        is_crumb[np.where(is_labeled, found.areas, 0).argmax()] = False
    if not is_crumb.any():
        return labels

    owners = _owners(found, is_labeled & ~is_crumb, is_crumb, found.means(scores))
    new_ids = np.where(owners > 0, found.ids[owners], UNLABELED)
    new_ids = np.where(is_labeled, new_ids, found.ids).astype(labels.dtype)
    return new_ids[found.numbers]


def at_most(
    confidence: Float16[np.ndarray, "h w"], changed: Bool[np.ndarray, "h w"]
) -> Float16[np.ndarray, "h w"]:
    """Bound the confidence of pixels whose label was changed to another than the best one.

    No other label can be more probable than the best one, nor can both sum to more than 1.

    Args:
        confidence: Probability of each pixel's best label.
        changed: True where the label is another one.

    Returns:
        Probability of each pixel's label, or the largest that it can be.
    """
    return np.where(changed, np.minimum(confidence, 1 - confidence), confidence)


def _owners(
    found: Components,
    is_kept: Bool[np.ndarray, " n"],
    is_crumb: Bool[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
) -> Int64[np.ndarray, " n"]:
    """Number of the region that each component belongs to in the end; 0 if there is none."""
    owners = np.where(is_kept, np.arange(len(scores)), 0)
    first, second = _touching(found.numbers, is_crumb)

    # Neighbors of component i: neighbors[starts[i] : starts[i + 1]].
    order = np.argsort(first, kind="stable")
    neighbors = second[order]
    starts = np.searchsorted(first[order], np.arange(len(scores) + 1))

    # From the kept regions outwards, layer by layer; each pair is looked at once from each side.
    layer = np.flatnonzero(is_kept)
    while len(layer):
        counts = starts[layer + 1] - starts[layer]
        ends = counts.cumsum()
        places = np.arange(counts.sum()) + np.repeat(starts[layer] - ends + counts, counts)
        crumbs, candidates = neighbors[places], np.repeat(owners[layer], counts)

        is_open = is_crumb[crumbs] & (owners[crumbs] == 0)
        crumbs, candidates = crumbs[is_open], candidates[is_open]

        # The last one that is written stays: the best score, of equal ones the first region.
        best_last = np.lexsort((-candidates, scores[candidates]))
        owners[crumbs[best_last]] = candidates[best_last]
        layer = np.unique(crumbs)

    return owners


def _touching(
    numbers: Int64[np.ndarray, "h w"], is_crumb: Bool[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Pairs of components that share an edge and one of which is a crumb, in both orders."""
    pairs = []
    for one, other in ((numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])):
        borders = one != other
        left, right = one[borders], other[borders]
        wanted = is_crumb[left] | is_crumb[right]
        pairs.append(left[wanted] * len(is_crumb) + right[wanted])

    once = np.unique(np.concatenate(pairs))
    first, second = once // len(is_crumb), once % len(is_crumb)
    return np.concatenate([first, second]), np.concatenate([second, first])
