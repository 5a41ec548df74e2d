"""Builds ViL-Seg from its config."""

from __future__ import annotations

from maskfree.config.rules import Grouping
from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.methods.vilseg.model import ViLSeg
from maskfree.methods.vilseg.words import WordsObjective, embed_tags, start_from_tags
from maskfree.nn.classifier_mixture import ClassifierMixture
from maskfree.nn.dual_encoder import ImageProjector, TextProjector
from maskfree.nn.pretrained import read_classifier
from maskfree.nn.projection import NearIdentity
from maskfree.text.tokenize import Tokenizer


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

    # The head is built whatever groups pixels at inference, so that this can be chosen later.
    grouping: Grouping = config.grouping
    if config.grouping == "clusters" and config.assignment == "soft":
        grouping = "soft clusters"

    return ViLSeg(
        image=image,
        text=text,
        cross=config.cross.build(),
        vision=config.vision.build(image, config.embed_dim) if config.vision else None,
        cluster=cluster,
        words=words,
        tag_scores=config.tag_scores.build(config.embed_dim) if config.tag_scores else None,
        grouping=grouping,
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
