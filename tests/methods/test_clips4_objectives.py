"""Contrast and embedding consistency of CLIP-S4 against a slow reading of the paper, and what its
memory keeps.
"""

from __future__ import annotations

import copy

import pytest
import torch
from clips4_slow import (
    DIM,
    HEIGHT,
    NUM_SEGMENTS,
    PHOTOS,
    VOID,
    WIDTH,
    Slow,
    classes_of,
    cut,
    semantic_of,
    slow_segments,
    some_pixels,
    some_regions,
    unit,
)
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.methods.clips4.config import CLIPS4Config
from maskfree.methods.clips4.objectives import PixelSegmentObjective, embedding_term
from maskfree.methods.clips4.view_segments import ViewSegments


def contrast(**changes) -> PixelSegmentObjective:
    settings = {
        "weight": 1.0,
        "memory": 0,
        "thin": 1,
        "dim": DIM,
    }
    return PixelSegmentObjective(**(settings | changes))


def slow_contrast(
    segments: ViewSegments,
    regions: Tensor,
    memory: Tensor | None = None,
    thin: int = 1,
) -> Tensor:
    """Eq. 1, pixel by pixel and segment by segment, with kappa 10."""
    everything = slow_segments(segments, regions)
    everything += [Slow(frozenset(), None, row) for row in ([] if memory is None else memory)]
    losses = []
    for place in torch.cartesian_prod(*map(torch.arange, regions.shape)).tolist():
        view, y, x = place
        if regions[view, y, x] == VOID or (y + x) % thin:
            continue
        weights = [
            (10 * segments.pixels[view, :, y, x] @ each.embedding).exp() for each in everything
        ]
        positive = [each.region == (view // 2, int(regions[view, y, x])) for each in everything]
        above = sum(weight for weight, there in zip(weights, positive, strict=True) if there)
        losses.append(-(above / sum(weights)).log())
    return torch.stack(losses).mean()


def test_segments_lie_in_one_region_of_one_view():
    pixels, regions = some_pixels(), some_regions()
    segments = cut(pixels, regions)
    assert (segments.ids < 0).equal(regions == VOID)
    slow = slow_segments(segments, regions)
    assert len(slow) == len(segments.embeddings) > 3 * NUM_SEGMENTS
    for each in slow:
        view, y, x = next(iter(each.pixels))
        row = int(segments.rows[view, segments.ids[view, y, x]])
        assert_close(segments.embeddings[row], each.embedding)
        assert segments.pixel_regions()[view, y, x] == segments.regions[row]


@pytest.mark.parametrize("thin", [1, 2, 3])
def test_contrast_is_equation_1(thin):
    pixels, regions = some_pixels(), some_regions()
    segments = cut(pixels, regions)
    loss = contrast(thin=thin)(segments).terms["contrast"]
    assert_close(loss, slow_contrast(segments, regions, thin=thin))


def test_a_region_is_the_same_in_both_views_of_a_photo_and_in_no_other_photo():
    regions = torch.zeros(4, HEIGHT, WIDTH, dtype=torch.long)
    regions[..., WIDTH // 2 :] = 1
    directions = torch.eye(DIM)[regions].movedim(
        -1, 1
    )  # what a perfect student would say of the first photo
    directions[2:] = directions[2:].roll(2, dims=1)
    right = contrast()(cut(directions, regions)).terms["contrast"]
    swapped = regions.clone()
    swapped[1] = 1 - regions[1]
    assert right < 0.01 < contrast()(cut(directions, swapped)).terms["contrast"]
    alike = torch.cat([directions[:2], directions[:2]])
    assert (
        contrast()(cut(alike, regions)).terms["contrast"] > 0.6
    )  # another photo's segments push, however alike


def test_of_more_segments_than_there_is_room_for_the_smallest_do_not_count():
    regions = (
        torch.arange(HEIGHT * WIDTH).view(HEIGHT, WIDTH) // 2
    )  # 14 regions of two pixels, and room for 6
    regions = regions.repeat(2, 1, 1)
    segments = cut(some_pixels()[:2], regions)
    sizes = torch.stack([view[view >= 0].bincount(minlength=6) for view in segments.ids])
    assert segments.max_segments == 6 and len(segments.embeddings) == 12 and (sizes > 0).all()
    counted = regions.masked_fill(segments.ids < 0, VOID)
    assert_close(contrast()(segments).terms["contrast"], slow_contrast(segments, counted))


def test_weights_scale_terms():
    pixels, regions, teacher = some_pixels(), some_regions(), some_pixels()
    segments = cut(pixels, regions, teacher)
    whole, half = (contrast(weight=weight)(segments).terms["contrast"] for weight in (1.0, 0.5))
    assert_close(half, whole / 2)
    whole, half = (embedding_term(segments, weight) for weight in (1.0, 0.5))
    assert_close(half.terms["embedding"], whole.terms["embedding"] / 2)
    assert half.metrics == whole.metrics


def test_memory_holds_the_newest_batches_first_and_no_more_than_it_has_room_for():
    batches = [cut(some_pixels(), some_regions()) for _ in range(3)]
    first, second, third = (segments.embeddings for segments in batches)
    term, none = contrast(memory=2), contrast(memory=0)
    for segments, held in zip(batches, ([first], [second, first], [third, second]), strict=True):
        term(segments)
        assert_close(term.bank, torch.cat(held))
        assert term.sizes.tolist() == [*map(len, held), 0][:2]
        none(segments)
        assert not len(none.bank)
    assert not term.bank.requires_grad


def many_regions(views: int, side: int) -> Tensor:
    """About as many regions of a photo as `prepare segments` allows, none of them square."""
    rows, columns = torch.meshgrid(*[torch.arange(side) / side] * 2, indexing="ij")
    middles = torch.rand(views // 2, 48, 2).repeat_interleave(2, 0)
    places = torch.stack([rows, columns], dim=-1).flatten(0, 1)
    return torch.cdist(places, middles).argmin(2).view(views, side, side)


def test_two_batches_of_real_segments_fit_the_memory_of_the_paper():
    """Regions cut the 36 clusters of a view into more segments, and all of them are remembered."""
    config, views, side = CLIPS4Config(), 2 * 8, 28
    assert config.contrast is not None
    term = config.contrast.build(DIM)
    batches = []
    for _ in range(3):
        coarse = F.interpolate(unit(views, DIM, 6, 6), (side, side), mode="bilinear")
        pixels = F.normalize(coarse, dim=1)
        batches.append(
            ViewSegments.cut(pixels, many_regions(views, side), None, config.num_segments)
        )
        term(batches[-1])
    kept = torch.cat([batches[2].embeddings, batches[1].embeddings])
    assert len(kept) > 1.5 * 2 * views * config.num_segments
    assert_close(term.bank, kept)


def test_remembered_segments_are_negatives_only():
    regions = some_regions()
    before, now = cut(some_pixels(), regions), cut(some_pixels(), regions)
    term = contrast(memory=1)
    alone = term(before).terms["contrast"]
    assert_close(alone, slow_contrast(before, regions))  # the memory was empty
    loss = term(now).terms["contrast"]
    assert_close(loss, slow_contrast(now, regions, before.embeddings))
    assert loss > contrast()(now).terms["contrast"]


def test_memory_comes_back_with_a_state():
    regions = some_regions()
    before, now = cut(some_pixels(), regions), cut(some_pixels(), regions)
    term, other = contrast(memory=2), contrast(memory=2)
    term(before)
    other.load_state_dict(copy.deepcopy(term.state_dict()))
    assert_close(other(now).terms, term(now).terms)


def test_nothing_is_remembered_outside_training():
    term = contrast(memory=1).eval()
    term(cut(some_pixels(), some_regions()))
    assert not len(term.bank) and not term.sizes.any()


def test_embedding_consistency_is_equation_2():
    pixels, regions, teacher = some_pixels(), some_regions(), some_pixels()
    losses = embedding_term(cut(pixels, regions, teacher), 1.0)
    slow = slow_segments(cut(pixels, regions), regions, teacher)
    expected = torch.stack(
        [1 - F.cosine_similarity(each.embedding, each.teacher, dim=0) for each in slow]
    ).mean()
    assert_close(losses.terms["embedding"], expected)
    assert_close(losses.metrics["similarity"], 1 - expected)


@pytest.mark.parametrize("views", [[0], [0, 1], list(range(2 * PHOTOS))])
def test_views_without_regions_count_for_nothing(views):
    """The first view, the whole first photo, or all: what is left has the loss and gradients that
    it has alone.
    """
    regions = some_regions()
    regions[views] = VOID
    pixels, teacher = some_pixels().requires_grad_(), some_pixels()
    term = contrast(memory=1)
    segments = cut(pixels, regions, teacher)
    parts = [
        term(segments),
        embedding_term(segments, 1.0),
        semantic_of(classes_of(1, 2))(segments, teacher),
    ]
    sum(part.total for part in parts).backward()
    assert all(
        value.isfinite()
        for part in parts
        for value in (*part.terms.values(), *part.metrics.values())
    )
    assert pixels.grad.isfinite().all() and not pixels.grad[views].any()
    if len(views) == 2 * PHOTOS:
        assert all(part.total == 0 for part in parts) and not pixels.grad.any()
    else:
        assert_close(parts[0].terms["contrast"], slow_contrast(segments, regions))


def test_a_photo_of_one_color_has_one_embedding_and_finite_terms():
    pixels = unit(1, DIM, 1, 1).expand(2, DIM, HEIGHT, WIDTH).clone().requires_grad_()
    regions = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.long)
    segments = cut(pixels, regions, pixels.detach())
    loss = contrast()(segments).total + embedding_term(segments, 1.0).total
    loss.backward()
    assert_close(loss, torch.zeros(()), atol=1e-5, rtol=0)
    assert pixels.grad.isfinite().all()
    assert 2 <= len(segments.embeddings) <= 2 * NUM_SEGMENTS
