"""Makes docs/images/serve.png: the page of `maskfree serve` in Chromium.

From the repository's root, with playwright and Debian's chromium:

    PYTHONPATH=src:tests python docs/serve_picture.py
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from maskfree.serve.limits import Access, Limits
from serve import browser as rig

OUT = Path(__file__).parent / "images" / "serve.png"
VIEW = {"width": 1180, "height": 820}
SIZE = (1000, 695)
WAIT_MS = 60_000


def main() -> None:
    """Label an example with edges that follow the photo, and point at its sky."""
    with rig.served(Access(), Limits()) as address, rig.browser() as chromium:
        page = chromium.new_page(viewport=VIEW)
        page.goto(address)
        page.check("#edges")
        page.click("[data-example=pagoda]")
        expect(page.locator("#status")).to_contain_text("Labeled in", timeout=WAIT_MS)
        page.hover("canvas", position={"x": 560, "y": 110})
        content = page.screenshot()

    picture = Image.open(io.BytesIO(content)).convert("RGB")
    small = picture.resize(SIZE, Image.Resampling.LANCZOS)
    # Few colors make a small file.
    colors = small.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colors.save(OUT, optimize=True)


if __name__ == "__main__":
    main()
