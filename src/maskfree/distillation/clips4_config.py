"""Settings of CLIP-S4 distillation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from maskfree.config.rules import Count, CountOrZero, Side, Width, WidthOrZero, check
from maskfree.engine.config import TrainConfig
from maskfree.recipes.clips4 import clips4_pocket
from maskfree.regions.region_maps import SegmentConfig


@dataclass(frozen=True)
class DistillConfig:
    """Settings of distilling a teacher into a student with CLIP-S4."""

    side_px: Side | None = None
    """Shorter side of the photos for teacher and student, in pixels; None for the teacher's own."""
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    """Segmentation of the photos into regions."""
    top: Count = 32
    """Number of most similar teacher segments that are averaged into the prototype of a class."""
    num_unknown: WidthOrZero = 64
    """Number of unknown classes, clustered from the teacher's segments beside the words."""
    weights: str | None = None
    """Weights of the student's image encoder, a folder or Hugging Face name.

    None for the teacher's own encoder.
    """
    family: Literal["mobilenet_v2", "resnet"] = "mobilenet_v2"
    """Architecture of the encoder in `weights`."""
    width: Width = 256
    """Channels inside the pyramid head, used where the student has another encoder."""
    output_stride: Side = 16
    """Output stride of another encoder than the teacher's: pixels per patch."""
    crop_px: Side = 224
    """Side of the training views in pixels; a multiple of the patch size."""
    grid: Side = 28
    """Number of embeddings along each side of a view that the losses compare."""
    workers: CountOrZero = 2
    """Number of processes that segment photos and load them for training; 0 uses the main one."""
    train: TrainConfig = field(default_factory=lambda: replace(clips4_pocket().train, devices="1"))
    """Optimizer and training loop of the student.

    With an encoder or head of its own the student trains as a whole, the encoder at a tenth of the
    learning rate.
    """

    def check(self) -> None:
        """Check that the values are valid.

        Raises:
            ValueError: A value is out of range.
        """
        self.train.check()
        check(self)
