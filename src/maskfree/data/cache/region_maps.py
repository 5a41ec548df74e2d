"""Precomputed region maps: one PNG per photo, named by the photo's key."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from maskfree.data.id_maps import read_ids
from maskfree.data.photo_sources import file_stem
from maskfree.ops.ignore import IGNORE


@dataclass(frozen=True)
class SegmentMaps:
    """A folder of region maps, as `maskfree prepare segments` writes them."""

    folder: Path
    """Folder of the maps."""

    def path(self, key: str) -> Path:
        """Get the file of a photo's map.

        Args:
            key: Key of the photo.

        Returns:
            The path, whether or not the file exists.
        """
        return self.folder / f"{file_stem(key)}.png"

    def of(self, key: str, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w"]:
        """Read a photo's map.

        Args:
            key: Key of the photo.
            size: Height and width of the photo in pixels, which may have been decoded smaller. If
                given, the map is resized to it by nearest neighbor; else it keeps its own size.

        Returns:
            Region of each pixel, from 0; 255 is none.

        Raises:
            FileNotFoundError: There is no map of the photo.
            ValueError: The file is no map of ids up to 255, or the map of a photo of another shape.
        """
        path = self.path(key)
        if not path.is_file():
            raise FileNotFoundError(
                f"no region map {path} for the photo {key!r}: "
                "make it by `maskfree prepare segments`"
            )

        try:
            ids = read_ids(path, "region map")
        except ValueError as error:
            raise ValueError(f"{error}; a region map is a PNG of one 8-bit channel") from error

        if ids.max() > IGNORE:
            raise ValueError(
                f"the region map {path} holds region {ids.max()}: {IGNORE - 1} is the last"
            )

        regions = ids.astype(np.uint8)
        if size is None or size == regions.shape:
            return regions

        _check_shape(path, (regions.shape[0], regions.shape[1]), size)
        nearest = Image.fromarray(regions).resize((size[1], size[0]), Image.Resampling.NEAREST)
        return np.array(nearest)


def encode_map(regions: UInt8[np.ndarray, "h w"]) -> bytes:
    """Encode a region map as PNG.

    Args:
        regions: Region of each pixel.

    Returns:
        The bytes of the file.
    """
    file = io.BytesIO()
    Image.fromarray(regions).save(file, "PNG", optimize=True)
    return file.getvalue()


def _check_shape(path: Path, of_map: tuple[int, int], size: tuple[int, int]) -> None:
    """Check that a map and a photo are one image's size, each rounded by less than a pixel."""
    (height, width), (photo_height, photo_width) = of_map, size
    # Aspect ratios compared as products, with each side one pixel smaller or larger.
    lowest, highest = (height - 1) * (photo_width - 1), (height + 1) * (photo_width + 1)
    if not (
        lowest <= (photo_height + 1) * (width + 1) and (photo_height - 1) * (width - 1) <= highest
    ):
        raise ValueError(
            f"{path} is {height}x{width} (height x width), its photo {photo_height}x{photo_width}: "
            "a region map has the shape of its photo"
        )
