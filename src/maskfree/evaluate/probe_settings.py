"""Settings of the probes: what is learned from masks on top of frozen embeddings. Free of torch, for the command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_SEGMENTS = 4096


@dataclass(frozen=True)
class KnnConfig:
    """Nearest neighbours of segments. Source: SegSort (arXiv:1910.06962), its k and clusters; CLIP-S4's 36 segments."""

    neighbours: int = 15
    """Training segments that vote for the class of a segment."""
    segments: int = 36
    """Segments of a photo: spherical K-means with location starts from so many cells of a grid."""
    iterations: int = 10
    """Rounds of K-means."""
    location: float = 1.0
    """Weight of where a pixel is, beside its embedding."""
    enlarge: int = 2
    """Pixels on each side of a patch that K-means groups; embeddings between patches are interpolated."""
    search: Literal["torch", "faiss"] = "torch"
    """What finds the neighbours; faiss needs faiss-cpu or faiss-gpu. Both find the same ones."""

    def check(self) -> None:
        """See that the settings make sense.

        Raises:
            ValueError: one does not.
        """
        for name in ("neighbours", "segments", "iterations", "enlarge"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1 is needed")
        if self.segments > MOST_SEGMENTS:
            raise ValueError(f"segments is {self.segments}: {MOST_SEGMENTS} is the most")
        if not self.location >= 0:
            raise ValueError(f"location is {self.location:g}: it must not be negative")
        if self.search not in ("torch", "faiss"):
            raise ValueError(f"search is {self.search!r}: torch or faiss")


@dataclass(frozen=True)
class LinearConfig:
    """A linear classifier of pixels by SGD. Source: MaskContrast's (arXiv:2102.06191), with fewer augmentations."""

    epochs: int = 60
    """Passes through the training photos."""
    photos_per_step: int = 16
    """Photos whose pixels make a step together."""
    learning_rate: float = 0.1
    """Of SGD at the start."""
    weight_decay: float = 1e-4
    """Of SGD, on the weights."""
    momentum: float = 0.9
    """Of SGD."""
    decay: float = 0.1
    """What the learning rate is multiplied with, once."""
    decay_after: float = 25 / 60
    """Share of the epochs after which that happens."""
    pixels_per_patch: int = 4
    """Pixels on each side of a patch at which scores, enlarged bilinearly, meet the masks."""
    seed: int = 0
    """Of the order of the photos and of who is mirrored."""

    def check(self) -> None:
        """See that the settings make sense.

        Raises:
            ValueError: one does not.
        """
        for name in ("epochs", "photos_per_step", "pixels_per_patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1 is needed")
        for name in ("learning_rate", "decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name):g}: it must be positive")
        for name in ("weight_decay", "momentum", "decay_after"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name):g}: it lies in [0, 1]")
