"""Settings of class prototypes.

This module does not import torch, so that the command line starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass

from maskfree.config.rules import Count, Positive, Width


@dataclass(frozen=True)
class PrototypeConfig:
    """Settings of the prototypes; the defaults are the paper's unless noted.

    Source: CLIP-S4 (arXiv:2305.01040), where `top` is called m.
    """

    top: Count = 32
    """Number of most similar segments whose mean embedding is the prototype of a class."""
    num_segments: Width = 36
    """Number of segments per photo."""
    # The paper gives no temperature.
    temperature: Positive = 0.01
    """Temperature of the softmax over classes of a segment's cosines to the class names."""
    seed: int = 0
    """Random seed of the sample of segments that are kept for unknown classes."""
