"""The pairs of views of CLIP-S4: a photo's regions and its teacher's map stay on the pixels that
they are of.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.cache.teacher_maps import TeacherMaps
from maskfree.data.packed import PackedViews
from maskfree.data.photo_sources import file_stem
from maskfree.data.sample import Source
from maskfree.methods.clips4.config import PairConfig
from maskfree.methods.clips4.transform import (
    COLORS,
    CLIPS4Sample,
    PairTransform,
    cut_embeddings,
    cut_regions,
)

PLAIN = PairConfig(side_px=64, scale=(0.1, 1.0), colors="none")
SIZE, GRID = (150, 100), 8
CELLS = (5, 7)  # regions down and across


def places(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)


def ramp(width: int, height: int) -> Image.Image:
    """Red says how far to the right a pixel is, green how far down."""
    x, y = places(width, height)
    return Image.fromarray((np.stack([x, y, 0 * x], axis=-1) * 255).round().astype(np.uint8))


def write_regions(folder: Path, key: str, numbers: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(numbers).save(folder / f"{file_stem(key)}.png")


def prepare(folder: Path, key: str, size: tuple[int, int] = SIZE) -> PairTransform:
    """Regions that number a net of `CELLS`, and a map in which the direction of each embedding says
    its place.
    """
    x, y = places(*size)
    numbers = (y * CELLS[0]).astype(np.uint8) * CELLS[1] + (x * CELLS[1]).astype(np.uint8)
    write_regions(folder / "segments", key, numbers)
    patches = (max(1, round(30 * side / max(size))) for side in size)
    x, y = (torch.from_numpy(each).float() for each in places(*patches))
    seen = torch.stack([x, y, torch.ones_like(x), torch.zeros_like(x)])
    TeacherMaps(folder / "teacher").write(key, F.normalize(seen, dim=0))
    return PairTransform(
        views=PLAIN, grid=GRID, segments=folder / "segments", teacher=folder / "teacher"
    )


def images_of(sample: CLIPS4Sample) -> torch.Tensor:
    return PackedViews.of(sample.views).unpacked()


def boxes_of(sample: CLIPS4Sample) -> torch.Tensor:
    return torch.tensor([view.box for view in sample.views])


def flips_of(sample: CLIPS4Sample) -> torch.Tensor:
    return torch.tensor([view.flipped for view in sample.views])


def shown(sample: CLIPS4Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """How far to the right and down each cell of each view is in the photo, by its
    pixels' colors.
    """
    images = images_of(sample)
    red, green, _ = F.avg_pool2d(images, images.shape[-1] // GRID).unbind(1)
    return red, green


@pytest.mark.parametrize("seed", range(12))
def test_regions_and_embeddings_are_those_of_the_pixels(tmp_path, seed):
    sample = prepare(tmp_path, "a/photo.jpg").sample(Source("b/photo.jpg", ramp(*SIZE), []), seed)
    x, y = shown(sample)
    assert sample.regions.shape == (2, GRID, GRID) and sample.teacher.shape == (2, 4, GRID, GRID)
    number = (y * CELLS[0]).floor() * CELLS[1] + (x * CELLS[1]).floor()
    border = ((x * CELLS[1] + 0.05) % 1 < 0.1) | (
        (y * CELLS[0] + 0.05) % 1 < 0.1
    )  # a cell's middle is near it
    assert (~border).sum() > 60
    assert torch.equal(sample.regions[~border], number[~border].to(torch.uint8))
    seen = sample.teacher.float()
    assert_close(seen.norm(dim=1), torch.ones(2, GRID, GRID), atol=2e-3, rtol=0)
    assert_close(seen[:, 0] / seen[:, 2], x, atol=0.03, rtol=0)
    assert_close(
        seen[:, 1] / seen[:, 2], y, atol=0.04, rtol=0
    )  # at the border the map ends half a patch earlier


def test_seeds_show_mirrored_views_and_others():
    transform = PairTransform(views=PLAIN, grid=GRID, segments=None, teacher=None)
    samples = [transform.sample(Source("k", ramp(*SIZE), []), seed) for seed in range(20)]
    flips = torch.stack([flips_of(sample) for sample in samples])
    assert 0.25 < flips.float().mean() < 0.75 and (flips[:, 0] != flips[:, 1]).any()
    for sample in samples:
        x, _ = shown(sample)
        boxes = boxes_of(sample)
        assert torch.equal(x[:, 0, 0] > x[:, 0, -1], flips_of(sample))
        assert_close(
            x.amin((1, 2)),
            boxes[:, 0] + (boxes[:, 2] - boxes[:, 0]) / 16,
            atol=0.02,
            rtol=0,
        )
    boxes = torch.stack([boxes_of(sample) for sample in samples])
    assert (boxes[:, 0] != boxes[:, 1]).any(1).all()


@pytest.mark.parametrize(
    "change",
    [{"jitter_probability": 1.0}, {"grayscale_probability": 1.0}, {"blur_probability": 1.0}],
)
def test_colors_change_and_places_do_not(tmp_path, monkeypatch, change):
    transform = prepare(tmp_path, "k")
    plain = transform.sample(Source("k", ramp(*SIZE), []), 3)
    jitter = COLORS["simclr"].jitter
    monkeypatch.setitem(COLORS, "none", COLORS["none"]._replace(jitter=jitter, **change))
    other = transform.sample(Source("k", ramp(*SIZE), []), 3)
    assert torch.equal(plain.regions[0], other.regions[0]) and torch.equal(
        plain.teacher[0], other.teacher[0]
    )
    assert not torch.allclose(images_of(plain)[0], images_of(other)[0], atol=1e-3)
    assert images_of(other).min() >= 0 and images_of(other).max() <= 1 + 1e-6


def test_without_folders_a_photo_is_one_region_and_nobody_is_followed():
    transform = PairTransform(views=PLAIN, grid=GRID, segments=None, teacher=None)
    sample = transform.sample(Source("k", ramp(*SIZE), []), 0)
    assert not sample.regions.any() and sample.teacher is None
    assert transform.collate([sample]).to(torch.device("cpu")).teacher is None


def test_a_batch_has_both_views_of_each_photo_side_by_side(tmp_path):
    keys = ("one.jpg", "two.png", "three")
    sizes = [(150, 100), (90, 200), (64, 64)]
    transforms = [prepare(tmp_path, key, size) for key, size in zip(keys, sizes, strict=True)]
    samples = [
        transforms[0].sample(Source(key, ramp(*size), []), seed)
        for seed, (key, size) in enumerate(zip(keys, sizes, strict=True))
    ]
    batch = transforms[0].collate(samples).to(torch.device("cpu"))
    assert batch.images.shape == (3, 2, 3, 64, 64)
    assert (batch.regions.dtype, batch.teacher.dtype) == (torch.uint8, torch.float16)
    for index, sample in enumerate(samples):
        assert torch.equal(batch.images[index], images_of(sample))
        assert torch.equal(batch.regions[index], sample.regions)


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (900, 3), (31, 2000)])
def test_photos_of_any_size_give_views(tmp_path, size):
    views = PairConfig(side_px=64)
    sample = replace(prepare(tmp_path, "k", size), views=views).sample(
        Source("k", ramp(*size), []), 1
    )
    assert images_of(sample).shape == (2, 3, 64, 64) and images_of(sample).isfinite().all()
    assert sample.teacher.isfinite().all() and (sample.regions < CELLS[0] * CELLS[1]).all()


def test_a_photo_that_was_decoded_small_keeps_its_regions(tmp_path):
    transform = prepare(tmp_path, "k", (600, 400))
    sample = transform.sample(Source("k", ramp(*SIZE), []), 5)
    x, y = shown(sample)
    number = (y * CELLS[0]).floor() * CELLS[1] + (x * CELLS[1]).floor()
    assert (sample.regions == number).float().mean() > 0.85


def test_what_was_not_prepared_is_named(tmp_path):
    transform = prepare(tmp_path, "k")
    with pytest.raises(FileNotFoundError, match=r"other\.png.*`maskfree prepare segments`"):
        transform.sample(Source("other", ramp(*SIZE), []), 0)
    write_regions(tmp_path / "segments", "other", np.zeros((100, 150), np.uint8))
    with pytest.raises(
        FileNotFoundError, match=r"other\.safetensors is missing: `maskfree prepare teacher`"
    ):
        transform.sample(Source("other", ramp(*SIZE), []), 0)


def test_regions_of_another_photo_are_refused(tmp_path):
    transform = prepare(tmp_path, "k")
    with pytest.raises(ValueError, match=r"k\.png is .*, its photo "):
        transform.sample(Source("k", ramp(100, 150), []), 0)


def test_cells_are_read_at_their_middles():
    regions = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert cut_regions(regions, (0.0, 0.0, 1.0, 1.0), 2).tolist() == [[7, 10], [19, 22]]
    assert cut_regions(regions, (0.5, 0.5, 1.0, 1.0), 2).tolist() == [[15, 17], [21, 23]]
    assert (
        cut_regions(np.zeros((1, 1), np.uint8), (0.2, 0.2, 0.9, 1.0), 3).tolist() == [[0] * 3] * 3
    )
    embeddings = F.normalize(torch.randn(5, 2, 4), dim=0)
    assert_close(
        cut_embeddings(embeddings, (0.0, 0.0, 1.0, 1.0), 4)[:, ::3], embeddings[:, :, [0, 1, 2, 3]]
    )
    assert_close(cut_embeddings(embeddings, (0.25, 0.5, 0.5, 1.0), 1)[:, 0, 0], embeddings[:, 1, 1])
