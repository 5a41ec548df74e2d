"""Image-text contrastive losses (InfoNCE) and the retrieval accuracy of a batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.losses.precision import full_precision


@full_precision
def image_to_text(
    image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Image-to-text half of the contrastive loss.

    Args:
        image: Unit-norm image embeddings.
        text: Unit-norm text embeddings; text[i] describes image[i].
        scale: Inverse temperature that multiplies the cosines.

    Returns:
        Mean cross-entropy over the captions of the batch, in nats.

    Source: ViL-Seg, eq. 3 and 4, with scale = 1 / tau.

    Example:
        >>> embeddings = torch.eye(2, 4)
        >>> image_to_text(embeddings, embeddings, scale=torch.tensor(1.0))
        tensor(0.3133)
    """
    return F.cross_entropy(scale * image @ text.T, torch.arange(len(image), device=image.device))


@full_precision
def info_nce(
    image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Symmetric image-text contrastive loss.

    Args:
        image: Unit-norm image embeddings.
        text: Unit-norm text embeddings; text[i] describes image[i].
        scale: Inverse temperature that multiplies the cosines.

    Returns:
        Mean cross-entropy of both directions, in nats.

    Source: Radford et al. 2021, fig. 3 (arXiv:2103.00020).

    Example:
        >>> embeddings = torch.eye(2, 4)
        >>> info_nce(embeddings, embeddings, scale=torch.tensor(1.0))
        tensor(0.3133)
    """
    logits = scale * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def retrieval_accuracy(
    image: Float[Tensor, "b d"], text: Float[Tensor, "b d"]
) -> Float[Tensor, ""]:
    """Share of the images whose own caption is the nearest one in the batch.

    Args:
        image: Unit-norm image embeddings.
        text: Unit-norm text embeddings; text[i] describes image[i].

    Returns:
        Image-to-text recall at 1, in [0, 1].

    Example:
        >>> embeddings = torch.eye(2, 4)
        >>> retrieval_accuracy(embeddings, embeddings)
        tensor(1.)
    """
    nearest = (image @ text.T).argmax(1)
    return (nearest == torch.arange(len(image), device=image.device)).float().mean()
