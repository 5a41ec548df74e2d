"""What a caption's entities teach besides their completion: several labels a photo, masked words, and like groups.

These are the variants that the OVSegmentor paper compares with its own terms (arXiv:2301.09121, Tables 4 and 6).
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
    """Contrastive loss in nats, both ways, between photos and their several label texts, all of unit norm.

    A photo must give its probability to any of its own texts, among all photos' texts; each text must pick out its
    photo. An equal text of another photo counts as wrong. Where LABELLED is False the text does not count, and a photo
    without one is not asked; zero, with a graph, if no photo has one.

    Source: GroupViT, section 3.2, "Multi-Label Image-Text Contrastive Loss" (arXiv:2202.11094). Differs: half the sum
    of both directions, as in `info_nce`.
    """
    number, labels = labeled.shape
    logits = scale * torch.einsum("bd,ctd->bct", image, texts)  # photo, photo of the text, text
    own = torch.arange(number, device=image.device)
    among_texts = logits.masked_fill(~labeled, torch.finfo(logits.dtype).min).flatten(1)
    found = among_texts.log_softmax(1).unflatten(1, (number, labels))[own, own].logsumexp(1)  # b
    among_photos = logits.log_softmax(0)[own, own]  # b t
    return -(_mean(found, labeled.any(1)) + _mean(among_photos, labeled)) / 2


@full_precision
def masked_language(
    logits: Float[Tensor, "b l k"], targets: Int[Tensor, "b l"]
) -> Float[Tensor, ""]:
    """Cross-entropy in nats of the entity that each masked token hides, among all K; zero, with a graph, without any.

    TARGETS are numbers of entities, and -1 for a token that hides none.
    """
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
    """Contrastive loss in nats, both ways, that draws each group to its like in a photo of the same entity.

    first[i, j] and second[i, j] are matched groups of unit norm; a group's negatives are all other groups of the other
    side. Photos that are not PRESENT are neither asked nor negatives; zero, with a graph, if none is.
    Source: arXiv:2301.09121, Table 6 ("group consistency, NCE"), which gives no formula.
    """
    counted = present[:, None].expand(first.shape[:2]).flatten()
    logits = scale * first.flatten(0, 1) @ second.flatten(0, 1).mT
    lowest = torch.finfo(logits.dtype).min
    forth = logits.masked_fill(~counted, lowest).log_softmax(1).diagonal()
    back = logits.masked_fill(~counted[:, None], lowest).log_softmax(0).diagonal()
    return -(_mean(forth, counted) + _mean(back, counted)) / 2


def _mean(values: Float[Tensor, "*s"], counted: Bool[Tensor, "*s"]) -> Float[Tensor, ""]:
    """The mean of the values that count; zero, with a graph, if none does."""
    return torch.where(counted, values, 0).sum() / counted.sum().clamp_min(1)
