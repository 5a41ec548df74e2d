"""The page about a measured run, with a method that reads class ids off the colors: the ranking is
known.
"""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from colors import Colors
from PIL import Image

from maskfree.data.benchmarks.catalog import Benchmark
from maskfree.data.benchmarks.index_maps import IndexMaps
from maskfree.evaluation.protocol import Protocol, prepare
from maskfree.evaluation.reporting.report import extremes, write_report
from maskfree.evaluation.zero_shot import EvalJob, measure
from maskfree.inference.config import Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.results.segmentation import Segmentation
from maskfree.types import Tokens

NAMES = ("<b>dog", 'cat & "co', "bus")
DOG, CAT, BUS, NOTHING, IGNORED = 0, 1, 2, 3, 255
COLOR_STEP = 40  # red value per class id
PROTOCOL = Protocol(inference=Inference(side_px=32))  # photos are seen at their own size
VOID = {"img", "meta", "br", "hr", "link", "input"}


def tokenize(texts):
    """One token: the class that the text names."""
    ids = [next(i for i, name in enumerate(NAMES) if text.endswith(name)) for text in texts]
    return Tokens(torch.tensor(ids)[:, None], torch.ones(len(ids), 1, dtype=torch.bool))


@pytest.fixture
def segmenter():
    return Segmenter(
        Colors(NOTHING + 1, COLOR_STEP).eval(),
        tokenize,
        name="colors",
        weights_hash="0123456789abcdef" * 4,
    )


class Page(HTMLParser):
    """What a page holds, having seen that its tags are balanced."""

    def __init__(self, path: Path):
        super().__init__()
        self.text, self.open, self.attributes, self.tags = (
            path.read_text(encoding="utf-8"),
            [],
            [],
            [],
        )
        self.sections: dict[str, list[str]] = {}  # text of the h3 below each h2, by its id
        self.feed(self.text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "h2":
            self.sections[dict(attrs)["id"]] = []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h3":
            self.sections[list(self.sections)[-1]].append(data)

    def values(self, name):
        return [value for attribute, value in self.attributes if attribute == name]

    def pictures(self):
        encoded = [value.removeprefix("data:image/jpeg;base64,") for value in self.values("src")]
        return [Image.open(io.BytesIO(base64.b64decode(text))) for text in encoded]


def add_photo(root, name, truth, answer):
    """A photo that the method answers with ANSWER, and its truth."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(exist_ok=True)
    pixels = np.full((*answer.shape, 3), 90, np.uint8)
    pixels[..., 0] = answer * COLOR_STEP
    Image.fromarray(pixels).save(root / "images" / f"{name}.png")
    Image.fromarray(truth.astype(np.uint8)).save(root / "labels" / f"{name}.png")


def halves(wrong=0):
    """Truth and answer of 32x48: a dog, and right of it a cat, of which WRONG columns are taken for
    a bus.
    """
    truth = np.full((32, 48), DOG)
    truth[:, 24:] = CAT
    answer = truth.copy()
    answer[:, 48 - wrong :] = BUS
    return truth, answer


@pytest.fixture
def root(tmp_path):
    """Five photos: d is best, then b, e and a; of c nothing counts."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    for name, wrong in {"a": 20, "b": 4, "c": 0, "d": 0, "e": 12}.items():
        truth, answer = halves(wrong)
        if name == "c":
            truth[:] = IGNORED
        if name == "d":
            truth[24:] = IGNORED
        add_photo(root, name, truth, answer)
    return root


def bench(root):
    return Benchmark("mine <i>", "Photos & more", IndexMaps(), lists_at=None).at(root)


def write(segmenter, root, path, protocol=PROTOCOL, count=10, **changes):
    mine = bench(root)
    samples = mine.samples(root)
    measured = measure(segmenter, protocol, EvalJob(mine, samples, "maskfree evaluate <mine>"))
    measured = replace(measured, row=replace(measured.row, **changes))
    path = write_report(
        measured, prepare(segmenter, mine, protocol), mine, samples, protocol, path, count
    )
    return Page(path), measured.row


def keys(headings):
    return [
        heading.split(":")[0].removeprefix("images/").removesuffix(".png") for heading in headings
    ]


def test_best_and_worst_photos_in_order(segmenter, root, tmp_path):
    page, _ = write(segmenter, root, tmp_path / "r.html", count=1)
    assert (keys(page.sections["best"]), keys(page.sections["worst"])) == (["d"], ["a"])
    page, _ = write(segmenter, root, tmp_path / "r.html", count=10)
    assert (keys(page.sections["best"]), keys(page.sections["worst"])) == (["d", "b"], ["a", "e"])
    assert page.sections["best"][0] == "images/d.png: mean IoU 100.0%"
    assert "Photos left out, since nothing in them counts: 1." in page.text


def test_equal_photos_keep_their_order_and_none_is_shown_twice():
    means = np.array([0.5, 0.2, np.nan, 0.5, 0.2, 0.2, 0.9])
    assert extremes(means, 2) == ([6, 0], [1, 4])
    assert extremes(means, 10) == ([6, 0, 3], [1, 4, 5])
    assert extremes(np.array([0.4]), 10) == ([0], [])
    assert extremes(np.array([np.nan]), 10) == ([], [])


PARTS = {"seen classes": 0.375, "odd ids": 0.25, "odd ids, accuracy": 0.625}


def test_scores_classes_and_confusions(segmenter, root, tmp_path):
    page, row = write(segmenter, root, tmp_path / "r.html", boundary_f=0.125, parts=PARTS)
    for score in (
        row.mean_iou,
        row.pixel_accuracy,
        row.mean_accuracy,
        row.frequency_weighted_iou,
        0.125,
        *PARTS.values(),
    ):
        assert f"<dd>{100 * score:.1f}%</dd>" in page.text
    for name in ("mean IoU, seen classes", "mean IoU, odd ids", "odd ids, accuracy"):
        assert f"<dt>{name}</dt>" in page.text
    ranked = re.findall(
        r'<td class="number">(\d)</td><th scope="row">([^<]+)</th><td class="number">([^<]+)<',
        page.text,
    )
    assert [(number, name) for number, name, _ in ranked] == [
        ("1", "&lt;b&gt;dog"),
        ("2", "cat &amp; &quot;co"),
        ("3", "bus"),
    ]
    assert ranked[1][2] == f"{100 * row.iou[NAMES[CAT]]:.1f}%"
    assert f'<div style="width:{100 * row.iou[NAMES[CAT]]:.1f}%"></div>' in page.text
    (true, answer, share), *_ = row.confusions
    assert (true, answer) == (NAMES[CAT], "bus")
    assert (
        f'cat &amp; &quot;co</td><td>bus</td><td class="number">{100 * share:.1f}%</td>'
        in page.text
    )
    assert f"<td>bus ({100 * share:.1f}%)" in page.text


def test_the_page_shows_how_reliable_confidences_are(segmenter, root, tmp_path):
    page, row = write(segmenter, root, tmp_path / "r.html")
    assert f"<dt>calibration error</dt><dd>{100 * row.reliability['ece']:.1f}%</dd>" in page.text
    diagram = ElementTree.fromstring(re.search(r"<svg.*</svg>", page.text, re.DOTALL)[0])
    filled = [each for each in row.reliability["bins"] if each[0]]
    # An accuracy and a share for each bin that is not empty, and a line at its confidence.
    heights = [float(bar) for bar in re.findall(r"v([\d.]+)h-", page.text)]
    assert len(heights) == 2 * len(filled) > 0
    assert len([each for each in diagram.iter() if each.tag.endswith("line")]) == len(filled)
    expected = [240 * accuracy for _, _, accuracy in filled]
    assert heights[::2] == pytest.approx(expected, abs=0.1)

    page, _ = write(segmenter, root, tmp_path / "r.html", reliability=None)
    assert "<svg" not in page.text


def test_classes_are_ranked_and_those_that_do_not_occur_come_last(segmenter, root, tmp_path):
    page, _ = write(
        segmenter, root, tmp_path / "r.html", iou={"x": None, "y": 0.0, "z": 0.5}, confusions=[]
    )
    assert re.findall(r'<td class="number">(\d)</td><th scope="row">(\w)<', page.text) == [
        ("3", "z"),
        ("2", "y"),
        ("1", "x"),
    ]


def test_the_page_carries_its_protocol(segmenter, root, tmp_path):
    page, row = write(segmenter, root, tmp_path / "r.html", PROTOCOL)
    for name, value in row.protocol.items():
        assert f'<th scope="row">{name.replace("_", " ")}</th>' in page.text
        assert str(value) in page.text or isinstance(value, list)
    told = (
        row.weights_sha256,
        row.names_sha256,
        row.files_sha256,
        row.names_file,
        row.date,
        row.versions["torch"],
    )
    for text in (*told, row.machine["cpu"], "a photo of a {}", "maskfree evaluate &lt;mine&gt;"):
        assert text in page.text


def test_what_users_write_is_escaped(segmenter, root, tmp_path):
    page, _ = write(segmenter, root, tmp_path / "r.html")
    assert "b" not in page.tags and "i" not in page.tags
    assert "<b>" not in page.text and "<i>" not in page.text
    assert any('cat & "co' in text for text in page.values("alt"))


def test_nothing_comes_from_elsewhere(segmenter, root, tmp_path):
    page, _ = write(segmenter, root, tmp_path / "r.html")
    assert page.values("src") and all(
        value.startswith("data:image/jpeg;base64,") for value in page.values("src")
    )
    assert all(value.startswith("#") for value in page.values("href"))
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import", page.text)
    assert str(tmp_path) not in page.text


def test_the_page_can_be_read_without_pictures(segmenter, root, tmp_path):
    page, _ = write(segmenter, root, tmp_path / "r.html")
    assert page.values("lang") == ["en"]
    assert len(page.values("alt")) == len(page.values("src")) == 4 * 3
    assert all(page.values("alt"))
    assert page.tags.count("h1") == 1
    targets = set(page.values("id"))
    assert {value.removeprefix("#") for value in page.values("href")} <= targets


def test_answer_and_truth_in_the_colors_of_the_legend(segmenter, root, tmp_path):
    """Photo d: the answer is right, and the lowest quarter of the truth does not count."""
    page, _ = write(segmenter, root, tmp_path / "r.html")
    photo, answer, truth = (np.asarray(picture).astype(int) for picture in page.pictures()[:3])
    palette = Segmentation(
        np.zeros((1, 1), np.uint8),
        NAMES,
        np.zeros((1, 1), np.float16),
        np.zeros((1, 1, 3), np.uint8),
        {"background": None},
    ).palette.astype(int)
    for column, label in ((12, DOG), (36, CAT)):
        wanted = (photo[12, column] + palette[label]) / 2
        assert np.abs(answer[12, column] - wanted).max() < 12  # JPEG
        assert np.abs(truth[12, column] - wanted).max() < 12
        assert f"background:#{bytes(palette[label].tolist()).hex()}" in page.text
    assert np.abs(truth[28, 12] - 128).max() < 12
    assert np.abs(answer[28, 12] - answer[12, 12]).max() < 12
    assert "does not count: truth 25.0%<" in page.text
    assert ">bus: truth" not in page.text.split("</section>")[0]  # it is nowhere in this photo


@pytest.fixture
def with_background(root):
    """One photo: the upper half is no class, below it a dog and a cat; the answer is right."""
    (root / "classes.txt").write_text("background\n" + "\n".join(NAMES) + "\n")
    for path in [*root.glob("images/*"), *root.glob("labels/*")]:
        path.unlink()
    _, answer = halves()
    answer[:16] = NOTHING
    add_photo(root, "a", np.where(answer == NOTHING, 0, answer + 1), answer)
    return root


def test_the_background_stays_as_it_is_in_the_photo(segmenter, with_background, tmp_path):
    page, row = write(
        segmenter,
        with_background,
        tmp_path / "r.html",
        replace(PROTOCOL, background="threshold:0.5"),
    )
    assert row.iou["background"] > 0.8
    photo, answered, true = (np.asarray(picture).astype(int) for picture in page.pictures())
    assert np.abs(true[8] - photo[8]).max() < 12 and np.abs(answered[8] - photo[8]).max() < 12
    assert np.abs(true[24] - photo[24]).max() > 40
    assert "background: truth 50.0%" in page.text and "does not count:" not in page.text


def test_without_a_rule_the_background_does_not_count(segmenter, with_background, tmp_path):
    page, _ = write(segmenter, with_background, tmp_path / "r.html")
    *_, true = (np.asarray(picture).astype(int) for picture in page.pictures())
    assert np.abs(true[8] - 128).max() < 12
    assert "does not count: truth 50.0%<" in page.text and "background: truth" not in page.text


@pytest.mark.parametrize(
    ("size", "shown"), [((960, 600), (320, 200)), ((60, 800), (36, 480)), ((40, 24), (40, 24))]
)
def test_large_photos_become_small_pictures(segmenter, root, tmp_path, size, shown):
    for path in [*root.glob("images/*"), *root.glob("labels/*")]:
        path.unlink()
    labels = np.zeros(size[::-1], np.int64)
    add_photo(root, "large", labels, labels)
    page, _ = write(segmenter, root, tmp_path / "r.html")
    assert [picture.size for picture in page.pictures()] == [shown] * 3
    assert page.values("width") == [str(shown[0])] * 3
    assert len(page.text) < 100_000


def test_of_photos_without_a_score_none_is_shown(segmenter, root, tmp_path):
    for path in root.glob("labels/*"):
        Image.fromarray(np.full((32, 48), IGNORED, np.uint8)).save(path)
    page, row = write(segmenter, root, tmp_path / "r.html")
    assert row.mean_iou is None and "<dt>mean IoU</dt><dd>–</dd>" in page.text
    assert page.sections["best"] == page.sections["worst"] == []


def test_readers_see_the_old_page_until_the_new_one_is_done(segmenter, root, tmp_path, monkeypatch):
    path = tmp_path / "new" / "r.html"
    write(segmenter, root, path)
    path.write_text("old")

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(segmenter, root, path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_truth_of_another_size_is_named(segmenter, root, tmp_path):
    mine = bench(root)
    samples = mine.samples(root)
    measured = measure(segmenter, PROTOCOL, EvalJob(mine, samples, "test"))
    other = [replace(sample, read_truth=lambda: np.zeros((32, 44), np.uint8)) for sample in samples]
    with pytest.raises(ValueError, match=r"images/d\.png: the photo and its truth differ in size"):
        write_report(
            measured, prepare(segmenter, mine, PROTOCOL), mine, other, PROTOCOL, tmp_path / "r.html"
        )


def test_without_photos_there_are_label_maps_only(segmenter, root, tmp_path):
    """The same labels over two photos that differ give the same page: nothing of a photo
    is in it.
    """
    mine = bench(root)
    samples = mine.samples(root)
    measured = measure(segmenter, PROTOCOL, EvalJob(mine, samples, "test"))
    prepared = prepare(segmenter, mine, PROTOCOL)
    path = write_report(
        measured, prepared, mine, samples, PROTOCOL, tmp_path / "r.html", show_photos=False
    )
    page = path.read_text()
    assert page.count("<img") == 2 * 4
    assert "Photo images/" not in page
    uris = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(base64.b64decode(uris[0]))) as picture:
        colors = {
            tuple(c // 8 for c in color) for _, color in picture.convert("RGB").getcolors(1 << 20)
        }
    assert len(colors) < 60  # flat areas and JPEG's edges
