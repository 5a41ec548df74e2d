"""ViL-Seg: image-text contrast, local-to-global contrast and an online clustering head (Liu et al., ECCV 2022).

Source: arXiv:2207.08455. Differs: see the method's page in the docs; each difference is a field of the config.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.method import Method
from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.methods.vilseg.objectives import ClusterObjective, VisionObjective
from maskfree.methods.vilseg.votes import Votes
from maskfree.methods.vilseg.words import WordsObjective, embed_tags, start_from_tags
from maskfree.nn.classifier_mixture import ClassifierMixture
from maskfree.nn.contrastive_objective import ContrastiveObjective
from maskfree.nn.dual_encoder import ImageProjector, TextProjector
from maskfree.nn.pretrained import read_classifier
from maskfree.nn.projection import NearIdentity
from maskfree.ops.kmeans import kmeans
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Batch, Groups, Losses, Tokens

# Of pixels: how much each belongs to each of the regions, whose embeddings are then their means; sums to 1.
Assign = Callable[[Float[Tensor, "b d hp wp"]], Float[Tensor, "b g hp wp"]]


class ViLSeg(Method):
    """The whole of ViL-Seg; a term that is None is left out."""

    def __init__(
        self,
        *,
        image: ImageProjector,
        text: TextProjector,
        cross: ContrastiveObjective,
        vision: VisionObjective | None = None,
        cluster: ClusterObjective | None = None,
        words: WordsObjective | None = None,
        votes: Votes | None = None,
        assign: Assign | None = None,  # None: every pixel is its own region
    ):
        super().__init__()
        self.image = image
        self.text = text
        self.cross = cross
        self.vision = vision
        self.cluster = cluster
        self.words = words
        self.votes = votes
        self._assign = assign

    def forward(self, batch: Batch) -> Losses:
        """Return the terms `cross` (if the batch has captions), `vision` and `cluster`. Source: eq. 1."""
        pixels = self.image(batch.images)
        overall = pixels.mean((2, 3))
        parts = []
        if batch.captions is not None:
            parts.append(
                self.cross(
                    F.normalize(overall, dim=-1), self.encode_text(batch.captions), self.gather
                )
            )
        if self.vision is not None:
            assert batch.local_views is not None, "L_vision needs local views"
            local = self.image(batch.local_views.flatten(0, 1)).mean((2, 3))
            local = local.unflatten(0, batch.local_views.shape[:2])
            parts.append(self.vision(batch.images, overall, local, self.gather))
        if self.cluster is not None:
            assert batch.augmented_view is not None, "L_cluster needs augmented_view"
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.cluster.detach):
                augmented_view = self.image(batch.augmented_view)
            parts.append(self.cluster(pixels, augmented_view, batch.augmented_flipped, self.gather))
        if self.words is not None and batch.words is not None and batch.word_weights is not None:
            parts.append(
                self.words(batch.images, pixels, self.text, batch.words, batch.word_weights)
            )
        if self.votes is not None and batch.words is not None and batch.word_weights is not None:
            parts.append(
                self.votes(batch.images, self.text(batch.words).detach(), batch.word_weights)
            )
        terms = {name: term for part in parts for name, term in part.terms.items()}
        if not terms:
            raise ValueError(
                "nothing to learn: the photos have no captions, and L_vision and L_cluster are off"
            )
        return Losses(
            terms, {name: value for part in parts for name, value in part.metrics.items()}
        )

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

    def segment(
        self, images: Float[Tensor, "b 3 h w"], classes: Float[Tensor, "k d"]
    ) -> Float[Tensor, "b k hp wp"]:
        """Cosine of each patch, through its groups, to each class, and the votes for it where there are any."""
        cosines = super().segment(images, classes)
        return (
            cosines
            if self.votes is None
            else cosines + self.votes.scores(images, classes, self.patch_size)
        )

    @property
    def logit_scale(self) -> float:
        """The learned inverse temperature of L_cross."""
        return self.cross.scale

    @property
    def patch_size(self) -> int:
        """Pixels a patch spans on each side."""
        return self.image.encoder.patch_size

    def on_train_start(self) -> None:
        """Start the teachers of L_vision and of the votes from what they follow."""
        if self.vision is not None:
            self.vision.on_train_start(self.image)
        if self.votes is not None:
            self.votes.on_train_start()

    def after_step(self, step: int, steps: int) -> None:
        """Move the teacher and its center; keep the temperature in its bounds."""
        self.cross.after_step()
        if self.vision is not None:
            self.vision.after_step(self.image, step / steps)


def _likely(head: nn.Module, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b c hp wp"]:
    return head(pixels)


def _likeliest(head: nn.Module, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b c hp wp"]:
    likely = head(pixels)
    return F.one_hot(likely.argmax(1), likely.shape[1]).movedim(-1, 1).to(likely.dtype)


def _kmeans(pixels: Float[Tensor, "b d hp wp"], num_clusters: int) -> Float[Tensor, "b c hp wp"]:
    labels, _ = kmeans(pixels.flatten(2).mT, num_clusters)
    return F.one_hot(labels, num_clusters).mT.unflatten(2, pixels.shape[-2:]).to(pixels.dtype)


def build_vilseg(config: ViLSegConfig) -> ViLSeg:
    """Make the method; pretrained weights are read if the config names them.

    Raises:
        ValueError: the grouping needs a head that is switched off, or a view does not divide into patches.
    """
    if config.grouping == "clusters" and config.cluster is None:
        raise ValueError(
            "grouping 'clusters' needs the clustering head: set cluster, or choose kmeans or pixels"
        )
    encoder, text_encoder = config.image.build(), config.text.build()
    for side_px in (
        config.views.side_px,
        *([config.vision.local_side_px] if config.vision else []),
    ):
        if side_px % encoder.patch_size:
            raise ValueError(
                f"a view of {side_px} px does not divide into patches of {encoder.patch_size} px"
            )
    image = ImageProjector(
        encoder, config.image_projection.build_for_pixels(encoder.channels, config.embed_dim)
    )
    text = TextProjector(
        text_encoder,
        config.text_projection.build_for_vectors(text_encoder.channels, config.embed_dim),
    )
    words = _build_words(config, image, text) if config.words else None
    cluster = config.cluster.build(config.embed_dim) if config.cluster else None
    assign: Assign | None = None
    if config.grouping == "clusters" and cluster:
        assign = partial(_likeliest if config.assignment == "hard" else _likely, cluster.head)
    elif config.grouping == "kmeans":
        assign = partial(_kmeans, num_clusters=config.kmeans_clusters)
    return ViLSeg(
        image=image,
        text=text,
        cross=config.cross.build(),
        vision=config.vision.build(image, config.embed_dim) if config.vision else None,
        cluster=cluster,
        words=words,
        votes=config.votes.build(config.embed_dim) if config.votes else None,
        assign=assign,
    )


def _build_words(
    config: ViLSegConfig, image: ImageProjector, text: TextProjector
) -> WordsObjective:
    """Make L_words, and start the projections from the classifier that comes with the image weights.

    Raises:
        ValueError: there is no such classifier, the text encoder learns, or a projection is of another sort.
    """
    assert config.words is not None
    if config.image.weights is None or not config.text.frozen:
        raise ValueError(
            "words need image weights that come with a classifier, and a frozen text encoder"
        )
    if not isinstance(image.projection, ClassifierMixture) or not isinstance(
        text.projection, NearIdentity
    ):
        raise ValueError(
            "words need an image projection of kind 'words' and a text projection of kind 'near'"
        )
    tags = config.words.read()
    if (number := config.image_projection.num_words) != len(tags):
        raise ValueError(
            f"image_projection.num_words is {number}: there are {len(tags)} tags in {config.words.tags}"
        )
    classifier = read_classifier(config.image.weights, len(tags))
    names, names_and_kinds = embed_tags(
        tags, text.encoder, Tokenizer.from_source(config.tokenizer_source())
    )
    start_from_tags(image.projection, text.projection, classifier, names_and_kinds)
    return config.words.build(image.encoder, classifier, tags, names)
