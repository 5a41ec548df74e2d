"""Nearest neighbors: parity with the published code, exact search in blocks, and labels that only
masks can tell.
"""

import builtins
from dataclasses import replace

import numpy as np
import pytest
import torch
from painted import (
    HEIGHT,
    NUM_CLASSES,
    STEP,
    VOID,
    WIDTH,
    color_segmenter,
    halves,
    named,
    write_photo,
    write_tree,
)
from PIL import Image
from torch.nn import functional as F

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.evaluation.probes import knn
from maskfree.evaluation.probes.common import classes_of, results_row, splits, spread
from maskfree.evaluation.probes.config import KnnConfig
from maskfree.evaluation.probes.knn import (
    Bank,
    knn_probe,
    majority,
    nearest,
    nearest_by_faiss,
    neighbor_labels,
    segment_bank,
    segments_of,
)
from maskfree.evaluation.reporting.results import read_row, write_row
from maskfree.inference import features

CONFIG = KnnConfig(neighbors=1, segments=6)
CAMVID = benchmark("camvid")


@pytest.fixture(autouse=True)
def one_cell_per_patch(monkeypatch):
    """Without interpolation every segment is known beforehand."""
    monkeypatch.setattr(features, "CELLS_PER_PATCH", 1)


@pytest.mark.parametrize(("case", "count"), [("no_labels", 5), ("labels_two_views", 3)])
def test_neighbors_and_their_majority_equal_the_published_code(fixture_tensors, case, count):
    tensors = fixture_tensors("segsort_kmeans")
    queries, labels = tensors[f"out.{case}.prototypes"], tensors[f"in.{case}.bank_labels"]
    found = labels[nearest(queries, tensors[f"in.{case}.bank_prototypes"], count)]
    assert torch.equal(found, tensors[f"out.{case}.knn_labels"])
    assert torch.equal(majority(found), tensors[f"out.{case}.knn_majority"])
    bank = Bank(tensors[f"in.{case}.bank_prototypes"], labels)
    config = replace(CONFIG, neighbors=count)
    assert torch.equal(neighbor_labels(queries, bank, config), tensors[f"out.{case}.knn_majority"])


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


def test_search_in_blocks_finds_what_one_product_finds(monkeypatch):
    queries, bank = unit(23, 7), unit(41, 7)
    expected = (queries @ bank.T).topk(6).indices
    monkeypatch.setattr(knn, "_QUERIES_AT_ONCE", 5)
    monkeypatch.setattr(knn, "_BANK_AT_ONCE", 4)  # fewer than neighbors
    assert torch.equal(nearest(queries, bank, 6), expected)
    assert torch.equal(nearest(queries, bank, 41)[:, -1], (queries @ bank.T).argmin(1))


def test_faiss_finds_the_same_neighbors():
    pytest.importorskip("faiss", reason="faiss is optional")
    queries, bank = unit(23, 7), unit(41, 7)
    assert torch.equal(nearest_by_faiss(queries, bank, 6), nearest(queries, bank, 6))


def test_faiss_that_is_not_there_is_said_in_a_line(monkeypatch):
    original = builtins.__import__
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *rest: _missing(name) if name == "faiss" else original(name, *rest),
    )
    with pytest.raises(ValueError, match="needs faiss: pip install faiss-cpu"):
        nearest_by_faiss(unit(2, 7), unit(3, 7), 1)


def _missing(name):
    raise ImportError(name)


@pytest.mark.parametrize("search", [nearest, nearest_by_faiss])
def test_more_neighbors_than_segments_are_refused(search):
    with pytest.raises(
        ValueError, match="4 neighbors are asked for, but there are 3 training segments"
    ):
        search(unit(2, 7), unit(3, 7), 4)


def test_the_most_frequent_label_wins_and_of_several_the_smallest():
    labels = torch.tensor([[3, 1, 1, 0], [2, 0, 2, 0], [4, 4, 4, 4]])
    assert majority(labels).tolist() == [1, 0, 4]


def test_segments_follow_colors_and_their_mean_is_the_color():
    photo = named_photo(halves(1, 3))
    segments = segments_of(color_segmenter(), photo, CONFIG)
    assert segments.ids.shape == (8, 12)
    filled = segments.sizes > 0
    assert segments.sizes.sum() == 8 * 12
    colors = segments.embeddings.argmax(1)
    assert (segments.embeddings[filled].amax(1) > 0.999).all(), "a segment mixes colors"
    assert torch.equal(colors[segments.ids], torch.from_numpy(halves(1, 3)[::4, ::4].copy()))


def named_photo(colors):
    pixels = np.zeros((*colors.shape, 3), np.uint8)
    pixels[..., 0] = colors * STEP
    return Image.fromarray(pixels)


def test_classes_come_from_masks_and_void_pixels_do_not_count(tmp_path):
    ((part,), taught_by) = splits(CAMVID, write_tree(tmp_path))
    assert taught_by == "camvid-train"
    row = knn_probe(color_segmenter(), part.train, part.test, classes_of(CAMVID), CONFIG)
    assert (row.num_train, row.num_test) == (3, 2)
    expected = np.zeros(NUM_CLASSES, np.int64)
    third, rest = HEIGHT * WIDTH // 3, HEIGHT * WIDTH * 2 // 3
    for color, pixels in ((1, rest), (2, third), (3, rest // 2), (4, third)):
        expected[named(np.array(color))] = pixels
    assert np.array_equal(row.confusion, np.diag(expected))
    assert row.scores.mean_iou == 1
    assert {name for name, value in row.iou.items() if value == 1} == {
        classes_of(CAMVID)[named(np.array(color))] for color in (1, 2, 3, 4)
    }


def test_a_segment_has_the_class_of_most_of_its_labeled_pixels(tmp_path):
    labels = np.full((HEIGHT, WIDTH), VOID)
    labels[:10], labels[10:16] = 6, 5  # most of the photo is void, which has no vote
    write_photo(tmp_path, "val", "a", halves(1, 1), labels)
    config = replace(CONFIG, segments=1)
    assert segment_bank(
        color_segmenter(), CAMVID.samples(tmp_path), NUM_CLASSES, config
    ).labels.tolist() == [6]
    labels[:10] = VOID
    labels[0, :3] = 5
    write_photo(tmp_path, "val", "a", halves(1, 1), labels)
    assert segment_bank(
        color_segmenter(), CAMVID.samples(tmp_path), NUM_CLASSES, config
    ).labels.tolist() == [5]


def test_segments_without_a_labeled_pixel_teach_nothing(tmp_path):
    labels = halves(4, VOID)
    write_photo(tmp_path, "val", "a", halves(1, 2), labels)
    bank = segment_bank(color_segmenter(), CAMVID.samples(tmp_path), NUM_CLASSES, CONFIG)
    assert set(bank.labels.tolist()) == {4}
    assert (bank.embeddings.argmax(1) == 1).all()
    write_photo(tmp_path, "val", "a", halves(1, 2), halves(VOID, VOID))
    with pytest.raises(ValueError, match="none of the 1 training photos has a labeled pixel"):
        segment_bank(color_segmenter(), CAMVID.samples(tmp_path), NUM_CLASSES, CONFIG)


def test_cells_cover_the_pixels_whose_middle_they_hold():
    cells = torch.tensor([[0, 1, 2]])
    assert spread(cells, 2, 7).tolist() == [[0, 0, 1, 1, 1, 2, 2]] * 2
    assert spread(cells, 1, 2).tolist() == [[0, 2]]


def test_without_training_photos_each_half_teaches_the_other(tmp_path):
    for number, colors in enumerate((halves(1, 2), halves(2, 1), halves(3, 1))):
        write_photo(tmp_path, "val", f"v{number}", colors, named(colors))
    other = replace(CAMVID, name="street")
    parts, taught_by = splits(other, tmp_path)
    assert taught_by == "halves"
    assert [[s.key[-5] for s in side] for part in parts for side in (part.train, part.test)] == [
        ["0", "2"],
        ["1"],
        ["1"],
        ["0", "2"],
    ]
    first, second = (
        knn_probe(color_segmenter(), p.train, p.test, classes_of(other), CONFIG) for p in parts
    )
    together = first + second
    assert together.num_test == 3
    assert together.confusion.sum() == 3 * HEIGHT * WIDTH
    third = HEIGHT * WIDTH // 3
    assert together.confusion.trace() == 3 * HEIGHT * WIDTH - third, "color 3 is in one half only"
    (tmp_path / "val/images/v1.png").unlink()
    (tmp_path / "val/images/v2.png").unlink()
    with pytest.raises(ValueError, match="street has 1 photo: one half teaches the other"):
        splits(other, tmp_path)


def test_a_row_of_results_says_how_it_was_taught(tmp_path):
    (parts, taught_by) = splits(CAMVID, write_tree(tmp_path / "data"))
    segmenter = color_segmenter()
    found = knn_probe(segmenter, parts[0].train, parts[0].test, classes_of(CAMVID), CONFIG)
    row = results_row(
        found, CAMVID, parts, taught_by, segmenter, CONFIG, "maskfree evaluate knn camvid"
    )
    assert read_row(write_row(row, tmp_path)) == row
    assert (row.protocol_name, row.num_photos, row.mean_iou) == ("knn", 2, 1.0)
    assert row.protocol["taught_by"] == "camvid-train"
    assert (row.protocol["neighbors"], row.protocol["segments"], row.protocol["side_px"]) == (
        1,
        6,
        HEIGHT,
    )
    assert len(row.protocol["taught_by_sha256"]) == 64


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"neighbors": 0}, "neighbors is 0, must be at least 1"),
        ({"segments": 5000}, r"segments is 5000, must be in \[1, 4096\]"),
        ({"search": "annoy"}, "search is 'annoy', must be one of torch, faiss"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, line):
    with pytest.raises(ValueError, match=line):
        KnnConfig(**change).check()


def test_voc_is_taught_with_sbd_where_its_masks_are(tmp_path):
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    pixels = np.zeros((6, 9, 3), np.uint8)
    for name, folders in (
        ("a", ["SegmentationClass"]),
        ("b", ["SegmentationClass"]),
        ("c", ["SegmentationClassAug"]),
    ):
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
        for folder in folders:
            Image.fromarray(pixels[..., 0]).save(root / folder / f"{name}.png")
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")

    voc = benchmark("voc20")
    ((part,), taught_by) = splits(voc, tmp_path)
    assert (taught_by, [each.key for each in part.train]) == ("voc-train", ["JPEGImages/a.jpg"])
    (lists / "trainaug.txt").write_text("c\n")
    ((part,), taught_by) = splits(voc, tmp_path)
    assert (taught_by, [each.key for each in part.train]) == ("voc-trainaug", ["JPEGImages/c.jpg"])
