"""The HTML report of a labeled data set: its figures, its pictures, and names that are code."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfree.label.labeled import UNLABELED, LabelClass
from maskfree.label.manifest import Manifest
from maskfree.label.photo_row import DONE, FAILED, packed
from maskfree.label.report import write_report
from maskfree.label.store import Store
from maskfree.label.tally import LabelTally
from maskfree.label.work_list import FoundPhoto

HOSTILE = '<script>alert("1")</script> & \udce9'
CLASSES = (
    LabelClass(1, "sky", ("sky",), (250, 10, 20)),
    LabelClass(2, "<b onclick='x'>", ("<b onclick='x'>",), (10, 250, 20)),
    LabelClass(0, "background", (), (0, 0, 0)),
)
RECORD = {
    "asked": {"model": "pocket", "background": "none", "classes": {}, "abstain": 0.4},
    "made": {"weights_sha256": "0123456789abcdef", "templates": ["a {}", "<i>{}"]},
}


class Page(HTMLParser):
    """Tags, attributes and texts of a page; every tag is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three labeled photos, of which one has gone, and one that could not be labeled."""
    made = Store(tmp_path / HOSTILE.replace("/", "_"), CLASSES)
    made.folder.mkdir()
    confidences = {"a": 0.25, "b": 0.95, "c": None}

    with Manifest(made.folder) as manifest:
        for name, confidence in confidences.items():
            path = tmp_path / f"{name}.png"
            if name != "b":
                Image.new("RGB", (40, 30), (0, 0, 255)).save(path)
            labels = np.full((30, 40), UNLABELED, np.uint8)
            labels[:15] = 1
            labels[15:18] = 2
            made.label_path(name).parent.mkdir(exist_ok=True)
            Image.fromarray(labels).save(made.label_path(name))

            words = {"sky": (0.5, confidence), "<b onclick='x'>": (0.1, confidence)}
            if name == "c":
                del words["<b onclick='x'>"]
            manifest.change(
                manifest.add(FoundPhoto(path, "", name), 1).id,
                state=DONE,
                confidence=confidence,
                unlabeled=0.4,
                words=json.dumps(
                    {word: {"area": a, "confidence": c} for word, (a, c) in words.items()}
                ),
                regions=packed([]),
            )
        bad = manifest.add(FoundPhoto(tmp_path / HOSTILE / "x.jpg", "", "bad"), 1)
        manifest.change(bad.id, state=FAILED, error=f"{HOSTILE} is damaged")
    return made


def test_the_page_holds_figures_pictures_and_reasons(store: Store):
    path = write_report(store, RECORD)
    page = Page(path.read_text(encoding="utf-8"))
    text = "\n".join(page.texts)

    # Over all photos, weighted by area; c has no confidence.
    assert "sky\n3\n50.0%\n60.0%" in text
    assert "<b onclick='x'>\n2\n6.7%\n60.0%" in text
    assert "20% to 30%\n1\n" in text
    assert "90% to 100%\n1\n" in text
    assert "mean confidence\n60.0%\n" in text
    assert "unlabeled area\n40.0%" in text
    assert "Photos that could not be labeled: 1. Of the others, 40.0% of the area" in text
    assert "is damaged" in text
    assert "abstain\n0.4" in text

    # The photo that has gone is named; each other one is shown with its labels.
    assert f"there is no file {store.folder.parent / 'b.png'}" in text
    pictures = [value for name, value in page.attributes if name == "src"]
    assert len(pictures) == 4
    assert all((value or "").startswith("data:image/jpeg;base64,") for value in pictures)
    assert "unlabeled 40.0%" in text


def test_names_are_never_code(store: Store):
    content = write_report(store, RECORD).read_bytes().decode("utf-8")
    page = Page(content)
    assert not {"script", "b", "i", "link"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert '<script>alert("1")</script> & \\udce9 is damaged' in page.texts


def test_a_report_replaces_the_one_before(store: Store):
    write_report(store, RECORD)
    path = write_report(store, RECORD | {"asked": RECORD["asked"] | {"model": "other"}})
    assert "Model other" in path.read_text(encoding="utf-8")


def test_a_data_set_without_photos_has_a_report(tmp_path: Path):
    store = Store(tmp_path / "out", CLASSES)
    store.folder.mkdir()
    page = Page(write_report(store, RECORD).read_text(encoding="utf-8"))
    assert page.texts.count("None.") == 2


def test_sums_are_those_of_all_photos():
    generator = np.random.default_rng(0)
    areas, confidences = generator.random(50), generator.random(50)
    known = generator.random(50) < 0.8
    figures = [
        (c if k else None, 0.5, {"sky": {"area": a, "confidence": c if k else None}})
        for a, c, k in zip(areas, confidences, known, strict=True)
    ]
    tally = LabelTally.of(iter(figures))

    assert tally.area("sky") == pytest.approx(areas.mean())
    expected = np.average(confidences[known], weights=areas[known])
    assert tally.confidence("sky") == pytest.approx(expected)
    assert tally.mean_confidence == pytest.approx(confidences[known].mean())
    assert tally.histogram == np.histogram(confidences[known], 10, (0, 1))[0].tolist()
    assert (tally.total, tally.num_photos["sky"]) == (50, 50)
    assert tally.confidence("never") is None
