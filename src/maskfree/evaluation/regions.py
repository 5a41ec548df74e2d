"""How well regions made without labels agree with those that people drew on the photos of BSDS500."""

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
"""Of each kind the setting that is swept, and its values."""


@dataclass(frozen=True)
class RegionResult:
    """What `measure` found: scores of the sweep, and of the maps that `prepare segments` makes."""

    swept: RegionScores
    maps: RegionScores
    """Of the maps by the rule: one setting, so that ODS and OIS are the same."""
    mean_regions: float
    """Of the maps by the rule."""
    seconds_per_photo: float
    """For a map by the rule."""


def find_photos(folder: Path, most: int | None) -> list[tuple[Path, Path]]:
    """Return photos of BSDS500 in FOLDER with their human segmentations, MOST of them, spread evenly.

    Raises:
        FileNotFoundError: there are none, or a photo has no human segmentations.
        ValueError: MOST is below 1.
    """
    if most is not None and most < 1:
        raise ValueError(f"--photos {most}: at least 1 photo is needed")
    images = folder / "images"
    photos = sorted(only_photos(images.rglob("*"), images)) if images.is_dir() else []
    if not photos:
        raise FileNotFoundError(
            f"no photos in {folder / 'images'}: BSDS500 has images/*.jpg and groundTruth/*.mat"
        )
    if most is not None and most < len(photos):
        photos = [photos[(2 * number + 1) * len(photos) // (2 * most)] for number in range(most)]
    pairs = [
        (p, folder / "groundTruth" / p.relative_to(folder / "images").with_suffix(".mat"))
        for p in photos
    ]
    for _, drawn in pairs:
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
    """Cut the photos of PAIRS by CONFIG's kind and score the regions; WATCH shows how far it has come.

    Raises:
        OSError, ValueError: a photo or what people drew cannot be read, or a library is missing.
    """
    swept, maps, regions, seconds = [], [], [], 0.0
    settings = SWEEPS[config.kind][1]
    for photo_path, drawn in watch(pairs, config.kind):
        photo, humans = np.asarray(read_photo(photo_path)), Humans.read(drawn)
        if photo.shape[:2] != humans.boundaries[0].shape:
            raise ValueError(
                f"{drawn} is {humans.boundaries[0].shape}, its photo {photo.shape[:2]}"
            )
        start = time.perf_counter()
        by_rule = region_map(photo, config)
        seconds += time.perf_counter() - start
        swept.append(count_photo(_sweep(photo, config, settings), humans))
        maps.append(count_photo([by_rule], humans))
        regions.append(int(by_rule.max()) + 1)
    return RegionResult(
        scores(np.array(swept), settings),
        scores(np.array(maps), [config.threshold if config.kind == "contours" else config.most]),
        float(np.mean(regions)),
        seconds / len(pairs),
    )


def content_of(measured: RegionResult, config: SegmentConfig, num_photos: int) -> dict[str, Any]:
    """Spell out what was measured, and with which settings, in plain values."""
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
    if config.kind == "contours":
        yield from contour_hierarchy(photo, config.detector).cuts(settings)
    elif config.kind == "slic":
        yield from (slic_regions(photo, int(number)) for number in settings)
    else:
        yield from (felzenszwalb_regions(photo, scale) for scale in settings)
