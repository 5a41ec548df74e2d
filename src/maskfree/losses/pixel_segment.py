"""Pixel-to-segment contrastive loss, as in SegSort and CLIP-S4."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from maskfree.losses.precision import full_precision

NO_REGION = -1
_LOWEST = torch.finfo(torch.float32).min  # not -inf, whose softmax over a whole row is NaN


@full_precision
def pixel_segment_contrast(
    pixels: Float[Tensor, "n d"],
    pixel_regions: Int[Tensor, " n"],
    segments: Float[Tensor, "m d"],
    segment_regions: Int[Tensor, " m"],
    concentration: float = 10.0,
    own: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Contrastive loss between pixels and the segments of their region.

    The positives of a pixel are the segments with its region; all other segments are negatives,
    also those of a region that no pixel has. A pixel without a positive is left out. The loss
    cannot be differentiated twice.

    Args:
        pixels: Unit-norm pixel embeddings.
        pixel_regions: Region of each pixel; `NO_REGION` leaves the pixel out.
        segments: Unit-norm segment embeddings.
        segment_regions: Region of each segment; `NO_REGION` leaves the segment out.
        concentration: Inverse temperature that multiplies the cosines.
        own: Index of each pixel's own segment, which is left out unless it is the only positive;
            None keeps all segments.

    Returns:
        Mean over pixels of the negative log of the softmax share of their positives, in nats; zero,
        with a graph, if no pixel counts.

    Source: CLIP-S4, eq. 1; the argument `own` as in SegSort+ of the published code of HSG.

    Example:
        >>> pixels, regions = torch.eye(2, 4), torch.tensor([0, 1])
        >>> pixel_segment_contrast(pixels, regions, pixels, regions, concentration=1.0)
        tensor(0.3133)
    """
    pixel_regions, segment_regions = pixel_regions.long(), segment_regions.long()

    # Number of positives of each pixel, without a table of pixels by segments.
    ordered = segment_regions.sort().values
    firsts = torch.searchsorted(ordered, pixel_regions)
    positives = torch.searchsorted(ordered, pixel_regions, right=True) - firsts
    counted = (positives > 0) & (pixel_regions != NO_REGION)

    # A pixel's own segment is left out where it has other positives.
    left_out = None
    if own is not None:
        left_out = own.long().where(counted & (positives > 1), -1)

    return _Contrast.apply(
        pixels, concentration * segments, pixel_regions, segment_regions, counted, left_out
    )


class _Contrast(torch.autograd.Function):
    """Loss and gradients in one pass over blocks of pixels.

    The gradients of a block are computed while its similarities are in memory, so the full table of
    pixels by segments is never stored. This takes less memory, and less time too, because a block
    fits the cache.
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
        """Compute the loss and save the gradients.

        Args:
            ctx: Context of autograd.
            pixels: Unit-norm pixel embeddings.
            segments: Segment embeddings, multiplied by the concentration.
            pixel_regions: Region of each pixel.
            segment_regions: Region of each segment.
            counted: Which pixels count.
            left_out: Index of the segment that each pixel leaves out; -1 for none.

        Returns:
            The loss, in nats.
        """
        weights = counted.to(pixels.dtype) / counted.sum().clamp_min(1)
        ignored = torch.zeros_like(segments[:, 0])
        ignored = ignored.masked_fill(segment_regions == NO_REGION, _LOWEST)
        to_pixels, to_segments = torch.zeros_like(pixels), torch.zeros_like(segments)
        loss = weights.new_zeros(())

        # Block by block, so that the similarities at hand stay few.
        rows = max(1, _block_elements(pixels.device) // max(1, len(segments)))
        num_pixels = len(pixels)
        if not len(segments):
            num_pixels = 0

        for start in range(0, num_pixels, rows):
            block = slice(start, start + rows)
            logits = torch.addmm(ignored, pixels[block], segments.T)

            # Mask out each pixel's own segment.
            if left_out is not None:
                none, column = left_out[block, None] < 0, left_out[block, None].clamp_min(0)
                logits.scatter_(1, column, logits.gather(1, column).where(none, _LOWEST))

            positives = logits.where(pixel_regions[block, None] == segment_regions, _LOWEST)
            all_shares, shares = logits.softmax(1), positives.softmax(1)
            # logsumexp: the largest term minus the log of its softmax share.
            per_pixel = (
                logits.amax(1) - all_shares.amax(1).log() - positives.amax(1) + shares.amax(1).log()
            )
            loss += (per_pixel * weights[block]).sum()

            # Gradient of the logits: softmax over all segments minus softmax over the positives.
            if any(ctx.needs_input_grad):
                gradient = all_shares.sub_(shares).mul_(weights[block, None])
                torch.mm(gradient, segments, out=to_pixels[block])
                to_segments.addmm_(gradient.T, pixels[block])

        ctx.save_for_backward(to_pixels, to_segments)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        """Scale the saved gradients.

        Args:
            ctx: Context of autograd.
            *upstream: Gradient of the loss.

        Returns:
            Gradients of the pixels and the segments; None for the other arguments.
        """
        to_pixels, to_segments = ctx.saved_tensors
        return upstream[0] * to_pixels, upstream[0] * to_segments, None, None, None, None


def _block_elements(device: torch.device) -> int:
    """Number of similarities per block: fits the cache of a CPU, or keeps a GPU busy."""
    if device.type == "cpu":
        return 2**19
    return 2**24
