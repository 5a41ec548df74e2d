"""Text in any script, without the fonts of this machine: a font is made here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from maskfree.results import lettering
from maskfree.results.lettering import Lettering

TREE, SKY, EMOJI = "树", "空", "\U0001f333"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch):
    """A machine without fonts."""
    caches = (
        lettering._file_of,
        lettering._of_matplotlib,
        lettering._of_fontconfig,
        lettering._of_folders,
    )
    for each in caches:
        each.cache_clear()
    monkeypatch.setattr(lettering, "find_spec", lambda name: None)
    monkeypatch.setattr(lettering.shutil, "which", lambda name: None)
    monkeypatch.setattr(lettering, "FOLDERS", ())
    yield
    for each in caches:
        each.cache_clear()


@pytest.fixture
def font(tmp_path: Path) -> Path:
    """A font that has one Chinese letter, a large square, and a small square for what it does not
    have.
    """
    builder = pytest.importorskip(
        "fontTools.fontBuilder", reason="fontTools comes with matplotlib"
    ).FontBuilder(1000)
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")

    def square(side: int):
        pen = pens.TTGlyphPen(None)
        pen.moveTo((0, 0))
        for place in ((0, side), (side, side), (side, 0)):
            pen.lineTo(place)
        pen.closePath()
        return pen.glyph()

    builder.setupGlyphOrder([".notdef", "tree", "space"])
    builder.setupCharacterMap({ord(TREE): "tree", ord(" "): "space"})
    builder.setupGlyf(
        {".notdef": square(300), "tree": square(900), "space": pens.TTGlyphPen(None).glyph()}
    )
    builder.setupHorizontalMetrics({".notdef": (400, 0), "tree": (1000, 0), "space": (300, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "fonts" / "tree.ttf"
    path.parent.mkdir()
    builder.save(path)
    return path


def drawn(text: str) -> np.ndarray:
    canvas = Image.new("RGB", (400, 60), (255, 255, 255))
    Lettering(30).draw(ImageDraw.Draw(canvas), (10, 30), text)
    return np.asarray(canvas)


def parts(text: str) -> list[tuple[str, bool]]:
    """What is drawn, and whether with another font than Pillow's own."""
    return [
        (part, str(getattr(font, "path", "")).endswith(".ttf"))
        for part, font in Lettering(30)._parts(text)
    ]


def test_letters_without_a_font_are_escaped():
    assert parts(f"{TREE}{SKY}  12%") == [("\\u6811\\u7a7a  ", False), ("12%", False)]
    assert parts(f"{EMOJI} x") == [("\\U0001f333 ", False), ("x", False)]
    assert np.array_equal(drawn(TREE), drawn("\\u6811"))
    assert not np.array_equal(drawn(TREE), drawn(SKY))


def test_a_font_in_a_folder_of_the_system_is_found(font: Path, monkeypatch: pytest.MonkeyPatch):
    (font.parent / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(lettering, "FOLDERS", (str(font.parent), "/not/there"))
    assert parts(f"{TREE}{TREE} 5%") == [(f"{TREE}{TREE} ", True), ("5%", False)]
    assert parts(f"{TREE}{SKY}") == [(TREE, True), ("\\u7a7a", False)]
    assert (drawn(TREE) < 100).all(-1).sum() > 500  # the square


def test_fontconfig_is_asked_for_the_letters(font: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def fc_list(command: list[str], **options) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, f"{font}: \n/gone/other.ttf: \n".encode())

    monkeypatch.setattr(lettering.shutil, "which", lambda name: "/bin/fc-list")
    monkeypatch.setattr(lettering.subprocess, "run", fc_list)
    assert parts(TREE) == [(TREE, True)]
    assert asked == [["fc-list", ":charset=6811", "file"]]


def test_fontconfig_that_fails_is_done_without(monkeypatch: pytest.MonkeyPatch):
    def hangs(command: list[str], **options):
        raise subprocess.TimeoutExpired(command, 5)

    monkeypatch.setattr(lettering.shutil, "which", lambda name: "/bin/fc-list")
    monkeypatch.setattr(lettering.subprocess, "run", hangs)
    assert parts(TREE) == [("\\u6811", False)]


def test_marks_stay_with_their_letter_and_joiners_are_not_drawn():
    assert parts("cafe\u0301") == parts("café")
    assert lettering._clusters("a\u0336b") == ["a\u0336", "b"]
    assert lettering._clusters("\U0001f469\u200d\U0001f33e") == ["\U0001f469\u200d", "\U0001f33e"]


def test_matplotlibs_font_has_many_scripts(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("matplotlib", reason="the extra 'evaluate' is not installed")
    monkeypatch.undo()
    monkeypatch.setattr(lettering.shutil, "which", lambda name: None)
    monkeypatch.setattr(lettering, "FOLDERS", ())
    for word in ("дом", "σπίτι", "שלום", "عربي"):
        assert parts(word) == [(word, True)]


def test_long_text_is_shortened():
    short = Lettering(20).shortened("tree " * 50, 200)
    assert short.startswith("tree tree")
    assert short.endswith("…")
    assert Lettering(20).length(short) <= 200
    assert Lettering(20).shortened("tree", 200) == "tree"
