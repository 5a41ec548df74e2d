"""A picture of many segments: each is cut out of its photo with some of what is around it, and outlined."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from maskfree.data.photo import read_photo
from maskfree.files.atomic import replace_bytes
from maskfree.files.outputs import png_mark
from maskfree.inference.search import Hit
from maskfree.results.lettering import Lettering

_TILE_PX = 240
_CAPTION_PX = 20
_GAP_PX = 8
_AROUND = 0.25  # of the box's longer side, shown on each side of it
_LINE = (255, 210, 0)
_EDGE = (20, 20, 20)


def draw_contact_sheet(hits: Sequence[Hit], path: Path, columns: int = 4) -> Path:
    """Draw HITS in their order, each with its rank, score and photo, and write the PNG.

    Raises:
        ValueError: there is no hit.
        ValueError, OSError: a photo cannot be read any more, or the picture not written.
    """
    if not hits:
        raise ValueError("there are no segments to draw")
    columns = min(columns, len(hits))
    rows = -(-len(hits) // columns)
    width, height = _TILE_PX + _GAP_PX, _TILE_PX + _CAPTION_PX + _GAP_PX
    sheet = Image.new("RGB", (columns * width + _GAP_PX, rows * height + _GAP_PX), (255, 255, 255))
    lettering = Lettering(13)
    draw = ImageDraw.Draw(sheet)
    for place, hit in enumerate(hits):
        left, top = _GAP_PX + place % columns * width, _GAP_PX + place // columns * height
        tile = _tile(hit)
        sheet.paste(
            tile, (left + (_TILE_PX - tile.width) // 2, top + (_TILE_PX - tile.height) // 2)
        )
        caption = f"{place + 1}  {hit.score:.3f}  {hit.photo.name}"
        caption = lettering.shortened(caption, _TILE_PX)
        lettering.draw(draw, (left, top + _TILE_PX + _CAPTION_PX // 2), caption)
    drawn = io.BytesIO()
    sheet.save(drawn, format="PNG", compress_level=6, pnginfo=png_mark())
    replace_bytes(path, drawn.getvalue())
    return path


def _tile(hit: Hit) -> Image.Image:
    """The segment and what is around it, at most a tile large; what is not the segment is paler."""
    photo = read_photo(hit.photo)
    left, top, right, bottom = hit.box
    around = _AROUND * max(right - left, bottom - top)
    box = (
        max(0, int(left - around)),
        max(0, int(top - around)),
        min(photo.width, round(right + around)),
        min(photo.height, round(bottom + around)),
    )
    scale = _TILE_PX / max(box[2] - box[0], box[3] - box[1])
    size = max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale))
    colors = np.asarray(
        photo.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    ).copy()
    inside = _mask(hit.mask, box, (photo.width, photo.height), size)
    colors[~inside] = colors[~inside] // 2 + 100
    line = _around(inside)
    colors[_around(inside | line) & ~line] = _EDGE
    colors[line] = _LINE
    return Image.fromarray(colors)


def _mask(
    cells: Bool[np.ndarray, "h w"],
    box: tuple[int, int, int, int],
    photo: tuple[int, int],
    size: tuple[int, int],
) -> Bool[np.ndarray, "ht wt"]:
    """The segment where the tile shows BOX of the PHOTO, at SIZE; both (width, height). Edges of cells are rounded."""
    across, down = cells.shape[1] / photo[0], cells.shape[0] / photo[1]
    part = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    smooth = Image.fromarray(cells.astype(np.float32)).resize(
        size, Image.Resampling.BILINEAR, box=part
    )
    return np.asarray(smooth) >= 0.5


def _around(mask: Bool[np.ndarray, "h w"], radius: int = 2) -> Bool[np.ndarray, "h w"]:
    """Pixels outside MASK that are within RADIUS of it."""
    grown = mask
    for _ in range(radius):
        padded = np.pad(grown, 1)
        grown = (
            padded[1:-1, 1:-1]
            | padded[:-2, 1:-1]
            | padded[2:, 1:-1]
            | padded[1:-1, :-2]
            | padded[1:-1, 2:]
        )
    return grown & ~mask
