"""Settings of self-training."""

from __future__ import annotations

from dataclasses import dataclass, field

from maskfree.config.rules import Count, CountOrZero, Fraction, PositiveFraction, Side, Weight
from maskfree.engine.config import TrainConfig


@dataclass(frozen=True)
class SelfTrainConfig:
    """How a student is made."""

    side_px: Side | None = None
    """Shorter side of the photos as teacher and student see them; None: the teacher's own."""
    smooth: Count | None = None
    """Width in patches over which the teacher's scores are averaged; None: the model's own."""
    class_prior: Weight | None = None
    """Weight of how strongly a class shows to the teacher in the whole photo; None: the model's own."""
    keep: PositiveFraction = 0.2
    """Share of the teacher's labels to learn, those with the highest confidence."""
    balance: Fraction = 0.5
    """1: keep that share of each class, 0: of all pixels together; between: thresholds between."""
    weights: str | None = None
    """Folder or Hugging Face name of the student's image encoder; None: the teacher's own."""
    family: str = "mobilenet_v2"
    """Of those weights, for example resnet."""
    correct: bool = True
    """Learn a correction of what the teacher says, with the teacher's own encoder; otherwise the head starts anew."""
    output_stride: Side = 16
    """Pixels a patch of the student spans."""
    crop_px: Side = 224
    """Side of the crops that the student learns from."""
    workers: CountOrZero = 1
    """Data processes; 0 loads in the training process itself."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=250,
            batch_size=8,
            learning_rate=1e-3,
            weight_decay=1e-3,
            warm_up_steps=20,
            schedule="polynomial",
            lr_multipliers=(("image.encoder", 0.1),),
            frozen=("image.encoder",),  # until the head makes sense; several times faster, too
            frozen_steps=170,
            average_decay=0.98,
            devices="1",
            precision="bf16-mixed",
            save_every=100,
            storage="int8",
        )
    )
    """How the student is trained."""
