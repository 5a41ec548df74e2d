"""Text in any script on a picture, with the fonts that are there; letters that none of them has are escaped."""

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

FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts"),
)
_SUFFIXES = (".ttf", ".otf", ".ttc")
_MOST_FILES = 1000
_FC_LIST_S = 5.0
_PROBE_PX = 24
_NO_LETTER = (
    "\U0010fffe"  # of which no font has a glyph: it gives the box that stands for what is missing
)
_OWN = ""  # the font that comes with Pillow


class Lettering:
    """Text of one size; each part of it is drawn in the first font that has its letters."""

    def __init__(self, size: int):
        self._size = size

    def length(self, text: str) -> float:
        """Return how many pixels wide TEXT is."""
        return sum(font.getlength(part) for part, font in self._parts(text))

    def shortened(self, text: str, width: int) -> str:
        """Return TEXT, without its end if it is wider than WIDTH pixels."""
        while self.length(text) > width and len(text) > 1:
            text = text[:-2] + "…"
        return text

    def draw(self, canvas: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
        """Draw TEXT in dark gray; PLACE is the middle of its left edge, in pixels."""
        left, middle = float(place[0]), place[1]
        for part, font in self._parts(text):
            canvas.text((left, middle), part, fill=(30, 30, 30), font=font, anchor="lm")
            left += font.getlength(part)

    def _parts(self, text: str) -> Iterator[tuple[str, Font]]:
        """Runs of one font."""
        for file, run in groupby(_units(unicodedata.normalize("NFC", text)), key=_file_of):
            joined = "".join(run)
            if file is None:
                joined, file = joined.encode("ascii", "backslashreplace").decode(), _OWN
            yield joined, _font(file, self._size)


def _units(text: str) -> Iterator[str]:
    """Words of which some font has all letters, and the letters of others; spaces stay with what is before them."""
    for word in re.findall(r" *[^ ]+ *|^ +$", text):
        if _file_of(word) is None:
            yield from _clusters(word)
        else:
            yield word


def _clusters(text: str) -> list[str]:
    """Letters, each with the marks that belong to it."""
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
    """The first font that has all letters of CLUSTER; None if there is none."""
    letters = tuple(each for each in cluster if not (_is_unseen(each) or each.isspace()))
    for file in _files(letters):
        if all(_has(file, letter) for letter in letters):
            return file
    return None


def _is_unseen(letter: str) -> bool:
    """Whether LETTER only joins others, or chooses between their forms."""
    return unicodedata.category(letter) == "Cf" or "\ufe00" <= letter <= "\ufe0f"


def _files(letters: tuple[str, ...]) -> Iterator[str]:
    """Fonts that may have LETTERS: Pillow's, matplotlib's, then those of the system."""
    yield _OWN
    yield from _of_matplotlib()
    if shutil.which("fc-list"):
        yield from _of_fontconfig(tuple(ord(letter) for letter in letters))
    else:
        yield from _of_folders()


@cache
def _of_matplotlib() -> tuple[str, ...]:
    found = find_spec("matplotlib")
    if not found or not found.origin:
        return ()
    path = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    return (str(path),) if path.is_file() else ()


@cache
def _of_fontconfig(codes: tuple[int, ...]) -> tuple[str, ...]:
    """The plainest first: bold and slanted ones have longer names."""
    charset = " ".join(f"{code:x}" for code in codes)
    try:
        told = subprocess.run(
            ["fc-list", f":charset={charset}", "file"],
            capture_output=True,
            timeout=_FC_LIST_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    lines = told.decode("utf-8", "replace").splitlines()
    return _plainest_first(line.rstrip().removesuffix(":") for line in lines)


@cache
def _of_folders() -> tuple[str, ...]:
    found: list[str] = []
    for folder in FOLDERS:
        for path in Path(folder).expanduser().rglob("*"):
            if path.suffix.lower() in _SUFFIXES:
                found.append(str(path))
            if len(found) == _MOST_FILES:
                break
    return _plainest_first(found)


def _plainest_first(files: list[str] | Iterator[str]) -> tuple[str, ...]:
    return tuple(sorted(files, key=lambda file: (len(Path(file).name), file)))


@cache
def _has(file: str, letter: str) -> bool:
    """Whether a font draws LETTER otherwise than what it does not have."""
    try:
        drawn, missing = _probe(file, letter), _probe(file, _NO_LETTER)
    except (OSError, ValueError):  # no font that Pillow reads, as one of colored emoji
        return False
    return drawn.getbbox() is not None and drawn.tobytes() != missing.tobytes()


def _probe(file: str, letter: str) -> Image.Image:
    canvas = Image.new("1", (4 * _PROBE_PX, 4 * _PROBE_PX))
    ImageDraw.Draw(canvas).text((_PROBE_PX, _PROBE_PX), letter, fill=1, font=_font(file, _PROBE_PX))
    return canvas


@cache
def _font(file: str, size: int) -> Font:
    if file == _OWN:
        return ImageFont.load_default(size)
    return ImageFont.truetype(file, size)
