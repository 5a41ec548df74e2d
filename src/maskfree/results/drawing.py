"""Drawing label maps: colors, overlays over the photo, and a legend of the classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from jaxtyping import Bool, Int64, UInt, UInt8
from PIL import Image, ImageDraw

from maskfree.results.lettering import Lettering

# Color of the first class; the others are chosen far from it.
_FIRST_COLOR = (255, 60, 60)
# Longest name in the legend, in units of the text size, unless the picture is wider.
_LEGEND_LETTERS = 40
# Most classes that the legend lists.
_LEGEND_ENTRIES = 24
# Label maps are processed in strips of about so many pixels, which stay in a core's cache.
_STRIP_PIXELS = 2**18


def strips(size: tuple[int, ...]) -> Iterator[slice]:
    """Split a label map into strips of rows, to bound the memory of wider intermediates.

    Args:
        size: Height and width in pixels.

    Returns:
        Ranges of rows that cover the map, each of about 262,000 pixels.
    """
    height, width = size
    step = max(1, _STRIP_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def count_ids(labels: UInt[np.ndarray, "h w"], num_ids: int) -> Int64[np.ndarray, " n"]:
    """Count the pixels of each id.

    Args:
        labels: Id of each pixel.
        num_ids: Number of ids that are counted; the first is 0.

    Returns:
        Number of pixels of each id.
    """
    if labels.dtype == np.uint8:
        # Pillow counts bytes without making them wider.
        histogram = Image.fromarray(labels).histogram()
        return np.array(histogram[:num_ids], np.int64)

    # By strips, since bincount converts each label to 8 bytes.
    counts = np.zeros(num_ids, np.int64)
    for rows in strips(labels.shape):
        counts += np.bincount(labels[rows].ravel(), minlength=num_ids)[:num_ids]
    return counts


def fit_within(
    image: UInt8[np.ndarray, "h w 3"], labels: UInt[np.ndarray, "h w"], max_side_px: int
) -> tuple[UInt8[np.ndarray, "hs ws 3"], UInt[np.ndarray, "hs ws"]]:
    """Make a photo and its label map smaller where they are larger than a limit.

    Args:
        image: The photo.
        labels: Id of each pixel.
        max_side_px: Largest height and width in pixels.

    Returns:
        The photo, and its label map by nearest neighbors, in one size.
    """
    height, width = labels.shape
    scale = max_side_px / max(height, width)
    if scale >= 1:
        return image, labels

    size = max(1, round(width * scale)), max(1, round(height * scale))
    photo = Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=1.0)
    ids = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
    return np.asarray(photo), np.asarray(ids).astype(labels.dtype, copy=False)


def draw_overlay(
    image: UInt8[np.ndarray, "h w 3"],
    labels: UInt[np.ndarray, "h w"],
    *,
    palette: UInt8[np.ndarray, "n 3"],
    areas: Mapping[str, float],
    num_colored: int,
    alpha: float,
) -> Image.Image:
    """Draw label colors over a photo, with a legend of the classes below it.

    Args:
        image: The photo.
        labels: Id of each pixel.
        palette: RGB color of each id, in [0, 255].
        areas: Fraction of the photo by name, one per id in the order of the ids.
        num_colored: Ids from this one on are not painted.
        alpha: Opacity of the colors, in [0, 1].

    Returns:
        The picture, as large as the photo plus the legend.
    """
    # 8-bit fixed-point opacity per id.
    strength = np.full(len(palette), round(alpha * 256), np.uint16)
    strength[num_colored:] = 0
    tint = palette * strength[:, None]

    # The legend lists the classes that occur, the largest first.
    colors = dict(zip(areas, map(tuple, palette.tolist()), strict=True))
    largest_first = sorted(areas.items(), key=lambda item: -item[1])
    entries = []
    for name, area in largest_first:
        if area > 0:
            entries.append((name, area, colors[name]))

    height, width = labels.shape
    picture = _with_legend((width, height), entries)

    for rows in strips(labels.shape):
        strip = labels[rows]
        mixed = image[rows] * np.take(256 - strength, strip)[..., None]
        mixed += np.take(tint, strip, axis=0)
        painted = (mixed >> 8).astype(np.uint8)

        # White outlines between classes; those of the last row depend on the next strip.
        with_row_below = labels[rows.start : rows.stop + 1]
        painted[_borders(with_row_below)[: len(strip)]] = 255
        picture.paste(Image.fromarray(painted), (0, rows.start))

    return picture


def _borders(labels: UInt[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose right or lower neighbor has another label."""
    borders = np.zeros(labels.shape, bool)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1] |= labels[:-1] != labels[1:]
    return borders


@cache
def distinct_colors(count: int) -> UInt8[np.ndarray, "n 3"]:
    """Choose perceptually distinct colors: greedy farthest points in OKLab on an RGB grid.

    Args:
        count: Number of colors; the first ones do not depend on it.

    Returns:
        RGB colors, in [0, 255].
    """
    levels = np.linspace(0, 255, 15)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _oklab(grid / 255)
    # Exclude colors that are nearly gray, dark or white.
    vivid = (np.hypot(lab[:, 1], lab[:, 2]) > 0.1) & (lab[:, 0] > 0.5) & (lab[:, 0] < 0.93)
    grid, lab = grid[vivid], lab[vivid]

    # Each next color is the farthest from all chosen ones.
    chosen = [int(np.abs(grid - _FIRST_COLOR).sum(1).argmin())]
    distance = np.full(len(lab), np.inf)

    for _ in range(count - 1):
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return np.rint(grid[chosen[:count]]).astype(np.uint8)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB in [0, 1] to OKLab (Ottosson 2020)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_cones = [
        [0.41222147, 0.53633254, 0.05144599],
        [0.2119035, 0.6806995, 0.10739696],
        [0.0883025, 0.2817188, 0.6299787],
    ]
    to_lab = [
        [0.21045426, 0.79361778, -0.00407205],
        [1.9779985, -2.42859221, 0.45059371],
        [0.02590404, 0.78277177, -0.80867577],
    ]
    return np.cbrt(linear @ np.array(to_cones).T) @ np.array(to_lab).T


def _with_legend(
    photo: tuple[int, int], entries: Sequence[tuple[str, float, tuple[int, int, int]]]
) -> Image.Image:
    """White canvas with a legend below the photo's area; only the largest entries are listed."""
    # Text size in pixels, in proportion to the photo.
    size = int(np.clip(min(photo) / 24, 12, 96))
    lettering, widest = Lettering(size), max(photo[0], _LEGEND_LETTERS * size)
    shown = []
    for name, area, color in entries[:_LEGEND_ENTRIES]:
        text = f"{lettering.shortened(name, widest)}  {_percent(area)}"
        shown.append((text, color))
    if len(entries) > len(shown):
        shown.append((f"and {len(entries) - len(shown)} more", (255, 255, 255)))

    # Place the entries row by row, starting a new row where one is full.
    gap, row = size // 2, size * 2
    widths = [size + gap + round(lettering.length(text)) + 2 * gap for text, _ in shown]
    width = max(photo[0], gap + max(widths))

    places, left, top = [], gap, gap // 2
    for item_width in widths:
        if left + item_width > width and left > gap:
            left, top = gap, top + row
        places.append((left, top))
        left += item_width

    # Draw the color and the text of each entry.
    canvas = Image.new("RGB", (width, photo[1] + top + row + gap // 2), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)

    for (text, color), (left, top) in zip(shown, places, strict=True):
        middle = photo[1] + top + row // 2
        box = (left, middle - size // 2, left + size, middle + size - size // 2)
        draw.rounded_rectangle(box, radius=max(2, size // 5), fill=color)
        lettering.draw(draw, (left + size + gap, middle), text)
    return canvas


def _percent(fraction: float) -> str:
    """A fraction as a rounded percentage."""
    if fraction < 0.01:
        return "<1%"
    return f"{fraction:.0%}"
