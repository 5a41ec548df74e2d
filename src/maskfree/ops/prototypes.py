"""Class prototypes among a teacher's segments: of known classes by their names, of unknown ones by chance."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.ops.segments import segment_sums, spherical_kmeans


def segments_of(embeddings: Float[Tensor, "d h w"], num_segments: int) -> Float[Tensor, "g d"]:
    """Cluster a photo's pixels by direction and place and return each segment's mean, unit norm; none is empty."""
    segments = spherical_kmeans(embeddings[None].float(), num_segments)
    sums, counts = segment_sums(embeddings[None].float(), segments, num_segments)
    return F.normalize(sums[0][counts[0] > 0], dim=1)


def top_prototypes(
    segments: Float[Tensor, "m d"], cosines: Float[Tensor, "m k"], top: int, scale: float
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " k"]]:
    """Return each class's prototype, unit norm, and how many segments are likest to it of all classes.

    A prototype is the mean of the TOP segments with the highest probability of the class, in a softmax over the
    classes of SCALE times their COSINES to the names. A class that no segment resembles most has one all the same.

    Raises:
        ValueError: there are fewer than TOP segments.

    Source: CLIP-S4, section 3.2, "Target Class Prototypes". Differs: the paper prints no SCALE.
    """
    if not 1 <= top <= len(segments):
        raise ValueError(
            f"a prototype is the mean of {top} segments: there are {len(segments)}, and it takes 1 or more"
        )
    probabilities = (scale * cosines).softmax(1)
    best = probabilities.topk(top, dim=0).indices  # top k
    won = torch.bincount(probabilities.argmax(1), minlength=cosines.shape[1])
    return F.normalize(segments[best].mean(0), dim=1), won
