"""Pixel-segment contrast: parity with HSG's code, eq. 1 as printed, and batches in which nothing
counts.
"""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.losses import pixel_segment
from maskfree.losses.pixel_segment import NO_REGION, pixel_segment_contrast
from shared_folder import SHARED

FIXTURE = SHARED / "fixtures" / "segsort_kmeans"
SETTINGS = FIXTURE.with_suffix(".json")
CASES = (
    [case["name"] for case in json.loads(SETTINGS.read_text())["hyper_parameters"]["cases"]]
    if SETTINGS.exists()
    else []
)
published = pytest.mark.skipif(not CASES, reason="../shared/fixtures is not here")


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def literal(pixels, pixel_regions, segments, segment_regions, concentration=10.0, own=None):
    """Eq. 1 pixel by pixel, in double precision; with OWN as SegSort+."""
    losses = []
    for i, pixel in enumerate(pixels.double()):
        kept = segment_regions != NO_REGION
        positive = kept & (segment_regions == pixel_regions[i])
        if pixel_regions[i] == NO_REGION or not positive.any():
            continue
        if own is not None and positive.sum() > 1:
            kept = kept & (torch.arange(len(kept)) != own[i])
        terms = (concentration * segments.double() @ pixel).exp()
        losses.append(-(terms[positive & kept].sum() / terms[kept].sum()).log())
    return torch.stack(losses).mean()


def example(n=23, m=9, d=6):
    """Pixels in the regions of their own segments, void ones, and segments that are none or of
    other batches.
    """
    generator = torch.Generator().manual_seed(4)
    regions = torch.tensor([0, 0, 0, 3, 3, 7, NO_REGION, -2, -2])
    own = torch.randint(0, 6, (n,), generator=generator)
    pixel_regions = regions[own]
    pixel_regions[::7] = NO_REGION
    return (
        unit(n, d).requires_grad_(),
        pixel_regions,
        unit(m, d, seed=1).requires_grad_(),
        regions,
        own,
    )


def read(case):
    prefix = f"out.{case}."
    tensors = load_file(FIXTURE.with_suffix(".safetensors"))
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def published_arguments(given):
    return (
        given["pixel_embedding"].clone().requires_grad_(),
        given["pixel_instance_label"],
        given["prototypes"].clone().requires_grad_(),
        given["prototype_instance_label"],
    )


@published
@pytest.mark.parametrize("concentration", [10.0, 16.0])
@pytest.mark.parametrize("case", CASES)
def test_segsort_plus_equals_the_published_code(case, concentration):
    given = read(case)
    pixels, pixel_regions, segments, segment_regions = published_arguments(given)
    own = given["cluster_index"]
    # The published code subtracts a pixel's own term from the sum of all positives in single
    # precision; where little
    # is left of it, its result is that of rounding. Those pixels are compared with the formula in
    # double precision.
    terms = (concentration * pixels.detach().double() @ segments.detach().double().T).exp()
    positive = (terms * (pixel_regions[:, None] == segment_regions)).sum(1)
    left = (positive - terms.gather(1, own[:, None])[:, 0]) / positive
    clear = (left > 0.05) | (left <= 0)
    assert clear.float().mean() > 0.4
    per_pixel = given[f"segsort_plus_per_pixel_k{concentration:g}"]
    arguments = (
        pixels[clear],
        pixel_regions[clear],
        segments,
        segment_regions,
        concentration,
        own[clear],
    )
    loss = pixel_segment_contrast(*arguments)
    assert_close(loss, per_pixel[clear].mean(), rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(loss * clear.float().mean(), pixels)
    assert_close(
        gradient[clear], given[f"grad_embedding_k{concentration:g}"][clear], atol=1e-6, rtol=0
    )

    whole = pixel_segment_contrast(
        pixels, pixel_regions, segments, segment_regions, concentration, own
    )
    exact = literal(pixels, pixel_regions, segments, segment_regions, concentration, own)
    assert_close(whole.double(), exact, rtol=1e-6, atol=0)
    assert_close(whole, given[f"segsort_plus_k{concentration:g}"], rtol=1e-4, atol=0)
    ours, theirs = torch.autograd.grad(whole, segments)[0], torch.autograd.grad(exact, segments)[0]
    assert_close(ours, theirs, atol=1e-6, rtol=0)
    if (
        case == "no_labels" and concentration == 10
    ):  # the only one in which rounding is below the tolerance
        assert_close(ours, given["grad_prototypes_k10"], atol=1e-6, rtol=0)


@published
@pytest.mark.parametrize("concentration", [10.0, 16.0])
@pytest.mark.parametrize("case", CASES)
def test_segsort_equals_the_published_code(case, concentration):
    """Plain SegSort has one positive, the own segment, and no other segment of the region: eq. 1
    segment by segment.
    """
    given = read(case)
    pixels, _, segments, segment_regions = published_arguments(given)
    total = torch.zeros(())
    for number, region in enumerate(segment_regions.tolist()):
        inside = given["cluster_index"] == number
        among = segment_regions.clone()
        among[segment_regions == region] = NO_REGION
        among[number] = region
        regions = torch.full((int(inside.sum()),), region)
        total = total + inside.sum() * pixel_segment_contrast(
            pixels[inside],
            regions,
            segments,
            among,
            concentration,
            number * torch.ones_like(regions),
        )
    assert_close(total / len(pixels), given[f"segsort_plain_k{concentration:g}"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("block", [1, 40, 2**19])
@pytest.mark.parametrize("with_own", [False, True])
@pytest.mark.parametrize("concentration", [3.0, 10.0])
def test_values_and_gradients_are_those_of_the_formula(monkeypatch, block, with_own, concentration):
    monkeypatch.setattr(pixel_segment, "_block_elements", lambda device: block)
    pixels, pixel_regions, segments, segment_regions, own = example()
    arguments = (
        pixels,
        pixel_regions,
        segments,
        segment_regions,
        concentration,
        own if with_own else None,
    )
    ours, exact = pixel_segment_contrast(*arguments), literal(*arguments)
    assert_close(ours.double(), exact, rtol=1e-6, atol=0)
    gradients = (
        torch.autograd.grad(3 * ours, (pixels, segments)),
        torch.autograd.grad(3 * exact, (pixels, segments)),
    )
    for mine, theirs in zip(*gradients, strict=True):
        assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("with_own", [False, True])
def test_the_gradient_is_that_of_finite_differences(with_own):
    pixels, pixel_regions, segments, segment_regions, own = example()

    def loss(pixels, segments):
        return pixel_segment_contrast(
            pixels, pixel_regions, segments, segment_regions, 4.0, own if with_own else None
        )

    doubles = (
        pixels.detach().double().requires_grad_(),
        segments.detach().double().requires_grad_(),
    )
    assert torch.autograd.gradcheck(loss, doubles)


def test_equal_embeddings_cost_the_logarithm_of_the_positives_share():
    same = unit(1, 6)
    regions = torch.tensor([5, 5, 2, 2, 2, -2])
    loss = pixel_segment_contrast(
        same.expand(4, -1), torch.full((4,), 5), same.expand(6, -1), regions
    )
    assert_close(loss, torch.tensor(math.log(6 / 2)))
    own = torch.tensor([0, 1, 0, 1])
    loss = pixel_segment_contrast(
        same.expand(4, -1), torch.full((4,), 5), same.expand(6, -1), regions, own=own
    )
    assert_close(loss, torch.tensor(math.log(5 / 1)))


def test_order_and_names_of_segments_do_not_matter_and_no_segment_is_none():
    pixels, pixel_regions, segments, segment_regions, own = example()
    loss = pixel_segment_contrast(pixels, pixel_regions, segments, segment_regions, own=own)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled = pixel_segment_contrast(
        pixels, pixel_regions, segments[order], segment_regions[order], own=order.argsort()[own]
    )
    assert_close(shuffled, loss)
    kept = segment_regions != NO_REGION
    rows = (kept.cumsum(0) - 1)[own]
    assert_close(
        pixel_segment_contrast(
            pixels, pixel_regions, segments[kept], segment_regions[kept], own=rows
        ),
        loss,
    )
    renamed = torch.where(segment_regions > 0, segment_regions + 2**40, segment_regions)
    pixels_renamed = torch.where(pixel_regions > 0, pixel_regions + 2**40, pixel_regions)
    assert_close(pixel_segment_contrast(pixels, pixels_renamed, segments, renamed, own=own), loss)


def test_void_pixels_and_void_segments_have_no_gradient_and_the_memorys_have():
    pixels, pixel_regions, segments, segment_regions, _ = example()
    pixel_segment_contrast(pixels, pixel_regions, segments, segment_regions).backward()
    assert torch.equal(pixels.grad.abs().amax(1) > 0, pixel_regions != NO_REGION)
    assert torch.equal(segments.grad.abs().amax(1) > 0, segment_regions != NO_REGION)


def test_a_pixel_without_a_positive_does_not_count():
    pixels, pixel_regions, segments, segment_regions, own = example()
    stray = torch.where(pixel_regions == 3, 4, pixel_regions)
    there = pixel_regions != 3
    for given in (None, own):
        loss = pixel_segment_contrast(pixels, stray, segments, segment_regions, own=given)
        kept = None if given is None else given[there]
        expected = pixel_segment_contrast(
            pixels[there], pixel_regions[there], segments, segment_regions, own=kept
        )
        assert_close(loss, expected)
        (gradient,) = torch.autograd.grad(loss, pixels)
        assert not gradient[~there].any()


@pytest.mark.parametrize(
    ("n", "pixel_region", "segment_regions"),
    [
        (5, NO_REGION, [0, 1, -2]),
        (5, 4, [0, 1, -2]),
        (5, 0, []),
        (0, 0, [0, 1]),
        (5, 0, [NO_REGION] * 3),
        (0, 0, []),
    ],
    ids=[
        "all pixels void",
        "no positives",
        "no segments",
        "no pixels",
        "all segments void",
        "nothing",
    ],
)
@pytest.mark.parametrize("with_own", [False, True])
def test_where_nothing_counts_the_loss_is_zero_with_a_graph(
    n, pixel_region, segment_regions, with_own
):
    pixels, segments = (
        unit(n, 6).requires_grad_(),
        unit(len(segment_regions), 6, seed=1).requires_grad_(),
    )
    regions = torch.tensor(segment_regions, dtype=torch.long)
    own = torch.zeros(n, dtype=torch.long) if with_own else None
    loss = pixel_segment_contrast(
        pixels, torch.full((n,), pixel_region), segments, regions, own=own
    )
    assert loss == 0
    loss.backward()
    assert not pixels.grad.any()
    assert not segments.grad.any()


def test_a_high_concentration_neither_overflows_nor_vanishes():
    pixels = torch.tensor([[1.0, 0.0]], requires_grad=True)
    segments = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    loss = pixel_segment_contrast(pixels, torch.tensor([1]), segments, torch.tensor([0, 1]), 1000.0)
    assert_close(loss, torch.tensor(2000.0))  # the positive is the far one
    (gradient,) = torch.autograd.grad(loss, pixels)
    assert_close(gradient, torch.tensor([[2000.0, 0.0]]))


def test_half_precision_is_widened():
    pixels, pixel_regions, segments, segment_regions, _ = example()
    expected = pixel_segment_contrast(pixels, pixel_regions, segments, segment_regions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(
            pixel_segment_contrast(pixels, pixel_regions, segments, segment_regions),
            expected,
            atol=0,
            rtol=0,
        )
    halves = pixels.detach().bfloat16().requires_grad_()
    loss = pixel_segment_contrast(
        halves, pixel_regions, segments.detach().bfloat16(), segment_regions
    )
    assert loss.dtype == torch.float32
    loss.backward()
    assert halves.grad.dtype == torch.bfloat16
