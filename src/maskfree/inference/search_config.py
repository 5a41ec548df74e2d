"""Settings of segment retrieval.

This module does not import torch, so that the command line starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskfree.config.rules import Count, CountOrZero, Fraction, Width, check

KMEANS = "kmeans"


@dataclass(frozen=True)
class RetrievalConfig:
    """Settings of the search: how photos are segmented, and how many segments are kept."""

    top: Count = 16
    """Number of most similar segments to return."""
    per_photo: CountOrZero = 1
    """Largest number of segments of one photo; 0: no limit."""
    segments: str = KMEANS
    """kmeans: clusters of pixels by embedding and position; or a folder of region PNGs, as
    `maskfree prepare segments` writes them."""
    num_segments: Width = 36
    """For kmeans: number of segments per photo."""
    min_area: Fraction = 0.005
    """Smallest area of a segment, as a fraction of the photo."""
    background: Literal["auto", "none"] = "auto"
    """auto: what is closer to everyday words that mean something else scores lower; none: scores
    are the cosines themselves."""
    index: bool = True
    """Keep the segments of photos in the user's cache folder, so that the next search of them runs
    no network."""

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        check(self)
