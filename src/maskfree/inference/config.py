"""Inference settings of `segmenter.Segmenter`: resizing, windows, scores and refinement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from maskfree.config.rules import Count, Grouping, Side, Weight, check

Refinement = Literal["none", "pamr", "crf", "regions"]
Voters = Literal["none", "contours", "slic", "felzenszwalb"]

# Bounds the memory of very long photos. At the default shorter side of 448 px, photos up to 4.5
# times as long as wide are not affected.
MAX_LONG_PX = 2048
"""Longest side of the resized photo, in pixels; long photos are scaled down further to fit."""


@dataclass(frozen=True)
class Inference:
    """Inference settings. Windows and their stride are rounded to whole patches."""

    side_px: Side = 448
    """Shorter side of the resized photo, in pixels."""
    max_whole_px: Side = 896
    """Photos whose resized sides are at most this many pixels are processed whole, others by
    sliding windows."""
    window_px: Side = 448
    """Side of a sliding window, in pixels."""
    stride_px: Side = 224
    """Stride of the sliding windows, in pixels; overlapping scores are averaged."""
    batch_size: Side = 4
    """Photos or windows per forward pass."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the forward pass; bfloat16 uses autocast."""
    smooth: Count = 1
    """Side in patches of the square over which scores are averaged; odd, 1 turns smoothing off."""
    class_prior: Weight = 0.0
    """Weight of the image-level class prior, which lowers scores of classes that win nowhere
    clearly; 0 turns it off."""
    class_level: Weight = 0.0
    """Weight of each class's level in the photo, which is taken off its scores, so that a class
    that scores high everywhere does not cover the others; without effect under a threshold. 0 turns
    it off."""
    score: Literal["cosine", "softmax", "product"] = "cosine"
    """How cosines become scores. cosine: as they are; softmax: over all phrases; product: two
    softmaxes, as in GroupViT."""
    synonyms: Literal["max", "mean", "vote"] = "max"
    """How the cosines of a class's synonyms become its score: their max or mean, or a soft vote,
    the mean of their softmax probabilities. Background words are always their max."""
    logit_scale: Weight = 0.0
    """Factor on the cosines before a softmax; 0 takes the model's own."""
    refine: Refinement = "none"
    """How scores are refined at pixel level: pamr, crf or regions follow the photo's edges; none
    enlarges bilinearly."""
    vote: Voters = "none"
    """Regions of the photo that take their most frequent label at the end: contours, slic or
    felzenszwalb; none leaves each pixel its own."""
    grouping: Grouping = "own"
    """What pixels are grouped by before words are compared, where the method has a choice: a
    clustering head ("clusters", each pixel in one, or "soft clusters"), "kmeans" of each photo, or
    nothing ("pixels"); own: as the model was saved."""

    def __post_init__(self) -> None:
        """Check ranges and combinations of the settings."""
        check(self)
        if self.stride_px > self.window_px:
            raise ValueError(
                f"stride_px {self.stride_px} exceeds window_px {self.window_px}: "
                "windows would leave gaps"
            )
        if self.smooth % 2 == 0:
            raise ValueError(f"smooth is {self.smooth}, must be odd")

        if self.refine != "none" and self.score != "cosine":
            raise ValueError(f"refine is {self.refine!r}, must be none unless score is cosine")

        if self.synonyms != "max" and self.score != "cosine":
            raise ValueError(f"synonyms is {self.synonyms!r}, must be max unless score is cosine")

    def changed(self, **settings: Any) -> Inference:
        """Return a copy with some settings replaced.

        Args:
            **settings: New values by field name; None keeps a field as it is.

        Returns:
            The new settings.
        """
        return replace(
            self, **{name: value for name, value in settings.items() if value is not None}
        )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the size at which the network sees a photo, before padding.

        Args:
            height: Height of the photo in pixels.
            width: Width of the photo in pixels.

        Returns:
            Height and width in pixels, at least 1 each.
        """
        scale = min(self.side_px / min(height, width), MAX_LONG_PX / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))


AUTHORS_INFERENCE = Inference(score="product", max_whole_px=1)
"""Settings of the published code of GroupViT and OVSegmentor, which always uses sliding windows."""
