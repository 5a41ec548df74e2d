"""ViL-Seg: image-text contrast, local-to-global contrast and an online clustering head (Liu et al., ECCV 2022).

Source: arXiv:2207.08455. Differs: see the method's page in the docs; each difference is a field of the config.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.data.transforms import ViewConfig
from maskfree.grouping.kmeans import kmeans
from maskfree.method import Method, MethodConfig
from maskfree.methods.vilseg_terms import (
    ClusterTerm,
    Distillation,
    LiteralVision,
    VisionTerm,
)
from maskfree.methods.vilseg_views import ViLSegTransform
from maskfree.methods.vilseg_words import WordsConfig, WordsTerm, embed_tags, start_from_tags
from maskfree.nn.cluster_head import ClusterHead
from maskfree.nn.embedders import PixelEmbedder, TextEmbedder
from maskfree.nn.encoders import ImageEncoderConfig
from maskfree.nn.pretrained import read_classifier
from maskfree.nn.projection import DinoHead, NearIdentity, ProjectionConfig
from maskfree.nn.text_encoders import TextEncoderConfig
from maskfree.nn.visual_words import VisualWords
from maskfree.terms import CrossConfig, CrossTerm
from maskfree.text.tags import kinds_of
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Batch, Groups, Losses, Tokens

# Of pixels: how much each belongs to each of the regions, whose embeddings are then their means; sums to 1.
Assign = Callable[[Float[Tensor, "b d hp wp"]], Float[Tensor, "b g hp wp"]]


class ViLSeg(Method):
    """The whole of ViL-Seg; a term that is None is left out."""

    def __init__(
        self,
        *,
        image: PixelEmbedder,
        text: TextEmbedder,
        cross: CrossTerm,
        vision: VisionTerm | None = None,
        cluster: ClusterTerm | None = None,
        words: WordsTerm | None = None,
        assign: Assign | None = None,  # None: every pixel is its own region
    ):
        super().__init__()
        self.image = image
        self.text = text
        self.cross = cross
        self.vision = vision
        self.cluster = cluster
        self.words = words
        self._assign = assign

    def forward(self, batch: Batch) -> Losses:
        """Return the terms `cross` (if the batch has captions), `vision` and `cluster`. Source: eq. 1."""
        pixels = self.image(batch.images)
        overall = pixels.mean((2, 3))
        parts = []
        if batch.captions is not None:
            parts.append(self.cross(F.normalize(overall, dim=-1), self.encode_text(batch.captions), self.gather))
        if self.vision is not None:
            assert batch.local_views is not None, "L_vision needs local views"
            local = self.image(batch.local_views.flatten(0, 1)).mean((2, 3))
            local = local.unflatten(0, batch.local_views.shape[:2])
            parts.append(self.vision(batch.images, overall, local, self.gather))
        if self.cluster is not None:
            assert batch.twins is not None, "L_cluster needs twins"
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.cluster.detach):
                twins = self.image(batch.twins)
            parts.append(self.cluster(pixels, twins, batch.twins_flipped, self.gather))
        if self.words is not None and batch.words is not None and batch.word_weights is not None:
            parts.append(self.words(batch.images, pixels, self.text, batch.words, batch.word_weights))
        terms = {name: term for part in parts for name, term in part.terms.items()}
        if not terms:
            raise ValueError("nothing to learn: the photos have no captions, and L_vision and L_cluster are off")
        return Losses(terms, {name: value for part in parts for name, value in part.health.items()})

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts; unit norm."""
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Group patches by regions; a region's embedding is its mean, as in section 3.3."""
        pixels = self.image(images)
        if self._assign is None:
            return Groups.of_pixels(pixels)
        members = self._assign(pixels).to(pixels.dtype)
        # The direction of a region's sum is that of its mean; an empty region's is zero, and no patch reads it.
        regions = F.normalize(members.flatten(2) @ pixels.flatten(2).mT, dim=-1)  # b g d
        overall = F.normalize(pixels.mean((2, 3)), dim=-1)
        return Groups(regions, members, overall, (pixels.shape[2], pixels.shape[3]))

    @property
    def logit_scale(self) -> float:
        """The learned inverse temperature of L_cross."""
        return self.cross.scale

    @property
    def stride_px(self) -> int:
        """Pixels a patch spans on each side."""
        return self.image.encoder.stride_px

    def begin(self) -> None:
        """Start the teacher of L_vision from the image encoder's weights."""
        if self.vision is not None:
            self.vision.begin(self.image)

    def after_step(self, step: int, steps: int) -> None:
        """Move the teacher and its centre; keep the temperature in its bounds."""
        self.cross.after_step()
        if self.vision is not None:
            self.vision.after_step(self.image, step / steps)


@dataclass(frozen=True)
class VisionConfig:
    """L_vision. Differs: `mode` "literal" is eq. 2 as printed, which collapses; the default adds what DINO has."""

    weight: float = 1.0
    mode: Literal["literal", "distillation"] = "distillation"
    head: Literal["linear", "dino"] = "linear"  # the paper's linear layer, or DINO's MLP
    out_dim: int = 2048
    num_local_views: int = 6
    local_side_px: int = 96
    local_scale: tuple[float, float] = (0.05, 0.4)  # share of the photo's area
    teacher_momentum: float = 0.996  # rises to 1 as a cosine
    teacher_temperature: float = 0.04
    student_temperature: float = 0.1
    centre_momentum: float = 0.9

    def build(self, image: PixelEmbedder, embed_dim: int) -> VisionTerm:
        """Make the term; a teacher starts as a copy of IMAGE."""
        linear = self.head == "linear"
        head = nn.Linear(embed_dim, self.out_dim) if linear else DinoHead(channels=embed_dim, out_dim=self.out_dim)
        if self.mode == "literal":
            return LiteralVision(weight=self.weight, head=head)
        return Distillation(
            weight=self.weight,
            image=image,
            head=head,
            out_dim=self.out_dim,
            temperatures=(self.teacher_temperature, self.student_temperature),
            teacher_momentum=self.teacher_momentum,
            centre_momentum=self.centre_momentum,
        )


@dataclass(frozen=True)
class ClusterConfig:
    """L_cluster and its head. The paper says 25 clusters in section 4.1 and 20 in 4.3."""

    weight: float = 1.0
    num_clusters: int = 20
    detach: bool = True  # no gradient to the encoder, as in the paper
    displacement: int = 0  # also pair patches up to so many apart
    kernel: int = 1  # of the head's convolution; odd
    lamb: float = 1.0  # weight of the entropy of the assignments; 1 is mutual information
    standardised: bool = False  # show the head pixels of unit norm with standardised channels; not in the paper
    sharpness: float = 0.5  # standard deviation of those channels

    def build(self, embed_dim: int) -> ClusterTerm:
        """Make the term and its head.

        Raises:
            ValueError: the kernel is even, so that the map would shrink.
        """
        if self.kernel % 2 == 0:
            raise ValueError(f"cluster.kernel is {self.kernel}: it must be odd")
        return ClusterTerm(
            weight=self.weight,
            head=ClusterHead(
                dim=embed_dim,
                num_clusters=self.num_clusters,
                kernel=self.kernel,
                standardised=self.standardised,
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
    tokenizer: str | None = "openai/clip-vit-base-patch16"  # folder or Hugging Face name; None is the text weights'
    embed_dim: int = 512
    image_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    text_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    cross: CrossConfig = field(default_factory=CrossConfig)
    vision: VisionConfig | None = field(default_factory=VisionConfig)
    cluster: ClusterConfig | None = field(default_factory=ClusterConfig)
    words: WordsConfig | None = None  # words as training text
    views: ViewConfig = field(default_factory=ViewConfig)
    grouping: Literal["clusters", "kmeans", "pixels"] = "clusters"  # regions at inference
    assignment: Literal["hard", "soft"] = "hard"  # of pixels to clusters: to the likeliest, as in the paper, or to all
    kmeans_clusters: int = 20  # of each photo, for the grouping "kmeans"

    def build(self) -> ViLSeg:
        """Make the method; pretrained weights are read if the config names them.

        Raises:
            ValueError: the grouping needs a head that is switched off, or a view does not divide into patches.
        """
        if self.grouping == "clusters" and self.cluster is None:
            raise ValueError("grouping 'clusters' needs the clustering head: set cluster, or choose kmeans or pixels")
        encoder, text_encoder = self.image.build(), self.text.build()
        for side_px in (self.views.side_px, *([self.vision.local_side_px] if self.vision else [])):
            if side_px % encoder.stride_px:
                raise ValueError(f"a view of {side_px} px does not divide into patches of {encoder.stride_px} px")
        image = PixelEmbedder(encoder, self.image_projection.build_for_pixels(encoder.channels, self.embed_dim))
        text = TextEmbedder(text_encoder, self.text_projection.build_for_vectors(text_encoder.channels, self.embed_dim))
        words = self._build_words(image, text) if self.words else None
        cluster = self.cluster.build(self.embed_dim) if self.cluster else None
        assign: Assign | None = None
        if self.grouping == "clusters" and cluster:
            assign = partial(_likeliest if self.assignment == "hard" else _likely, cluster.head)
        elif self.grouping == "kmeans":
            assign = partial(_kmeans, num_clusters=self.kmeans_clusters)
        return ViLSeg(
            image=image,
            text=text,
            cross=self.cross.build(),
            vision=self.vision.build(image, self.embed_dim) if self.vision else None,
            cluster=cluster,
            words=words,
            assign=assign,
        )

    def _build_words(self, image: PixelEmbedder, text: TextEmbedder) -> WordsTerm:
        """Make L_words, and start the projections from the classifier that comes with the image weights.

        Raises:
            ValueError: there is no such classifier, the text encoder learns, or a projection is of another sort.
        """
        assert self.words is not None
        if self.image.weights is None or not self.text.frozen:
            raise ValueError("words need image weights that come with a classifier, and a frozen text encoder")
        if not isinstance(image.projection, VisualWords) or not isinstance(text.projection, NearIdentity):
            raise ValueError("words need an image projection of kind 'words' and a text projection of kind 'near'")
        tags = self.words.read()
        if (number := self.image_projection.num_words) != len(tags):
            raise ValueError(f"image_projection.num_words is {number}: there are {len(tags)} tags in {self.words.tags}")
        classifier = read_classifier(self.image.weights, len(tags))
        names, names_and_kinds = embed_tags(tags, text.encoder, Tokenizer.from_source(self.tokenizer_source()))
        start_from_tags(image.projection, text.projection, classifier, names_and_kinds)
        return self.words.build(image.encoder, classifier, tags, names)

    def build_transform(self, tokenizer: Tokenizer | None) -> ViLSegTransform:
        """Make the views that the terms which are on need; photos without captions need no TOKENIZER.

        Raises:
            ValueError: TOKENIZER gives longer texts or more different tokens than the text encoder takes.
        """
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
            with_twin=self.cluster is not None,
            kinds=kinds_of(self.words.read()) if self.words and tokenizer else None,
            prompt=self.words.prompt if self.words else "{}",
            prompted=self.words.prompted if self.words else 0.0,
        )

    def tokenizer_source(self) -> str:
        """Folder or Hugging Face name that the tokenizer is read from when training starts."""
        source = self.tokenizer or self.text.weights
        if source is None:
            raise ValueError("no tokenizer: set tokenizer, or weights of the text encoder that come with one")
        return source

    def without_pretrained(self) -> ViLSegConfig:
        """The same architecture with every value spelled out and no outside weights."""
        return replace(self, image=self.image.without_pretrained(), text=self.text.without_pretrained(), tokenizer=None)

    def for_inference(self) -> ViLSegConfig:
        """`without_pretrained`, without what only training uses: L_vision, L_words, a head that gives no regions."""
        cluster = self.cluster if self.grouping == "clusters" else None
        return replace(self.without_pretrained(), vision=None, words=None, cluster=cluster)


def _likely(head: nn.Module, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b c hp wp"]:
    return head(pixels)


def _likeliest(head: nn.Module, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b c hp wp"]:
    likely = head(pixels)
    return F.one_hot(likely.argmax(1), likely.shape[1]).movedim(-1, 1).to(likely.dtype)


def _kmeans(pixels: Float[Tensor, "b d hp wp"], num_clusters: int) -> Float[Tensor, "b c hp wp"]:
    labels, _ = kmeans(pixels.flatten(2).mT, num_clusters)
    return F.one_hot(labels, num_clusters).mT.unflatten(2, pixels.shape[-2:]).to(pixels.dtype)
