"""Class prototypes from segment embeddings of a teacher."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.ops.segments import segment_sums, spherical_kmeans


def segments_of(embeddings: Float[Tensor, "d h w"], num_segments: int) -> Float[Tensor, "g d"]:
    """Cluster a photo's pixels by direction and position and average each segment.

    Args:
        embeddings: Unit-norm pixel embeddings of one photo.
        num_segments: Number of clusters.

    Returns:
        Unit-norm mean embeddings of the segments that are not empty.
    """
    segments = spherical_kmeans(embeddings[None].float(), num_segments)
    sums, counts = segment_sums(embeddings[None].float(), segments, num_segments)
    return F.normalize(sums[0][counts[0] > 0], dim=1)


def top_prototypes(
    segments: Float[Tensor, "m d"], cosines: Float[Tensor, "m k"], top: int, scale: float
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " k"]]:
    """Compute class prototypes as means of the most probable segments.

    Probabilities are a softmax over the classes. A class that is no segment's most probable one has
    a prototype all the same.

    Args:
        segments: Segment embeddings.
        cosines: Cosines of segments and class names.
        top: Number of segments per prototype.
        scale: Factor on the cosines before the softmax.

    Returns:
        Unit-norm prototype of each class, and the number of segments whose most probable class it
        is.

    Raises:
        ValueError: There are fewer than `top` segments.

    Source: CLIP-S4, section 3.2, "Target Class Prototypes".
    Differs: the paper gives no scale.
    """
    if not 1 <= top <= len(segments):
        raise ValueError(
            f"a prototype is the mean of {top} segments: "
            f"there are {len(segments)}, and it takes 1 or more"
        )

    probabilities = (scale * cosines).softmax(1)
    best = probabilities.topk(top, dim=0).indices  # top k
    won = torch.bincount(probabilities.argmax(1), minlength=cosines.shape[1])
    return F.normalize(segments[best].mean(0), dim=1), won
