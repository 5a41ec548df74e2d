"""Contact sheet of retrieved segments: outlined crops of their photos in a grid."""

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
# Margin around a segment, as a share of the longer side of its box.
_AROUND = 0.25
_LINE = (255, 210, 0)
_EDGE = (20, 20, 20)


def draw_contact_sheet(hits: Sequence[Hit], path: Path, columns: int = 4) -> Path:
    """Draw retrieved segments in a grid, each with its rank, score and photo name, and write a PNG.

    Args:
        hits: Segments in the order in which they are drawn; at least one.
        path: PNG file to write.
        columns: Largest number of columns.

    Returns:
        The path of the written file.

    Raises:
        ValueError: There is no segment, or a photo is damaged.
        OSError: A photo cannot be read any more, or the file cannot be written.
    """
    if not hits:
        raise ValueError("there are no segments to draw")
    columns = min(columns, len(hits))
    rows = -(-len(hits) // columns)

    # Cells of the grid, including the gap to the next one.
    width, height = _TILE_PX + _GAP_PX, _TILE_PX + _CAPTION_PX + _GAP_PX
    sheet = Image.new("RGB", (columns * width + _GAP_PX, rows * height + _GAP_PX), (255, 255, 255))
    lettering = Lettering(13)
    draw = ImageDraw.Draw(sheet)
    for place, hit in enumerate(hits):
        left, top = _GAP_PX + place % columns * width, _GAP_PX + place // columns * height

        # Center the tile in its cell.
        tile = _tile(hit)
        sheet.paste(
            tile, (left + (_TILE_PX - tile.width) // 2, top + (_TILE_PX - tile.height) // 2)
        )

        caption = f"{place + 1}  {hit.score:.3f}  {hit.photo.name}"
        caption = lettering.shortened(caption, _TILE_PX)
        lettering.draw(draw, (left, top + _TILE_PX + _CAPTION_PX // 2), caption)

    # Write through memory, so that the file is replaced as a whole.
    drawn = io.BytesIO()
    sheet.save(drawn, format="PNG", compress_level=6, pnginfo=png_mark())
    replace_bytes(path, drawn.getvalue())
    return path


def _tile(hit: Hit) -> Image.Image:
    """Crop of the segment and its surroundings, with pixels outside the segment paler."""
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

    # Pale surroundings, then a bright outline with a dark edge.
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
    """Resample the segment's cells to the tile; box and sizes are (width, height) ordered."""
    across, down = cells.shape[1] / photo[0], cells.shape[0] / photo[1]
    part = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)

    smooth = Image.fromarray(cells.astype(np.float32)).resize(
        size, Image.Resampling.BILINEAR, box=part
    )
    return np.asarray(smooth) >= 0.5


def _around(mask: Bool[np.ndarray, "h w"], radius: int = 2) -> Bool[np.ndarray, "h w"]:
    """Pixels outside the mask within a radius of it."""
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
