"""Crops say where they come from, and undo their flip."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.transforms import crop, in_pixels, random_box, random_view


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


@given(seed=st.integers(0, 2**32 - 1), size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
def test_whole_pixels_of_a_box_lie_next_to_it(seed, size):
    box = random_box(np.random.default_rng(seed), size, (0.05, 1.0))
    left, top, right, bottom = in_pixels(box, size)
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    exact = np.array(box) * (size * 2)
    assert np.abs(np.array((left, top, right, bottom)) - exact).max() <= 1
    if min(exact[2] - exact[0], exact[3] - exact[1]) > 1:
        assert np.abs(np.array((left, top, right, bottom)) - exact).max() <= 0.5


@pytest.mark.parametrize("flip", [False, True])
def test_crop_shows_what_its_bounds_say(flip):
    view = crop(np.asarray(ramp(300, 200)), (75, 100, 225, 180), 40, flip=flip)
    assert (view.shape, view.dtype) == ((40, 40, 3), torch.uint8)
    assert view.is_contiguous()
    centers = (torch.arange(40) + 0.5) / 40
    across = 255 * (0.25 + 0.5 * (centers.flip(0) if flip else centers))
    down = 255 * (0.5 + 0.4 * centers)
    assert_close(view[..., 0].float(), across.expand(40, 40), atol=2.5, rtol=0)
    assert_close(view[..., 1].float(), down[:, None].expand(40, 40), atol=2.5, rtol=0)


@pytest.mark.parametrize("size", [(7, 5), (64, 64), (70, 31), (301, 500)])
def test_crop_is_the_antialiased_resize_of_floats(size):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    left, top, right, bottom = 1, 2, size[0] - 2, size[1]
    part = torch.from_numpy(pixels)[top:bottom, left:right].movedim(-1, 0)[None].float()
    exact = F.interpolate(part, (32, 32), mode="bilinear", antialias=True)[0].movedim(0, -1)
    view = crop(pixels, (left, top, right, bottom), 32).float()
    # Bytes are rounded after each of the two directions.
    assert_close(view, exact, atol=1.01, rtol=0)


def test_crop_of_a_single_pixel():
    pixels = np.asarray(Image.new("RGB", (1, 1), (255, 0, 51)))
    bounds = in_pixels((0.1, 0.2, 0.3, 0.4), (1, 1))
    assert crop(pixels, bounds, 2)[0, 1].tolist() == [255, 0, 51]


@pytest.mark.parametrize("size", [(300, 200), (33, 90)])
def test_the_box_of_a_view_is_where_it_was_cut(size):
    pixels = np.asarray(ramp(*size))
    for seed in range(20):
        view = random_view(np.random.default_rng(seed), pixels, 16, (0.05, 1.0), mirror=0.5)
        upright = view.image.flip(1) if view.flipped else view.image
        found = crop(pixels, in_pixels(view.box, size), 16)
        # Rounding differs where the mirrored sum has another order.
        assert_close(upright.float(), found.float(), atol=1, rtol=0)
        in_px = np.array(view.box) * (size * 2)
        assert_close(in_px, in_px.round(), atol=1e-9, rtol=0)
        assert view.colors is None


def test_a_jittered_view_has_the_place_of_the_plain_one():
    pixels = np.asarray(ramp(120, 90))
    plain, jittered = (
        random_view(np.random.default_rng(3), pixels, 24, (0.05, 1.0), 0.5, jitter)
        for jitter in (None, (0.4, 0.4, 0.4, 0.1))
    )
    assert plain[1:3] == jittered[1:3] and torch.equal(plain.image, jittered.image)
    assert jittered.colors.shape == (3, 4)
