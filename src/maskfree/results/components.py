"""Connected components of a label map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float16, UInt

from maskfree.config.extras import need
from maskfree.results.regions import Region


def connected_regions(
    labels: UInt[np.ndarray, "h w"],
    scores: Float16[np.ndarray, "h w"],
    confidence: Float16[np.ndarray, "h w"] | None,
    names: Sequence[str],
) -> Iterator[Region]:
    """Return the connected regions of a label map: pixels of one name that share edges.

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
    need("connected regions", "label", modules=("skimage", "scipy"))
    from scipy.ndimage import find_objects
    from skimage.measure import label as connect

    # Numbered from 1 on; 0 is in no region.
    numbers = np.asarray(connect(labels.astype(np.int32) + 1, background=0, connectivity=1))
    counts = np.bincount(numbers.ravel())
    mean_scores = _means(numbers, scores, counts)
    confidences = np.full(len(counts), np.nan)
    if confidence is not None:
        confidences = _means(numbers, confidence, counts)

    for number, place in enumerate(find_objects(numbers), 1):
        crop = numbers[place] == number
        first = np.unravel_index(int(crop.argmax()), crop.shape)
        class_id = int(labels[place][first])
        if class_id >= len(names):
            continue

        rows, columns = place
        yield Region(
            name=names[class_id],
            class_id=class_id,
            box=(columns.start, rows.start, columns.stop, rows.stop),
            crop=crop,
            size=labels.shape,
            score=float(mean_scores[number]),
            confidence=float(confidences[number]),
        )


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


def _means(
    numbers: np.ndarray, values: Float16[np.ndarray, "h w"], counts: np.ndarray
) -> np.ndarray:
    """Mean value of each component."""
    sums = np.bincount(numbers.ravel(), weights=values.ravel(), minlength=len(counts))
    return sums / np.maximum(counts, 1)
