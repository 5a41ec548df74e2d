"""Segments of pixel embeddings: spherical K-means with location, cut along regions, and what each segment holds."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

VOID = 255  # the region of a pixel that is in none


@torch.no_grad()
def spherical_kmeans(
    embeddings: Float[Tensor, "b d h w"],
    num_segments: int,
    iterations: int = 10,
    location: float = 1.0,
) -> Int[Tensor, "b h w"]:
    """Cluster each photo's pixels by direction and place; return segments 0 to NUM_SEGMENTS - 1, some maybe empty.

    EMBEDDINGS have unit norm. A pixel's place, LOCATION times (y, x) in [-0.5, 0.5], is appended to its embedding and
    the whole made a unit vector again; 0 clusters by direction alone. Starts from `grid` and takes all ITERATIONS, so
    a photo's segments do not depend on its batch. A segment that loses its pixels has similarity 0 to all from then on.

    Source: Hwang et al. 2019, section 3.2 (SegSort, arXiv:1910.06962), as in the published code of HSG.
    """
    if num_segments < 1:
        raise ValueError(f"{num_segments} segments: there must be at least 1")
    number, _, height, width = embeddings.shape
    device = embeddings.device
    with torch.autocast(device.type, enabled=False):
        points = _with_location(embeddings.float(), location)
        labels = grid(num_segments, height, width).to(device).flatten().expand(number, -1)
        for _ in range(iterations):
            centers = F.normalize(_sums(points, labels, num_segments), dim=2)
            labels = (centers @ points.mT).max(1).indices  # the same as argmax(1), and quicker
    return labels.unflatten(1, (height, width)).contiguous()


def grid(num_segments: int, height: int, width: int) -> Int[Tensor, "h w"]:
    """Number the cells of a grid of NUM_SEGMENTS cells, as square as can be, down the columns.

    The longer side of the picture gets more cells. Cell centers lie on the border, so cells there are half as large.
    """
    fewer = next(
        count for count in range(math.isqrt(num_segments), 0, -1) if num_segments % count == 0
    )
    more = num_segments // fewer
    rows, columns = (more, fewer) if height > width else (fewer, more)
    return _cells(rows, height)[:, None] + rows * _cells(columns, width)


def intersect(
    segments: Int[Tensor, "b h w"], regions: Int[Tensor, "b h w"], most: int
) -> Int[Tensor, "b h w"]:
    """Cut segments along regions: number the pairs (segment, region) that occur in each photo from 0, in that order.

    Pixels with region `VOID` or with a negative number become -1. If a photo has more than MOST pairs, the smallest
    become -1 too; of equally small ones, those that come last.
    """
    shape = segments.shape
    segment, region = segments.flatten(1).long(), regions.flatten(1).long()
    number, pixels = segment.shape
    none = torch.iinfo(torch.long).max
    inside = (segment >= 0) & (region >= 0) & (region != VOID)
    keys, order = torch.where(inside, segment * (VOID + 1) + region, none).sort(1)
    begins = F.pad(keys[:, 1:] != keys[:, :-1], (1, 0)).long()
    pair = torch.empty_like(order).scatter_(1, order, begins.cumsum(1))  # b n, void last
    sizes = torch.zeros(number, pixels, dtype=torch.long, device=pair.device).scatter_add_(
        1, pair, inside.long()
    )
    largest = sizes.argsort(dim=1, descending=True, stable=True)[:, :most]
    kept = torch.zeros_like(sizes).scatter_(1, largest, 1) * (sizes > 0)
    renumbered = torch.where(kept > 0, kept.cumsum(1) - 1, -1)
    return torch.where(inside, renumbered.gather(1, pair), -1).view(shape)


def segment_sums(
    values: Float[Tensor, "b d h w"], segments: Int[Tensor, "b h w"], most: int
) -> tuple[Float[Tensor, "b most d"], Float[Tensor, "b most"]]:
    """Sum VALUES over each of the segments 0 to MOST - 1, and count its pixels; other pixels are left out.

    A product with the 0-1 matrix of members: on a GPU, unlike scattered additions, it adds in the same order each time.
    """
    ids = torch.arange(most, device=values.device)[:, None]
    members = (segments.flatten(1)[:, None] == ids).float()  # b most n
    with torch.autocast(values.device.type, enabled=False):
        return members @ values.float().flatten(2).mT, members.sum(2)


def segment_values(
    values: Int[Tensor, "b h w"], segments: Int[Tensor, "b h w"], most: int
) -> Int[Tensor, "b most"]:
    """Return the value that all pixels of a segment share, of the segments 0 to MOST - 1; -1 for an empty one."""
    index = torch.where((segments >= 0) & (segments < most), segments, most).flatten(1).long()
    found = torch.full((len(values), most + 1), -1, dtype=torch.long, device=values.device)
    return found.scatter_(1, index, values.flatten(1).long())[:, :most]


def _with_location(embeddings: Float[Tensor, "b d h w"], location: float) -> Float[Tensor, "b n e"]:
    number, dim, height, width = embeddings.shape
    rows, columns = (
        torch.linspace(-0.5, 0.5, side, device=embeddings.device) for side in (height, width)
    )
    places = location * torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(
        0, 1
    )  # n 2
    lengths = (1 + places.square().sum(1, keepdim=True)).sqrt()  # as embeddings have unit norm
    points = embeddings.new_empty(number, height * width, dim + 2)
    points[..., :dim] = embeddings.flatten(2).mT / lengths
    points[..., dim:] = places / lengths
    return points


def _sums(
    points: Float[Tensor, "b n e"], labels: Int[Tensor, "b n"], most: int
) -> Float[Tensor, "b most e"]:
    """Sum the points of each label: half the time of a product with the 0-1 matrix, and always in the same order."""
    number, _, dim = points.shape
    firsts = most * torch.arange(number, device=labels.device)[:, None]
    ordered, order = (labels + firsts).flatten().sort(stable=True)
    begins = torch.searchsorted(ordered, torch.arange(number * most, device=labels.device))
    return F.embedding_bag(order, points.view(-1, dim), begins, mode="sum").view(number, most, dim)


def _cells(count: int, side: int) -> Int[Tensor, " side"]:
    """Round half to even, as the published code does; the quotient of whole numbers hits the halves exactly."""
    return (torch.arange(side) * (count - 1) / max(side - 1, 1)).round().long()
