"""Settings of CLIP-S4 distillation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

from tyro.conf import arg

from maskfree.config.rules import Count, WidthOrZero, check
from maskfree.distillation.student_config import StudentRunConfig
from maskfree.recipes.clips4 import clips4_pocket
from maskfree.regions.region_maps import SegmentConfig


def _student() -> StudentRunConfig:
    """The schedule of the bundled student, in one process."""
    return StudentRunConfig(train=replace(clips4_pocket().train, devices="1"))


@dataclass(frozen=True)
class DistillConfig:
    """Settings of distilling a teacher into a student with CLIP-S4."""

    student: Annotated[StudentRunConfig, arg(name="")] = field(default_factory=_student)
    """Encoder, views and training of the student.

    With an encoder or head of its own the student trains as a whole, the encoder at a tenth of the
    learning rate.
    """
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    """Segmentation of the photos into regions."""
    top: Count = 32
    """Number of most similar teacher segments that are averaged into the prototype of a class."""
    num_unknown: WidthOrZero = 64
    """Number of unknown classes, clustered from the teacher's segments beside the words."""

    def check(self) -> None:
        """Check that the values are valid.

        Raises:
            ValueError: A value is out of range.
        """
        self.student.check()
        check(self)
