"""ViL-Seg: image-text contrast, local-to-global consistency, online clustering (Liu et al. 2022).

Source: arXiv:2207.08455 (ECCV 2022).

Differs: see the method's page in the docs; each difference is a field of the config.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.method import Method
from maskfree.methods.vilseg.batch import ViLSegBatch
from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.methods.vilseg.objectives import ClusterObjective, VisionObjective
from maskfree.methods.vilseg.tag_scores import TagScores
from maskfree.methods.vilseg.words import WordsObjective, embed_tags, start_from_tags
from maskfree.nn.classifier_mixture import ClassifierMixture
from maskfree.nn.contrastive_objective import ContrastiveObjective
from maskfree.nn.dual_encoder import ImageProjector, TextProjector
from maskfree.nn.pretrained import read_classifier
from maskfree.nn.projection import NearIdentity
from maskfree.ops.kmeans import kmeans
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Groups, Losses, Tokens

# Clusters per photo of the grouping "kmeans": as many as the clustering head has by default.
_KMEANS_CLUSTERS = 20

# Soft or hard assignment of each pixel to regions; sums to 1 over the regions of a pixel.
Assign = Callable[[Float[Tensor, "b d hp wp"]], Float[Tensor, "b g hp wp"]]


class ViLSeg(Method):
    """The ViL-Seg model with its training objectives; an objective that is None is off."""

    def __init__(
        self,
        *,
        image: ImageProjector,
        text: TextProjector,
        cross: ContrastiveObjective,
        vision: VisionObjective | None = None,
        cluster: ClusterObjective | None = None,
        words: WordsObjective | None = None,
        tag_scores: TagScores | None = None,
        # None makes every pixel its own region.
        assign: Assign | None = None,
    ):
        super().__init__()
        self.image = image
        self.text = text
        self.cross = cross
        self.vision = vision
        self.cluster = cluster
        self.words = words
        self.tag_scores = tag_scores
        self._assign = assign

    def forward(self, batch: ViLSegBatch) -> Losses:
        """Compute the training losses of a batch.

        Args:
            batch: Images, with captions, local views and augmented views as far as the
                objectives need them.

        Returns:
            The terms `cross` (if the batch has captions), `vision`, `cluster` and those of words
            and tag scores, with metrics.

        Raises:
            ValueError: No objective applies to this batch.

        Source: eq. 1.
        """
        pixels = self.image(batch.images)
        overall = pixels.mean((2, 3))

        parts = []

        # Image-text contrast of the whole photo and its caption.
        if batch.captions is not None:
            parts.append(
                self.cross(
                    F.normalize(overall, dim=-1), self.encode_text(batch.captions), self.gather
                )
            )

        # Local-to-global consistency; all local views pass the encoder as one batch.
        if self.vision is not None:
            assert batch.local_views is not None, "L_vision needs local views"
            local = self.image(batch.local_views.flatten(0, 1)).mean((2, 3))
            local = local.unflatten(0, batch.local_views.shape[:2])
            parts.append(self.vision(batch.images, overall, local, self.gather))

        # Online clustering; its gradient stops at the embeddings, so no graph is needed.
        if self.cluster is not None:
            assert batch.augmented_view is not None, "L_cluster needs augmented_view"
            with torch.no_grad():
                augmented_view = self.image(batch.augmented_view)
            parts.append(self.cluster(pixels, augmented_view, batch.augmented_flipped, self.gather))

        # Objectives over the nouns of captions; the tag scores do not train the text projection.
        if self.words is not None and batch.words is not None and batch.word_weights is not None:
            parts.append(
                self.words(batch.images, pixels, self.text, batch.words, batch.word_weights)
            )

        if (
            self.tag_scores is not None
            and batch.words is not None
            and batch.word_weights is not None
        ):
            parts.append(
                self.tag_scores(batch.images, self.text(batch.words).detach(), batch.word_weights)
            )

        losses = Losses.merged(parts)
        if not losses.terms:
            raise ValueError(
                "nothing to learn: the photos have no captions, and L_vision and L_cluster are off"
            )

        return losses

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts in the space of the image embeddings.

        Args:
            tokens: Tokenized texts with their padding mask.

        Returns:
            One unit-norm embedding per text.
        """
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Group patches into regions and average their embeddings.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.

        Returns:
            Regions with unit-norm embeddings and the assignment of patches to them.

        Source: section 3.3.
        """
        pixels = self.image(images)
        if self._assign is None:
            return Groups.of_pixels(pixels)

        members = self._assign(pixels).to(pixels.dtype)
        # A region's sum has the direction of its mean. An empty region is zero; no patch reads it.
        regions = F.normalize(members.flatten(2) @ pixels.flatten(2).mT, dim=-1)  # b g d

        overall = F.normalize(pixels.mean((2, 3)), dim=-1)

        return Groups(regions, members, overall, (pixels.shape[2], pixels.shape[3]))

    def segment(
        self, images: Float[Tensor, "b 3 h w"], classes: Float[Tensor, "k d"]
    ) -> Float[Tensor, "b k hp wp"]:
        """Score each patch for each class.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.
            classes: Unit-norm text embeddings of the classes.

        Returns:
            Cosine of the patch's region and the class, plus the tag scores if they are on.
        """
        cosines = super().segment(images, classes)
        if self.tag_scores is None:
            return cosines
        return cosines + self.tag_scores.scores(images, classes, self.patch_size)

    @property
    def logit_scale(self) -> float:
        """Learned inverse temperature of the image-text contrastive loss.

        Returns:
            The factor that multiplies cosines before a softmax.
        """
        return self.cross.scale

    @property
    def patch_size(self) -> int:
        """Side of one patch of the label map.

        Returns:
            Side in pixels.
        """
        return self.image.encoder.patch_size

    def on_train_start(self) -> None:
        """Initialize the teachers of L_vision and of the tag scores from the current weights."""
        if self.vision is not None:
            self.vision.on_train_start(self.image)
        if self.tag_scores is not None:
            self.tag_scores.on_train_start()

    def after_step(self, step: int, steps: int) -> None:
        """Update the teacher and its center, and clamp the temperature.

        Args:
            step: Number of the finished step, from 0.
            steps: Total number of training steps.
        """
        self.cross.after_step()
        if self.vision is not None:
            self.vision.after_step(self.image, step / steps)


def _likely(head: nn.Module, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b c hp wp"]:
    """Soft cluster assignment of the head."""
    return head(pixels)


def _likeliest(head: nn.Module, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b c hp wp"]:
    """One-hot assignment to the most likely cluster of the head."""
    likely = head(pixels)
    return F.one_hot(likely.argmax(1), likely.shape[1]).movedim(-1, 1).to(likely.dtype)


def _kmeans(pixels: Float[Tensor, "b d hp wp"], num_clusters: int) -> Float[Tensor, "b c hp wp"]:
    """One-hot assignment to the K-means clusters of each photo."""
    labels, _ = kmeans(pixels.flatten(2).mT, num_clusters)
    return F.one_hot(labels, num_clusters).mT.unflatten(2, pixels.shape[-2:]).to(pixels.dtype)


def build_vilseg(config: ViLSegConfig) -> ViLSeg:
    """Build ViL-Seg from its config; pretrained weights are loaded if the config names them.

    Args:
        config: A checked config.

    Returns:
        The method.

    Raises:
        ValueError: The grouping needs a clustering head that is switched off, or a view does
            not divide into patches.
    """
    if config.grouping == "clusters" and config.cluster is None:
        raise ValueError(
            "grouping 'clusters' needs the clustering head: set cluster, or choose kmeans or pixels"
        )

    encoder, text_encoder = config.image.build(), config.text.build()

    # Views are cut into patches without padding, so their sides must divide.
    sides_px = [config.views.side_px]
    if config.vision is not None:
        sides_px.append(config.vision.local_side_px)
    for side_px in sides_px:
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

    # The word objective reads the projections' weights, so it comes after them.
    words = _build_words(config, image, text) if config.words else None
    cluster = config.cluster.build(config.embed_dim) if config.cluster else None

    # How pixels are grouped at inference; no assignment keeps single pixels.
    assign: Assign | None = None
    if config.grouping == "clusters" and cluster:
        likely = _likeliest if config.assignment == "hard" else _likely
        assign = partial(likely, cluster.head)
    elif config.grouping == "kmeans":
        assign = partial(_kmeans, num_clusters=_KMEANS_CLUSTERS)

    return ViLSeg(
        image=image,
        text=text,
        cross=config.cross.build(),
        vision=config.vision.build(image, config.embed_dim) if config.vision else None,
        cluster=cluster,
        words=words,
        tag_scores=config.tag_scores.build(config.embed_dim) if config.tag_scores else None,
        assign=assign,
    )


def _build_words(
    config: ViLSegConfig, image: ImageProjector, text: TextProjector
) -> WordsObjective:
    """Build the word objective and initialize both projections from the image classifier."""
    assert config.words is not None

    if config.image.weights is None or not config.text.frozen:
        raise ValueError(
            "words need image weights that come with a classifier, and a frozen text encoder"
        )

    # The initialization below sets weights that only these two projections have.
    if not isinstance(image.projection, ClassifierMixture) or not isinstance(
        text.projection, NearIdentity
    ):
        raise ValueError(
            "words need an image projection of kind 'classifier_mixture' "
            "and a text projection of kind 'near'"
        )

    tags = config.words.read()
    if (number := config.image_projection.num_classes) != len(tags):
        raise ValueError(
            f"image_projection.num_classes is {number}: "
            f"there are {len(tags)} tags in {config.words.tags}"
        )

    classifier = read_classifier(config.image.weights, len(tags))

    # Tags as targets use their names only; visual words start from names and superclasses.
    names, names_and_kinds = embed_tags(
        tags, text.encoder, Tokenizer.from_source(config.tokenizer_source())
    )
    start_from_tags(image.projection, text.projection, classifier, names_and_kinds)

    return config.words.build(image.encoder, classifier, tags, names)
