"""Builds ViL-Seg from its config."""

from __future__ import annotations

from functools import partial

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.methods.vilseg.model import Assign, ViLSeg
from maskfree.methods.vilseg.words import WordsObjective, embed_tags, start_from_tags
from maskfree.nn.classifier_mixture import ClassifierMixture
from maskfree.nn.dual_encoder import ImageProjector, TextProjector
from maskfree.nn.pretrained import read_classifier
from maskfree.nn.projection import NearIdentity
from maskfree.ops.kmeans import kmeans
from maskfree.text.tokenize import Tokenizer

# Clusters per photo of the grouping "kmeans": as many as the clustering head has by default.
_KMEANS_CLUSTERS = 20


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
    sides = [config.views.side_px]
    if config.vision is not None:
        sides.append(config.vision.local_side_px)
    for side_px in sides:
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
        cluster_map = _likely if config.assignment == "soft" else _likeliest
        assign = partial(cluster_map, cluster.head)
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
