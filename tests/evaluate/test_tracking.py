"""Tracking on DAVIS: its statistics, which frames and objects count, and the whole benchmark."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from color_patches import ColorPatches
from maskfree.data.benchmarks.davis import find_sequences, read_masks
from maskfree.evaluation.tracking import (
    overall,
    score_masks,
    statistics,
    track_benchmark,
    write_rows,
)
from maskfree.hub import loading
from maskfree.ops.propagation_config import PropagationConfig


def test_statistics_equal_the_official_ones(fixture_tensors):
    tensors = {
        name: value.numpy().astype(float)
        for name, value in fixture_tensors("davis_metrics").items()
    }
    for measure in "JF":
        frames, expected = (
            tensors[f"out.seq.{measure}_per_frame"],
            tensors[f"out.seq.{measure}_statistics"],
        )
        np.testing.assert_allclose([statistics(each) for each in frames], expected, atol=1e-6)


def test_scores_of_masks_equal_the_official_ones(fixture_tensors):
    """The fixture counts every frame, so it stands between two that do not count."""
    tensors = {name: value.numpy() for name, value in fixture_tensors("davis_metrics").items()}
    truth, predicted = (
        list(tensors[f"in.seq.{which}"].astype(np.uint8)) for which in ("gt", "pred")
    )
    rows = score_masks([truth[0], *truth, truth[0]], [truth[0], *predicted, truth[0]], "seq")
    assert [(row.sequence, row.object, row.frames) for row in rows] == [
        ("seq", 1, 9),
        ("seq", 2, 9),
    ]
    for row, j, f in zip(
        rows, tensors["out.seq.J_statistics"], tensors["out.seq.F_statistics"], strict=True
    ):
        np.testing.assert_allclose((row.j_mean, row.j_recall, row.j_decay), j, atol=1e-6)
        np.testing.assert_allclose((row.f_mean, row.f_recall, row.f_decay), f, atol=1e-6)


def test_statistics_of_few_and_of_many_frames():
    assert all(np.isnan(statistics(np.zeros(0))))
    assert statistics(np.array([0.75])) == (0.75, 1.0, 0.0)
    falling = statistics(np.linspace(1, 0, 1000))  # the official code counts to 255 only
    np.testing.assert_allclose(falling, (0.5, 0.5, 0.75), atol=2e-3)


def test_a_share_of_exactly_half_is_not_recalled():
    assert statistics(np.array([0.5, 0.6])).recall == 0.5


def square(left: int, number: int = 1) -> np.ndarray:
    mask = np.zeros((40, 56), np.uint8)
    mask[10:22, left : left + 14] = number
    return mask


def test_first_and_last_frame_do_not_count_and_void_is_nowhere():
    truth = [square(4), square(6), square(8), square(10)]
    wrong = np.zeros_like(truth[0])
    (row,) = score_masks(truth, [wrong, truth[1], truth[2], wrong], "a")
    assert (row.frames, row.j_mean, row.f_mean) == (2, 1.0, 1.0)
    truth[1][:, :30] = 255
    (row,) = score_masks(truth, [wrong, wrong, truth[2], wrong], "a")
    assert row.j_mean == 1.0


def test_a_lost_object_counts_as_an_empty_mask_and_a_later_one_does_not_count():
    truth = [
        square(4) + square(30, 2),
        square(4) + square(30, 2),
        square(4) + square(30, 3),
        square(4),
    ]
    rows = score_masks(truth, [square(4)] * 4, "a")
    assert [(row.object, row.j_mean) for row in rows] == [
        (1, 1.0),
        (2, 0.5),
    ]  # its second frame is rightly empty
    total = overall(rows)
    assert (total.object, total.frames, total.j_mean) == (None, 2, 0.75)


def moving_davis(root: Path, num_frames: int = 5) -> Path:
    """A bright square that moves over noise."""
    noise = np.random.default_rng(0).integers(0, 90, (128, 192, 3), dtype=np.uint8)
    for index in range(num_frames):
        rows, columns = slice(32, 96), slice(16 + 8 * index, 96 + 8 * index)
        picture, mask = noise.copy(), np.zeros(noise.shape[:2], np.uint8)
        picture[rows, columns], mask[rows, columns] = (250, 180, 40), 255
        for kind, array, suffix in (("JPEGImages", picture, "jpg"), ("Annotations", mask, "png")):
            folder = root / kind / "480p" / "square"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / f"{index:05d}.{suffix}")
    return root


def test_the_benchmark_from_folder_to_file(tmp_path: Path, tiny_checkpoint: Path):
    segmenter = replace(loading.load(str(tiny_checkpoint)), method=ColorPatches().eval())
    folder = moving_davis(tmp_path / "davis")
    settings = PropagationConfig(top_k=3, context=2, radius=3)
    rows = track_benchmark(segmenter, folder, settings, 128, finer=2)
    assert [(row.sequence, row.object, row.frames) for row in rows] == [
        ("square", 1, 3),
        ("overall", None, 3),
    ]
    assert rows[0].j_mean > 0.8
    assert rows[1].j_mean == rows[0].j_mean
    path = write_rows(
        rows, segmenter, {"command": "maskfree evaluate tracking"}, tmp_path / "results"
    )
    content = json.loads(path.read_text())
    assert path.name == "tracking-tiny.json"
    assert (content["kind"], content["model"], len(content["rows"])) == ("tracking", "tiny", 2)
    assert content["rows"][1]["j_mean"] == rows[1].j_mean


def test_the_real_sequences_are_there(shared_data):
    sequences = find_sequences(shared_data("davis2016"))
    assert [(each.name, len(each.photos)) for each in sequences] == [
        ("blackswan", 50),
        ("car-shadow", 40),
        ("dog", 60),
    ]
    masks = read_masks(sequences[1])
    assert set(np.unique(masks[0])) == {0, 1}
    (row,) = score_masks(masks[:5], masks[:5], "car-shadow")
    assert (row.j_mean, row.f_mean, row.j_decay) == (1.0, 1.0, 0.0)
