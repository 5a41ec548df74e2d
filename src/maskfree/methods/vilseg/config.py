"""Configuration of ViL-Seg; the defaults follow the paper."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import (
    CountOrZero,
    Fraction,
    OutsideName,
    Side,
    Weight,
    Width,
    check,
)
from maskfree.data.config import ViewConfig
from maskfree.method_config import MethodConfig, StudentParts
from maskfree.methods.vilseg.tag_scores_config import TagScoresConfig
from maskfree.methods.vilseg.words_config import WordsConfig
from maskfree.nn.contrastive_config import ContrastiveConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from maskfree.methods.vilseg.model import ViLSeg
    from maskfree.methods.vilseg.objectives import ClusterObjective, VisionObjective
    from maskfree.methods.vilseg.transform import ViLSegTransform
    from maskfree.nn.dual_encoder import ImageProjector
    from maskfree.text.tokenize import Tokenizer


@dataclass(frozen=True)
class VisionConfig:
    """Local-to-global consistency loss L_vision (eq. 2).

    Differs: mode "literal" is eq. 2 as printed, which collapses; the default adds DINO's momentum
    teacher, centering and sharpening.
    """

    weight: Weight = 1.0
    """Weight of L_vision."""
    mode: Literal["literal", "distillation"] = "distillation"
    """Form of the loss: "distillation" as in DINO, or "literal" as eq. 2 is printed."""
    out_dim: Width = 2048
    """Output dimension of the linear head."""
    num_local_views: CountOrZero = 6
    """Number of local crops per photo."""
    local_side_px: Side = 96
    """Side of a local crop, in pixels."""
    teacher_momentum: Fraction = 0.996
    """Initial momentum of the teacher's moving average; rises to 1 on a cosine schedule."""

    def build(self, image: ImageProjector, embed_dim: int) -> VisionObjective:
        """Build the local-to-global objective; a teacher starts as a copy of the image encoder.

        Args:
            image: Image encoder with its projection.
            embed_dim: Dimension of the image embeddings.

        Returns:
            The objective.
        """
        from torch import nn

        from maskfree.methods.vilseg.objectives import DistillationObjective, LiteralVisionObjective

        head = nn.Linear(embed_dim, self.out_dim)
        if self.mode == "literal":
            return LiteralVisionObjective(weight=self.weight, head=head)

        return DistillationObjective(
            weight=self.weight,
            image=image,
            head=head,
            out_dim=self.out_dim,
            teacher_momentum=self.teacher_momentum,
        )


@dataclass(frozen=True)
class ClusterConfig:
    """Online clustering loss L_cluster and its head.

    Source: arXiv:2207.08455, which uses 25 clusters in section 4.1 and 20 in section 4.3.
    """

    weight: Weight = 1.0
    """Weight of L_cluster."""
    num_clusters: Width = 20
    """Number of clusters."""
    standardized: bool = False
    """Feed the head unit-norm pixels with standardized channels. Not in the paper."""

    def build(self, embed_dim: int) -> ClusterObjective:
        """Build the clustering objective and its head.

        Args:
            embed_dim: Dimension of the image embeddings.

        Returns:
            The objective.
        """
        from maskfree.methods.vilseg.objectives import ClusterObjective
        from maskfree.nn.cluster_head import ClusterHead

        head = ClusterHead(
            dim=embed_dim, num_clusters=self.num_clusters, standardized=self.standardized
        )
        return ClusterObjective(weight=self.weight, head=head)


@dataclass(frozen=True)
class ViLSegConfig(MethodConfig):
    """Configuration of the ViL-Seg method; the defaults follow the paper."""

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    """Image encoder."""
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    """Text encoder."""
    tokenizer: OutsideName | None = "openai/clip-vit-base-patch16"
    """Folder or Hugging Face name of the tokenizer; None takes the one of the text weights."""
    embed_dim: Width = 512
    """Dimension of the joint image-text embedding space."""
    image_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    """Projection from image features to the joint space."""
    text_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    """Projection from text features to the joint space."""
    cross: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    """Image-text contrastive loss L_cross."""
    vision: VisionConfig | None = field(default_factory=VisionConfig)
    """Local-to-global consistency loss L_vision; None switches it off."""
    cluster: ClusterConfig | None = field(default_factory=ClusterConfig)
    """Online clustering loss L_cluster; None switches it off."""
    words: WordsConfig | None = None
    """Losses over the nouns of captions and the tags of a classifier; None switches them off."""
    tag_scores: TagScoresConfig | None = None
    """Scores of a classifier and of a concept head, added to the cosines; None switches
    them off.
    """
    views: ViewConfig = field(default_factory=ViewConfig)
    """Size and augmentation of the training views."""
    grouping: Literal["clusters", "kmeans", "pixels"] = "clusters"
    """Regions at inference: clusters of the head, "kmeans" of each photo, or single "pixels"."""
    assignment: Literal["hard", "soft"] = "hard"
    """Assignment of pixels to clusters: "hard" to the most likely one, as in the paper, or "soft"
    to all."""

    def build(self) -> ViLSeg:
        """Build the method; pretrained weights are loaded if the config names them.

        Returns:
            The method.

        Raises:
            ValueError: The grouping needs a clustering head that is switched off, or a view
                does not divide into patches.
        """
        # Imported here, so that reading a config does not import the networks.
        from maskfree.methods.vilseg.build import build_vilseg

        check(self)
        return build_vilseg(self)

    def build_transform(self, tokenizer: Tokenizer | None) -> ViLSegTransform:
        """Build the training transform of this method.

        Args:
            tokenizer: Tokenizer for captions; None if the photos have no captions.

        Returns:
            The transform that turns a photo into training views and collates batches.

        Raises:
            ValueError: The tokenizer's maximum length or vocabulary exceeds what the text
                encoder takes.
        """
        from maskfree.methods.vilseg.transform import PROMPTED_SHARE, ViLSegTransform

        if tokenizer is not None:
            self.text.check(tokenizer.vocabulary_size, tokenizer.max_length)

        # A config without L_vision has no local views.
        vision = self.vision or VisionConfig(num_local_views=0)

        return ViLSegTransform(
            tokenizer=tokenizer,
            side_px=self.views.side_px,
            scale=self.views.scale,
            mirror=self.views.mirror,
            jitter=self.views.jitter,
            num_local_views=vision.num_local_views,
            local_side_px=vision.local_side_px,
            with_augmented=self.cluster is not None,
            kinds=self._kinds() if tokenizer else None,
            prompted=PROMPTED_SHARE if self.words else 0.0,
        )

    def _kinds(self) -> tuple[str, ...] | None:
        """Words in every batch besides the nouns of its captions; None disables words."""
        from maskfree.text.tags import kinds_of

        if self.words:
            return kinds_of(self.words.read())
        return () if self.tag_scores else None

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
        source = self.tokenizer or self.text.weights
        if source is None:
            raise ValueError(
                "no tokenizer: set tokenizer, or weights of the text encoder that come with one"
            )
        return source

    def extras(self) -> tuple[str, ...]:
        """List the optional dependencies of this config.

        Returns:
            The extra that finds nouns in captions if words or tag scores are on.
        """
        return ("entities",) if self.words or self.tag_scores else ()

    def student_parts(self) -> StudentParts:
        """Return what distillation and self-training may take over into a student.

        Returns:
            Both encoders, both projections, and the clustering head if it is standardized.
        """
        head = self.cluster
        return StudentParts(
            num_clusters=head.num_clusters if head and head.standardized else 0,
            text=self.text,
            text_projection=self.text_projection,
            embed_dim=self.embed_dim,
            image=self.image,
            image_projection=self.image_projection,
        )

    def without_pretrained(self) -> ViLSegConfig:
        """Make the config independent of pretrained weights.

        Returns:
            The same architecture with every value spelled out and no external weights.
        """
        image, text = self.image.without_pretrained(), self.text.without_pretrained()
        tag_scores = self.tag_scores
        if tag_scores is not None:
            tag_scores = replace(tag_scores, image=tag_scores.image.without_pretrained())
        return replace(self, image=image, text=text, tokenizer=None, tag_scores=tag_scores)

    def for_inference(self) -> ViLSegConfig:
        """Drop everything that only training uses.

        Returns:
            `without_pretrained` without L_vision and the word losses. The clustering head stays,
            whatever groups pixels: that can be chosen at inference.
        """
        plain = self.without_pretrained()
        tag_scores = plain.tag_scores
        if tag_scores is not None:
            # Without distillation no copy of the classifier is made.
            tag_scores = replace(tag_scores, distillation_weight=0.0)

        return replace(plain, vision=None, words=None, tag_scores=tag_scores)
