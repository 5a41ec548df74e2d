"""Region maps of photos, made beforehand: one PNG for each photo, found by the photo's key."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from maskfree.data.id_maps import read_ids
from maskfree.data.photo_sources import file_stem

VOID = 255  # a pixel without a region


@dataclass(frozen=True)
class SegmentMaps:
    """A folder of region maps, as `maskfree prepare segments` writes them."""

    folder: Path

    def path(self, key: str) -> Path:
        """Return the file of the photo with this KEY."""
        return self.folder / f"{file_stem(key)}.png"

    def of(self, key: str, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w"]:
        """Return the region of each pixel of the photo with this KEY, from 0 on; 255 is none.

        SIZE is the height and width of the photo, perhaps decoded smaller than the one that the map was made of: the
        map is brought to that size by its nearest pixels. Without it the map comes as it was written.

        Raises:
            FileNotFoundError: there is no map of the photo.
            ValueError: its file is no map of ids up to 255, or it is of a photo of another shape.
        """
        path = self.path(key)
        if not path.is_file():
            raise FileNotFoundError(
                f"no region map {path} for the photo {key!r}: make it by `maskfree prepare segments`"
            )
        try:
            ids = read_ids(path, "region map")
        except ValueError as error:
            raise ValueError(f"{error}; a region map is a PNG of one 8-bit channel") from error
        if ids.max() > VOID:
            raise ValueError(
                f"the region map {path} holds region {ids.max()}: {VOID - 1} is the last"
            )
        regions = ids.astype(np.uint8)
        if size is None or size == regions.shape:
            return regions
        _check_shape(path, (regions.shape[0], regions.shape[1]), size)
        nearest = Image.fromarray(regions).resize((size[1], size[0]), Image.Resampling.NEAREST)
        return np.array(nearest)


def encode_map(regions: UInt8[np.ndarray, "h w"]) -> bytes:
    """Return REGIONS as a PNG."""
    file = io.BytesIO()
    Image.fromarray(regions).save(file, "PNG", optimize=True)
    return file.getvalue()


def _check_shape(path: Path, of_map: tuple[int, int], size: tuple[int, int]) -> None:
    """Both are roundings, by less than a pixel of either side, of one photo's height and width."""
    (height, width), (photo_height, photo_width) = of_map, size
    lowest, highest = (height - 1) * (photo_width - 1), (height + 1) * (photo_width + 1)
    if not (
        lowest <= (photo_height + 1) * (width + 1) and (photo_height - 1) * (width - 1) <= highest
    ):
        raise ValueError(
            f"{path} is {height}x{width} (height x width), its photo {photo_height}x{photo_width}: "
            "a region map has the shape of its photo"
        )
