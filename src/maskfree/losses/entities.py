"""Entity losses of OVSegmentor: multi-label contrast, masked language modeling and group contrast.

These are the variants that the OVSegmentor paper compares with its own losses (arXiv:2301.09121,
Tables 4 and 6).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.losses.precision import full_precision


@full_precision
def multi_label_contrast(
    image: Float[Tensor, "b d"],
    texts: Float[Tensor, "b t d"],
    labeled: Bool[Tensor, "b t"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Symmetric contrastive loss between images and several label texts per image.

    The positives of an image are all its own texts, its negatives the texts of all other images;
    each text must be matched to its image. An equal text of another image counts as a negative.

    Args:
        image: Unit-norm image embeddings.
        texts: Unit-norm embeddings of each image's label texts.
        labeled: Which texts count; an image without any is left out of the image-to-text direction.
        scale: Inverse temperature that multiplies the cosines.

    Returns:
        Mean cross-entropy of both directions, in nats; zero, with a graph, if no image has a text.

    Source: GroupViT, section 3.2, "Multi-Label Image-Text Contrastive Loss" (arXiv:2202.11094).

    Differs: half the sum of both directions, as in `info_nce`.

    Example:
        >>> image, labeled = torch.eye(2, 4), torch.ones(2, 1, dtype=torch.bool)
        >>> multi_label_contrast(image, image[:, None], labeled, scale=torch.tensor(1.0))
        tensor(0.3133)
    """
    number, labels = labeled.shape
    logits = scale * torch.einsum("bd,ctd->bct", image, texts)  # photo, photo of the text, text
    own = torch.arange(number, device=image.device)

    # Image to text: the probability of any of the image's own texts.
    among_texts = logits.masked_fill(~labeled, torch.finfo(logits.dtype).min).flatten(1)
    found = among_texts.log_softmax(1).unflatten(1, (number, labels))[own, own].logsumexp(1)  # b

    # Text to image.
    among_photos = logits.log_softmax(0)[own, own]  # b t
    return -(_mean(found, labeled.any(1)) + _mean(among_photos, labeled)) / 2


@full_precision
def masked_language(
    logits: Float[Tensor, "b l k"], targets: Int[Tensor, "b l"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the entity that each masked token hides.

    Args:
        logits: Score of each entity at each token.
        targets: Index of the hidden entity at each token; -1 where none is hidden.

    Returns:
        Mean over the masked tokens, in nats; zero, with a graph, if there is none.

    Example:
        >>> targets = torch.tensor([[3, -1]])  # the first of two tokens hides entity 3
        >>> masked_language(torch.zeros(1, 2, 4), targets)
        tensor(1.3863)
    """
    # Not the built-in mean, which is NaN without any masked token.
    total = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten().long(), ignore_index=-1, reduction="sum"
    )
    return total / (targets >= 0).sum().clamp_min(1)


@full_precision
def group_contrast(
    first: Float[Tensor, "b k d"],
    second: Float[Tensor, "b k d"],
    present: Bool[Tensor, " b"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Symmetric contrastive loss between matched groups of two images with the same entity.

    The negatives of a group are all other groups of the other side.

    Args:
        first: Unit-norm group embeddings of the first images.
        second: Unit-norm group embeddings of the second images; second[i, j] is matched with
            first[i, j].
        present: Which pairs of images count; the others are neither positives nor negatives.
        scale: Inverse temperature that multiplies the cosines.

    Returns:
        Mean cross-entropy of both directions, in nats; zero, with a graph, if no pair counts.

    Source: arXiv:2301.09121, Table 6 ("group consistency, NCE"), which gives no formula.

    Example:
        >>> groups = torch.eye(2, 4)[None]
        >>> group_contrast(groups, groups, torch.tensor([True]), scale=torch.tensor(1.0))
        tensor(0.3133)
    """
    # All groups of the batch in one row.
    counted = present[:, None].expand(first.shape[:2]).flatten()

    # Groups of absent images are masked out of both softmaxes.
    logits = scale * first.flatten(0, 1) @ second.flatten(0, 1).mT
    lowest = torch.finfo(logits.dtype).min
    # Both directions: rows are first groups, columns second groups.
    forth = logits.masked_fill(~counted, lowest).log_softmax(1).diagonal()
    back = logits.masked_fill(~counted[:, None], lowest).log_softmax(0).diagonal()
    return -(_mean(forth, counted) + _mean(back, counted)) / 2


def _mean(values: Float[Tensor, "*s"], counted: Bool[Tensor, "*s"]) -> Float[Tensor, ""]:
    """Mean of the values that count; zero, with a graph, if none does."""
    return torch.where(counted, values, 0).sum() / counted.sum().clamp_min(1)
