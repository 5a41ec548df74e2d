"""Settings of distillation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from maskfree.config.rules import Count, CountOrZero, Side, Width, WidthOrZero, check
from maskfree.engine.config import TrainConfig
from maskfree.recipes.clips4 import clips4_pocket
from maskfree.regions.region_maps import SegmentConfig


@dataclass(frozen=True)
class DistillConfig:
    """How a student is made."""

    side_px: Side | None = None
    """Shorter side of the photos as teacher and student see them; None: the teacher's own."""
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    """How photos are cut into regions."""
    top: Count = 32
    """Segments of the teacher, those likest to a class, whose mean is its prototype."""
    num_unknown: WidthOrZero = 64
    """Classes beside the words, which are found among the teacher's segments."""
    weights: str | None = None
    """Folder or Hugging Face name of the student's image encoder; None: the teacher's own encoder."""
    family: Literal["mobilenet_v2", "resnet"] = "mobilenet_v2"
    """Of those weights."""
    width: Width = 256
    """Channels inside the pyramid head that goes on another encoder than the teacher's."""
    output_stride: Side = 16
    """Pixels that a patch of such an encoder spans."""
    crop_px: Side = 224
    """Side of the views that the student learns from; whole patches."""
    grid: Side = 28
    """Embeddings along each side of a view that the losses see."""
    workers: CountOrZero = 2
    """Processes that cut photos, and those that load them for training; 0: all in one process."""
    train: TrainConfig = field(default_factory=lambda: replace(clips4_pocket().train, devices="1"))
    """How the student is trained; with an encoder or a head of its own all of it learns, the encoder at a tenth."""

    def check(self) -> None:
        """Make sure that the values make sense.

        Raises:
            ValueError: one of them does not.
        """
        self.train.check()
        check(self)
