"""Settings of self-training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import arg

from maskfree.config.rules import Count, Fraction, PositiveFraction, Weight, check
from maskfree.distillation.student_config import StudentRunConfig
from maskfree.engine.config import TrainConfig


def _student() -> StudentRunConfig:
    """A schedule of minutes on a CPU, with the teacher's encoder frozen at first."""
    train = TrainConfig(
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
    return StudentRunConfig(train=train, workers=1)


@dataclass(frozen=True)
class SelfTrainConfig:
    """Settings of self-training a student on pseudo labels."""

    student: Annotated[StudentRunConfig, arg(name="")] = field(default_factory=_student)
    """Encoder, crops and training of the student."""
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
    correct: bool = True
    """Learn a correction of the teacher's scores on top of its own encoder.

    Otherwise the head is trained from scratch.
    """

    def check(self) -> None:
        """Check that the values are valid.

        Raises:
            ValueError: A value is out of range, or the crops are not whole patches.
        """
        self.student.check()
        check(self)

        crop_px, patch_px = self.student.crop_px, self.student.output_stride
        if crop_px % patch_px:
            raise ValueError(f"crop_px {crop_px} is not whole patches of {patch_px} px")
