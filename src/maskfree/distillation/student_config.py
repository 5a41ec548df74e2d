"""Settings that all students share: their encoder, their views and their training."""

from __future__ import annotations

from dataclasses import dataclass

from maskfree.config.rules import CountOrZero, Side, check
from maskfree.engine.config import TrainConfig
from maskfree.nn.encoder_config import ImageFamily


@dataclass(frozen=True)
class StudentRunConfig:
    """Settings of a student's encoder, its photos and its training."""

    train: TrainConfig
    """Optimizer and training loop of the student."""
    side_px: Side | None = None
    """Shorter side of the photos for teacher and student, in pixels; None for the teacher's own."""
    weights: str | None = None
    """Weights of the student's image encoder, a folder or Hugging Face name.

    None for the teacher's own encoder.
    """
    family: ImageFamily = "mobilenet_v2"
    """Architecture of the encoder in `weights`."""
    output_stride: Side = 16
    """Output stride of an encoder from `weights`, or of a teacher's convolutions: pixels
    per patch.
    """
    crop_px: Side = 224
    """Side of the training views in pixels; a multiple of the patch size."""
    workers: CountOrZero = 2
    """Number of processes that prepare photos and load them for training; 0 uses the main one."""

    def check(self) -> None:
        """Check that the values are valid.

        Raises:
            ValueError: A value is out of range.
        """
        self.train.check()
        # Named without "student", as the command line has the options.
        check(self)
