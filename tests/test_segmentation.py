from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfree.results import drawing
from maskfree.results.segmentation import Segmentation


def segmentation(
    labels: np.ndarray, words: str = "dog,grass,sofa/couch", background: str | None = None
) -> Segmentation:
    classes = [word.split("/") for word in words.split(",")]
    return Segmentation(
        labels=labels,
        words=tuple(synonyms[0] for synonyms in classes),
        scores=np.zeros(labels.shape, np.float16),
        image=np.full((*labels.shape, 3), 100, np.uint8),
        record={
            "photo": {"name": "meadow.jpg"},
            "words": classes,
            "background": background and {"rule": background, "id": len(classes)},
        },
    )


LABELS = np.array([[0, 0, 1, 1, 1], [0, 2, 2, 2, 2]], np.uint8)


def test_masks_by_name_and_synonym():
    result = segmentation(LABELS)
    assert np.array_equal(result.mask("dog"), LABELS == 0)
    assert np.array_equal(result.mask("Couch"), LABELS == 2)
    with pytest.raises(
        ValueError, match="'cat' is not among the words of this result: dog, grass, sofa"
    ):
        result.mask("cat")
    with pytest.raises(ValueError, match="'background'"):
        result.mask("background")


def test_areas_sum_to_one_and_name_the_background():
    assert segmentation(LABELS).areas() == {"dog": 0.3, "grass": 0.3, "sofa": 0.4}
    result = segmentation(LABELS + 1, background="threshold:0.1")
    assert result.areas() == {"dog": 0, "grass": 0.3, "sofa": 0.3, "background": 0.4}
    assert np.array_equal(result.mask("background"), LABELS == 2)


def test_colors_are_distinct_and_stay_as_words_are_added():
    many = ",".join(f"word {i}" for i in range(300))
    palette = segmentation(LABELS.astype(np.uint16), many, background="threshold:0").palette
    assert len({tuple(color) for color in palette.tolist()}) == 301
    assert palette[-1].tolist() == [0, 0, 0]
    assert np.array_equal(segmentation(LABELS).palette, palette[:3])
    apart = np.abs(palette[:20, None].astype(int) - palette[None, :20]).sum(-1) + 999 * np.eye(20)
    assert apart.min() > 60


def test_overlay_mixes_colors_but_leaves_the_background_alone():
    result = segmentation(
        np.repeat(np.repeat(LABELS, 30, 0), 30, 1) + 1, background="threshold:0.1"
    )
    painted = np.asarray(result.overlay(alpha=0.5))
    inside = [painted[row, column] for row, column in ((10, 10), (10, 100), (45, 100))]
    expected = [(result.palette[index].astype(float) + 100) / 2 for index in (1, 2)]
    np.testing.assert_allclose(inside[:2], expected, atol=1)
    assert inside[2].tolist() == [100, 100, 100]
    assert np.asarray(result.overlay(alpha=0.0))[10, 10].tolist() == [100, 100, 100]
    with pytest.raises(ValueError, match=r"alpha 1\.5"):
        result.overlay(alpha=1.5)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (300, 400)])
def test_overlay_has_the_photo_and_below_it_the_legend(size: tuple[int, int]):
    overlay = segmentation(np.zeros(size, np.uint8)).overlay()
    assert overlay.width >= size[1]
    assert overlay.height > size[0]
    below = np.asarray(overlay)[size[0] :]
    assert (below < 128).all(-1).any(), "there is dark text"


def test_legend_of_very_many_words_ends():
    many = ",".join(f"word {i}" for i in range(300))
    labels = np.arange(300, dtype=np.uint16).repeat(200).reshape(200, 300)
    assert segmentation(labels, many).overlay().height < 1000


def test_saved_files_hold_it_all(tmp_path: Path):
    result = segmentation(LABELS + 1, background="threshold:0.1")
    index, overlay, sidecar = result.save(tmp_path / "new" / "folder")
    assert index.name == "meadow.png"
    with Image.open(index) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), result.labels)
        assert image.getpalette()[: 4 * 3] == result.palette.ravel().tolist()
    with Image.open(overlay) as image:
        assert np.array_equal(np.asarray(image), np.asarray(result.overlay()))
    assert json.loads(sidecar.read_text()) == result.record | {"areas": result.areas()}
    assert sorted(path.name for path in index.parent.iterdir()) == [
        "meadow.json",
        "meadow.overlay.png",
        "meadow.png",
    ]


def test_more_ids_than_a_palette_has(tmp_path: Path):
    many = ",".join(f"word {i}" for i in range(300))
    labels = np.arange(300, dtype=np.uint16).reshape(15, 20)
    index, *_ = segmentation(labels, many).save(tmp_path, "many")
    with Image.open(index) as image:
        assert np.array_equal(np.asarray(image), labels)


@pytest.mark.parametrize("failing", ["save", "write_text"])
def test_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
):
    real = Image.Image.save

    def full(self, path, *arguments, **options):
        if failing == "write_text" or not str(path).endswith("overlay.png"):
            return real(self, path, *arguments, **options)
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_text(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    segmentation(LABELS).save(tmp_path, "older")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(Image.Image, "save", full)
    if failing == "write_text":
        monkeypatch.setattr(Path, "write_text", full_text)
    for stem in ("older", "newer"):
        with pytest.raises(
            OSError, match=rf"cannot write .*{stem}\.\*: No space left on device"
        ) as caught:
            segmentation(LABELS.T.copy()).save(tmp_path, stem)
        assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="cannot write"):
        segmentation(LABELS).save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("height", [1, 6, 7, 8, 20, 23])
def test_an_overlay_painted_in_strips_is_the_one_painted_at_once(
    height: int, monkeypatch: pytest.MonkeyPatch
):
    numbers = np.random.default_rng(0)
    labels = numbers.integers(0, 3, (height, 10)).astype(np.uint8)
    photo = numbers.integers(0, 256, (height, 10, 3)).astype(np.uint8)
    result = replace(segmentation(labels), image=photo)
    at_once = np.asarray(result.overlay())
    monkeypatch.setattr(drawing, "_STRIP_PIXELS", 70)  # seven rows
    assert np.array_equal(np.asarray(result.overlay()), at_once)


def test_an_overlay_is_painted_as_pixel_by_pixel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drawing, "_STRIP_PIXELS", 40)
    numbers = np.random.default_rng(3)
    labels = numbers.integers(0, 4, (13, 9)).astype(np.uint8)
    photo = numbers.integers(0, 256, (13, 9, 3)).astype(np.uint8)
    result = replace(segmentation(labels, background="threshold:0.1"), image=photo)
    painted = np.asarray(result.overlay(alpha=0.3))

    for y, x in np.ndindex(labels.shape):
        strength = round(0.3 * 256) * (labels[y, x] < 3)
        color = result.palette[labels[y, x]].astype(int)
        expected = (photo[y, x].astype(int) * (256 - strength) + color * strength) // 256
        others = [labels[y, min(x + 1, 8)], labels[min(y + 1, 12), x]]
        if any(other != labels[y, x] for other in others):
            expected = np.full(3, 255)
        assert np.array_equal(painted[y, x], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ids_are_counted_exactly(dtype: type):
    labels = np.random.default_rng(1).integers(0, 7, (23, 311)).astype(dtype)
    counts = drawing.count_ids(labels, 9)
    assert counts.tolist() == [(labels == index).sum() for index in range(9)]


def test_an_overlay_fits_a_screen_but_the_label_map_keeps_its_size(tmp_path: Path):
    labels = np.repeat(np.arange(4), 1000)[:, None].repeat(900, 1).astype(np.uint8)
    index, overlay, _ = segmentation(labels, "dog,grass,sofa,sky").save(tmp_path, "tall")
    with Image.open(index) as saved:
        assert np.array_equal(np.asarray(saved), labels)
    with Image.open(overlay) as saved:
        assert saved.width == 360
        colors = np.asarray(saved)[200:1600:400, 100]

    palette = segmentation(labels, "dog,grass,sofa,sky").palette
    assert np.array_equal(colors, (100 + palette.astype(int)) // 2)
    with pytest.raises(ValueError, match="max_side_px 0 must be at least 1"):
        segmentation(LABELS).overlay(max_side_px=0)


def test_each_line_between_rows_of_other_labels_is_white():
    labels = np.repeat(np.arange(3000) % 2, 2)[:, None].repeat(1000, 1).astype(np.uint8)
    painted = np.asarray(segmentation(labels).overlay(alpha=0.5))
    assert (painted[1:5999:2, :1000] == 255).all()


def test_a_legend_of_any_script_has_no_boxes_and_is_no_wider_than_need_be():
    chinese = segmentation(LABELS, "树,天空,草").overlay()
    assert not np.array_equal(
        np.asarray(chinese), np.asarray(segmentation(LABELS, "鱼,马车,鸟").overlay())
    )
    assert (
        segmentation(LABELS, ",".join("🌳" * 100 for _ in range(1)) + ",a,b").overlay().width < 1000
    )
