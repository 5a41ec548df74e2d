"""One matrix changes colors as its steps would, one after the other, and keeps grays gray."""

import colorsys
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from maskfree.data.colors import blurred, color_jitter, grayed, recolored, unchanged, uniform

LUMA = (0.299, 0.587, 0.114)
YIQ = np.array([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])


def random_bytes(low: int = 0, high: int = 256) -> torch.Tensor:
    return torch.randint(low, high, (5, 7, 3), dtype=torch.uint8)


def changed(pixels: torch.Tensor, colors: np.ndarray | None) -> torch.Tensor:
    """One recolored image (3 h w)."""
    matrices = None if colors is None else torch.from_numpy(colors).float()[None]
    return recolored(pixels[None], matrices)[0]


def slow_jitter(pixels: torch.Tensor, rng: np.random.Generator, *amounts: float) -> np.ndarray:
    """The four steps pixel by pixel, without clipping between them."""
    light, spread, color = (rng.uniform(max(0, 1 - each), 1 + each) for each in amounts[:3])
    turn = 2 * math.pi * rng.uniform(-amounts[3], amounts[3])
    image = pixels.numpy() / 255
    height, width, _ = image.shape

    for row in range(height):
        for column in range(width):
            y, i, q = YIQ @ image[row, column]
            i, q = (
                color * (i * math.cos(turn) - q * math.sin(turn)),
                color * (i * math.sin(turn) + q * math.cos(turn)),
            )
            image[row, column] = np.linalg.solve(YIQ, [y, i, q])

    image *= light
    mean = (image @ LUMA).mean()
    return np.clip(mean + spread * (image - mean), 0, 1)


def test_uniform_draws_what_numpy_draws():
    ours, theirs = np.random.default_rng(5), np.random.default_rng(5)
    for low, high in [(-0.3, 0.7), (0.0, 0.0), (1e-9, 3e4)] * 20:
        assert uniform(ours, low, high) == theirs.uniform(low, high)


@pytest.mark.parametrize("seed", range(8))
def test_one_matrix_is_all_steps_in_turn(seed):
    amounts = (0.4, 0.6, 0.5, 0.2)
    pixels = random_bytes()
    slow = slow_jitter(pixels, np.random.default_rng(seed), *amounts)
    fast = changed(pixels, color_jitter(np.random.default_rng(seed), *amounts))
    assert_close(fast, torch.from_numpy(slow).float().movedim(-1, 0), atol=1e-5, rtol=0)


def test_bytes_without_colors_are_divided():
    pixels = random_bytes()
    image = changed(pixels, None)
    assert torch.equal(image, (pixels.float() / 255).movedim(-1, 0)) and image.is_contiguous()
    assert_close(changed(pixels, unchanged()), image, atol=1e-6, rtol=0)


@pytest.mark.parametrize("number", [0, 1, 9, 17])
def test_each_image_has_its_own_matrix(number):
    rng = np.random.default_rng(0)
    pixels = torch.randint(0, 256, (number, 4, 6, 3), dtype=torch.uint8)
    colors = [color_jitter(rng) for _ in range(number)]
    matrices = torch.from_numpy(np.stack([unchanged(), *colors])[1:]).float()
    images = recolored(pixels, matrices)
    assert images.shape == (number, 3, 4, 6) and recolored(pixels).shape == images.shape
    for image, each, matrix in zip(images, pixels, colors, strict=True):
        assert_close(image, changed(each, matrix), atol=1e-6, rtol=0)


def test_jitter_without_amounts_changes_nothing():
    pixels = random_bytes()
    colors = color_jitter(np.random.default_rng(0), 0.0, 0.0, 0.0, 0.0)
    assert_close(changed(pixels, colors), changed(pixels, None), atol=1e-5, rtol=0)


def test_jitter_is_drawn_from_the_generator():
    first, again, other = (color_jitter(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_saturation_and_hue_keep_gray_and_luma():
    gray = random_bytes()[..., :1].expand(5, 7, 3)
    colors = color_jitter(np.random.default_rng(4), 0.0, 0.0, 0.9, 0.5)
    assert_close(changed(gray, colors), changed(gray, None), atol=1e-3, rtol=0)

    pixels = random_bytes(102, 153)
    colors = color_jitter(np.random.default_rng(4), 0.0, 0.0, 0.4, 0.5)
    found = torch.einsum("c,chw->hw", torch.tensor(LUMA), changed(pixels, colors))
    luma = torch.einsum("c,chw->hw", torch.tensor(LUMA), changed(pixels, None))
    assert_close(found, luma, atol=1e-3, rtol=0)


def test_contrast_pivots_on_the_mean_luma():
    pixels = random_bytes(102, 153)[..., :1].expand(5, 7, 3)
    colors = color_jitter(np.random.default_rng(5), 0.0, 0.8, 0.0, 0.0)
    assert_close(changed(pixels, colors).mean(), changed(pixels, None).mean())
    assert not torch.allclose(changed(pixels, colors), changed(pixels, None), atol=1e-3)


def test_hue_turns_red_by_about_the_same_angle_as_hsv():
    red = torch.tensor([153, 76, 76], dtype=torch.uint8).expand(2, 3, 3)
    shifts = []
    for seed in range(50):
        colors = color_jitter(np.random.default_rng(seed), 0.0, 0.0, 0.0, 0.1)
        turned = changed(red, colors)[:, 0, 0]
        shifts.append(colorsys.rgb_to_hsv(*turned.tolist())[0])
    assert min(0.5 - abs(0.5 - s) for s in shifts) < 0.03
    assert 0.05 < max(0.5 - abs(0.5 - s) for s in shifts) < 0.16


def test_gray_is_the_luma_of_each_changed_pixel():
    pixels = random_bytes(90, 160)
    for colors in (unchanged(), color_jitter(np.random.default_rng(1), 0.1, 0.1, 0.1, 0.1)):
        luma = torch.einsum("c,chw->hw", torch.tensor(LUMA), changed(pixels, colors))
        gray = changed(pixels, grayed(colors))
        assert_close(gray, luma.expand(3, 5, 7), atol=1e-5, rtol=0)


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.0])
def test_blur_is_a_gaussian_sum(deviation):
    pixels = torch.randint(0, 256, (13, 18, 3), dtype=torch.uint8)
    reach = round(3 * deviation)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * deviation**2))
    weights /= weights.sum()

    slow = np.zeros((13, 18, 3))
    for row in range(13):
        for column in range(18):
            for down, one in zip(offsets, weights, strict=True):
                for across, other in zip(offsets, weights, strict=True):
                    y, x = np.clip(row + down, 0, 12), np.clip(column + across, 0, 17)
                    slow[row, column] += one * other * pixels[y, x].numpy()

    assert np.abs(blurred(pixels, deviation).numpy() - slow).max() <= 0.5 + 1e-3


def test_blur_keeps_what_is_even_and_the_range():
    even = torch.tensor([51, 128, 255], dtype=torch.uint8).expand(16, 23, 3)
    assert torch.equal(blurred(even, 2.0), even)
    noise = torch.randint(0, 256, (16, 23, 3), dtype=torch.uint8)
    assert blurred(noise, 2.0).float().std() < noise.float().std() / 3
    assert torch.equal(blurred(noise, 0.1), noise)
