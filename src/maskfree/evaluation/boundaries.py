"""Boundary precision, recall and F-score, and segmentation covering, against human segmentations.

Source: Martin, Fowlkes and Malik 2004 (boundaries); Arbelaez et al. 2011, TPAMI 33(5), section 2.3
(covering). As in the original, boundary pixels are matched by minimum-cost assignment, in which an
unmatched pixel costs a hundred tolerances.

Differs: SciPy solves the assignment exactly over all pairs within the tolerance, where the original
prunes the candidates; and the best F-score is the best of the measured settings, without
interpolation between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer

# Matching distance as a share of the photo's diagonal, as in BSDS500.
TOLERANCE = 0.0075
# Cost of an unmatched pixel, in tolerances, as in the original code.
_ALONE = 100


@dataclass(frozen=True)
class Humans:
    """Human segmentations of one photo, one for each annotator."""

    segmentations: tuple[Integer[np.ndarray, "h w"], ...]
    """Region map of each annotator: the region number of each pixel."""
    boundaries: tuple[Bool[np.ndarray, "h w"], ...]
    """Boundary map of each annotator, true at boundary pixels."""

    @classmethod
    def read(cls, path: Path) -> Humans:
        """Read a `groundTruth/*.mat` file of BSDS500.

        Args:
            path: The .mat file.

        Returns:
            Segmentations and boundaries of all annotators.

        Raises:
            OSError: The file cannot be read.
            ValueError: The file holds no human segmentations, or SciPy is not installed.
        """
        try:
            from scipy.io import loadmat
            from scipy.io.matlab import MatReadError
        except ImportError as error:
            raise ValueError(
                "reading BSDS500 needs scipy: pip install 'maskfree[regions]'"
            ) from error

        try:
            # One entry per annotator, each a 1x1 struct array of MATLAB.
            drawn = loadmat(path)["groundTruth"][0]
            return cls(
                tuple(person["Segmentation"][0, 0].astype(np.int64) for person in drawn),
                tuple(person["Boundaries"][0, 0].astype(bool) for person in drawn),
            )
        except (
            KeyError,
            IndexError,
            TypeError,
            ValueError,
            NotImplementedError,
            MatReadError,
        ) as error:
            raise ValueError(
                f"{path} holds no human segmentations as BSDS500 has them: {error!r}"
            ) from error


@dataclass(frozen=True)
class RegionScores:
    """Scores in [0, 1] over a set of photos.

    ODS (optimal dataset scale) uses one setting for all photos, OIS (optimal image scale) the best
    setting for each photo.
    """

    boundary_ods: float
    """Boundary F-score at the best setting for all photos."""
    boundary_ois: float
    """Boundary F-score with the best setting for each photo."""
    precision: float
    """Boundary precision at `boundary_setting`."""
    recall: float
    """Boundary recall at `boundary_setting`."""
    boundary_setting: float
    """Setting with the best boundary F-score over all photos."""
    covering_ods: float
    """Segmentation covering at the best setting for all photos."""
    covering_ois: float
    """Segmentation covering with the best setting for each photo."""
    covering_setting: float
    """Setting with the best covering over all photos."""


def count_photo(
    regions: Iterable[Integer[np.ndarray, "h w"]], humans: Humans
) -> Float[np.ndarray, "s 6"]:
    """Count what `scores` needs for the region maps of one photo.

    Args:
        regions: Region maps of the photo, one for each setting.
        humans: Human segmentations of the photo.

    Returns:
        For each setting: matched and all boundary pixels of the map, matched and all boundary
        pixels of the humans, and covered and total area of the humans' regions, in pixels.
    """
    return np.array(
        [
            [*match_boundaries(boundary(map_), humans.boundaries), *cover(map_, humans)]
            for map_ in regions
        ]
    )


def scores(counts: Float[np.ndarray, "b s 6"], settings: Sequence[float]) -> RegionScores:
    """Turn counts of photos into scores.

    Args:
        counts: Counts of `count_photo` for each photo and setting.
        settings: Value of each setting.

    Returns:
        Scores over all photos.

    Raises:
        ValueError: There are no photos.
    """
    if not len(counts):
        raise ValueError("there are no photos to score")

    # Counts are summed over photos before ratios are taken.
    summed = counts.sum(0)
    photos = np.arange(len(counts))
    f_of_settings, f_of_photos = _f_score(summed), _f_score(counts)

    # ODS: the setting that is best for the sums.
    best, best_covering = int(f_of_settings.argmax()), int(_share(summed, 4).argmax())

    # OIS: take each photo's counts at its own best setting, then sum.
    chosen = counts[photos, f_of_photos.argmax(1)].sum(0)
    covered = counts[photos, _share(counts, 4).argmax(1)].sum(0)

    return RegionScores(
        boundary_ods=float(f_of_settings[best]),
        boundary_ois=float(_f_score(chosen)),
        precision=float(_share(summed, 0)[best]),
        recall=float(_share(summed, 2)[best]),
        boundary_setting=float(settings[best]),
        covering_ods=float(_share(summed, 4)[best_covering]),
        covering_ois=float(_share(covered, 4)),
        covering_setting=float(settings[best_covering]),
    )


def boundary(regions: Integer[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return the thinned boundary of a region map.

    A pixel is on the boundary if its right, lower or lower right neighbor belongs to another
    region.

    Args:
        regions: Region number of each pixel.

    Returns:
        True at boundary pixels.

    Raises:
        ValueError: scikit-image is not installed.
    """
    try:
        from skimage.morphology import thin
    except ImportError as error:
        raise ValueError(
            "thinning boundaries needs scikit-image: pip install 'maskfree[regions]'"
        ) from error

    # Compare each pixel with its right, lower and lower right neighbor.
    edges = np.zeros(regions.shape, bool)
    edges[:, :-1] |= regions[:, :-1] != regions[:, 1:]
    edges[:-1] |= regions[:-1] != regions[1:]
    edges[:-1, :-1] |= regions[:-1, :-1] != regions[1:, 1:]

    return thin(edges)


def match_boundaries(
    machine: Bool[np.ndarray, "h w"],
    people: Sequence[Bool[np.ndarray, "h w"]],
    tolerance: float = TOLERANCE,
) -> tuple[int, int, int, int]:
    """Match boundary pixels one to one, with each annotator separately.

    Args:
        machine: Predicted boundary.
        people: Boundary of each annotator.
        tolerance: Maximum distance of a match, as a share of the diagonal.

    Returns:
        Predicted pixels that match any annotator, all predicted pixels, annotators' pixels that
        match, and all annotators' pixels.
    """
    reach = tolerance * float(np.hypot(*machine.shape))
    matched = np.zeros(int(machine.sum()), bool)
    recalled = 0
    for person in people:
        partner = _partners(machine, person, reach)

        # A predicted pixel is correct if it matches any annotator.
        matched |= partner >= 0
        recalled += int((partner >= 0).sum())
    return int(matched.sum()), len(matched), recalled, sum(int(person.sum()) for person in people)


def cover(regions: Integer[np.ndarray, "h w"], humans: Humans) -> tuple[float, float]:
    """Measure how well regions cover the regions of human segmentations.

    Args:
        regions: Predicted region number of each pixel, from 0.
        humans: Human segmentations of the photo.

    Returns:
        Area of the humans' regions, each weighted by its best IoU with a predicted region, and
        their total area, in pixels.
    """
    machine = regions.ravel().astype(np.int64)
    size = int(machine.max()) + 1
    covered = 0.0
    for drawn in humans.segmentations:
        person = drawn.ravel().astype(np.int64)

        # Intersections of all human and predicted regions, by one histogram of pairs.
        both = np.bincount(
            person * size + machine, minlength=(int(person.max()) + 1) * size
        ).reshape(-1, size)
        own = both.sum(1)

        iou = both / np.maximum(own[:, None] + both.sum(0) - both, 1)
        covered += float((own * iou.max(1)).sum())
    return covered, float(sum(drawn.size for drawn in humans.segmentations))


def _partners(
    machine: Bool[np.ndarray, "h w"], person: Bool[np.ndarray, "h w"], reach: float
) -> Integer[np.ndarray, " n"]:
    """For each predicted boundary pixel, the index of its match in the annotator's, or -1."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    # Number the annotator's boundary pixels; padding saves bounds checks below.
    pad, number, others = int(reach), int(machine.sum()), int(person.sum())
    numbers = np.full((machine.shape[0] + 2 * pad, machine.shape[1] + 2 * pad), -1, np.int64)
    numbers[pad : pad + machine.shape[0], pad : pad + machine.shape[1]][person] = np.arange(others)

    # Candidates of a pixel are the annotator's pixels within the matching distance.
    rows, columns = np.nonzero(machine)
    steps = np.mgrid[-pad : pad + 1, -pad : pad + 1].reshape(2, -1)
    steps = steps[:, np.hypot(*steps) <= reach]
    near = numbers[rows[:, None] + steps[0] + pad, columns[:, None] + steps[1] + pad]

    if not (near >= 0).any():
        return np.full(number, -1)

    # Each pixel gets a virtual partner of its own, which stands for no match.
    nobody = others + np.arange(number)
    choices = np.concatenate([near, nobody[:, None]], axis=1)
    costs = np.broadcast_to(np.append(np.hypot(*steps), _ALONE * reach), choices.shape)

    # Rows of the sparse cost matrix hold the existing candidates only.
    allowed = choices >= 0
    starts = np.concatenate([[0], allowed.sum(1).cumsum()])
    # SciPy takes a cost of 0 for no edge; one more for each pixel changes no choice.
    graph = csr_array(
        (costs[allowed] + 1, choices[allowed], starts), shape=(number, others + number)
    )

    partner = min_weight_full_bipartite_matching(graph)[1]
    return np.where(partner < others, partner, -1)


def _share(counts: Float[np.ndarray, "*n 6"], first: int) -> Float[np.ndarray, "*n"]:
    """Ratio of the count at this index to the count after it; 0 where that is 0."""
    return counts[..., first] / np.maximum(counts[..., first + 1], 1)


def _f_score(counts: Float[np.ndarray, "*n 6"]) -> Float[np.ndarray, "*n"]:
    """Boundary F-score of counts."""
    precision, recall = _share(counts, 0), _share(counts, 2)
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)
