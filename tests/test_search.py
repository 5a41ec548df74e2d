"""Retrieval: words find the segments that are painted in their colors, the closest of many photos
are kept.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from maskfree.inference import features
from maskfree.inference.config import Inference
from maskfree.inference.contact_sheet import draw_contact_sheet
from maskfree.inference.search import parse_word, photos_of, retrieve
from maskfree.inference.search_config import RetrievalConfig
from maskfree.inference.segmenter import Segmenter
from maskfree.method import Method
from maskfree.types import Groups, Losses, Tokens

WORDS = ("dog", "cat", "grass", "sky")
STEP, HEIGHT, WIDTH = 60, 32, 48


class Painted(Method):
    """A patch of 4 px is the word that its red names, as far as its green says: the rest of it is
    the sky.
    """

    patch_size = 4
    logit_scale = 8.0

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.eye(len(WORDS)))

    def forward(self, batch):
        return Losses({})

    def encode_text(self, tokens):
        return self.table[tokens.ids[:, 0]]

    def group(self, images):
        red, green, _ = F.avg_pool2d(images, 4).mul(255).unbind(1)
        names = self.table[(red / STEP).round().long()].movedim(-1, 1)
        sure = green[:, None] / 255
        return Groups.of_pixels(sure * names + (1 - sure) * self.table[3][:, None, None])


def tokenize(texts):
    ids = [next(i for i, word in enumerate(WORDS) if text.endswith(word)) for text in texts]
    return Tokens(torch.tensor(ids)[:, None], torch.ones(len(ids), 1, dtype=torch.bool))


@pytest.fixture
def segmenter():
    inference = Inference(side_px=HEIGHT)
    return Segmenter(
        Painted().eval(), tokenize, name="painted", weights_hash="0" * 64, inference=inference
    )


def paint(path, boxes, scale=1):
    """Write a photo of grass, SCALE times as large, with BOXES of (word, left, top, right, bottom,
    sureness).
    """
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = WORDS.index("grass") * STEP, 255
    for word, left, top, right, bottom, sure in boxes:
        pixels[top:bottom, left:right, 0] = WORDS.index(word) * STEP
        pixels[top:bottom, left:right, 1] = round(255 * sure)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Dogs that are less and less sure, one of them at three times the size.

    And a photo without any.
    """
    folder = tmp_path / "photos"
    paint(folder / "a.png", [("dog", 8, 4, 24, 20, 0.6)])
    paint(folder / "b.png", [("dog", 24, 12, 48, 32, 1.0)], scale=3)
    paint(folder / "c.png", [])
    paint(folder / "deeper" / "d.png", [("dog", 0, 0, 16, 32, 0.8), ("dog", 32, 0, 48, 32, 0.9)])
    return folder


def plain(**settings) -> RetrievalConfig:
    """Settings with cosines as scores: the painted model knows four words."""
    return RetrievalConfig(background="none", **settings)


CONFIG = plain(top=3, num_segments=6)


@pytest.fixture(autouse=True)
def one_cell_per_patch(monkeypatch):
    """Without interpolation every segment is known beforehand."""
    monkeypatch.setattr(features, "CELLS_PER_PATCH", 1)


def found(segmenter, photos, word="dog", config=CONFIG, watch=iter):
    return retrieve(segmenter, word, photos_of([photos]), config, watch)


def test_the_closest_segments_come_first_with_their_boxes(segmenter, photos):
    result = found(segmenter, photos)
    assert [hit.photo.name for hit in result.hits] == ["b.png", "d.png", "a.png"]
    assert [hit.box for hit in result.hits] == [(72, 36, 144, 96), (32, 0, 48, 16), (8, 4, 24, 20)]
    assert result.hits[0].score == pytest.approx(1, abs=1e-4)
    assert result.hits[1].score == pytest.approx(
        0.9 / np.hypot(0.9, 0.1), abs=1e-2
    )  # green has 8 bits
    assert result.hits[0].area == pytest.approx(24 * 20 / (32 * 48))
    assert (result.num_photos, result.skipped) == (4, ())
    assert result.hits[2].mask.sum() == 4 * 4


def test_as_many_segments_of_a_photo_are_kept_as_asked_for(segmenter, photos):
    many = plain(top=3, num_segments=6, per_photo=2)
    assert [hit.photo.name for hit in found(segmenter, photos, config=many).hits] == [
        "b.png",
        "d.png",
        "d.png",
    ]
    all_of_them = plain(top=50, num_segments=6, per_photo=0)
    assert len(found(segmenter, photos, config=all_of_them).hits) > 4


def test_synonyms_count_by_the_better_one(segmenter, photos):
    paint(photos / "e.png", [("cat", 0, 0, 24, 32, 1.0)])
    hits = found(segmenter, photos, "cat/dog").hits
    assert {hit.photo.name for hit in hits[:2]} == {"b.png", "e.png"}
    assert hits[1].score == pytest.approx(1, abs=1e-4)
    assert found(segmenter, photos, "cat").hits[0].photo.name == "e.png"


def test_segments_that_are_too_small_are_left_out(segmenter, photos):
    large = plain(top=3, num_segments=6, min_area=0.3)
    hits = found(segmenter, photos, config=large).hits
    assert hits[0].photo.name == "b.png"
    assert all(hit.area >= 0.3 for hit in hits)
    none = plain(top=3, num_segments=6, min_area=1.0)
    assert found(segmenter, photos, config=none).hits == ()


def test_prepared_regions_are_the_segments(segmenter, photos, tmp_path):
    regions = tmp_path / "regions"
    regions.mkdir()
    for path in photos_of([photos]):
        with Image.open(path) as opened:
            labels = np.zeros((opened.height, opened.width), np.uint8)
        labels[:, labels.shape[1] // 2 :] = 7
        labels[labels.shape[0] // 2 :] = 255
        Image.fromarray(labels).save(regions / f"{path.stem}.png")
    config = plain(top=9, per_photo=0, segments=str(regions))
    hits = found(segmenter, photos, config=config).hits
    assert len(hits) == 8, "two regions of each photo; 255 is none"
    assert {hit.box for hit in hits} == {
        (0, 0, 24, 16),
        (24, 0, 48, 16),
        (0, 0, 72, 48),
        (72, 0, 144, 48),
    }
    assert (hits[0].photo.name, hits[0].box) == ("d.png", (24, 0, 48, 16))
    (regions / "a.png").unlink()
    Image.new("L", (5, 9)).save(regions / "c.png")
    reasons = [each.reason for each in found(segmenter, photos, config=config).skipped]
    assert len(reasons) == 2
    assert "no region map" in reasons[0] and "a.png" in reasons[0]
    assert "c.png is 9x5 (height x width), its photo 32x48" in reasons[1]
    with pytest.raises(ValueError, match="neither kmeans nor a folder"):
        found(segmenter, photos, config=plain(segments=str(tmp_path / "nowhere")))


def test_photos_are_read_one_by_one_and_only_the_best_are_kept(segmenter, photos, monkeypatch):
    sizes = []
    config = plain(top=2, num_segments=6, per_photo=0)

    def watch(paths):
        for path in paths:
            yield path
            sizes.append(path.name)

    hits = found(segmenter, photos, config=config, watch=watch).hits
    assert sizes == ["a.png", "b.png", "c.png", "d.png"]
    assert len(hits) == 2
    assert all(hit.mask.size == 8 * 12 for hit in hits), "a hit holds a small mask, not the photo"


def test_the_order_of_photos_does_not_matter(segmenter, photos):
    paths = photos_of([photos])
    forwards, backwards = (
        retrieve(segmenter, "dog", each, CONFIG).hits for each in (paths, paths[::-1])
    )
    assert [hit.record() for hit in forwards] == [hit.record() for hit in backwards]


def test_photos_that_cannot_be_read_are_skipped_and_reported(segmenter, photos):
    (photos / "broken.png").write_bytes(b"no photo")
    result = found(segmenter, photos)
    assert [hit.photo.name for hit in result.hits] == ["b.png", "d.png", "a.png"]
    assert result.num_photos == 4
    assert [each.photo for each in result.skipped] == [str(photos / "broken.png")]
    with pytest.raises(ValueError, match=r"no photo can be read: .*broken.png is not an image"):
        retrieve(segmenter, "dog", [photos / "broken.png"], CONFIG)


def test_folders_and_files_are_listed_once(photos):
    paths = photos_of([photos / "c.png", photos])
    assert [path.name for path in paths] == ["c.png", "a.png", "b.png", "d.png"]
    with pytest.raises(FileNotFoundError, match="no photo or folder nowhere"):
        photos_of([photos / "a.png", Path("nowhere")])
    with pytest.raises(ValueError, match="no photos were given"):
        photos_of([])


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("", "the word is empty"),
        ("  ", "the word is empty"),
        ("dog,cat", "'dog,cat' names 2 words: one at a time"),
    ],
)
def test_one_word_is_needed(segmenter, photos, word, line):
    with pytest.raises(ValueError, match=line):
        found(segmenter, photos, word)
    assert parse_word(" sofa / couch ") == ("sofa", "couch")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"top": 0}, "top is 0, must be at least 1"),
        ({"per_photo": -1}, "per_photo is -1, must be at least 0"),
        ({"min_area": 2}, r"min_area is 2, must be in \[0, 1\]"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, line):
    with pytest.raises(ValueError, match=line):
        RetrievalConfig(**change)


def test_the_contact_sheet_outlines_each_segment_in_its_photo(segmenter, photos, tmp_path):
    hits = found(segmenter, photos).hits
    path = draw_contact_sheet(hits, tmp_path / "sheet.png", columns=2)
    with Image.open(path) as opened:
        sheet = np.asarray(opened).astype(int)
    assert sheet.shape == (8 + 2 * 268, 8 + 2 * 248, 3)
    tile = sheet[8:248, 8:248]
    line = (tile == (255, 210, 0)).all(-1)
    down, across = np.nonzero(line)
    assert line.any()
    photo, inside = (
        (tile == (0, 255, 0)).all(-1),
        tile[down.min() + 8 : down.max() - 4, across.min() + 8 :],
    )
    assert photo.any(), "the segment keeps its colors"
    assert ((inside == (0, 255, 0)).all(-1) | (inside == (255, 210, 0)).all(-1)).mean() > 0.5
    assert (
        draw_contact_sheet(hits, tmp_path / "again.png", columns=2).read_bytes()
        == path.read_bytes()
    )
    with pytest.raises(ValueError, match="no segments to draw"):
        draw_contact_sheet([], tmp_path / "none.png")
