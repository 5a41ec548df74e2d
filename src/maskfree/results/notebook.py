"""Pictures of results in notebooks, and short texts of them elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

from PIL import Image

# Longest side of a picture in a notebook, which is stored in the notebook's file.
_MAX_SIDE_PX = 1024
# Most names that a text lists.
_MAX_NAMES = 6


def png_bytes(picture: Image.Image) -> bytes:
    """Encode a picture as PNG, made smaller if it is large.

    Args:
        picture: Picture of any size.

    Returns:
        PNG file whose longest side has at most 1024 pixels.
    """
    small = picture.copy()
    small.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))

    content = io.BytesIO()
    small.save(content, "PNG")
    return content.getvalue()


def html_text(png: bytes, areas: Mapping[str, float]) -> str:
    """Return HTML of a picture with a caption of the areas.

    Args:
        png: PNG file of the picture.
        areas: Fraction of the photo by name; names of no area are left out.

    Returns:
        HTML that holds the picture itself.
    """
    parts = []
    for name in sorted(areas, key=areas.__getitem__, reverse=True):
        if areas[name] > 0:
            parts.append(f"{html.escape(name)} {areas[name]:.1%}")

    caption = ", ".join(parts)
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<figure><img src="{source}"><figcaption>{caption}</figcaption></figure>'


def shortened(names: Sequence[str]) -> str:
    """List names in one line, the first few of them if there are many.

    Args:
        names: Names in order.

    Returns:
        Text such as "['cat', 'wall']", or "['a', ..., and 20 more]".
    """
    shown = list(map(repr, names[:_MAX_NAMES]))
    if len(names) > len(shown):
        shown.append(f"and {len(names) - len(shown)} more")
    return f"[{', '.join(shown)}]"
