"""Region maps of a photo by contours, SLIC or Felzenszwalb's method, with their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from maskfree.config.rules import Fraction, Range, SideOrZero, check
from maskfree.ops.ignore import IGNORE
from maskfree.regions.contour_hierarchy import ContourHierarchy
from maskfree.regions.contours import contour_strength
from maskfree.regions.superpixels import limited_felzenszwalb, limited_slic

# Increase of the contour threshold while there are too many regions: fine enough that few more
# regions merge than have to.
_THRESHOLD_STEP = 0.01


@dataclass(frozen=True)
class SegmentConfig:
    """Settings of the division of photos into regions."""

    kind: Literal["contours", "slic", "felzenszwalb"] = "contours"
    """Method. contours: oriented watershed and ultrametric contour map; slic: superpixels of
    similar size; felzenszwalb: graph-based regions, whose scale is raised until there are few
    enough."""
    detector: str = "classical"
    """For contours: detector; classical, or dexined:FILE with the weights of kornia's DexiNed."""
    threshold: Fraction = 0.25
    """For contours: contour strength in [0, 1] above which regions stay apart."""
    # Ids run from 0, and IGNORE is no region.
    max_regions: Annotated[int, Range(1, IGNORE)] = 48
    """Largest number of regions per photo."""
    side_px: SideOrZero = 512
    """Longer side in pixels to which larger photos are reduced first; the map has that size. 0:
    never."""

    def __post_init__(self) -> None:
        """Check the ranges of the settings.

        Raises:
            ValueError: A setting lies outside its range.
        """
        check(self)
        if self.detector != "classical" and not self.detector.partition("dexined:")[2]:
            raise ValueError(
                f"detector {self.detector!r}: classical, or dexined:FILE with its weights"
            )


def check_installed(config: SegmentConfig) -> None:
    """Divide a small photo, so that missing libraries or weights are reported before any work.

    Args:
        config: Settings of the regions.

    Raises:
        OSError: The detector's weights are missing.
        ValueError: A library is missing, or the weights are wrong.
    """
    region_map(np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8), config)


def region_map(
    photo: UInt8[np.ndarray, "h w 3"], config: SegmentConfig
) -> UInt8[np.ndarray, "hp wp"]:
    """Divide a photo into regions.

    Args:
        photo: RGB photo.
        config: Settings of the regions.

    Returns:
        Region of each pixel, from 0 on, at the size of the photo after `config.side_px`.

    Raises:
        ValueError: A library or the detector's weights are missing.
    """
    photo = _limited(photo, config.side_px)
    if photo.shape[0] * photo.shape[1] == 1 or np.ptp(photo.reshape(-1, 3), axis=0).max() == 0:
        return np.zeros(photo.shape[:2], np.uint8)
    if config.kind == "slic":
        regions = limited_slic(photo, config.max_regions)
    elif config.kind == "felzenszwalb":
        regions = limited_felzenszwalb(photo, config.max_regions)
    else:
        regions = contour_hierarchy(photo, config.detector).regions(
            config.threshold, _THRESHOLD_STEP, config.max_regions
        )

    return regions.astype(np.uint8)


def contour_hierarchy(
    photo: UInt8[np.ndarray, "h w 3"], detector: str = "classical"
) -> ContourHierarchy:
    """Build the contour hierarchy of a photo.

    Args:
        photo: RGB photo.
        detector: Contour detector, as in `SegmentConfig`.

    Returns:
        The hierarchy.

    Raises:
        ValueError: A library or the detector's weights are missing.
    """
    # Without a neighbor there is no edge to build a hierarchy from.
    if photo.shape[0] * photo.shape[1] == 1:
        return ContourHierarchy(None, np.zeros(1), (1, 1))
    if detector == "classical":
        return ContourHierarchy.build(*contour_strength(photo))

    # Imported here, as it imports torch.
    from maskfree.regions.learned_contours import dexined_strength

    return ContourHierarchy.build(*dexined_strength(photo, detector.partition("dexined:")[2]))


def _limited(photo: UInt8[np.ndarray, "h w 3"], side_px: int) -> UInt8[np.ndarray, "hp wp 3"]:
    """Reduce a photo to the largest allowed side."""
    longer = max(photo.shape[:2])
    if not side_px or longer <= side_px:
        return photo
    height = max(1, round(photo.shape[0] * side_px / longer))
    width = max(1, round(photo.shape[1] * side_px / longer))
    return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BOX))
