"""SLIC superpixels and Felzenszwalb's graph-based regions, by scikit-image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt8

# Gaussian smoothing before Felzenszwalb's method, in pixels.
_SIGMA = 0.8
# Smallest region as a share of the photo's pixels: 100 pixels of a BSDS500 photo.
_MIN_SHARE = 1 / 1500

# Factor on the scale while there are too many regions.
_GROWTH = 1.5


def slic_regions(photo: UInt8[np.ndarray, "h w 3"], number: int) -> Int64[np.ndarray, "h w"]:
    """Compute SLIC superpixels.

    Args:
        photo: RGB photo.
        number: Approximate number of superpixels.

    Returns:
        Superpixel of each pixel, from 0 on.

    Raises:
        ValueError: scikit-image is not installed.

    Source: Achanta et al. 2012, TPAMI 34(11).
    """
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ValueError("SLIC needs scikit-image: pip install 'maskfree[regions]'") from error
    labels = slic(photo, n_segments=number, compactness=10, sigma=1, start_label=0, channel_axis=-1)
    return labels.astype(np.int64)


def felzenszwalb_regions(
    photo: UInt8[np.ndarray, "h w 3"], scale: float
) -> Int64[np.ndarray, "h w"]:
    """Compute Felzenszwalb's regions, whose differences exceed their internal variation.

    Args:
        photo: RGB photo.
        scale: Preference for large regions.

    Returns:
        Region of each pixel, from 0 on.

    Raises:
        ValueError: scikit-image is not installed.

    Source: Felzenszwalb and Huttenlocher 2004, IJCV 59(2).
    """
    try:
        from skimage.segmentation import felzenszwalb
    except ImportError as error:
        raise ValueError(
            "Felzenszwalb's regions need scikit-image: pip install 'maskfree[regions]'"
        ) from error

    min_size = round(photo.shape[0] * photo.shape[1] * _MIN_SHARE)
    return felzenszwalb(
        photo, scale=scale, sigma=_SIGMA, min_size=min_size, channel_axis=-1
    ).astype(np.int64)


def limited_slic(photo: UInt8[np.ndarray, "h w 3"], max_regions: int) -> Int64[np.ndarray, "h w"]:
    """Compute SLIC superpixels, requesting fewer until a limit holds.

    Args:
        photo: RGB photo.
        max_regions: Largest number of superpixels; the first number requested.

    Returns:
        Superpixel of each pixel, from 0 on.
    """
    number = max_regions
    while (regions := slic_regions(photo, number)).max() >= max_regions:
        number -= max(1, number // 10)
    return regions


def limited_felzenszwalb(
    photo: UInt8[np.ndarray, "h w 3"], max_regions: int, scale: float = 200
) -> Int64[np.ndarray, "h w"]:
    """Compute Felzenszwalb's regions, raising the scale by half until a limit holds.

    Args:
        photo: RGB photo.
        max_regions: Largest number of regions.
        scale: Scale to start from.

    Returns:
        Region of each pixel, from 0 on.
    """
    while (regions := felzenszwalb_regions(photo, scale)).max() >= max_regions:
        scale *= _GROWTH
    return regions
