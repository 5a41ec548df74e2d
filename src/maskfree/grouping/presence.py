"""From noisy scores of patches to steadier ones: their neighbours', and what the photo as a whole shows."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def smooth(scores: Float[Tensor, "b k hp wp"], width: int) -> Float[Tensor, "b k hp wp"]:
    """Average each score with its neighbours in a square of WIDTH patches, odd; the border repeats outwards."""
    if width == 1:
        return scores
    return F.avg_pool2d(F.pad(scores, (width // 2,) * 4, mode="replicate"), width, stride=1)


def presence(scores: Float[Tensor, "b k hp wp"], share: float) -> Float[Tensor, "b k 1 1"]:
    """How strongly each class shows in each photo: its mean over those patches where it is strongest.

    They are the SHARE, in (0, 1], of all. A mean over all patches would deny small things, a maximum trust one patch.
    """
    flat = scores.flatten(2)
    strongest = flat.topk(max(1, round(share * flat.shape[2])), dim=2).values
    return strongest.mean(2)[:, :, None, None]
