"""Views travel as bytes and arrive as floats, each with its own colors and in its own place."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.testing import assert_close

from maskfree.data.colors import color_jitter
from maskfree.data.packed import Packed, PackedViews
from maskfree.data.transforms import View
from maskfree.types import TensorRecord

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Inner(TensorRecord):
    images: Float[Tensor, "b v 3 h w"]


@dataclass(frozen=True)
class Outer(TensorRecord):
    images: Float[Tensor, "b 3 h w"]
    labels: UInt8[Tensor, "b h w"]
    inner: Inner
    missing: Tensor | None = None


def views(number: int, recolored: bool = True) -> list[View]:
    rng, found = np.random.default_rng(number), []
    for index in range(number):
        image = torch.from_numpy(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
        colors = color_jitter(rng) if recolored and index % 2 else None
        found.append(View(image, (0.0, 0.0, 1.0, 1.0), False, colors))
    return found


def packed() -> Packed[Outer]:
    labels = torch.arange(48, dtype=torch.uint8).view(2, 4, 6)
    inner = Packed(Inner, {"images": PackedViews.of(views(6), per_photo=3)})
    fields = {
        "images": PackedViews.of(views(2, recolored=False)),
        "labels": labels,
        "inner": inner,
        "missing": None,
    }
    return Packed(Outer, fields)


def test_views_arrive_as_floats_and_all_else_as_it_was():
    batch = packed().to(CPU)
    assert isinstance(batch, Outer) and isinstance(batch.inner, Inner)
    expected = torch.stack([view.image for view in views(2)]).movedim(-1, 1).float() / 255
    assert torch.equal(batch.images, expected)
    assert batch.labels.dtype == torch.uint8 and batch.labels.flatten().tolist() == [*range(48)]
    assert batch.missing is None


def test_views_of_one_photo_stay_together_with_their_colors():
    images = packed().to(CPU).inner.images
    assert images.shape == (2, 3, 3, 4, 6)
    for index, view in enumerate(views(6)):
        alone = PackedViews.of([view]).unpacked()[0]
        assert_close(images[index // 3, index % 3], alone, atol=1e-6, rtol=0)
        plain = view.image.movedim(-1, 0) / 255
        assert torch.allclose(alone, plain, atol=1e-3) == (view.colors is None)


@pytest.mark.parametrize("mirrored", [(False,) * 3, (True, False, True), (True,) * 3])
def test_the_same_bytes_are_shown_again_mirrored_and_recolored(mirrored):
    shown, rng = views(3, recolored=False), np.random.default_rng(2)
    first = PackedViews.of(shown)
    before = first.pixels.clone()
    colors = [color_jitter(rng), None, color_jitter(rng)]
    second = first.again(colors, mirrored)
    assert second.pixels is first.pixels
    for index, image in enumerate(second.to(CPU).unpacked()):
        pixels = shown[index].image.flip(1) if mirrored[index] else shown[index].image
        alone = PackedViews.of([shown[index]._replace(image=pixels, colors=colors[index])])
        assert_close(image, alone.unpacked()[0], atol=1e-6, rtol=0)
    assert torch.equal(first.pixels, before)


@pytest.mark.parametrize("recolored", [False, True])
def test_bytes_travel(recolored):
    sent = PackedViews.of(views(4, recolored))
    assert sent.pixels.dtype == torch.uint8 and (sent.colors is not None) == recolored
    again = pickle.loads(pickle.dumps(Packed(Inner, {"images": sent})))
    assert isinstance(again.fields["images"], PackedViews)
    assert torch.equal(again.fields["images"].unpacked(), sent.unpacked())


def test_every_part_is_pinned(monkeypatch):
    pinned = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(tuple(tensor.shape))
        return tensor

    # A machine without an accelerator has no page-locked memory.
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    batch = packed().pin_memory()
    assert sorted(pinned) == [(2, 3, 3, 4), (2, 3, 4, 6, 3), (2, 4, 6), (2, 4, 6, 3)]
    assert torch.equal(batch.to(CPU).images, packed().to(CPU).images)
