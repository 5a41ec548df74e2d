"""Abstract base class of method configurations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskfree.nn.deeplab_config import CorrectionConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from maskfree.data.sample import Transform
    from maskfree.method import Method


@dataclass(frozen=True)
class StudentParts:
    """Parts of a method that a student in its embedding space can take, and where they lie.

    The text side is a text encoder with a projection, as in `maskfree.nn.dual_encoder`. The image
    side is a student's only where it has the same form.
    """

    text: TextEncoderConfig
    """Text encoder."""
    text_projection: ProjectionConfig
    """Projection of text features."""
    embed_dim: int
    """Dimension of the joint embedding space."""
    image: ImageEncoderConfig | None = None
    """Image encoder; None where a student cannot have it."""
    image_projection: ProjectionConfig | None = None
    """Projection of image features; None where a student cannot have it."""
    correction: CorrectionConfig | None = None
    """Correction that is added to the image projection already."""
    modality_gap: bool = False
    """Whether text and patch embeddings lie far apart, so that classes need prototypes of segments
    instead of embedded names."""
    num_clusters: int = 0
    """Clusters of a standardized online head over the embeddings; 0: there is none."""
    text_prefix: str = "text.encoder"
    """Prefix of the text encoder's weights."""
    text_projection_prefix: str = "text.projection"
    """Prefix of the text projection's weights."""
    image_prefix: str = "image.encoder"
    """Prefix of the image encoder's weights."""
    image_projection_prefix: str = "image.projection"
    """Prefix of the weights of the image projection with its correction."""
    clusters_prefix: str = "cluster.head"
    """Prefix of the weights of the online head."""


@dataclass(frozen=True)
class MethodConfig(ABC):
    """Configuration of a method; only `build` and `build_transform` read the values."""

    @abstractmethod
    def build(self) -> Method:
        """Build the method, reading pretrained weights if the config names them.

        Returns:
            The method with its initial or pretrained weights.

        Raises:
            ValueError: A value has the wrong type or range, or values do not fit each other; see
                `maskfree.config.rules.check`.
        """

    @abstractmethod
    def build_transform(self, tokenizer: Any) -> Transform:
        """Build the transform that turns a sample into training inputs.

        Args:
            tokenizer: A `maskfree.text.tokenize.Tokenizer`.

        Returns:
            Transform of one sample.
        """

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:  # noqa: B027
        """Check that the text encoder accepts a tokenizer's output; by default it accepts any.

        Args:
            vocabulary_size: One more than the largest token id.
            max_length: Number of tokens at which texts are truncated.

        Raises:
            ValueError: The text encoder has fewer tokens, or accepts only shorter texts.
        """

    @abstractmethod
    def tokenizer_source(self) -> str:
        """Return where the tokenizer is read from when training starts.

        Returns:
            Folder or Hugging Face name.
        """

    def extras(self) -> tuple[str, ...]:
        """Return the package extras that training needs beside `train`; by default none.

        Returns:
            Names of the extras.
        """
        return ()

    def student_parts(self) -> StudentParts | None:
        """Return what distillation and self-training may take over into a student.

        Returns:
            Parts and the places of their weights; by default None: the method cannot teach.
        """
        return None

    def taught_by(self, teacher: StudentParts) -> MethodConfig:
        """Return the settings for a run that starts from a teacher's checkpoint.

        Args:
            teacher: Parts of the teacher.

        Returns:
            Configuration with the architecture of the parts that are the teacher's; by default no
            part is, and nothing changes.
        """
        return self

    @abstractmethod
    def without_pretrained(self) -> MethodConfig:
        """Return the same architecture without external weights, as stored in a checkpoint.

        Returns:
            Configuration with every value explicit.
        """

    @abstractmethod
    def for_inference(self) -> MethodConfig:
        """Return `without_pretrained` without the parts that only training uses.

        Returns:
            Configuration of a method whose tensors are a subset of this method's.
        """
