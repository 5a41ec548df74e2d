"""A MkDocs hook that turns the formulas of a page into MathML, which browsers show without a script
or a network.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Return the page's HTML with every formula as MathML."""
    content = BLOCK.sub(
        lambda found: convert(html.unescape(found[1].strip()), display="block"), content
    )
    return INLINE.sub(lambda found: convert(html.unescape(found[1].strip())), content)
