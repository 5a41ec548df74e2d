"""Configuration of the student model for self-training on pseudo labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from maskfree.config.rules import (
    CountOrZero,
    Fraction,
    OutsideName,
    PositiveRange,
    Range,
    Side,
    Weight,
    Width,
    check,
)
from maskfree.method_config import MethodConfig, StudentParts
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from maskfree.methods.student.model import Student
    from maskfree.methods.student.transform import StudentTransform

# Dilations of the head's atrous convolutions, in patches: half of DeepLab's at half its stride.
_DILATIONS = (3, 6, 9)
Confidence = Annotated[int, Range(0, 255)]
"""Confidence of a label, as the label map stores it in one byte."""


@dataclass(frozen=True)
class StudentViews:
    """Size and augmentation of the student's training crops."""

    crop_px: Side = 224
    """Side of the square training crop, in pixels."""
    side_px: Side = 448
    """Shorter side of the photo at zoom 1, in pixels; equal to the size at inference."""
    zoom: PositiveRange = (0.5, 2.0)
    """Smallest and largest zoom; photos smaller than the crop are padded, and padding has no loss.
    """
    mirror: Fraction = 0.5
    """Probability of a horizontal flip."""
    jitter: tuple[Weight, Weight, Weight, Weight] = (0.2, 0.2, 0.2, 0.05)
    """Strength of brightness, contrast, saturation and hue jitter."""


@dataclass(frozen=True)
class StudentConfig(MethodConfig):
    """Configuration of the student model and its training on pseudo labels."""

    image: ImageEncoderConfig = field(
        default_factory=lambda: ImageEncoderConfig("mobilenet_v2", output_stride=16)
    )
    """Image encoder."""
    width: Width = 256
    """Number of channels inside the DeepLab head."""
    known: ProjectionConfig | None = None
    """Image projection of the teacher, to which the head is added as a residual; None uses the head
    alone."""
    text: TextEncoderConfig = field(default_factory=lambda: TextEncoderConfig(frozen=True))
    """Text encoder of the teacher."""
    text_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    """Text projection of the teacher."""
    embed_dim: Width = 512
    """Dimension of the teacher's joint embedding space."""
    num_clusters: CountOrZero = 0
    """Clusters of the teacher's standardized online head, which the student keeps for `grouping`
    "clusters"; 0: it has none."""
    synonyms: tuple[Width, ...] = ()
    """Number of phrases (synonyms) of each trained class."""
    labels: OutsideName | None = None
    """Folder of label maps written by `pseudo_labels.pseudo_label`, one per photo, named by its
    stem."""
    thresholds: tuple[Confidence, ...] = ()
    """Minimum confidence of a label to count, for each class, from 0 to 255."""
    views: StudentViews = field(default_factory=StudentViews)
    """Size and augmentation of the training crops."""

    def build(self) -> Student:
        """Build the method; weights are loaded if the config names them.

        Returns:
            The method.

        Raises:
            ValueError: The crop does not divide into patches.
        """
        # Imported here, so that reading a config does not import the networks.
        from torch import nn

        from maskfree.methods.student.model import Student
        from maskfree.nn.cluster_head import ClusterHead
        from maskfree.nn.deeplab import ASPP, ResidualHead
        from maskfree.nn.dual_encoder import ImageProjector, TextProjector

        check(self)
        encoder, text_encoder = self.image.build(), self.text.build()
        if self.views.crop_px % encoder.patch_size:
            raise ValueError(
                f"views.crop_px {self.views.crop_px} does not divide "
                f"into patches of {encoder.patch_size} px"
            )

        # The head alone, or as a residual of the teacher's projection.
        head = ASPP(
            channels=encoder.channels,
            width=self.width,
            dim=self.embed_dim,
            dilations=_DILATIONS,
        )
        projection: nn.Module = head
        if self.known is not None:
            projection = ResidualHead(
                self.known.build_for_pixels(encoder.channels, self.embed_dim), head
            )

        # The teacher's text side, whose weights come from its checkpoint.
        text = TextProjector(
            text_encoder,
            self.text_projection.build_for_vectors(text_encoder.channels, self.embed_dim),
        )

        clusters = None
        if self.num_clusters:
            clusters = ClusterHead(
                dim=self.embed_dim, num_clusters=self.num_clusters, standardized=True
            )

        return Student(
            image=ImageProjector(encoder, projection),
            clusters=clusters,
            text=text,
            synonyms=self.synonyms,
            dim=self.embed_dim,
        )

    def build_transform(self, tokenizer: Any) -> StudentTransform:
        """Build the training transform, which reads the label maps.

        Args:
            tokenizer: Unused; the student needs no captions.

        Returns:
            The transform.

        Raises:
            ValueError: No label folder is set, or the number of thresholds is not that of the
                classes.
        """
        from maskfree.methods.student.transform import StudentTransform

        if self.labels is None:
            raise ValueError("the student learns from labels: name their folder in method.labels")
        if len(self.thresholds) != len(self.synonyms):
            raise ValueError(
                f"there are {len(self.thresholds)} thresholds for {len(self.synonyms)} classes"
            )

        return StudentTransform(Path(self.labels), self.thresholds, self.views)

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:
        """Check that the text encoder accepts a tokenizer's output.

        Args:
            vocabulary_size: Number of token ids of the tokenizer.
            max_length: Longest token sequence that the tokenizer returns.

        Raises:
            ValueError: The text encoder has fewer token or position embeddings.
        """
        self.text.check(vocabulary_size, max_length)

    def tokenizer_source(self) -> str:
        """Name the tokenizer to load when training starts.

        Returns:
            Folder or Hugging Face name of the tokenizer.

        Raises:
            ValueError: The config names no tokenizer.
        """
        if self.text.weights is None:
            raise ValueError(
                "no tokenizer: start from a checkpoint, or set weights of the text encoder"
            )
        return self.text.weights

    def student_parts(self) -> StudentParts:
        """Return what distillation and self-training may take over into a student.

        Returns:
            Both encoders and the text projection; the head is no projection.
        """
        return StudentParts(
            text=self.text,
            text_projection=self.text_projection,
            embed_dim=self.embed_dim,
            image=self.image,
        )

    def without_pretrained(self) -> StudentConfig:
        """Make the config independent of pretrained weights.

        Returns:
            The same architecture with every value spelled out and no external weights.
        """
        return replace(
            self,
            image=self.image.without_pretrained(),
            text=self.text.without_pretrained(),
            labels=None,
        )

    def for_inference(self) -> StudentConfig:
        """Drop everything that only training uses.

        Returns:
            `without_pretrained` without the classes of the training labels.
        """
        return replace(self.without_pretrained(), synonyms=(), thresholds=())
