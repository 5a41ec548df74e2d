"""Pixel-segment contrast: a pixel's embedding is drawn to its region's segments and away from all others."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from maskfree.losses.precision import full_precision

NO_REGION = -1
_LOWEST = torch.finfo(torch.float32).min  # not -inf: the softmax of a row of these is even, not NaN


@full_precision
def pixel_segment_contrast(
    pixels: Float[Tensor, "n d"],
    pixel_regions: Int[Tensor, " n"],
    segments: Float[Tensor, "m d"],
    segment_regions: Int[Tensor, " m"],
    concentration: float = 10.0,
    own: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over pixels, in nats, of minus the logarithm of the share of the softmax that their region's segments have.

    Embeddings have unit norm; a pixel's positives are the segments with its region. Pixels and segments of region
    `NO_REGION` do not count, nor does a pixel without a positive; segments of a region that no pixel has are negatives.
    With OWN, each pixel's own segment (its row in SEGMENTS) is left out, unless it is the only positive. Zero, with a
    graph, if no pixel counts. Cannot be differentiated twice.

    Source: CLIP-S4, eq. 1; OWN as in SegSort+ of the published code of HSG.
    """
    pixel_regions, segment_regions = pixel_regions.long(), segment_regions.long()
    ordered = segment_regions.sort().values
    positives = torch.searchsorted(ordered, pixel_regions, right=True) - torch.searchsorted(
        ordered, pixel_regions
    )
    counted = (positives > 0) & (pixel_regions != NO_REGION)
    left_out = None if own is None else own.long().where(counted & (positives > 1), -1)
    return _Contrast.apply(
        pixels, concentration * segments, pixel_regions, segment_regions, counted, left_out
    )


class _Contrast(torch.autograd.Function):
    """The loss and its gradients in one pass over blocks of pixels.

    A block's gradients are made while its similarities are at hand, so that no table of all pixels by all segments is
    kept: that takes less memory, and less time too, because a block stays in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pixels: Float[Tensor, "n d"],
        segments: Float[Tensor, "m d"],
        pixel_regions: Int[Tensor, " n"],
        segment_regions: Int[Tensor, " m"],
        counted: Bool[Tensor, " n"],
        left_out: Int[Tensor, " n"] | None,
    ) -> Float[Tensor, ""]:
        """Return the loss; SEGMENTS are multiplied by the concentration, LEFT_OUT is -1 for none."""
        weights = counted.to(pixels.dtype) / counted.sum().clamp_min(1)
        ignored = torch.zeros_like(segments[:, 0]).masked_fill(
            segment_regions == NO_REGION, _LOWEST
        )
        to_pixels, to_segments = torch.zeros_like(pixels), torch.zeros_like(segments)
        loss = weights.new_zeros(())
        rows = max(1, _block_elements(pixels.device) // max(1, len(segments)))
        for start in range(0, len(pixels) if len(segments) else 0, rows):
            block = slice(start, start + rows)
            logits = torch.addmm(ignored, pixels[block], segments.T)
            if left_out is not None:
                none, column = left_out[block, None] < 0, left_out[block, None].clamp_min(0)
                logits.scatter_(1, column, logits.gather(1, column).where(none, _LOWEST))
            positives = logits.where(pixel_regions[block, None] == segment_regions, _LOWEST)
            all_shares, shares = logits.softmax(1), positives.softmax(1)
            # A logarithm of a sum of exponentials is the largest term minus the logarithm of its share.
            per_pixel = (
                logits.amax(1) - all_shares.amax(1).log() - positives.amax(1) + shares.amax(1).log()
            )
            loss += (per_pixel * weights[block]).sum()
            if any(ctx.needs_input_grad):
                gradient = all_shares.sub_(shares).mul_(weights[block, None])
                torch.mm(gradient, segments, out=to_pixels[block])
                to_segments.addmm_(gradient.T, pixels[block])
        ctx.save_for_backward(to_pixels, to_segments)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        """Scale the gradients that are at hand."""
        to_pixels, to_segments = ctx.saved_tensors
        return upstream[0] * to_pixels, upstream[0] * to_segments, None, None, None, None


def _block_elements(device: torch.device) -> int:
    """Similarities to hold at once: a cache full on a CPU, and enough to keep a GPU busy."""
    return 2**19 if device.type == "cpu" else 2**24
