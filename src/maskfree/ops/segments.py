"""Segments of pixel embeddings: spherical k-means, intersection with regions, pooling."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.ops.ignore import IGNORE


@torch.no_grad()
def spherical_kmeans(
    embeddings: Float[Tensor, "b d h w"],
    num_segments: int,
    iterations: int = 10,
    location: float = 1.0,
    inside: Bool[Tensor, "b h w"] | None = None,
) -> Int[Tensor, "b h w"]:
    """Cluster each photo's pixels by direction and location.

    A pixel's scaled location is appended to its embedding, and the whole is normalized. Starts from
    `grid` and runs all iterations, so a photo's segments do not depend on its batch. A segment that
    loses its pixels has similarity 0 to all pixels from then on.

    Args:
        embeddings: Unit-norm pixel embeddings.
        num_segments: Number of segments, at least 1.
        iterations: Number of k-means iterations.
        location: Weight of the location (y, x) in [-0.5, 0.5]; 0 clusters by direction alone.
        inside: Pixels that take part; None takes all.

    Returns:
        Segment of each pixel, in [0, num_segments); some segments may be empty. -1 for pixels that
        take no part.

    Raises:
        ValueError: The number of segments is below 1.

    Source: Hwang et al. 2019, section 3.2 (SegSort, arXiv:1910.06962), as in the published code of
    HSG.
    """
    if num_segments < 1:
        raise ValueError(f"{num_segments} segments: there must be at least 1")

    number, _, height, width = embeddings.shape
    device = embeddings.device

    with torch.autocast(device.type, enabled=False):
        points = _with_location(embeddings.float(), location)
        if inside is not None:
            # A zero vector moves no center.
            points = points * inside.flatten(1)[..., None]

        labels = grid(num_segments, height, width).to(device).flatten().expand(number, -1)
        for _ in range(iterations):
            centers = F.normalize(_sums(points, labels, num_segments), dim=2)
            # The same as argmax(1), and quicker.
            labels = (centers @ points.mT).max(1).indices
    labels = labels.unflatten(1, (height, width))
    if inside is not None:
        labels = labels.where(inside, -1)
    return labels.contiguous()


def grid(num_segments: int, height: int, width: int) -> Int[Tensor, "h w"]:
    """Partition an image into a grid of cells that is as square as possible.

    Cell centers lie on the image border, so cells there are half as large.

    Args:
        num_segments: Number of cells.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Cell of each pixel, numbered down the columns; the longer side has more cells.
    """
    # The largest divisor up to the square root makes the cells as square as possible.
    fewer = math.isqrt(num_segments)
    while num_segments % fewer:
        fewer -= 1

    rows, columns = fewer, num_segments // fewer
    if height > width:
        rows, columns = columns, rows
    return _cells(rows, height)[:, None] + rows * _cells(columns, width)


def intersect(
    segments: Int[Tensor, "b h w"], regions: Int[Tensor, "b h w"], max_pairs: int
) -> Int[Tensor, "b h w"]:
    """Intersect segments with regions, numbering the pairs that occur in each photo from 0.

    Args:
        segments: Segment of each pixel; negative for none.
        regions: Region of each pixel; negative or `IGNORE` for none.
        max_pairs: Largest number of pairs per photo; the smallest ones are dropped, of equal ones
            the last.

    Returns:
        Pair of each pixel, ordered by segment and region; -1 for none or a dropped pair.
    """
    shape = segments.shape
    segment, region = segments.flatten(1).long(), regions.flatten(1).long()
    number, pixels = segment.shape
    none = torch.iinfo(torch.long).max
    inside = (segment >= 0) & (region >= 0) & (region != IGNORE)

    # Sort the pixels by pair; a pair starts where the sorted key changes.
    keys, order = torch.where(inside, segment * (IGNORE + 1) + region, none).sort(1)
    begins = F.pad(keys[:, 1:] != keys[:, :-1], (1, 0)).long()
    pair = torch.empty_like(order).scatter_(1, order, begins.cumsum(1))  # b n, void last

    # Keep the largest pairs and renumber them in order.
    sizes = torch.zeros(number, pixels, dtype=torch.long, device=pair.device).scatter_add_(
        1, pair, inside.long()
    )
    largest = sizes.argsort(dim=1, descending=True, stable=True)[:, :max_pairs]
    kept = torch.zeros_like(sizes).scatter_(1, largest, 1) * (sizes > 0)

    renumbered = torch.where(kept > 0, kept.cumsum(1) - 1, -1)
    return torch.where(inside, renumbered.gather(1, pair), -1).view(shape)


def segment_sums(
    values: Float[Tensor, "b d h w"], segments: Int[Tensor, "b h w"], num_segments: int
) -> tuple[Float[Tensor, "b s d"], Float[Tensor, "b s"]]:
    """Sum values over each segment and count its pixels.

    This is a product with the 0-1 membership matrix: on a GPU, unlike scatter-add, it adds in the
    same order each time.

    Args:
        values: Values of each pixel.
        segments: Segment of each pixel; ids outside [0, num_segments) are left out.
        num_segments: Number of segments.

    Returns:
        Sums and numbers of pixels.
    """
    ids = torch.arange(num_segments, device=values.device)[:, None]
    # b s n
    members = (segments.flatten(1)[:, None] == ids).float()
    with torch.autocast(values.device.type, enabled=False):
        return members @ values.float().flatten(2).mT, members.sum(2)


def segment_values(
    values: Int[Tensor, "b h w"], segments: Int[Tensor, "b h w"], num_segments: int
) -> Int[Tensor, "b s"]:
    """Return the value that all pixels of a segment share.

    Args:
        values: Value of each pixel, constant within a segment.
        segments: Segment of each pixel; ids outside [0, num_segments) are left out.
        num_segments: Number of segments.

    Returns:
        Value of each segment; -1 for an empty one.
    """
    index = (
        torch.where((segments >= 0) & (segments < num_segments), segments, num_segments)
        .flatten(1)
        .long()
    )
    found = torch.full((len(values), num_segments + 1), -1, dtype=torch.long, device=values.device)
    return found.scatter_(1, index, values.flatten(1).long())[:, :num_segments]


def _with_location(embeddings: Float[Tensor, "b d h w"], location: float) -> Float[Tensor, "b n e"]:
    """Append the scaled location to unit-norm embeddings and normalize."""
    number, dim, height, width = embeddings.shape
    rows = torch.linspace(-0.5, 0.5, height, device=embeddings.device)
    columns = torch.linspace(-0.5, 0.5, width, device=embeddings.device)
    grid_points = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    places = location * grid_points.flatten(0, 1)  # n 2

    # Norm of embedding and location together, as embeddings have unit norm.
    lengths = (1 + places.square().sum(1, keepdim=True)).sqrt()

    points = embeddings.new_empty(number, height * width, dim + 2)
    points[..., :dim] = embeddings.flatten(2).mT / lengths
    points[..., dim:] = places / lengths

    return points


def _sums(
    points: Float[Tensor, "b n e"], labels: Int[Tensor, "b n"], num_segments: int
) -> Float[Tensor, "b s e"]:
    """Segment sums in a fixed order, in half the time of a membership-matrix product."""
    number, _, dim = points.shape
    firsts = num_segments * torch.arange(number, device=labels.device)[:, None]
    ordered, order = (labels + firsts).flatten().sort(stable=True)
    begins = torch.searchsorted(ordered, torch.arange(number * num_segments, device=labels.device))
    return F.embedding_bag(order, points.view(-1, dim), begins, mode="sum").view(
        number, num_segments, dim
    )


def _cells(count: int, side: int) -> Int[Tensor, " side"]:
    """Cell of each position along a side, rounding half to even as the published code does."""
    return (torch.arange(side) * (count - 1) / max(side - 1, 1)).round().long()
