"""Settings of ViL-Seg; the defaults are the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import (
    Count,
    CountOrZero,
    Fraction,
    FractionRange,
    OutsideName,
    Positive,
    Side,
    Weight,
    Width,
    check,
)
from maskfree.data.config import ViewConfig
from maskfree.method_config import MethodConfig
from maskfree.methods.vilseg.votes_config import VotesConfig
from maskfree.nn.contrastive_config import ContrastiveConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from maskfree.methods.vilseg.model import ViLSeg
    from maskfree.methods.vilseg.objectives import ClusterObjective, VisionObjective
    from maskfree.methods.vilseg.transform import ViLSegTransform
    from maskfree.methods.vilseg.words import WordsObjective
    from maskfree.nn.dual_encoder import ImageProjector
    from maskfree.nn.encoders import ImageEncoder
    from maskfree.text.tags import Tag
    from maskfree.text.tokenize import Tokenizer


@dataclass(frozen=True)
class WordsConfig:
    """L_words. Not in the paper; needs a frozen text encoder, and image weights that come with a classifier."""

    tags: str = "imagenet"
    """The classifier's class names: "imagenet" for the 1,000 that come with the package, or a file of their format."""
    nouns_weight: Weight = 0.5
    """Of the captions' nouns."""
    kinds_weight: Weight = 0.25
    """Of the kinds of the tags."""
    tags_weight: Weight = 0.25
    """Of the tags themselves."""
    initial_scale: Positive = 20.0
    """1 / temperature of the choice among words."""
    prior: Weight = 0.5
    """How much of the words' log-frequency is added to the logits in training; 0: none, 1: all."""
    pixels_per_photo: Count = 64
    """Pixels of each photo that are drawn per step."""
    prompted: Fraction = 0.5
    """Share of the batches whose nouns are put into the prompt."""
    prompt: str = "a photo of a {}"
    """The prompt."""

    def read(self) -> tuple[Tag, ...]:
        """Read the tags."""
        from maskfree.text.tags import IMAGENET_TAGS, read_tags

        return read_tags(IMAGENET_TAGS if self.tags == "imagenet" else Path(self.tags))

    def build(
        self,
        encoder: ImageEncoder,
        classifier: nn.Linear,
        tags: Sequence[Tag],
        tag_features: Float[Tensor, "t c"],
    ) -> WordsObjective:
        """Make the term; the tagger is a copy of ENCODER with its CLASSIFIER."""
        import torch

        from maskfree.methods.vilseg.words import Tagger, WordsObjective, as_convolution
        from maskfree.text.tags import kinds_of

        kinds = kinds_of(tags)
        belongs = torch.tensor([[kind in tag.kinds for kind in kinds] for tag in tags]).float()
        return WordsObjective(
            tagger=Tagger(deepcopy(encoder), as_convolution(classifier)),
            tag_features=tag_features,
            kinds=belongs / belongs.sum(1, keepdim=True).clamp_min(1),
            weights=(self.nouns_weight, self.kinds_weight, self.tags_weight),
            initial_scale=self.initial_scale,
            prior=self.prior,
            pixels_per_photo=self.pixels_per_photo,
        )


@dataclass(frozen=True)
class VisionConfig:
    """L_vision. Differs: `mode` "literal" is eq. 2 as printed, which collapses; the default adds what DINO has."""

    weight: Weight = 1.0
    mode: Literal["literal", "distillation"] = "distillation"
    head: Literal["linear", "dino"] = "linear"  # the paper's linear layer, or DINO's MLP
    out_dim: Width = 2048
    num_local_views: CountOrZero = 6
    local_side_px: Side = 96
    local_scale: FractionRange = (0.05, 0.4)  # share of the photo's area
    teacher_momentum: Fraction = 0.996  # rises to 1 as a cosine
    teacher_temperature: Positive = 0.04
    student_temperature: Positive = 0.1
    center_momentum: Fraction = 0.9

    def build(self, image: ImageProjector, embed_dim: int) -> VisionObjective:
        """Make the term; a teacher starts as a copy of IMAGE."""
        from torch import nn

        from maskfree.methods.vilseg.objectives import DistillationObjective, LiteralVisionObjective
        from maskfree.nn.projection import DinoHead

        linear = self.head == "linear"
        head = (
            nn.Linear(embed_dim, self.out_dim)
            if linear
            else DinoHead(channels=embed_dim, out_dim=self.out_dim)
        )
        if self.mode == "literal":
            return LiteralVisionObjective(weight=self.weight, head=head)
        return DistillationObjective(
            weight=self.weight,
            image=image,
            head=head,
            out_dim=self.out_dim,
            temperatures=(self.teacher_temperature, self.student_temperature),
            teacher_momentum=self.teacher_momentum,
            center_momentum=self.center_momentum,
        )


@dataclass(frozen=True)
class ClusterConfig:
    """L_cluster and its head. The paper says 25 clusters in section 4.1 and 20 in 4.3."""

    weight: Weight = 1.0
    num_clusters: Width = 20
    detach: bool = True  # no gradient to the encoder, as in the paper
    displacement: CountOrZero = 0  # also pair patches up to so many apart
    kernel: Side = 1  # of the head's convolution; odd
    lamb: Weight = 1.0  # weight of the entropy of the assignments; 1 is mutual information
    standardized: bool = (
        False  # show the head pixels of unit norm with standardized channels; not in the paper
    )
    sharpness: Positive = 0.5  # standard deviation of those channels

    def build(self, embed_dim: int) -> ClusterObjective:
        """Make the term and its head.

        Raises:
            ValueError: the kernel is even, so that the map would shrink.
        """
        from maskfree.methods.vilseg.objectives import ClusterObjective
        from maskfree.nn.cluster_head import ClusterHead

        if self.kernel % 2 == 0:
            raise ValueError(f"cluster.kernel is {self.kernel}: it must be odd")
        return ClusterObjective(
            weight=self.weight,
            head=ClusterHead(
                dim=embed_dim,
                num_clusters=self.num_clusters,
                kernel=self.kernel,
                standardized=self.standardized,
                sharpness=self.sharpness,
            ),
            detach=self.detach,
            displacement=self.displacement,
            lamb=self.lamb,
        )


@dataclass(frozen=True)
class ViLSegConfig(MethodConfig):
    """Everything that describes a ViL-Seg; the defaults are the paper's."""

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    tokenizer: OutsideName | None = "openai/clip-vit-base-patch16"  # None is the text weights'
    embed_dim: Width = 512
    image_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    text_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    cross: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    vision: VisionConfig | None = field(default_factory=VisionConfig)
    cluster: ClusterConfig | None = field(default_factory=ClusterConfig)
    words: WordsConfig | None = None  # words as training text
    votes: VotesConfig | None = None  # of a classifier and of a head for nouns, beside the cosines
    views: ViewConfig = field(default_factory=ViewConfig)
    grouping: Literal["clusters", "kmeans", "pixels"] = "clusters"  # regions at inference
    assignment: Literal["hard", "soft"] = (
        "hard"  # of pixels to clusters: to the likeliest, as in the paper, or to all
    )
    kmeans_clusters: Width = 20  # of each photo, for the grouping "kmeans"

    def build(self) -> ViLSeg:
        """Make the method; pretrained weights are read if the config names them.

        Raises:
            ValueError: the grouping needs a head that is switched off, or a view does not divide into patches.
        """
        from maskfree.methods.vilseg.model import build_vilseg

        check(self)
        return build_vilseg(self)

    def build_transform(self, tokenizer: Tokenizer | None) -> ViLSegTransform:
        """Make the views that the terms which are on need; photos without captions need no TOKENIZER.

        Raises:
            ValueError: TOKENIZER gives longer texts or more different tokens than the text encoder takes.
        """
        from maskfree.methods.vilseg.transform import ViLSegTransform

        if tokenizer is not None:
            self.text.check(tokenizer.vocabulary_size, tokenizer.max_length)
        vision = self.vision or VisionConfig(num_local_views=0)
        return ViLSegTransform(
            tokenizer=tokenizer,
            side_px=self.views.side_px,
            scale=self.views.scale,
            mirror=self.views.mirror,
            jitter=self.views.jitter,
            num_local_views=vision.num_local_views,
            local_side_px=vision.local_side_px,
            local_scale=vision.local_scale,
            with_augmented=self.cluster is not None,
            kinds=self._kinds() if tokenizer else None,
            prompt=self.words.prompt if self.words else "{}",
            prompted=self.words.prompted if self.words else 0.0,
        )

    def _kinds(self) -> tuple[str, ...] | None:
        """Words that every batch has beside the nouns of its captions; None: no words at all."""
        from maskfree.text.tags import kinds_of

        return kinds_of(self.words.read()) if self.words else () if self.votes else None

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:
        """See that the text encoder takes a tokenizer's output."""
        self.text.check(vocabulary_size, max_length)

    def tokenizer_source(self) -> str:
        """Folder or Hugging Face name that the tokenizer is read from when training starts."""
        source = self.tokenizer or self.text.weights
        if source is None:
            raise ValueError(
                "no tokenizer: set tokenizer, or weights of the text encoder that come with one"
            )
        return source

    def extras(self) -> tuple[str, ...]:
        """L_words and votes find nouns in captions."""
        return ("entities",) if self.words or self.votes else ()

    def without_pretrained(self) -> ViLSegConfig:
        """The same architecture with every value spelled out and no outside weights."""
        votes = (
            replace(self.votes, tower=self.votes.tower.without_pretrained()) if self.votes else None
        )
        image, text = self.image.without_pretrained(), self.text.without_pretrained()
        return replace(self, image=image, text=text, tokenizer=None, votes=votes)

    def for_inference(self) -> ViLSegConfig:
        """`without_pretrained`, without what only training uses: L_vision, L_words, a head that gives no regions."""
        plain = self.without_pretrained()
        votes = replace(plain.votes, keep=0.0) if plain.votes else None
        cluster = self.cluster if self.grouping == "clusters" else None
        return replace(plain, vision=None, words=None, votes=votes, cluster=cluster)
