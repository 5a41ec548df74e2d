"""Superpixels by SLIC and regions by Felzenszwalb's graph, as scikit-image makes them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt8

_SIGMA = 0.8
_MIN_SHARE = 1 / 1500  # of the photo's pixels: 100 of a photo of BSDS500
_GROWTH = 1.5


def slic_regions(photo: UInt8[np.ndarray, "h w 3"], number: int) -> Int64[np.ndarray, "h w"]:
    """Return about NUMBER superpixels at most, from 0 on, alike in size (Achanta et al. 2012, TPAMI 34(11)).

    Raises:
        ValueError: scikit-image is not installed.
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
    """Return regions, from 0 on, that differ more than they vary; larger for a larger SCALE.

    Source: Felzenszwalb and Huttenlocher 2004, IJCV 59(2).

    Raises:
        ValueError: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import felzenszwalb
    except ImportError as error:
        raise ValueError(
            "Felzenszwalb's regions need scikit-image: pip install 'maskfree[regions]'"
        ) from error
    least = round(photo.shape[0] * photo.shape[1] * _MIN_SHARE)
    return felzenszwalb(photo, scale=scale, sigma=_SIGMA, min_size=least, channel_axis=-1).astype(
        np.int64
    )


def at_most_slic(photo: UInt8[np.ndarray, "h w 3"], most: int) -> Int64[np.ndarray, "h w"]:
    """Return as many superpixels as SLIC gives when asked for MOST or, if those are more, for fewer."""
    number = most
    while (regions := slic_regions(photo, number)).max() >= most:
        number -= max(1, number // 10)
    return regions


def at_most_felzenszwalb(
    photo: UInt8[np.ndarray, "h w 3"], most: int, scale: float = 200
) -> Int64[np.ndarray, "h w"]:
    """Return regions of SCALE, raised by halves until there are at most MOST."""
    while (regions := felzenszwalb_regions(photo, scale)).max() >= most:
        scale *= _GROWTH
    return regions
