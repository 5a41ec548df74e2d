"""Clusters of the patches of a clip, which take the scores of words from all labeled frames."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.ops.class_prior import apply_class_prior

# Enough for the parts of an object and of its surroundings; 16 join some, 64 give about the same.
NUM_CLUSTERS = 32
"""Largest number of clusters of a clip."""
# Where cosines differ by less, a cell takes from several clusters.
_TEMPERATURE = 0.05
_ITERATIONS = 10
# The lightest clusters start anew at what is new in a frame.
_NUM_RENEWED = 4


class ClipClusters:
    """Weighted spherical k-means over the labeled frames of a clip, with a score per word.

    Scores of single patches are blurred, since a patch also sees what lies around it, and change
    from frame to frame. Their mean over alike patches of all frames does neither. Of the frames
    before, only the clusters are kept, as weighted points.
    """

    def __init__(self) -> None:
        """Start before the first frame."""
        self._centers: Float[Tensor, "n d"] | None = None
        self._scores: Float[Tensor, "n k"] = torch.empty(0, 0)
        self._mass: Float[Tensor, " n"] = torch.empty(0)

    def add(
        self,
        embeddings: Float[Tensor, "d h w"],
        scores: Float[Tensor, "k h w"],
        weight: float,
    ) -> None:
        """Let a frame count.

        Args:
            embeddings: Unit-norm embedding of each cell of the frame.
            scores: Score of each word on each cell.
            weight: Weight of the frame against all before it, in (0, 1]; 1 for the first.
        """
        cells = embeddings.flatten(1).T
        values = scores.flatten(1).T
        mass = torch.full((len(cells),), weight / len(cells), device=cells.device)

        if self._centers is None:
            chosen = torch.linspace(0, len(cells) - 1, min(NUM_CLUSTERS, len(cells)))
            centers, points = cells[chosen.round().long()], cells
        else:
            centers = self._renewed(cells)
            points = torch.cat([cells, self._centers])
            values = torch.cat([values, self._scores])
            mass = torch.cat([mass, self._mass * (1 - weight)])

        for _ in range(_ITERATIONS):
            nearest = (points @ centers.T).argmax(1)
            sums = torch.zeros_like(centers).index_add_(0, nearest, points * mass[:, None])
            moved = sums.norm(dim=1, keepdim=True) > 0
            centers = torch.where(moved, F.normalize(sums, dim=1), centers)

        # Means over soft assignments, by which the cells are scored too.
        shares = _shares(points, centers) * mass[:, None]
        self._mass = shares.sum(0)
        self._scores = (shares.T @ values) / self._mass[:, None].clamp_min(1e-20)
        self._centers = centers

    def scores(
        self, embeddings: Float[Tensor, "d h w"], leveled: bool = True
    ) -> Float[Tensor, "k h w"]:
        """Score the words on the cells of a frame by the clusters.

        Args:
            embeddings: Unit-norm embedding of each cell.
            leveled: Whether the `word_levels` are taken off.

        Returns:
            Score of each word on each cell.
        """
        assert self._centers is not None
        values = self._scores
        if leveled:
            values = values - word_levels(values)

        found = _shares(embeddings.flatten(1).T, self._centers) @ values
        return found.T.unflatten(1, embeddings.shape[1:])

    def _renewed(self, cells: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
        """The centers, of which the lightest are replaced by the cells least like any center."""
        assert self._centers is not None
        centers = self._centers.clone()
        for index in self._mass.argsort()[:_NUM_RENEWED].tolist():
            centers[index] = cells[(cells @ centers.T).amax(1).argmin()]
        return centers


def word_levels(values: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """Compute the score from which each word is likely there.

    The scores of a word over the clusters are split in two, those that show it and the others; the
    level lies midway. A word that wins no cluster is probably absent: the further it is from
    winning one, the closer it gets to the highest level, lest noise win.

    Args:
        values: Score of each word on each cluster.

    Returns:
        Level of each word.
    """
    low, high = split_in_two(values)
    level = (low + high) / 2

    # By how much a word misses its best cluster, at most 0.
    missed = apply_class_prior(values.T[None, :, :, None], share=0.0, max_margin=0.0).flatten()
    usual = (high - low).mean().clamp_min(1e-20)
    present = (1 + missed / usual).clamp_min(0)
    return torch.lerp(level.amax().expand_as(level), level, present)


def split_in_two(
    values: Float[Tensor, "n k"],
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Split the numbers of each column in two with the least variance within the parts.

    Args:
        values: Columns of numbers.

    Returns:
        Mean of the lower and of the upper part of each column; the number itself if it is the only
        one.

    Source: Otsu 1979.
    """
    number = len(values)
    if number == 1:
        return values[0], values[0]

    ordered = values.sort(0).values
    sums = ordered.cumsum(0)
    counts = torch.arange(1, number, device=values.device)[:, None]
    low = sums[:-1] / counts
    high = (sums[-1] - sums[:-1]) / (number - counts)

    # The variance between the parts, which is largest where that within is least.
    between = counts * (number - counts) * (high - low).square()
    best = between.argmax(0, keepdim=True)
    return low.gather(0, best)[0], high.gather(0, best)[0]


def _shares(points: Float[Tensor, "m d"], centers: Float[Tensor, "n d"]) -> Float[Tensor, "m n"]:
    """Share of each cluster in each point."""
    return (points @ centers.T / _TEMPERATURE).softmax(1)
