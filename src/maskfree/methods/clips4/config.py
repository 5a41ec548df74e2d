"""Settings of CLIP-S4; the defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maskfree.config.rules import (
    Count,
    CountOrZero,
    Fraction,
    FractionRange,
    OutsideName,
    Positive,
    PositiveRange,
    Side,
    Weight,
    Width,
    WidthOrZero,
    check,
)
from maskfree.method_config import MethodConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from torch import nn

    from maskfree.data.cache.prototypes import Prototypes
    from maskfree.methods.clips4.model import CLIPS4
    from maskfree.methods.clips4.objectives import (
        PixelSegmentObjective,
        PseudoLabelObjective,
        SemanticConsistencyObjective,
    )
    from maskfree.methods.clips4.transform import PairTransform
    from maskfree.nn.deeplab import ResidualHead


@dataclass(frozen=True)
class PairConfig:
    """Two views of a photo and SimCLR's augmentations (arXiv:2002.05709, appendix A)."""

    side_px: Side = 224
    scale: FractionRange = (0.25, 1.0)  # share of the photo's area
    mirror: Fraction = 0.5  # probability, of each view by itself
    jitter: tuple[Weight, Weight, Weight, Weight] = (
        0.4,
        0.4,
        0.4,
        0.1,
    )  # brightness, contrast, saturation, hue
    jitter_probability: Fraction = 0.8  # probability
    grayscale_probability: Fraction = 0.2  # probability
    blur: Fraction = 0.5  # probability
    blur_px: PositiveRange = (0.1, 2.0)  # standard deviation


@dataclass(frozen=True)
class CorrectionConfig:
    """DeepLab's head beside a projection that is known already: the student starts as its teacher. Not in the paper."""

    width: Width = 128
    """Channels inside the head."""
    dilations: tuple[Count, ...] = (1, 3, 6)
    """Distances, in patches, at which it looks around."""

    def build(self, known: nn.Module, channels: int, embed_dim: int) -> ResidualHead:
        """Make the head, with KNOWN in it."""
        from maskfree.nn.deeplab import ASPP, ResidualHead

        pyramid = ASPP(channels=channels, width=self.width, dim=embed_dim, dilations=self.dilations)
        return ResidualHead(known, pyramid)


@dataclass(frozen=True)
class PixelSegmentConfig:
    """L_t, eq. 1."""

    weight: Weight = 1.0
    concentration: Positive = 10.0
    """Kappa."""
    memory: CountOrZero = 1152
    """Segments of earlier batches that are negatives, too: two batches of 8 photos with 36 segments in each view."""
    leave_out_own: bool = False
    """A pixel's own segment is no positive, as in SegSort; eq. 1 as printed has it among the positives."""
    thin: Count = 1
    """Contrast every so manieth pixel only, on diagonals, which takes less time."""

    def build(self, embed_dim: int) -> PixelSegmentObjective:
        """Make the term with its memory bank.

        Raises:
            ValueError: the memory is negative, or no pixel is left.
        """
        from maskfree.methods.clips4.objectives import PixelSegmentObjective

        return PixelSegmentObjective(
            weight=self.weight,
            concentration=self.concentration,
            memory=self.memory,
            leave_out_own=self.leave_out_own,
            thin=self.thin,
            dim=embed_dim,
        )


@dataclass(frozen=True)
class EmbeddingConsistencyConfig:
    """L_e, eq. 2."""

    weight: Weight = 1.0


@dataclass(frozen=True)
class SemanticConsistencyConfig:
    """L_s, eq. 3, with the unknown classes of eq. 4."""

    weight: Weight = 1.0
    num_unknown: WidthOrZero = 64
    """Classes beside the known ones, which start from random segments of the teacher (u)."""
    seed: int = 0
    """Of their choice."""
    known: Literal["segments", "names"] = "segments"
    """What stands for a known class: the mean of the teacher's segments that are likest to its name; or the name with
    its synonyms, for a teacher whose texts and pixels lie together."""
    unknown_share: Fraction = 0.5
    """For "names": the share of the teacher's segments that unknown classes have at the start, in (0, 1)."""
    soft: bool = False
    """Learn the teacher's probabilities of all classes, at the same temperature, instead of its best class; not in the
    paper."""
    class_prior: Weight = 0.0
    """Weight, beside a segment's cosine, of how clearly the teacher sees the class anywhere in the photo; not in the
    paper. Each class keeps its share of all segments, as in distribution alignment (arXiv:1911.09785): otherwise the
    student unlearns what its photos seldom show."""

    def build(self, found: Prototypes, scale: float) -> SemanticConsistencyObjective:
        """Make the term; its known classes are FOUND, its unknown ones start from segments of the same file.

        Raises:
            ValueError: there are fewer segments than unknown classes.
        """
        from maskfree.methods.clips4.objectives import (
            PrototypeClassifier,
            SemanticConsistencyObjective,
        )

        unknown = found.unknown(self.num_unknown, self.seed)
        if self.known == "names":
            classes = PrototypeClassifier(found.phrases, found.synonyms, unknown)
            if self.num_unknown:  # segments are likelier to be near segments than near texts
                classes.share_out(found.pool, self.unknown_share)
        else:
            classes = PrototypeClassifier(found.known, [1] * len(found.known), unknown)
        return SemanticConsistencyObjective(
            weight=self.weight,
            scale=scale,
            class_prior=self.class_prior,
            soft=self.soft,
            classes=classes,
        )


@dataclass(frozen=True)
class PseudoLabelConfig:
    """MaskCLIP+'s loss, which takes the place of all others in that baseline."""

    weight: Weight = 1.0

    def build(self, found: Prototypes, scale: float) -> PseudoLabelObjective:
        """Make the term, whose classes are the names of those FOUND."""
        from maskfree.methods.clips4.objectives import PseudoLabelObjective

        return PseudoLabelObjective(
            weight=self.weight, scale=scale, phrases=found.phrases, synonyms=found.synonyms
        )


@dataclass(frozen=True)
class CLIPS4Config(MethodConfig):
    """Everything that describes a CLIP-S4; the defaults are the paper's."""

    image: ImageEncoderConfig = field(
        default_factory=lambda: ImageEncoderConfig(
            "resnet", weights="microsoft/resnet-50", output_stride=8
        )
    )
    image_projection: ProjectionConfig = field(
        default_factory=lambda: ProjectionConfig("pyramid", hidden=512)
    )
    correction: CorrectionConfig | None = None
    """Add to the projection a head that sees a pixel's neighbours and the photo, and that starts as zero."""
    text: TextEncoderConfig = field(default_factory=lambda: TextEncoderConfig(frozen=True))
    """The teacher's."""
    text_projection: ProjectionConfig = field(
        default_factory=lambda: ProjectionConfig("linear", bias=False)
    )
    """The teacher's; the default is CLIP's."""
    embed_dim: Width = 512
    """The teacher's."""
    segments: OutsideName | None = None
    """Folder of regions, as `maskfree prepare segments` writes it; None: a photo is one region."""
    teacher: OutsideName | None = None
    """Folder of a teacher's maps, as `maskfree prepare teacher` writes it."""
    prototypes: OutsideName | None = None
    """File of known classes, as `maskfree prepare prototypes` writes it."""
    known: tuple[str, ...] = ()
    """Names of the known classes with their synonyms (sofa/couch); those of the file, if one is named."""
    contrast: PixelSegmentConfig | None = field(default_factory=PixelSegmentConfig)
    embedding: EmbeddingConsistencyConfig | None = field(default_factory=EmbeddingConsistencyConfig)
    semantic: SemanticConsistencyConfig | None = field(default_factory=SemanticConsistencyConfig)
    labels: PseudoLabelConfig | None = None
    num_segments: Width = 36
    """Clusters of each view's pixels, before they are cut along regions."""
    location: Weight = 1.0
    """How much a pixel's place counts in these, beside its embedding."""
    temperature: Positive = 0.05
    """Of the softmax over target classes; the paper prints none."""
    grid: Side = 28
    """Embeddings along each side of a view that the losses see, by bilinear interpolation of the patches."""
    views: PairConfig = field(default_factory=PairConfig)

    def build(self) -> CLIPS4:
        """Make the method; weights and prototypes are read if the config names them.

        Raises:
            ValueError: the settings do not fit each other.
            FileNotFoundError: there is no such file of prototypes.
        """
        from maskfree.methods.clips4.model import CLIPS4
        from maskfree.nn.dual_encoder import ImageProjector, TextProjector

        check(self)
        encoder, text_encoder = self.image.build(), self.text.build()
        if self.views.side_px % encoder.patch_size:
            raise ValueError(
                f"a view of {self.views.side_px} px does not divide into patches of {encoder.patch_size} px"
            )
        projection = self.image_projection.build_for_pixels(encoder.channels, self.embed_dim)
        if self.correction is not None:
            projection = self.correction.build(projection, encoder.channels, self.embed_dim)
        image = ImageProjector(encoder, projection)
        text = TextProjector(
            text_encoder,
            self.text_projection.build_for_vectors(text_encoder.channels, self.embed_dim),
        )
        found = self._prototypes() if self.semantic or self.labels else None
        return CLIPS4(
            image=image,
            text=text,
            contrast=self.contrast.build(self.embed_dim) if self.contrast else None,
            embedding_weight=self.embedding.weight if self.embedding else 0.0,
            semantic=self.semantic.build(found, 1 / self.temperature)
            if self.semantic and found
            else None,
            labels=self.labels.build(found, 1 / self.temperature)
            if self.labels and found
            else None,
            clusters=(self.num_segments, self.location),
            scale=1 / self.temperature,
        )

    def build_transform(self, tokenizer: Any) -> PairTransform:
        """Make the pairs of views; they need no TOKENIZER.

        Raises:
            ValueError: a term needs a teacher, and none is named.
        """
        from maskfree.methods.clips4.transform import PairTransform

        if self.teacher is None and (self.embedding or self.semantic or self.labels):
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
        """See that the text encoder takes a tokenizer's output."""
        self.text.check(vocabulary_size, max_length)

    def tokenizer_source(self) -> str:
        """Folder or Hugging Face name that the tokenizer is read from when training starts."""
        if self.text.weights is None:
            raise ValueError(
                "no tokenizer: start from the teacher's checkpoint with --init, or set text.weights"
            )
        return self.text.weights

    def without_pretrained(self) -> CLIPS4Config:
        """The same architecture with every value spelled out and no outside weights, folders or files."""
        known = self._prototypes().names if self.prototypes else self.known
        outside = {"segments": None, "teacher": None, "prototypes": None, "known": known}
        return replace(
            self,
            image=self.image.without_pretrained(),
            text=self.text.without_pretrained(),
            **outside,
        )

    def for_inference(self) -> CLIPS4Config:
        """`without_pretrained`, without the terms, which only training uses."""
        return replace(
            self.without_pretrained(), contrast=None, embedding=None, semantic=None, labels=None
        )

    def _prototypes(self) -> Prototypes:
        """Read them, or make up as many as there are known classes: those of a checkpoint come with its weights."""
        import torch
        from torch.nn import functional as F

        from maskfree.data.cache.prototypes import Prototypes

        if self.prototypes is not None:
            found = Prototypes.read(Path(self.prototypes))
            if found.known.shape[1] != self.embed_dim:
                raise ValueError(
                    f"{self.prototypes} has {found.known.shape[1]} dimensions, embed_dim is {self.embed_dim}"
                )
            return found
        if not self.known:
            raise ValueError("known classes have prototypes: name their file in method.prototypes")
        unknown = self.semantic.num_unknown if self.semantic else 0
        counts = (sum(len(name.split("/")) for name in self.known), len(self.known), unknown)
        return Prototypes(
            self.known, *(F.normalize(torch.randn(n, self.embed_dim), dim=1) for n in counts)
        )
