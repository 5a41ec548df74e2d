"""How a photo is shown to a network, and how its scores become labels: the settings of `predict.Segmenter`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Refinement = Literal["none", "pamr", "crf"]


@dataclass(frozen=True)
class Inference:
    """How a photo is shown to the network. Windows and their stride are rounded to whole patches."""

    side_px: int = 448  # shorter side after resizing
    max_long_px: int = 2048  # longer side after resizing; the shorter gives way
    max_whole_px: int = 896  # photos whose resized sides both fit are seen whole, others through windows
    window_px: int = 448
    stride_px: int = 224  # step from window to window; overlapping scores are averaged
    batch_size: int = 4  # photos or windows that go through the network together
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: autocast
    smooth: int = 1  # width in patches of the square over which scores are averaged; odd, 1 is none
    presence: float = 0.0  # weight, beside a patch's own score, of how clearly the class wins in the whole photo
    presence_share: float = 0.1  # share of the patches, those where it wins most clearly, that say so
    presence_most: float = 0.1  # margin beyond which a clearer win counts no more
    score: Literal["cosine", "softmax", "product"] = "cosine"  # softmax: over all phrases; product: as GroupViT's
    logit_scale: float = 0.0  # factor on the cosines before a softmax; 0: the model's own
    top_classes: int = 5  # for "product": the classes closest to the window as a whole
    refine: Refinement = "none"  # how scores are brought to pixels; none: bilinearly

    def __post_init__(self) -> None:
        for name in ("side_px", "max_long_px", "max_whole_px", "window_px", "stride_px", "batch_size"):
            if not 1 <= getattr(self, name) <= 16384:
                raise ValueError(f"{name} is {getattr(self, name)}: it lies between 1 and 16384")
        if self.stride_px > self.window_px:
            raise ValueError(f"stride_px {self.stride_px} exceeds window_px {self.window_px}: windows would leave gaps")
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise ValueError(f"smooth is {self.smooth}: it must be odd and positive")
        if self.presence < 0 or self.presence_most < 0 or not 0 < self.presence_share <= 1:
            raise ValueError(
                f"presence {self.presence} and presence_most {self.presence_most} must not be negative, "
                f"presence_share {self.presence_share} in (0, 1]"
            )
        if self.logit_scale < 0 or self.top_classes < 1:
            raise ValueError(f"logit_scale {self.logit_scale} must not be negative, top_classes {self.top_classes} < 1")
        if self.refine not in get_args(Refinement) or (self.refine != "none" and self.score != "cosine"):
            raise ValueError(
                f"refine is {self.refine!r}: {', '.join(get_args(Refinement))}, and none unless on cosines"
            )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the size at which the network sees a photo, before padding."""
        scale = min(self.side_px / min(height, width), self.max_long_px / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))


AUTHORS_INFERENCE = Inference(score="product", max_whole_px=1)
"""As the code of GroupViT and OVSegmentor shows photos: through windows always, however small the photo is."""
