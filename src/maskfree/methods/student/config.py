"""Settings of a student of pseudo labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from maskfree.config.rules import (
    Count,
    Fraction,
    OutsideName,
    Positive,
    PositiveRange,
    Range,
    Side,
    Weight,
    Width,
    check,
)
from maskfree.method_config import MethodConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from maskfree.methods.student.model import Student, StudentTransform

Confidence = Annotated[int, Range(0, 255)]
"""As a byte of a label map says it."""


@dataclass(frozen=True)
class StudentViews:
    """What of a photo the student sees in a step."""

    crop_px: Side = 224
    """Side of the square that is cut out."""
    side_px: Side = 448
    """Shorter side of the photo at zoom 1: what photos have at inference."""
    zoom: PositiveRange = (0.5, 2.0)
    """Least and largest; a photo smaller than the crop is padded, and the padding does not count."""
    mirror: Fraction = 0.5
    """Probability."""
    jitter: tuple[Weight, Weight, Weight, Weight] = (0.2, 0.2, 0.2, 0.05)
    """Of brightness, contrast, saturation and hue."""


@dataclass(frozen=True)
class StudentConfig(MethodConfig):
    """Everything that describes a student."""

    image: ImageEncoderConfig = field(
        default_factory=lambda: ImageEncoderConfig("mobilenet_v2", output_stride=16)
    )
    width: Width = 256
    """Channels inside DeepLab's head."""
    dilations: tuple[Count, ...] = (3, 6, 9)
    """Distances, in patches, at which the head looks around."""
    known: ProjectionConfig | None = None
    """The teacher's projection of pixels, to which the head is added; None: the head is alone."""
    text: TextEncoderConfig = field(default_factory=lambda: TextEncoderConfig(frozen=True))
    """The teacher's."""
    text_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    """The teacher's."""
    embed_dim: Width = 512
    """The teacher's."""
    synonyms: tuple[Width, ...] = ()
    """Number of phrases of each class that is learned."""
    labels: OutsideName | None = None
    """Folder of label maps, as `self_training.pseudo_label` writes them: one for each photo, by its stem."""
    thresholds: tuple[Confidence, ...] = ()
    """Least confidence at which a label counts, for each class."""
    scale: Positive = 20.0
    """Inverse temperature of the softmax over the classes."""
    views: StudentViews = field(default_factory=StudentViews)

    def build(self) -> Student:
        """Make the method; weights are read if the config names them.

        Raises:
            ValueError: the crop does not divide into patches.
        """
        from torch import nn

        from maskfree.methods.student.model import Student
        from maskfree.nn.deeplab import ASPP, ResidualHead
        from maskfree.nn.dual_encoder import ImageProjector, TextProjector

        check(self)
        encoder, text_encoder = self.image.build(), self.text.build()
        if self.views.crop_px % encoder.patch_size:
            raise ValueError(
                f"views.crop_px {self.views.crop_px} does not divide into patches of {encoder.patch_size} px"
            )
        head = ASPP(
            channels=encoder.channels,
            width=self.width,
            dim=self.embed_dim,
            dilations=self.dilations,
        )
        projection: nn.Module = head
        if self.known is not None:
            projection = ResidualHead(
                self.known.build_for_pixels(encoder.channels, self.embed_dim), head
            )
        text = TextProjector(
            text_encoder,
            self.text_projection.build_for_vectors(text_encoder.channels, self.embed_dim),
        )
        return Student(
            image=ImageProjector(encoder, projection),
            text=text,
            synonyms=self.synonyms,
            dim=self.embed_dim,
            scale=self.scale,
        )

    def build_transform(self, tokenizer: Any) -> StudentTransform:
        """Make the views with their labels; the student needs no TOKENIZER for them.

        Raises:
            ValueError: there is no folder of labels, or not a threshold for each class.
        """
        from maskfree.methods.student.model import StudentTransform

        if self.labels is None:
            raise ValueError("the student learns from labels: name their folder in method.labels")
        if len(self.thresholds) != len(self.synonyms):
            raise ValueError(
                f"there are {len(self.thresholds)} thresholds for {len(self.synonyms)} classes"
            )
        return StudentTransform(Path(self.labels), self.thresholds, self.views)

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:
        """See that the text encoder takes a tokenizer's output."""
        self.text.check(vocabulary_size, max_length)

    def tokenizer_source(self) -> str:
        """Folder or Hugging Face name that the tokenizer is read from when training starts."""
        if self.text.weights is None:
            raise ValueError(
                "no tokenizer: start from a checkpoint, or set weights of the text encoder"
            )
        return self.text.weights

    def without_pretrained(self) -> StudentConfig:
        """The same architecture with every value spelled out and no outside weights."""
        return replace(
            self,
            image=self.image.without_pretrained(),
            text=self.text.without_pretrained(),
            labels=None,
        )

    def for_inference(self) -> StudentConfig:
        """`without_pretrained`, without the classes that only training compares with."""
        return replace(self.without_pretrained(), synonyms=(), thresholds=())
