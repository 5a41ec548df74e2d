"""CLIP-S4: language-guided self-supervised segmentation (He, Jamonnak, Gou, Ren; CVPR 2023).

A student learns pixel embeddings from unlabelled photos: consistent within coherent regions and between views, and,
segment by segment, in agreement with a vision-language model that sees the whole photo. Its texts are the teacher's.

Differs: the teacher's embeddings are read from a folder, since they are the same in every pass; the temperature of the
softmax over target classes, which the paper does not name, is a setting; the head is PSPNet's or any projection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.data.prototype_file import Prototypes
from maskfree.method import Method, MethodConfig
from maskfree.methods.clips4_terms import (
    ContrastTerm,
    PixelLabelsTerm,
    Segments,
    SemanticTerm,
    TargetClasses,
    embedding_term,
)
from maskfree.methods.clips4_views import PairConfig, PairTransform
from maskfree.nn.deeplab import AtrousPyramid, Corrected
from maskfree.nn.embedders import PixelEmbedder, TextEmbedder
from maskfree.nn.encoders import ImageEncoderConfig
from maskfree.nn.projection import ProjectionConfig
from maskfree.nn.text_encoders import TextEncoderConfig
from maskfree.types import Batch, Groups, Losses, Tokens


class CLIPS4(Method):
    """A pixel encoder, the teacher's text side, which does not learn, and the terms that are on."""

    def __init__(
        self,
        *,
        image: PixelEmbedder,
        text: TextEmbedder,
        contrast: ContrastTerm | None,
        embedding_weight: float,
        semantic: SemanticTerm | None,
        labels: PixelLabelsTerm | None,
        clusters: tuple[int, float],
        scale: float,
    ):
        super().__init__()
        self.image = image
        self.text = text.requires_grad_(False)
        self.contrast = contrast
        self.semantic = semantic
        self.labels = labels
        self._embedding_weight, self._scale = embedding_weight, scale
        self._num_segments, self._location = clusters

    def forward(self, batch: Batch) -> Losses:
        """Return the terms `contrast`, `embedding`, `semantic` with `unknown`, and `labels`, as far as they are on."""
        pairs = batch.pairs
        assert pairs is not None, "CLIP-S4 learns from two views of each photo"
        raw = self.image(pairs.images.flatten(0, 1)).float()
        size = pairs.regions.shape[2:]
        pixels = F.normalize(F.interpolate(raw, size, mode="bilinear", align_corners=False), dim=1)
        pixels = self.gather(pixels)
        regions = self.gather(pairs.regions.flatten(0, 1).long())
        teacher = self.gather(pairs.teacher.flatten(0, 1).float()) if pairs.teacher is not None else None
        parts: list[Losses] = []
        if self.contrast or self.semantic or self._embedding_weight:
            segments = Segments.cut(pixels, regions, teacher, self._num_segments, self._location)
            if self.contrast:
                parts.append(self.contrast(segments))
            if self._embedding_weight:
                parts.append(embedding_term(segments, self._embedding_weight))
            if self.semantic:
                assert teacher is not None, "semantic consistency needs a teacher"
                parts.append(self.semantic(segments, teacher))
        if self.labels:
            assert teacher is not None, "pixel labels need a teacher"
            parts.append(self.labels(pixels, teacher))
        return _together(parts)

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts as the teacher does; unit norm."""
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Make each patch a group of its own."""
        return Groups.of_pixels(self.image(images))

    @property
    def logit_scale(self) -> float:
        """Inverse temperature of the softmax over target classes."""
        return self._scale

    @property
    def stride_px(self) -> int:
        """Pixels a patch spans on each side."""
        return self.image.encoder.stride_px


def _together(parts: Iterable[Losses]) -> Losses:
    terms, health = {}, {}
    for part in parts:
        terms |= part.terms
        health |= part.health
    return Losses(terms, health)


@dataclass(frozen=True)
class CorrectionConfig:
    """DeepLab's head beside a projection that is known already: the student starts as its teacher. Not in the paper."""

    width: int = 128
    """Channels inside the head."""
    dilations: tuple[int, ...] = (1, 3, 6)
    """Distances, in patches, at which it looks around."""

    def build(self, known: nn.Module, channels: int, embed_dim: int) -> Corrected:
        """Make the head, with KNOWN in it."""
        pyramid = AtrousPyramid(channels=channels, width=self.width, dim=embed_dim, dilations=self.dilations)
        return Corrected(known, pyramid)


@dataclass(frozen=True)
class ContrastConfig:
    """L_t, eq. 1."""

    weight: float = 1.0
    concentration: float = 10.0
    """Kappa."""
    memory: int = 1152
    """Segments of earlier batches that are negatives, too: two batches of 8 photos with 36 segments in each view."""
    leave_out_own: bool = False
    """A pixel's own segment is no positive, as in SegSort; eq. 1 as printed has it among the positives."""
    thin: int = 1
    """Contrast every so manieth pixel only, on diagonals, which takes less time."""

    def build(self, embed_dim: int) -> ContrastTerm:
        """Make the term with its memory bank.

        Raises:
            ValueError: the memory is negative, or no pixel is left.
        """
        if self.thin < 1 or self.memory < 0:
            raise ValueError(
                f"contrast.thin {self.thin} must be at least 1, contrast.memory {self.memory} not negative"
            )
        return ContrastTerm(
            weight=self.weight,
            concentration=self.concentration,
            memory=self.memory,
            leave_out_own=self.leave_out_own,
            thin=self.thin,
            dim=embed_dim,
        )


@dataclass(frozen=True)
class EmbeddingConfig:
    """L_e, eq. 2."""

    weight: float = 1.0


@dataclass(frozen=True)
class SemanticConfig:
    """L_s, eq. 3, with the unknown classes of eq. 4."""

    weight: float = 1.0
    num_unknown: int = 64
    """Classes beside the known ones, which start from random segments of the teacher (u)."""
    seed: int = 0
    """Of their choice."""
    known: Literal["segments", "names"] = "segments"
    """What stands for a known class: the mean of the teacher's segments that are likest to its name; or the name with
    its synonyms, for a teacher whose texts and pixels lie together."""
    unknown_share: float = 0.5
    """For "names": the share of the teacher's segments that unknown classes have at the start, in (0, 1)."""
    soft: bool = False
    """Learn the teacher's probabilities of all classes, at the same temperature, instead of its best class; not in the
    paper."""
    presence: float = 0.0
    """Weight, beside a segment's cosine, of how clearly the teacher sees the class anywhere in the photo; not in the
    paper. Each class keeps its share of all segments, as in distribution alignment (arXiv:1911.09785): otherwise the
    student unlearns what its photos seldom show."""

    def build(self, found: Prototypes, scale: float) -> SemanticTerm:
        """Make the term; its known classes are FOUND, its unknown ones start from segments of the same file.

        Raises:
            ValueError: there are fewer segments than unknown classes.
        """
        unknown = found.unknown(self.num_unknown, self.seed)
        if self.known == "names":
            classes = TargetClasses(found.phrases, found.synonyms, unknown)
            if self.num_unknown:  # segments are likelier to be near segments than near texts
                classes.share_out(found.pool, self.unknown_share)
        else:
            classes = TargetClasses(found.known, [1] * len(found.known), unknown)
        return SemanticTerm(weight=self.weight, scale=scale, presence=self.presence, soft=self.soft, classes=classes)


@dataclass(frozen=True)
class PixelLabelsConfig:
    """MaskCLIP+'s loss, which takes the place of all others in that baseline."""

    weight: float = 1.0

    def build(self, found: Prototypes, scale: float) -> PixelLabelsTerm:
        """Make the term, whose classes are the names of those FOUND."""
        return PixelLabelsTerm(weight=self.weight, scale=scale, phrases=found.phrases, synonyms=found.synonyms)


@dataclass(frozen=True)
class CLIPS4Config(MethodConfig):
    """Everything that describes a CLIP-S4; the defaults are the paper's."""

    image: ImageEncoderConfig = field(
        default_factory=lambda: ImageEncoderConfig("resnet", weights="microsoft/resnet-50", output_stride=8)
    )
    image_projection: ProjectionConfig = field(default_factory=lambda: ProjectionConfig("pyramid", hidden=512))
    correction: CorrectionConfig | None = None
    """Add to the projection a head that sees a pixel's neighbours and the photo, and that starts as zero."""
    text: TextEncoderConfig = field(default_factory=lambda: TextEncoderConfig(frozen=True))
    """The teacher's."""
    text_projection: ProjectionConfig = field(default_factory=lambda: ProjectionConfig("linear", bias=False))
    """The teacher's; the default is CLIP's."""
    embed_dim: int = 512
    """The teacher's."""
    segments: str | None = None
    """Folder of regions, as `maskfree prepare segments` writes it; None: a photo is one region."""
    teacher: str | None = None
    """Folder of a teacher's maps, as `maskfree prepare teacher` writes it."""
    prototypes: str | None = None
    """File of known classes, as `maskfree prepare prototypes` writes it."""
    known: tuple[str, ...] = ()
    """Names of the known classes with their synonyms (sofa/couch); those of the file, if one is named."""
    contrast: ContrastConfig | None = field(default_factory=ContrastConfig)
    embedding: EmbeddingConfig | None = field(default_factory=EmbeddingConfig)
    semantic: SemanticConfig | None = field(default_factory=SemanticConfig)
    labels: PixelLabelsConfig | None = None
    num_segments: int = 36
    """Clusters of each view's pixels, before they are cut along regions."""
    location: float = 1.0
    """How much a pixel's place counts in these, beside its embedding."""
    temperature: float = 0.05
    """Of the softmax over target classes; the paper prints none."""
    grid: int = 28
    """Embeddings along each side of a view that the losses see, by bilinear interpolation of the patches."""
    views: PairConfig = field(default_factory=PairConfig)

    def build(self) -> CLIPS4:
        """Make the method; weights and prototypes are read if the config names them.

        Raises:
            ValueError: the settings do not fit each other.
            FileNotFoundError: there is no such file of prototypes.
        """
        self._check()
        encoder, text_encoder = self.image.build(), self.text.build()
        if self.views.side_px % encoder.stride_px:
            raise ValueError(
                f"a view of {self.views.side_px} px does not divide into patches of {encoder.stride_px} px"
            )
        projection = self.image_projection.build_for_pixels(encoder.channels, self.embed_dim)
        if self.correction is not None:
            projection = self.correction.build(projection, encoder.channels, self.embed_dim)
        image = PixelEmbedder(encoder, projection)
        text = TextEmbedder(text_encoder, self.text_projection.build_for_vectors(text_encoder.channels, self.embed_dim))
        found = self._prototypes() if self.semantic or self.labels else None
        return CLIPS4(
            image=image,
            text=text,
            contrast=self.contrast.build(self.embed_dim) if self.contrast else None,
            embedding_weight=self.embedding.weight if self.embedding else 0.0,
            semantic=self.semantic.build(found, 1 / self.temperature) if self.semantic and found else None,
            labels=self.labels.build(found, 1 / self.temperature) if self.labels and found else None,
            clusters=(self.num_segments, self.location),
            scale=1 / self.temperature,
        )

    def build_transform(self, tokenizer: Any) -> PairTransform:
        """Make the pairs of views; they need no TOKENIZER.

        Raises:
            ValueError: a term needs a teacher, and none is named.
        """
        if self.teacher is None and (self.embedding or self.semantic or self.labels):
            raise ValueError("the student follows a teacher: name the folder of its maps in method.teacher")
        return PairTransform(
            views=self.views,
            grid=self.grid,
            segments=Path(self.segments) if self.segments is not None else None,
            teacher=Path(self.teacher) if self.teacher is not None else None,
        )

    def tokenizer_source(self) -> str:
        """Folder or Hugging Face name that the tokenizer is read from when training starts."""
        if self.text.weights is None:
            raise ValueError("no tokenizer: start from the teacher's checkpoint with --init, or set text.weights")
        return self.text.weights

    def without_pretrained(self) -> CLIPS4Config:
        """The same architecture with every value spelled out and no outside weights, folders or files."""
        known = self._prototypes().names if self.prototypes else self.known
        outside = {"segments": None, "teacher": None, "prototypes": None, "known": known}
        return replace(self, image=self.image.without_pretrained(), text=self.text.without_pretrained(), **outside)

    def for_inference(self) -> CLIPS4Config:
        """`without_pretrained`, without the terms, which only training uses."""
        return replace(self.without_pretrained(), contrast=None, embedding=None, semantic=None, labels=None)

    def _check(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}: it must be positive")
        if self.num_segments < 1 or self.grid < 1:
            raise ValueError(f"num_segments {self.num_segments} and grid {self.grid} must be at least 1")

    def _prototypes(self) -> Prototypes:
        """Read them, or make up as many as there are known classes: those of a checkpoint come with its weights."""
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
        return Prototypes(self.known, *(F.normalize(torch.randn(n, self.embed_dim), dim=1) for n in counts))
