"""Settings of video segmentation.

This module does not import torch, so that the command line starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from maskfree.config.rules import Range, check
from maskfree.ops.propagation_config import PropagationConfig

EVERY = 5
"""Every so many frames are labeled by the words, by default: a few times a second, which costs
little beside the propagation."""


@dataclass(frozen=True)
class TrackConfig:
    """Settings of video label propagation."""

    propagation: PropagationConfig = field(default_factory=PropagationConfig)
    """Label propagation from frame to frame."""
    side_px: Annotated[int, Range(1, 4096)] = 720
    """Length in pixels to which the shorter side of a frame is resized."""
    finer: Annotated[int, Range(1, 16)] = 1
    """Number of cells per side into which each patch of the network is divided; embeddings between
    patches are interpolated bilinearly."""

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        check(self)
