"""Settings of class prototypes.

This module does not import torch, so that the command line starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass

from maskfree.config.rules import Count, Width


@dataclass(frozen=True)
class PrototypeConfig:
    """Settings of the prototypes; the defaults are the paper's unless noted.

    Source: CLIP-S4 (arXiv:2305.01040), where `top` is called m.
    """

    top: Count = 32
    """Number of most similar segments whose mean embedding is the prototype of a class."""
    num_segments: Width = 36
    """Number of segments per photo."""
