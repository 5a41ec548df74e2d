"""Connected components of a label map: pixels of one id that share edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Float64, Int64, UInt

from maskfree.config.extras import need
from maskfree.results.regions import Region


@dataclass(frozen=True, eq=False)
class Components:
    """Connected components of a label map, numbered from 1 on."""

    numbers: Int64[np.ndarray, "h w"]
    """Component of each pixel."""
    ids: Int64[np.ndarray, " n"]
    """Id of each component; the first entry is of no component."""
    areas: Int64[np.ndarray, " n"]
    """Number of pixels of each component."""

    def means(self, values: Float16[np.ndarray, "h w"]) -> Float64[np.ndarray, " n"]:
        """Average values over each component.

        Args:
            values: Value of each pixel.

        Returns:
            Mean of each component.
        """
        sums = np.bincount(self.numbers.ravel(), weights=values.ravel(), minlength=len(self.areas))
        return sums / np.maximum(self.areas, 1)


def connect(labels: UInt[np.ndarray, "h w"]) -> Components:
    """Find the connected components of a label map.

    Args:
        labels: Id of each pixel.

    Returns:
        Its components, in the order of their first pixel, row by row.

    Raises:
        ValueError: The extra `label` is not installed.
    """
    need("connected regions", "label", modules=("skimage", "scipy"))
    from skimage.measure import label

    # No id is the background -1, so that all are numbered in one pass.
    numbers = np.asarray(label(labels.astype(np.int32), background=-1, connectivity=1))
    areas = np.bincount(numbers.ravel())
    ids = np.zeros(len(areas), np.int64)
    ids[numbers] = labels
    return Components(numbers, ids, areas)


def connected_regions(
    labels: UInt[np.ndarray, "h w"],
    scores: Float16[np.ndarray, "h w"],
    confidence: Float16[np.ndarray, "h w"] | None,
    names: Sequence[str],
) -> Iterator[Region]:
    """Return the connected regions of a label map.

    Time and memory are linear in the pixels; each mask is only as large as its box.

    Args:
        labels: Index into `names` of each pixel; other values are in no region.
        scores: Winning score of each pixel.
        confidence: Probability of each pixel's label; None if it is not known.
        names: Name of each id.

    Yields:
        Regions in the order of their first pixel, row by row.

    Raises:
        ValueError: The extra `label` is not installed.
    """
    found = connect(labels)
    from scipy.ndimage import find_objects

    mean_scores = found.means(scores)
    confidences = np.full(len(mean_scores), np.nan)
    if confidence is not None:
        confidences = found.means(confidence)

    for number, (rows, columns) in enumerate(find_objects(found.numbers), 1):
        class_id = int(found.ids[number])
        if class_id >= len(names):
            continue

        yield Region(
            name=names[class_id],
            class_id=class_id,
            box=(columns.start, rows.start, columns.stop, rows.stop),
            crop=found.numbers[rows, columns] == number,
            size=labels.shape,
            score=float(mean_scores[number]),
            confidence=float(confidences[number]),
        )
