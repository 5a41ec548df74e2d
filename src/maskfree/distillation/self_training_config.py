"""Settings of self-training."""

from __future__ import annotations

from dataclasses import dataclass, field

from maskfree.config.rules import Count, CountOrZero, Fraction, PositiveFraction, Side, Weight
from maskfree.engine.config import TrainConfig
from maskfree.nn.encoder_config import ImageFamily


@dataclass(frozen=True)
class SelfTrainConfig:
    """Settings of self-training a student on pseudo labels."""

    side_px: Side | None = None
    """Shorter side of the photos for teacher and student, in pixels; None for the teacher's own."""
    smooth: Count | None = None
    """Side in patches, odd, of the square over which the teacher's scores are averaged.

    None for the model's own.
    """
    class_prior: Weight | None = None
    """Weight of the teacher's image-level class prior; None for the model's own."""
    keep: PositiveFraction = 0.2
    """Fraction of the pseudo labels to learn from, those with the highest confidence."""
    balance: Fraction = 0.5
    """Class balance of the kept labels.

    1 keeps the same fraction of each class, 0 of all pixels together; values between interpolate
    the thresholds.
    """
    weights: str | None = None
    """Weights of the student's image encoder, a folder or Hugging Face name.

    None for the teacher's own encoder.
    """
    family: ImageFamily = "mobilenet_v2"
    """Architecture of the encoder in `weights`."""
    correct: bool = True
    """Learn a correction of the teacher's scores on top of its own encoder.

    Otherwise the head is trained from scratch.
    """
    output_stride: Side = 16
    """Output stride of the student's encoder: pixels per patch."""
    crop_px: Side = 224
    """Side of the training crops in pixels; a multiple of the output stride."""
    workers: CountOrZero = 1
    """Number of data loading processes; 0 loads in the training process."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=250,
            batch_size=8,
            learning_rate=1e-3,
            weight_decay=1e-3,
            warm_up_steps=20,
            schedule="polynomial",
            lr_multipliers=(("image.encoder", 0.1),),
            # A frozen encoder is not disturbed by a random head, and is several times faster.
            frozen=("image.encoder",),
            frozen_steps=170,
            average_decay=0.98,
            devices="1",
            precision="bf16-mixed",
            save_every=100,
            storage="int8",
        )
    )
    """Optimizer and training loop of the student."""
