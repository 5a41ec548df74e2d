"""HTML pages of one file: their frame and style, pictures within them, and tables of settings."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from PIL import Image

_TEMPLATE = Path(__file__).with_name("page.html")
# Keeps a page of many pictures small.
_JPEG_QUALITY = 70


def html_page(title: str, body: str) -> str:
    """Make a page that needs no other file.

    Args:
        title: Title as plain text.
        body: HTML of the content.

    Returns:
        The page.
    """
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body=body)


def html_figure(picture: Image.Image, caption: str, text: str) -> str:
    """HTML of a picture that the page holds itself.

    Args:
        picture: RGB picture.
        caption: HTML below it.
        text: HTML for those who cannot see it.

    Returns:
        A figure.
    """
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    source = f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"

    size = f'width="{picture.width}" height="{picture.height}"'
    image = f'<img src="{source}" {size} alt="{text}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def html_swatch(color: Sequence[int]) -> str:
    """HTML of a square of a color.

    Args:
        color: Red, green, blue in [0, 255].

    Returns:
        The square.
    """
    red, green, blue = color
    return f'<span class="swatch" style="background:#{red:02x}{green:02x}{blue:02x}"></span>'


def settings_rows(settings: Mapping[str, Any]) -> str:
    """HTML rows of a table of settings.

    Args:
        settings: Plain values by name.

    Returns:
        A row for each name.
    """
    lines = []
    for name, value in settings.items():
        heading = f'<th scope="row">{escape(name)}</th>'
        lines.append(f"<tr>{heading}<td><code>{escape(_plain(value))}</code></td></tr>")
    return "\n".join(lines)


def percent(fraction: float | None) -> str:
    """Format a fraction in percent.

    Args:
        fraction: Number in [0, 1], or None.

    Returns:
        Percent with one decimal; a dash for None.
    """
    return "–" if fraction is None else f"{100 * fraction:.1f}%"


def _plain(value: Any) -> str:
    """Format a JSON value as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(_plain, value))
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
