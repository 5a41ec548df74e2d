"""The regions of one photo in one of three ways, by settings that commands, preparation and evaluation share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from maskfree.config.rules import Fraction, PositiveFraction, Range, SideOrZero, check
from maskfree.regions.contour_hierarchy import ContourHierarchy
from maskfree.regions.contours import contour_strength
from maskfree.regions.superpixels import at_most_felzenszwalb, at_most_slic

MOST_REGIONS = 255  # ids fit into a byte, and 255 stays free for pixels without a region


@dataclass(frozen=True)
class SegmentConfig:
    """How photos are cut into regions."""

    kind: Literal["contours", "slic", "felzenszwalb"] = "contours"
    """contours: oriented watershed and ultrametric contour map; slic: superpixels alike in size; felzenszwalb: its
    graph, whose scale is raised until there are few enough regions."""
    detector: str = "classical"
    """For contours: classical, or dexined:FILE with the weights of kornia's DexiNed."""
    threshold: Fraction = 0.25
    """For contours: strength in [0, 1] from which a contour parts regions."""
    step: PositiveFraction = 0.01
    """For contours: by how much the threshold is raised while there are too many regions."""
    most: Annotated[int, Range(1, MOST_REGIONS)] = 48
    """Regions at most."""
    side_px: SideOrZero = 512
    """Longer side that a larger photo is reduced to first; the map has that size. 0: never."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ValueError: a setting lies outside its range.
        """
        check(self)
        if self.detector != "classical" and not self.detector.partition("dexined:")[2]:
            raise ValueError(
                f"detector {self.detector!r}: classical, or dexined:FILE with its weights"
            )


def check_installed(config: SegmentConfig) -> None:
    """Cut a small photo, so that what is missing is said before any work.

    Raises:
        OSError, ValueError: a library or the detector's weights are missing.
    """
    region_map(np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8), config)


def region_map(
    photo: UInt8[np.ndarray, "h w 3"], config: SegmentConfig
) -> UInt8[np.ndarray, "hp wp"]:
    """Return the number of each pixel's region, from 0 on, at the size of PHOTO within CONFIG's limit.

    Raises:
        ValueError: a library or the detector's weights are missing.
    """
    photo = _limited(photo, config.side_px)
    if photo.shape[0] * photo.shape[1] == 1 or np.ptp(photo.reshape(-1, 3), axis=0).max() == 0:
        return np.zeros(photo.shape[:2], np.uint8)
    if config.kind == "slic":
        regions = at_most_slic(photo, config.most)
    elif config.kind == "felzenszwalb":
        regions = at_most_felzenszwalb(photo, config.most)
    else:
        regions = contour_hierarchy(photo, config.detector).regions(
            config.threshold, config.step, config.most
        )
    return regions.astype(np.uint8)


def contour_hierarchy(
    photo: UInt8[np.ndarray, "h w 3"], detector: str = "classical"
) -> ContourHierarchy:
    """Return the hierarchy of PHOTO's contours, found by DETECTOR (see `SegmentConfig`).

    Raises:
        ValueError: a library or the detector's weights are missing.
    """
    if detector == "classical":
        return ContourHierarchy.build(*contour_strength(photo))
    from maskfree.regions.learned_contours import dexined_strength  # brings torch

    return ContourHierarchy.build(*dexined_strength(photo, detector.partition("dexined:")[2]))


def _limited(photo: UInt8[np.ndarray, "h w 3"], side_px: int) -> UInt8[np.ndarray, "hp wp 3"]:
    longer = max(photo.shape[:2])
    if not side_px or longer <= side_px:
        return photo
    height, width = (max(1, round(side * side_px / longer)) for side in photo.shape[:2])
    return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BOX))
