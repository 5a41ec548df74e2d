"""Image-text contrast: each image must pick out its own caption among the batch's."""

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
    """Contrastive loss in nats over captions only. Embeddings have unit norm; text[i] describes image[i].

    Source: ViL-Seg, eq. 3 and 4, with scale = 1 / tau.
    """
    return F.cross_entropy(scale * image @ text.T, torch.arange(len(image), device=image.device))


@full_precision
def info_nce(
    image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Symmetric contrastive loss in nats: each image must pick out its own caption, and the reverse.

    Embeddings have unit norm; text[i] describes image[i]. Source: Radford et al. 2021, fig. 3 (arXiv:2103.00020).
    """
    logits = scale * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def retrieval_accuracy(
    image: Float[Tensor, "b d"], text: Float[Tensor, "b d"]
) -> Float[Tensor, ""]:
    """Share of the images whose own caption is the nearest of the batch, in [0, 1]."""
    nearest = (image @ text.T).argmax(1)
    return (nearest == torch.arange(len(image), device=image.device)).float().mean()
