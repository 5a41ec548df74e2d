"""Evaluate unsupervised regions against the human segmentations of BSDS500."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from maskfree.data.photo import read_photo
from maskfree.data.photo_folders import only_photos
from maskfree.evaluation.boundaries import TOLERANCE, Humans, RegionScores, count_photo, scores
from maskfree.progress import Watch
from maskfree.regions.region_maps import SegmentConfig, contour_hierarchy, region_map
from maskfree.regions.superpixels import felzenszwalb_regions, slic_regions

SWEEPS: dict[str, tuple[str, tuple[float, ...]]] = {
    "contours": ("threshold", tuple(round(0.04 * step, 2) for step in range(1, 21))),
    "slic": ("superpixels", (8, 16, 32, 64, 128, 256, 512)),
    "felzenszwalb": ("scale", (25, 50, 100, 200, 400, 800, 1600, 3200)),
}
"""Swept setting and its values, for each kind of regions."""


@dataclass(frozen=True)
class RegionResult:
    """Result of `measure`: scores of the sweep and of the maps of `prepare segments`."""

    swept: RegionScores
    """Scores over the values of the swept setting."""
    maps: RegionScores
    """Scores of the region maps at the configured setting; ODS and OIS are equal."""
    mean_regions: float
    """Mean number of regions per photo, at the configured setting."""
    seconds_per_photo: float
    """Time to make a region map at the configured setting."""


def find_photos(folder: Path, most: int | None) -> list[tuple[Path, Path]]:
    """Find photos of BSDS500 and their human segmentations.

    Args:
        folder: Folder with images/ and groundTruth/.
        most: Maximum number of photos, spread evenly over all; None takes all.

    Returns:
        Photo and .mat file of each pair.

    Raises:
        FileNotFoundError: There are no photos, or a photo has no human segmentations.
        ValueError: `most` is below 1.
    """
    if most is not None and most < 1:
        raise ValueError(f"--photos {most}: at least 1 photo is needed")

    images = folder / "images"
    photos = []
    if images.is_dir():
        photos = sorted(only_photos(images.rglob("*"), images))
    if not photos:
        raise FileNotFoundError(
            f"no photos in {folder / 'images'}: BSDS500 has images/*.jpg and groundTruth/*.mat"
        )

    # Take the middle of each of as many equal parts of the list.
    if most is not None and most < len(photos):
        photos = [photos[(2 * number + 1) * len(photos) // (2 * most)] for number in range(most)]

    # groundTruth/ has the same tree as images/.
    pairs = []
    for photo in photos:
        drawn = folder / "groundTruth" / photo.relative_to(images).with_suffix(".mat")
        pairs.append((photo, drawn))
        if not drawn.is_file():
            raise FileNotFoundError(
                f"no human segmentations {drawn}: BSDS500 has images/*.jpg and groundTruth/*.mat"
            )

    return pairs


def measure(
    pairs: Sequence[tuple[Path, Path]],
    config: SegmentConfig,
    watch: Watch,
) -> RegionResult:
    """Segment photos into regions and score them.

    Args:
        pairs: Photos and their human segmentations.
        config: Kind of regions and its settings.
        watch: Wraps the photos to show progress.

    Returns:
        Scores over the sweep and at the configured setting.

    Raises:
        OSError: A photo or its human segmentations cannot be read.
        ValueError: A photo or its human segmentations are broken, or a library is missing.
    """
    swept, maps, regions, seconds = [], [], [], 0.0
    settings = SWEEPS[config.kind][1]

    for photo_path, drawn in watch(pairs, config.kind):
        photo, humans = np.asarray(read_photo(photo_path)), Humans.read(drawn)
        if photo.shape[:2] != humans.boundaries[0].shape:
            raise ValueError(
                f"{drawn} is {humans.boundaries[0].shape}, its photo {photo.shape[:2]}"
            )

        # Only the map at the configured setting is timed, not the sweep.
        start = time.perf_counter()
        by_rule = region_map(photo, config)
        seconds += time.perf_counter() - start

        swept.append(count_photo(_sweep(photo, config, settings), humans))
        maps.append(count_photo([by_rule], humans))
        regions.append(int(by_rule.max()) + 1)

    setting = config.max_regions
    if config.kind == "contours":
        setting = config.threshold

    return RegionResult(
        scores(np.array(swept), settings),
        scores(np.array(maps), [setting]),
        float(np.mean(regions)),
        seconds / len(pairs),
    )


def content_of(measured: RegionResult, config: SegmentConfig, num_photos: int) -> dict[str, Any]:
    """Convert a result and its settings to plain values for JSON.

    Args:
        measured: Result to convert.
        config: Settings that it was measured with.
        num_photos: Number of photos.

    Returns:
        Settings and scores by name.
    """
    name, values = SWEEPS[config.kind]
    return {
        "kind": config.kind,
        "settings": asdict(config),
        "num_photos": num_photos,
        "tolerance": TOLERANCE,
        "sweep": {"setting": name, "values": list(values)},
        **asdict(measured),
    }


def _sweep(
    photo: UInt8[np.ndarray, "h w 3"], config: SegmentConfig, settings: Sequence[float]
) -> Iterator[Int64[np.ndarray, "h w"]]:
    """Make the region maps of a photo for all values of the swept setting."""
    if config.kind == "contours":
        yield from contour_hierarchy(photo, config.detector).cuts(settings)
    elif config.kind == "slic":
        yield from (slic_regions(photo, int(number)) for number in settings)
    else:
        yield from (felzenszwalb_regions(photo, scale) for scale in settings)
