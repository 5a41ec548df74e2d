"""Drawing text of any script with the installed fonts; letters that no font has are escaped."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Font folders of Linux, macOS and Windows, searched where fontconfig is not installed.
FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts"),
)
_SUFFIXES = (".ttf", ".otf", ".ttc")
_MAX_FILES = 1000
# Time limit of the fc-list command, in seconds.
_FC_LIST_S = 5.0
# Font size at which glyphs are compared.
_PROBE_PX = 24
# No font has a glyph for this code point, so it is drawn as the box of missing glyphs.
_NO_LETTER = "\U0010fffe"
# Stands for the font that comes with Pillow.
_OWN = ""


class Lettering:
    """Text of one font size, each part drawn in the first font that has its letters."""

    def __init__(self, size: int):
        self._size = size

    def length(self, text: str) -> float:
        """Width of a text.

        Args:
            text: Text on one line.

        Returns:
            Its width in pixels.
        """
        return sum(font.getlength(part) for part, font in self._parts(text))

    def shortened(self, text: str, width: int) -> str:
        """Truncate a text to a width.

        Args:
            text: Text on one line.
            width: Largest width in pixels.

        Returns:
            The text, with its end replaced by an ellipsis if it is wider.
        """
        while self.length(text) > width and len(text) > 1:
            text = text[:-2] + "…"
        return text

    def draw(self, canvas: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
        """Draw a text in dark gray.

        Args:
            canvas: Image to draw on.
            place: Middle of the left edge of the text, (x, y) in pixels.
            text: Text on one line.
        """
        left, middle = float(place[0]), place[1]
        for part, font in self._parts(text):
            canvas.text((left, middle), part, fill=(30, 30, 30), font=font, anchor="lm")
            left += font.getlength(part)

    def _parts(self, text: str) -> Iterator[tuple[str, Font]]:
        """Split a text into runs, each with the font that draws it."""
        for file, run in groupby(_units(unicodedata.normalize("NFC", text)), key=_file_of):
            joined = "".join(run)

            # No font has these letters: their escapes are ASCII, which the font of Pillow has.
            if file is None:
                joined, file = joined.encode("ascii", "backslashreplace").decode(), _OWN

            yield joined, _font(file, self._size)


def _units(text: str) -> Iterator[str]:
    """Words that one font covers, and the single letters of other words; spaces are kept."""
    for word in re.findall(r" *[^ ]+ *|^ +$", text):
        if _file_of(word) is None:
            yield from _clusters(word)
        else:
            yield word


def _clusters(text: str) -> list[str]:
    """Letters, each with its combining marks and trailing spaces."""
    found: list[str] = []

    for letter in text:
        joins = unicodedata.category(letter) in ("Mn", "Me", "Mc", "Cf") or letter == " "
        if joins and found:
            found[-1] += letter
        else:
            found.append(letter)

    return found


@cache
def _file_of(cluster: str) -> str | None:
    """File of the first font that has all letters of a text; None if there is none."""
    letters = tuple(each for each in cluster if _has_glyph(each))
    for file in _files(letters):
        if all(_has(file, letter) for letter in letters):
            return file
    return None


def _has_glyph(letter: str) -> bool:
    """Whether a letter is no space, format character or variation selector."""
    is_format = unicodedata.category(letter) == "Cf" or "\ufe00" <= letter <= "\ufe0f"
    return not is_format and not letter.isspace()


def _files(letters: tuple[str, ...]) -> Iterator[str]:
    """Fonts that may have the letters: of Pillow, of matplotlib, then of the system."""
    yield _OWN
    yield from _of_matplotlib()

    # fontconfig selects by letter, which is faster than opening every installed font.
    if shutil.which("fc-list"):
        yield from _of_fontconfig(tuple(map(ord, letters)))
    else:
        yield from _of_folders()


@cache
def _of_matplotlib() -> tuple[str, ...]:
    """DejaVu Sans as matplotlib installs it; empty if matplotlib is missing."""
    found = find_spec("matplotlib")
    if not found or not found.origin:
        return ()

    path = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    if not path.is_file():
        return ()
    return (str(path),)


@cache
def _of_fontconfig(codes: tuple[int, ...]) -> tuple[str, ...]:
    """Fonts that fontconfig lists for the code points, plainest first; empty if it fails."""
    charset = " ".join(f"{code:x}" for code in codes)

    try:
        listed = subprocess.run(
            ["fc-list", f":charset={charset}", "file"],
            capture_output=True,
            timeout=_FC_LIST_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()

    lines = listed.decode("utf-8", "replace").splitlines()
    return _plainest_first(line.rstrip().removesuffix(":") for line in lines)


@cache
def _of_folders() -> tuple[str, ...]:
    """Fonts in the usual folders of the system, plainest first."""
    found: list[str] = []

    for folder in FOLDERS:
        for path in Path(folder).expanduser().rglob("*"):
            if path.suffix.lower() in _SUFFIXES:
                found.append(str(path))
            if len(found) == _MAX_FILES:
                break

    return _plainest_first(found)


def _plainest_first(files: list[str] | Iterator[str]) -> tuple[str, ...]:
    """Sort by length of name: names of bold and slanted fonts are longer."""
    return tuple(sorted(files, key=lambda file: (len(Path(file).name), file)))


@cache
def _has(file: str, letter: str) -> bool:
    """Whether a font draws a letter differently from a missing glyph."""
    try:
        drawn, missing = _probe(file, letter), _probe(file, _NO_LETTER)
    except (OSError, ValueError):
        # Pillow cannot read the font, for example one of colored emoji.
        return False

    return drawn.getbbox() is not None and drawn.tobytes() != missing.tobytes()


def _probe(file: str, letter: str) -> Image.Image:
    """Draw one letter in black and white."""
    canvas = Image.new("1", (4 * _PROBE_PX, 4 * _PROBE_PX))
    ImageDraw.Draw(canvas).text((_PROBE_PX, _PROBE_PX), letter, fill=1, font=_font(file, _PROBE_PX))
    return canvas


@cache
def _font(file: str, size: int) -> Font:
    """Load a font, or that of Pillow, at a size in pixels."""
    if file == _OWN:
        return ImageFont.load_default(size)
    return ImageFont.truetype(file, size)
