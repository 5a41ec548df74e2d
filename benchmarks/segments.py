"""Seconds to cut a photo of 481x321 into regions, by each kind, beside scikit-image's
Felzenszwalb.
"""

from __future__ import annotations

import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import tyro
from scipy.ndimage import gaussian_filter

from harness import RESULTS, Ratio, median_seconds, report
from maskfree.cli.common import keep_freed_memory
from maskfree.data.photo import read_photo
from maskfree.regions import contours
from maskfree.regions.contours import contour_strength
from maskfree.regions.region_maps import SegmentConfig, region_map
from maskfree.regions.superpixels import felzenszwalb_regions

_PEER_SCALE = 200.0


def main(
    photo: Path | None = None,
    height: int = 321,
    width: int = 481,
    repeats: int = 5,
    results: Path = RESULTS,
) -> None:
    """Cut one photo by every kind.

    Args:
        photo: A photo, of which the middle is taken; by default a made-up one.
        height: Pixels.
        width: Pixels.
        repeats: Timed rounds.
        results: Folder for the results file.
    """
    torch.set_num_threads(1)
    # As the commands do.
    keep_freed_memory()
    image = (
        made_up(height, width)
        if photo is None
        else middle(np.asarray(read_photo(photo)), height, width)
    )
    peer = "scikit-image, Felzenszwalb, one scale"
    candidates = {kind: SegmentConfig(kind=kind) for kind in ("contours", "slic", "felzenszwalb")}
    seconds = median_seconds(
        {
            kind: lambda config=config: region_map(image, config)
            for kind, config in candidates.items()
        }
        | {
            "contours, their strength alone": lambda: contour_strength(image),
            "contours with SciPy's Gaussian": lambda: with_scipy(image),
            peer: lambda: felzenszwalb_regions(image, _PEER_SCALE),
        },
        repeats=repeats,
        warm_up=1,
        clock=time.process_time,
    )
    regions = region_map(image, candidates["contours"])
    assert np.array_equal(regions, with_scipy(image)), "other regions"
    ratios = [Ratio(f"{kind} over {peer}", seconds[kind] / seconds[peer]) for kind in candidates]
    ratios.append(Ratio("contours, seconds a photo", seconds["contours"], "at most 0.2", "s"))
    slower = seconds["contours with SciPy's Gaussian"] / seconds["contours"]
    ratios.append(Ratio("contours with SciPy's Gaussian over contours", slower))
    settings = {
        "clock": "CPU seconds",
        "equal": "regions with SciPy's Gaussian",
        "height": height,
        "width": width,
        "photo": photo.name if photo else "made up",
        "scale": _PEER_SCALE,
    }
    settings |= {
        "regions": {
            kind: int(region_map(image, config).max()) + 1 for kind, config in candidates.items()
        }
    }
    report("segments", seconds, ratios, settings, results)


def with_scipy(image: np.ndarray) -> np.ndarray:
    """The regions of the contours, with the Gaussian of SciPy."""

    def blurred(maps: np.ndarray, sigma: float, truncate: float, out: np.ndarray) -> np.ndarray:
        """SciPy's blur in place of the product with band matrices."""
        return gaussian_filter(
            maps, (0, sigma, sigma), output=out, mode="nearest", truncate=truncate
        )

    with patch.object(contours, "gaussian_blur", blurred):
        return region_map(image, SegmentConfig(kind="contours"))


def made_up(height: int, width: int) -> np.ndarray:
    """Discs of random colors over each other, with shading and noise."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 120.0)
    for _ in range(40):
        row, column, radius = generator.uniform(0, (height, width, 90))
        image[(y - row) ** 2 + (x - column) ** 2 < radius**2] = generator.uniform(20, 235, 3)
    image += 15 * np.sin(x / 40 + y / 60)[..., None] + generator.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def middle(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of IMAGE, turned if that fits better.

    Raises:
        ValueError: it is smaller.
    """
    if (image.shape[0] > image.shape[1]) != (height > width):
        image = image.transpose(1, 0, 2)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise ValueError(
            f"the photo has {image.shape[1]}x{image.shape[0]} pixels: {width}x{height} are needed"
        )
    return np.ascontiguousarray(image[top : top + height, left : left + width])


if __name__ == "__main__":
    tyro.cli(main)
