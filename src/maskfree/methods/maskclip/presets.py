"""Published ways to read a CLIP patch by patch, by name: `METHOD_PRESETS`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from maskfree.inference.config import MAX_LONG_PX, Inference
from maskfree.methods.maskclip.config import MaskCLIPConfig, RegionKind
from maskfree.nn.dense_clip_config import CLEARCLIP, PRESETS, PROXY, VALUE_ONLY, LastBlock
from maskfree.nn.encoder_config import ImageEncoderConfig

DINO = ImageEncoderConfig("dino", weights="facebook/dino-vitb8")
"""Proxy of ProxyCLIP's best published setting."""
DINO_16 = ImageEncoderConfig("dino", weights="facebook/dino-vitb16")
"""Proxy of LPOSS."""
STITCHED = replace(CLEARCLIP, stitch_px=224)
"""ClearCLIP's last block over the patches of all windows. Source: arXiv:2604.08110, the abstract.

Differs: tokens of overlapping windows are averaged; neither DINO nor SAM takes part.
"""
# Sliding windows of 336 px, as ProxyCLIP and its successors use.
_WINDOWS_336 = Inference(side_px=336, max_whole_px=1, window_px=336, stride_px=112)


@dataclass(frozen=True)
class MethodPreset:
    """Settings of `MaskCLIPConfig` that make up a published method."""

    last_block: LastBlock
    """Changes to the last transformer block."""
    proxy: ImageEncoderConfig | None = None
    """Encoder whose patches are compared."""
    scope: RegionKind | None = None
    """Regions that a patch attends within."""
    propagation: float = 0.0
    """Part of a patch's scores that comes from others."""
    inference: Inference | None = None
    """Sizes and windows the method was published with; None: those of its last block."""

    def apply(self, config: MaskCLIPConfig) -> MaskCLIPConfig:
        """Copy a config with these settings.

        Args:
            config: Config with the encoders of a CLIP.

        Returns:
            The config of the method.
        """
        image = replace(config.image, last_block=self.last_block)
        return replace(
            config,
            image=image,
            proxy=self.proxy,
            scope=self.scope,
            propagation=self.propagation,
        )


METHOD_PRESETS = {
    **{name: MethodPreset(block) for name, block in PRESETS.items()},
    "proxyclip": MethodPreset(PROXY, DINO, inference=_WINDOWS_336),
    "corrclip": MethodPreset(
        PROXY, DINO, scope="contours", inference=_WINDOWS_336.changed(vote="contours")
    ),
    "lposs": MethodPreset(VALUE_ONLY, DINO_16, propagation=0.95, inference=Inference()),
    # The encoder makes the windows, so the photo comes whole, at the size of other methods.
    "stitched": MethodPreset(STITCHED, inference=Inference(side_px=336, max_whole_px=MAX_LONG_PX)),
}
"""Published methods by name."""


def named_preset(name: str) -> MethodPreset:
    """Look up a published method.

    Args:
        name: Key of `METHOD_PRESETS`.

    Returns:
        Its settings.

    Raises:
        ValueError: The name is unknown.
    """
    if name not in METHOD_PRESETS:
        raise ValueError(f"the last block {name!r} is unknown: {', '.join(METHOD_PRESETS)}")
    return METHOD_PRESETS[name]
