"""Settings of the probes, which train a classifier on frozen embeddings with masks.

This module does not import torch, so that the command line starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from maskfree.config.rules import Count, Positive, Range, check

MOST_SEGMENTS = 4096
"""Maximum number of segments per photo."""

# The clustering of SegSort, as in the training of CLIP-S4.
KMEANS_ITERATIONS = 10
"""Number of k-means iterations."""
LOCATION_WEIGHT = 1.0
"""Weight of a pixel's position relative to its embedding in k-means."""

# SGD as MaskContrast has it: its learning rate falls once, after 25 of 60 epochs.
WEIGHT_DECAY = 1e-4
"""Weight decay of SGD."""
MOMENTUM = 0.9
"""Momentum of SGD."""
RATE_DECAY = 0.1
"""Factor on the learning rate, applied once during training."""
DECAY_AFTER = 25 / 60
"""Share of the epochs after which the learning rate is multiplied by `RATE_DECAY`."""

# Shows borders within a patch of 16 px; at every pixel an epoch would take 16 times as long.
PIXELS_PER_PATCH = 4
"""Number of pixels per side of a patch at which the loss of the linear probe is computed."""


@dataclass(frozen=True)
class KnnConfig:
    """k-nearest-neighbor probe of segment embeddings.

    Source: k and clusters of SegSort (arXiv:1910.06962); the 36 segments of CLIP-S4.
    """

    neighbors: Count = 15
    """Number of nearest training segments that vote for the class of a segment."""
    segments: Annotated[int, Range(1, MOST_SEGMENTS)] = 36
    """Number of segments per photo, by spherical k-means initialized on a grid."""
    search: Literal["torch", "faiss"] = "torch"
    """Library of the exact neighbor search; faiss needs faiss-cpu or faiss-gpu."""

    def check(self) -> None:
        """Check that the settings are valid.

        Raises:
            ValueError: A setting is invalid.
        """
        check(self)


@dataclass(frozen=True)
class LinearConfig:
    """Linear probe of pixel embeddings, trained by SGD.

    Source: MaskContrast (arXiv:2102.06191), with fewer augmentations.
    """

    epochs: Count = 60
    """Number of passes through the training photos."""
    photos_per_step: Count = 16
    """Batch size, in photos."""
    learning_rate: Positive = 0.1
    """Initial learning rate of SGD."""
    seed: int = 0
    """Random seed for the order and the mirroring of photos."""

    def check(self) -> None:
        """Check that the settings are valid.

        Raises:
            ValueError: A setting is invalid.
        """
        check(self)
