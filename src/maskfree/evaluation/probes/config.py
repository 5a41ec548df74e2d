"""Settings of the probes: what is learned from masks on top of frozen embeddings. Free of torch, for the command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from maskfree.config.rules import Count, Fraction, Positive, Range, Weight, check

MOST_SEGMENTS = 4096


@dataclass(frozen=True)
class KnnConfig:
    """Nearest neighbours of segments. Source: SegSort (arXiv:1910.06962), its k and clusters; CLIP-S4's 36 segments."""

    neighbours: Count = 15
    """Training segments that vote for the class of a segment."""
    segments: Annotated[int, Range(1, MOST_SEGMENTS)] = 36
    """Segments of a photo: spherical K-means with location starts from so many cells of a grid."""
    iterations: Count = 10
    """Rounds of K-means."""
    location: Weight = 1.0
    """Weight of where a pixel is, beside its embedding."""
    enlarge: Count = 2
    """Pixels on each side of a patch that K-means groups; embeddings between patches are interpolated."""
    search: Literal["torch", "faiss"] = "torch"
    """What finds the neighbours; faiss needs faiss-cpu or faiss-gpu. Both find the same ones."""

    def check(self) -> None:
        """See that the settings make sense.

        Raises:
            ValueError: one does not.
        """
        check(self)


@dataclass(frozen=True)
class LinearConfig:
    """A linear classifier of pixels by SGD. Source: MaskContrast's (arXiv:2102.06191), with fewer augmentations."""

    epochs: Count = 60
    """Passes through the training photos."""
    photos_per_step: Count = 16
    """Photos whose pixels make a step together."""
    learning_rate: Positive = 0.1
    """Of SGD at the start."""
    weight_decay: Fraction = 1e-4
    """Of SGD, on the weights."""
    momentum: Fraction = 0.9
    """Of SGD."""
    decay: Positive = 0.1
    """What the learning rate is multiplied with, once."""
    decay_after: Fraction = 25 / 60
    """Share of the epochs after which that happens."""
    pixels_per_patch: Count = 4
    """Pixels on each side of a patch at which scores, enlarged bilinearly, meet the masks."""
    seed: int = 0
    """Of the order of the photos and of who is mirrored."""

    def check(self) -> None:
        """See that the settings make sense.

        Raises:
            ValueError: one does not.
        """
        check(self)
