"""Regions against those that people drew: boundary precision, recall and F, and segmentation covering, as in BSDS500.

Source: Martin, Fowlkes and Malik 2004 (boundaries); Arbelaez et al. 2011, TPAMI 33(5), section 2.3 (covering). As in
the original, boundary pixels are matched by the assignment of least total distance, in which a pixel without a partner
costs a hundred tolerances. Differs: SciPy solves that exactly over all pairs within the tolerance, where the original
thins out the choices; and the best F is the best of the settings measured, without interpolation between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer

TOLERANCE = 0.0075  # of the photo's diagonal
_ALONE = 100  # tolerances that a pixel without a partner costs


@dataclass(frozen=True)
class Humans:
    """What people drew on one photo, each by himself; pixels of a segmentation hold the number of their region."""

    segmentations: tuple[Integer[np.ndarray, "h w"], ...]
    boundaries: tuple[Bool[np.ndarray, "h w"], ...]

    @classmethod
    def read(cls, path: Path) -> Humans:
        """Read a `groundTruth/*.mat` of BSDS500.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no such file, or SciPy is not installed.
        """
        try:
            from scipy.io import loadmat
            from scipy.io.matlab import MatReadError
        except ImportError as error:
            raise ValueError(
                "reading BSDS500 needs scipy: pip install 'maskfree[regions]'"
            ) from error
        try:
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
    """RegionScores in [0, 1] over photos: with one setting for all (ODS) and with the best one for each photo (OIS)."""

    boundary_ods: float
    boundary_ois: float
    precision: float  # at the setting of boundary_ods
    recall: float
    boundary_setting: float
    covering_ods: float
    covering_ois: float
    covering_setting: float


def count_photo(
    regions: Iterable[Integer[np.ndarray, "h w"]], humans: Humans
) -> Float[np.ndarray, "s 6"]:
    """Count for each of the region maps of one photo, made with S settings, what `scores` needs.

    Matched and all boundary pixels of the map, matched and all of the people; area covered and in all.
    """
    return np.array(
        [
            [*match_boundaries(boundary(map_), humans.boundaries), *cover(map_, humans)]
            for map_ in regions
        ]
    )


def scores(counts: Float[np.ndarray, "b s 6"], settings: Sequence[float]) -> RegionScores:
    """Sum the counts of B photos with S SETTINGS into scores.

    Raises:
        ValueError: there are no photos.
    """
    if not len(counts):
        raise ValueError("there are no photos to score")
    summed = counts.sum(0)
    photos = np.arange(len(counts))
    f_of_settings, f_of_photos = _f_score(summed), _f_score(counts)
    best, best_covering = int(f_of_settings.argmax()), int(_share(summed, 4).argmax())
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
    """Return the thinned boundary of a region map: pixels whose right or lower neighbour is of another region.

    The neighbour may also be the diagonal one, below to the right.

    Raises:
        ValueError: scikit-image is not installed.
    """
    try:
        from skimage.morphology import thin
    except ImportError as error:
        raise ValueError(
            "thinning boundaries needs scikit-image: pip install 'maskfree[regions]'"
        ) from error
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
    """Match boundary pixels one to one within TOLERANCE of the diagonal, with each of PEOPLE by itself.

    Returns pixels of MACHINE that match somebody's, all pixels of MACHINE, pixels of PEOPLE that match, all of theirs.
    """
    reach = tolerance * float(np.hypot(*machine.shape))
    matched = np.zeros(int(machine.sum()), bool)
    recalled = 0
    for person in people:
        partner = _partners(machine, person, reach)
        matched |= partner >= 0
        recalled += int((partner >= 0).sum())
    return int(matched.sum()), len(matched), recalled, sum(int(person.sum()) for person in people)


def cover(regions: Integer[np.ndarray, "h w"], humans: Humans) -> tuple[float, float]:
    """Return the area of people's regions, each times its best IoU with one of REGIONS, and their area in all."""
    machine = regions.ravel().astype(np.int64)
    size = int(machine.max()) + 1
    covered = 0.0
    for drawn in humans.segmentations:
        person = drawn.ravel().astype(np.int64)
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
    """For each pixel of MACHINE's boundary the number of its partner in PERSON's within REACH pixels, or -1."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    pad, number, others = int(reach), int(machine.sum()), int(person.sum())
    numbers = np.full((machine.shape[0] + 2 * pad, machine.shape[1] + 2 * pad), -1, np.int64)
    numbers[pad : pad + machine.shape[0], pad : pad + machine.shape[1]][person] = np.arange(others)
    rows, columns = np.nonzero(machine)
    steps = np.mgrid[-pad : pad + 1, -pad : pad + 1].reshape(2, -1)
    steps = steps[:, np.hypot(*steps) <= reach]
    near = numbers[rows[:, None] + steps[0] + pad, columns[:, None] + steps[1] + pad]
    if not (near >= 0).any():
        return np.full(number, -1)
    nobody = others + np.arange(
        number
    )  # for each pixel one partner of its own that stands for none
    choices = np.concatenate([near, nobody[:, None]], axis=1)
    costs = np.broadcast_to(np.append(np.hypot(*steps), _ALONE * reach), choices.shape)
    allowed = choices >= 0
    starts = np.concatenate([[0], allowed.sum(1).cumsum()])
    # SciPy takes a cost of 0 for no edge; one more for each pixel changes no choice.
    graph = csr_array(
        (costs[allowed] + 1, choices[allowed], starts), shape=(number, others + number)
    )
    partner = min_weight_full_bipartite_matching(graph)[1]
    return np.where(partner < others, partner, -1)


def _share(counts: Float[np.ndarray, "*n 6"], first: int) -> Float[np.ndarray, "*n"]:
    return counts[..., first] / np.maximum(counts[..., first + 1], 1)


def _f_score(counts: Float[np.ndarray, "*n 6"]) -> Float[np.ndarray, "*n"]:
    precision, recall = _share(counts, 0), _share(counts, 2)
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)
