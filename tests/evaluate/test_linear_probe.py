"""The linear probe: classes are learned from masks, on frozen embeddings that are computed once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from painted import HEIGHT, VOID, WIDTH, color_segmenter, halves, named, write_photo, write_tree
from torch import nn
from torch.testing import assert_close

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.evaluation.probes import linear as module
from maskfree.evaluation.probes.common import classes_of, results_row, splits
from maskfree.evaluation.probes.config import LinearConfig
from maskfree.evaluation.probes.linear import label, linear_probe

CONFIG = LinearConfig(epochs=12, photos_per_step=2)
CAMVID = benchmark("camvid")


@pytest.fixture(autouse=True)
def two_pixels_per_patch(monkeypatch):
    """The photos of these tests have few patches."""
    monkeypatch.setattr(module, "PIXELS_PER_PATCH", 2)


def probe(root, config=CONFIG, segmenter=None):
    ((part,), _) = splits(CAMVID, root)
    return linear_probe(
        segmenter or color_segmenter(), part.train, part.test, classes_of(CAMVID), config
    )


def test_classes_come_from_masks_and_void_pixels_do_not_count(tmp_path):
    row = probe(write_tree(tmp_path))
    assert (row.num_train, row.num_test) == (3, 2)
    assert row.confusion.sum() == HEIGHT * WIDTH * 2 - HEIGHT * WIDTH // 3
    assert row.scores.pixel_accuracy > 0.95  # edges lie at a third of the photo, within a patch
    assert row.scores.mean_iou > 0.9


def test_the_same_seed_gives_the_same_counts_and_the_network_stays_as_it_is(tmp_path):
    root, segmenter = write_tree(tmp_path), color_segmenter()
    before = [parameter.clone() for parameter in segmenter.method.parameters()]
    torch.manual_seed(1)
    first = probe(root, segmenter=segmenter)
    torch.manual_seed(2)
    assert np.array_equal(first.confusion, probe(root).confusion)
    assert all(map(torch.equal, before, segmenter.method.parameters()))
    assert all(parameter.grad is None for parameter in segmenter.method.parameters())


def test_each_photo_and_its_mirror_image_is_embedded_once(tmp_path, monkeypatch):
    calls = []
    embed = module.embed
    monkeypatch.setattr(module, "embed", lambda *each: calls.append(each) or embed(*each))
    probe(write_tree(tmp_path))
    assert len(calls) == 2 * 3 + 2, (
        "three photos teach, with their mirror images, and two are labeled"
    )


def test_mirror_images_are_learned_with_mirrored_masks(tmp_path, monkeypatch):
    seen = []
    save = np.savez
    monkeypatch.setattr(
        np, "savez", lambda path, **arrays: seen.append(arrays) or save(path, **arrays)
    )
    write_photo(tmp_path, "val", "a", halves(1, 2), halves(5, VOID))
    write_photo(tmp_path, "train", "a", halves(1, 2), halves(5, VOID))
    probe(tmp_path, replace(CONFIG, epochs=1))
    photo, mirrored = seen
    np.testing.assert_array_equal(mirrored["embeddings"], photo["embeddings"][:, :, ::-1])
    assert photo["truth"].shape == (HEIGHT // 2, WIDTH // 2)
    assert (photo["truth"][:, :8] == 5).all() and (photo["truth"][:, 8:] == 255).all()
    assert np.array_equal(mirrored["truth"], photo["truth"][:, ::-1])


def test_folding_the_scale_of_channels_into_the_weights_changes_no_score():
    classifier = nn.Conv2d(5, 3, 1)
    values, mean, deviation = torch.randn(5, 4, 6), torch.randn(5), torch.rand(5) + 0.5
    standard = (values - mean[:, None, None]) / deviation[:, None, None]
    expected = classifier(standard).detach()
    assert_close(module._folded(classifier, mean, deviation)(values), expected)


def test_scores_are_enlarged_before_the_best_is_taken():
    classifier = nn.Conv2d(2, 2, 1, bias=False)
    classifier.weight.data = torch.eye(2)[:, :, None, None]
    scores = torch.tensor([[1.0, 0.0], [0.0, 0.5]])[:, None]  # 2 classes, 1 x 2 patches
    found = label(classifier, scores, 1, 8)
    assert found.shape == (1, 8)
    assert found[0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1], (
        "the first class is surer and reaches further"
    )


def test_nothing_labeled_teaches_nothing(tmp_path):
    for part in ("train", "val"):
        write_photo(tmp_path, part, "a", halves(1, 2), halves(VOID, VOID))
    with pytest.raises(ValueError, match="none of the 1 training photos has a labeled pixel"):
        probe(tmp_path)


def test_photos_of_one_embedding_give_numbers(tmp_path):
    for part in ("train", "val"):
        write_photo(tmp_path, part, "a", halves(1, 1), halves(4, 6))
    row = probe(tmp_path)
    assert row.confusion[:, 6].sum() == HEIGHT * WIDTH, (
        "what most pixels are is all that can be known"
    )


def test_classes_may_be_told_by_colors_that_are_named_anew(tmp_path):
    colors = halves(1, 2)
    for part in ("train", "val"):
        write_photo(tmp_path, part, "a", colors, named(colors))
    assert probe(tmp_path, replace(CONFIG, seed=5)).scores.mean_iou > 0.9


def test_a_row_of_results_spells_the_settings(tmp_path):
    parts, taught_by = splits(CAMVID, write_tree(tmp_path))
    row = results_row(
        probe(tmp_path),
        CAMVID,
        parts,
        taught_by,
        color_segmenter(),
        CONFIG,
        "maskfree evaluate linear",
    )
    assert row.protocol_name == "linear"
    assert (row.protocol["epochs"], row.protocol["learning_rate"], row.protocol["momentum"]) == (
        12,
        0.1,
        0.9,
    )
    assert row.stem.startswith("camvid-colors-linear-plain-none-")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"epochs": 0}, "epochs is 0, must be at least 1"),
        ({"learning_rate": 0}, "learning_rate is 0, must be above 0"),
        ({"photos_per_step": 0}, "photos_per_step is 0, must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, line):
    with pytest.raises(ValueError, match=line):
        LinearConfig(**change).check()
