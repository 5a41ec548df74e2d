"""Fig. 4 of ViL-Seg (arXiv:2207.08455): how photos fall apart with each part of the method."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from maskfree.files.atomic import replace_text
from maskfree.hub import loading
from maskfree.inference.segmenter import Segmenter
from studies.pictures import groups_of

HEIGHT_PX, WIDTH_PX, TITLE_PX = 150, 200, 24


def draw_regions(models: Mapping[str, Path], photos: Sequence[Path], path: Path) -> None:
    """Draw a row a photo: itself, and the regions of each of MODELS in colors of their own."""
    columns = {"photo": [_tile(Image.open(photo)) for photo in photos]}
    for title, folder in models.items():
        segmenter = loading.load(folder, "cpu")
        columns[title] = [_tile(_regions(segmenter, photo)) for photo in photos]

    parts = []
    for place, (title, tiles) in enumerate(columns.items()):
        left = place * WIDTH_PX
        parts.append(f'<text x="{left + 4}" y="{TITLE_PX - 8}">{escape(title)}</text>')
        for row, tile in enumerate(tiles):
            top = TITLE_PX + row * HEIGHT_PX
            parts.append(
                f'<image x="{left}" y="{top}" width="{WIDTH_PX}" height="{HEIGHT_PX}" '
                f'href="data:image/jpeg;base64,{tile}"/>'
            )
    width, height = len(columns) * WIDTH_PX, TITLE_PX + len(photos) * HEIGHT_PX
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="14">'
    )
    replace_text(path, "\n".join((opening, *parts, "</svg>", "")))


def _regions(segmenter: Segmenter, photo: Path) -> Image.Image:
    """Draw the groups of a photo over it, without the legend."""
    groups = groups_of(segmenter, photo)
    height, width = groups.labels.shape
    return groups.overlay(0.8).crop((0, 0, width, height))


def _tile(picture: Image.Image) -> str:
    small = picture.convert("RGB").resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BILINEAR)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=80)
    return base64.b64encode(content.getvalue()).decode()
