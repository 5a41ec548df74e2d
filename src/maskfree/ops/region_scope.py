"""Regions of a photo as the scope of attention, and their vote on labels.

Source: arXiv:2411.10086.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float16, Int, UInt
from torch import Tensor
from torch.nn import functional as F


def merge_alike(
    features: Float[Tensor, "b n c"], regions: Int[Tensor, "b n"], min_cosine: float = 0.8
) -> Int[Tensor, "b n"]:
    """Merge regions whose mean features are similar, and those that a chain of such links.

    Args:
        features: Features of n patches.
        regions: Region of each patch, from 0 on.
        min_cosine: Cosine of the mean features from which on two regions are one.

    Returns:
        Merged region of each patch.

    Source: arXiv:2411.10086; clustering by DBSCAN with a distance of 0.2 and clusters of any size
    is this rule.
    """
    members = F.one_hot(regions).to(features)  # b n r
    means = F.normalize(members.mT @ F.normalize(features, dim=-1), dim=-1)
    linked = (means @ means.mT >= min_cosine) | torch.eye(
        members.shape[2], dtype=torch.bool, device=features.device
    )

    # Each squaring doubles the length of the chains.
    reached = linked.to(features)
    for _ in range(members.shape[2].bit_length()):
        reached = (reached @ reached > 0).to(features)

    # The first region that is reached names the merged one.
    first = reached.argmax(-1)  # b r
    return first.gather(1, regions)


def vote(
    labels: UInt[np.ndarray, "h w"],
    scores: Float16[np.ndarray, "h w"],
    regions: UInt[np.ndarray, "h w"],
) -> tuple[UInt[np.ndarray, "h w"], Float16[np.ndarray, "h w"]]:
    """Give each region its most frequent label.

    Args:
        labels: Class id of each pixel.
        scores: Winning score of each pixel.
        regions: Region of each pixel, from 0 on.

    Returns:
        Class ids, and scores: a pixel that changed its class has the mean score of the pixels that
        won the vote of its region. Of equally frequent classes the first wins.
    """
    num_classes, num_regions = int(labels.max()) + 1, int(regions.max()) + 1
    pairs = regions.astype(np.int64) * num_classes + labels
    counts = np.bincount(pairs.ravel(), minlength=num_regions * num_classes)
    counts = counts.reshape(num_regions, num_classes)
    winners = counts.argmax(1).astype(labels.dtype)[regions]

    # Mean score of the winning pixels of each region.
    won = labels == winners
    sums = np.bincount(regions[won], scores[won].astype(np.float64), minlength=num_regions)
    means = sums / counts.max(1).clip(1)
    return winners, np.where(won, scores, means[regions]).astype(np.float16)
