"""Crops say where they come from, undo their flip, and recoloring keeps grays gray."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

from maskfree.data.transforms import blurred, color_jitter, crop, random_box, to_grayscale


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right, green grows downwards."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray((np.stack([x, y, 0 * x], axis=-1) * 255).round().astype(np.uint8))


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    scale=st.sampled_from([(0.05, 0.4), (0.4, 1.0), (1.0, 1.0)]),
)
def test_box_lies_in_the_photo_and_keeps_ratio(seed, size, scale):
    left, top, right, bottom = random_box(np.random.default_rng(seed), size, scale)
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    ratio = (right - left) * size[0] / ((bottom - top) * size[1])
    assert 3 / 4 - 1e-6 <= ratio <= 4 / 3 + 1e-6


def test_box_area_follows_scale():
    rng = np.random.default_rng(3)
    boxes = np.array([random_box(rng, (640, 480), (0.1, 0.3)) for _ in range(500)])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert areas.min() >= 0.1
    assert areas.max() <= 0.3
    assert areas.mean() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("flip", [False, True])
def test_crop_shows_what_its_box_says(flip):
    box = (0.25, 0.5, 0.75, 0.9)
    view = crop(ramp(300, 200), box, 40, flip=flip)
    assert view.shape == (3, 40, 40)
    assert view.dtype == torch.float32
    centers = (torch.arange(40) + 0.5) / 40
    across = box[0] + (box[2] - box[0]) * (centers.flip(0) if flip else centers)
    down = box[1] + (box[3] - box[1]) * centers
    assert_close(view[0], across.expand(40, 40), atol=0.01, rtol=0)
    assert_close(view[1], down[:, None].expand(40, 40), atol=0.01, rtol=0)


def test_crop_of_a_single_pixel():
    assert_close(
        crop(Image.new("RGB", (1, 1), (255, 0, 51)), (0.1, 0.2, 0.3, 0.4), 2)[:, 0, 0],
        torch.tensor([1, 0, 0.2]),
    )


def test_recolor_without_amounts_changes_nothing():
    image = torch.rand(3, 5, 7)
    assert_close(
        color_jitter(image, np.random.default_rng(0), 0.0, 0.0, 0.0, 0.0), image, atol=1e-5, rtol=0
    )


def test_recolor_is_drawn_from_the_generator():
    image = torch.rand(3, 5, 7)
    first, again, other = (color_jitter(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert_close(first, again, atol=0, rtol=0)
    assert not torch.allclose(first, other)


def test_saturation_and_hue_keep_gray_and_luma():
    gray = torch.rand(1, 5, 7).expand(3, 5, 7)
    assert_close(
        color_jitter(gray, np.random.default_rng(4), 0.0, 0.0, 0.9, 0.5), gray, atol=1e-3, rtol=0
    )
    image = 0.4 + 0.2 * torch.rand(3, 5, 7)
    weights = torch.tensor([0.299, 0.587, 0.114])
    luma = torch.einsum(
        "c,chw->hw", weights, color_jitter(image, np.random.default_rng(4), 0.0, 0.0, 0.4, 0.5)
    )
    assert_close(luma, torch.einsum("c,chw->hw", weights, image), atol=1e-3, rtol=0)


def test_contrast_pivots_on_the_mean_luma():
    image = 0.4 + 0.2 * torch.rand(1, 5, 7).expand(3, 5, 7)
    assert_close(
        color_jitter(image, np.random.default_rng(5), 0.0, 0.8, 0.0, 0.0).mean(), image.mean()
    )


def test_hue_turns_red_by_about_the_same_angle_as_hsv():
    red = torch.tensor([0.6, 0.3, 0.3])[:, None, None].expand(3, 2, 3)
    shifts = []
    for seed in range(50):
        turned = color_jitter(red, np.random.default_rng(seed), 0.0, 0.0, 0.0, 0.1)[:, 0, 0]
        shifts.append(colorsys.rgb_to_hsv(*turned.tolist())[0])
    assert min(0.5 - abs(0.5 - s) for s in shifts) < 0.03
    assert 0.05 < max(0.5 - abs(0.5 - s) for s in shifts) < 0.16


def test_gray_is_the_luma_of_each_pixel():
    image = torch.rand(3, 5, 7)
    expected = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    gray = to_grayscale(image)
    assert_close(gray, expected.expand(3, 5, 7), atol=1e-5, rtol=0)
    assert_close(to_grayscale(gray), gray, atol=1e-5, rtol=0)
    gray[0] = 0  # the channels are apart in memory
    assert gray[1].any()


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.0])
def test_blur_spreads_a_point_as_a_gaussian(deviation):
    image = torch.zeros(3, 31, 41)
    image[1, 15, 20] = 1
    spread = blurred(image, deviation)
    assert not spread[0].any() and not spread[2].any()
    assert_close(spread.sum(), torch.tensor(1.0))
    for down, across in [(0, 0), (1, 0), (0, 1), (1, 1)]:
        share = spread[1, 15 + down, 20 + across] / spread[1, 15, 20]
        assert_close(
            share,
            torch.tensor(np.exp(-(down**2 + across**2) / (2 * deviation**2)), dtype=torch.float32),
        )
    distances = torch.arange(41.0) - 20
    if deviation >= 1:  # below, a pixel is too coarse for the deviation to show
        assert (spread[1].sum(0) * distances**2).sum().sqrt().item() == pytest.approx(
            deviation, rel=0.03
        )


def test_blur_keeps_what_is_even_and_the_range():
    even = torch.tensor([0.2, 0.5, 0.9])[:, None, None].expand(3, 16, 23)
    assert_close(blurred(even, 2.0), even)
    noise = torch.rand(3, 16, 23)
    soft = blurred(noise, 2.0)
    assert soft.min() > noise.min() and soft.max() < noise.max() and soft.std() < noise.std() / 3
    assert_close(blurred(noise, 0.1), noise)
