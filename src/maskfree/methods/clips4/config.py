"""Configuration of CLIP-S4; the defaults follow the paper."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maskfree.config.rules import (
    FractionRange,
    OutsideName,
    Side,
    Weight,
    Width,
    check,
)
from maskfree.method_config import MethodConfig, StudentParts
from maskfree.methods.clips4.objectives_config import (
    PixelSegmentConfig,
    SemanticConsistencyConfig,
)
from maskfree.nn.deeplab_config import CorrectionConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from maskfree.data.cache.prototypes import Prototypes
    from maskfree.methods.clips4.model import CLIPS4
    from maskfree.methods.clips4.transform import PairTransform


@dataclass(frozen=True)
class PairConfig:
    """Two views of a photo with the augmentations of SimCLR.

    Source: arXiv:2002.05709, appendix A.
    """

    side_px: Side = 224
    """Side of a view, in pixels."""
    scale: FractionRange = (0.25, 1.0)
    """Smallest and largest area of a view, as a fraction of the photo."""
    colors: Literal["simclr", "mild", "none"] = "simclr"
    """Color augmentation: jitter, grayscale and blur of "simclr"; a "mild" jitter only;
    or "none".
    """


@dataclass(frozen=True)
class CLIPS4Config(MethodConfig):
    """Configuration of the CLIP-S4 method; the defaults follow the paper."""

    image: ImageEncoderConfig = field(
        default_factory=lambda: ImageEncoderConfig(
            "resnet", weights="microsoft/resnet-50", output_stride=8
        )
    )
    """Image encoder."""
    image_projection: ProjectionConfig = field(
        default_factory=lambda: ProjectionConfig("pyramid", hidden=512)
    )
    """Projection from image features to the teacher's embedding space."""
    correction: CorrectionConfig | None = None
    """DeepLab head added to the projection, zero at the start; None adds none."""
    text: TextEncoderConfig = field(default_factory=lambda: TextEncoderConfig(frozen=True))
    """Text encoder of the teacher; that of the checkpoint a run starts from replaces it."""
    text_projection: ProjectionConfig = field(
        default_factory=lambda: ProjectionConfig("linear", bias=False)
    )
    """Text projection of the teacher; the default is CLIP's. Taken like `text`."""
    embed_dim: Width = 512
    """Dimension of the teacher's embedding space. Taken like `text`."""
    segments: OutsideName | None = None
    """Folder of region maps written by `maskfree prepare segments`; None treats a photo as one
    region."""
    teacher: OutsideName | None = None
    """Folder of teacher feature maps written by `maskfree prepare teacher`."""
    prototypes: OutsideName | None = None
    """File of class prototypes written by `maskfree prepare prototypes`."""
    known: tuple[str, ...] = ()
    """Names of the known classes with synonyms, such as sofa/couch; read from the prototype file if
    one is set."""
    contrast: PixelSegmentConfig | None = field(default_factory=PixelSegmentConfig)
    """Pixel-segment contrastive loss; None switches it off."""
    embedding_weight: Weight | None = 1.0
    """Weight of the embedding consistency loss L_e (eq. 2); None switches it off."""
    semantic: SemanticConsistencyConfig | None = field(default_factory=SemanticConsistencyConfig)
    """Semantic consistency loss; None switches it off."""
    pseudo_label_weight: Weight | None = None
    """Weight of the pixel-label loss of MaskCLIP+, a baseline that replaces all other losses; None
    switches it off."""
    num_segments: Width = 36
    """Number of K-means clusters of each view's pixels, before they are split along region borders.
    """
    grid: Side = 28
    """Side of the grid, in cells, to which embeddings are interpolated for the losses."""
    views: PairConfig = field(default_factory=PairConfig)
    """Size and augmentation of the two training views."""

    def build(self) -> CLIPS4:
        """Build the method; weights and prototypes are loaded if the config names them.

        Returns:
            The method.

        Raises:
            ValueError: The settings do not fit each other.
            FileNotFoundError: The prototype file does not exist.
        """
        # Imported here, so that reading a config does not import the networks.
        from maskfree.methods.clips4.model import CLASS_SCALE, CLIPS4
        from maskfree.methods.clips4.objectives import PseudoLabelObjective
        from maskfree.nn.dual_encoder import ImageProjector, TextProjector

        check(self)
        encoder, text_encoder = self.image.build(), self.text.build()
        # Views are cut into patches without padding.
        if self.views.side_px % encoder.patch_size:
            raise ValueError(
                f"a view of {self.views.side_px} px does not divide "
                f"into patches of {encoder.patch_size} px"
            )

        # The student embeds pixels in the teacher's space.
        projection = self.image_projection.build_for_pixels(encoder.channels, self.embed_dim)
        if self.correction is not None:
            projection = self.correction.build(projection, encoder.channels, self.embed_dim)

        image = ImageProjector(encoder, projection)
        text = TextProjector(
            text_encoder,
            self.text_projection.build_for_vectors(text_encoder.channels, self.embed_dim),
        )

        # Only these two losses compare with classes.
        semantic = labels = None
        if self.semantic is not None or self.pseudo_label_weight is not None:
            found = self._prototypes()
            if self.semantic is not None:
                semantic = self.semantic.build(found, CLASS_SCALE)
            if self.pseudo_label_weight is not None:
                labels = PseudoLabelObjective(
                    weight=self.pseudo_label_weight,
                    scale=CLASS_SCALE,
                    phrases=found.phrases,
                    synonyms=found.synonyms,
                )

        return CLIPS4(
            image=image,
            text=text,
            contrast=self.contrast.build(self.embed_dim) if self.contrast else None,
            embedding_weight=self.embedding_weight or 0.0,
            semantic=semantic,
            labels=labels,
            num_segments=self.num_segments,
        )

    def build_transform(self, tokenizer: Any) -> PairTransform:
        """Build the training transform, which creates two views of a photo.

        Args:
            tokenizer: Unused; the views need no captions.

        Returns:
            The transform.

        Raises:
            ValueError: A loss needs a teacher, and none is set.
        """
        from maskfree.methods.clips4.transform import PairTransform

        follows_teacher = self.embedding_weight or self.semantic or self.pseudo_label_weight
        if self.teacher is None and follows_teacher:
            raise ValueError(
                "the student follows a teacher: name the folder of its maps in method.teacher"
            )

        return PairTransform(
            views=self.views,
            grid=self.grid,
            segments=Path(self.segments) if self.segments is not None else None,
            teacher=Path(self.teacher) if self.teacher is not None else None,
        )

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
                "no tokenizer: start from the teacher's checkpoint with --init, or set text.weights"
            )
        return self.text.weights

    def student_parts(self) -> StudentParts:
        """Return what distillation and self-training may take over into a student.

        Returns:
            Both encoders and both projections, with the correction.
        """
        return StudentParts(
            text=self.text,
            text_projection=self.text_projection,
            embed_dim=self.embed_dim,
            image=self.image,
            image_projection=self.image_projection,
            correction=self.correction,
        )

    def taught_by(self, teacher: StudentParts) -> CLIPS4Config:
        """Take over the teacher's text side and embedding space.

        Args:
            teacher: Parts of the teacher.

        Returns:
            The settings with these parts.
        """
        return replace(
            self,
            text=replace(teacher.text, frozen=self.text.frozen),
            text_projection=teacher.text_projection,
            embed_dim=teacher.embed_dim,
        )

    def without_pretrained(self) -> CLIPS4Config:
        """Make the config independent of pretrained weights, folders and files.

        Returns:
            The same architecture with every value spelled out and no external sources.
        """
        # The names stay, since a checkpoint's prototypes have no file.
        known = self._prototypes().names if self.prototypes else self.known
        # External sources are replaced by what was read from them.
        outside = {"segments": None, "teacher": None, "prototypes": None, "known": known}

        return replace(
            self,
            image=self.image.without_pretrained(),
            text=self.text.without_pretrained(),
            **outside,
        )

    def for_inference(self) -> CLIPS4Config:
        """Drop the losses, which only training uses.

        Returns:
            `without_pretrained` without losses.
        """
        return replace(
            self.without_pretrained(),
            contrast=None,
            embedding_weight=None,
            semantic=None,
            pseudo_label_weight=None,
        )

    def _prototypes(self) -> Prototypes:
        """Read the prototypes, or create random ones for a checkpoint to overwrite."""
        import torch
        from torch.nn import functional as F

        from maskfree.data.cache.prototypes import Prototypes

        if self.prototypes is not None:
            found = Prototypes.read(Path(self.prototypes))
            if found.known.shape[1] != self.embed_dim:
                raise ValueError(
                    f"{self.prototypes} has {found.known.shape[1]} dimensions, "
                    f"embed_dim is {self.embed_dim}"
                )
            return found

        if not self.known:
            raise ValueError("known classes have prototypes: name their file in method.prototypes")

        # One embedding per phrase, per known class and per unknown class.
        unknown = self.semantic.num_unknown if self.semantic else 0
        counts = (sum(len(name.split("/")) for name in self.known), len(self.known), unknown)

        return Prototypes(
            self.known, *(F.normalize(torch.randn(n, self.embed_dim), dim=1) for n in counts)
        )
