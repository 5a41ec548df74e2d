"""How a photo is shown to a network, and how its scores become labels: the settings of `predict.Segmenter`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from maskfree.config.rules import Count, PositiveFraction, Side, Weight, check

Refinement = Literal["none", "pamr", "crf"]


@dataclass(frozen=True)
class Inference:
    """How a photo is shown to the network. Windows and their stride are rounded to whole patches."""

    side_px: Side = 448  # shorter side after resizing
    max_long_px: Side = 2048  # longer side after resizing; the shorter gives way
    max_whole_px: Side = (
        896  # photos whose resized sides both fit are seen whole, others through windows
    )
    window_px: Side = 448
    stride_px: Side = 224  # step from window to window; overlapping scores are averaged
    batch_size: Side = 4  # photos or windows that go through the network together
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: autocast
    smooth: Count = (
        1  # width in patches of the square over which scores are averaged; odd, 1 is none
    )
    class_prior: Weight = (
        0.0  # weight, beside a patch's own score, of how clearly the class wins in the whole photo
    )
    class_prior_share: PositiveFraction = (
        0.1  # share of the patches, those where it wins most clearly, that say so
    )
    class_prior_max: Weight = 0.1  # margin beyond which a clearer win counts no more
    score: Literal["cosine", "softmax", "product"] = (
        "cosine"  # softmax: over all phrases; product: as GroupViT's
    )
    logit_scale: Weight = 0.0  # factor on the cosines before a softmax; 0: the model's own
    top_classes: Count = 5  # for "product": the classes closest to the window as a whole
    refine: Refinement = "none"  # how scores are brought to pixels; none: bilinearly

    def __post_init__(self) -> None:
        check(self)
        if self.stride_px > self.window_px:
            raise ValueError(
                f"stride_px {self.stride_px} exceeds window_px {self.window_px}: windows would leave gaps"
            )
        if self.smooth % 2 == 0:
            raise ValueError(f"smooth is {self.smooth}, must be odd")
        if self.refine != "none" and self.score != "cosine":
            raise ValueError(f"refine is {self.refine!r}, must be none unless score is cosine")

    def changed(self, **settings: Any) -> Inference:
        """Return these settings with others in their place; one that is None stays as it is."""
        return replace(
            self, **{name: value for name, value in settings.items() if value is not None}
        )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the size at which the network sees a photo, before padding."""
        scale = min(self.side_px / min(height, width), self.max_long_px / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))


AUTHORS_INFERENCE = Inference(score="product", max_whole_px=1)
"""As the code of GroupViT and OVSegmentor shows photos: through windows always, however small the photo is."""
