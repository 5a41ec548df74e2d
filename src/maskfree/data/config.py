"""Configuration of the training data and of the augmented views."""

from __future__ import annotations

from dataclasses import dataclass

from maskfree.config.rules import (
    Count,
    CountOrZero,
    Fraction,
    FractionRange,
    Side,
    Weight,
    check,
)


@dataclass(frozen=True)
class DataConfig:
    """Training data: shards of image-caption pairs, folders of photos, or drawn shapes."""

    shards: tuple[str, ...] = ()
    """WebDataset shards: files, folders, globs, braces as in train-{000..005}.tar, URLs of
    http(s), s3 or gs."""
    weights: tuple[Weight, ...] = ()
    """How often each of the shards' names is read, relative to the others, in whole shards: a half
    of the largest weight is a half of the shards in each pass. Empty: all alike."""
    images: tuple[str, ...] = ()
    """Folders of photos without captions, for methods that need no captions."""
    shapes: CountOrZero = 0
    """Number of captioned photos of colored shapes to draw for a trial run.

    They are written with a tokenizer and take the place of shards and images.
    """
    index: str = ""
    """Folder that `maskfree prepare entities` wrote for these shards.

    Pairs without an entity are skipped, and each photo comes with another one that shares an
    entity. With shapes, any non-empty value builds the index of the drawn photos.
    """
    shuffle_buffer: Count = 1000
    """Number of encoded samples in the shuffle buffer of each data worker."""
    workers: CountOrZero = 2
    """Data worker processes per training process; 0 loads in the training process."""

    def check(self) -> None:
        """Check that the values are consistent.

        Raises:
            ValueError: A value is out of range, or not exactly one kind of data is given.
        """
        check(self, "data")
        if (bool(self.shards) + bool(self.images) + bool(self.shapes)) != 1:
            raise ValueError("data needs exactly one of shards, images and shapes")
        if self.weights and len(self.weights) != len(self.shards):
            raise ValueError(
                f"data.weights has {len(self.weights)} numbers for {len(self.shards)} data.shards"
            )
        if self.weights and not max(self.weights):
            raise ValueError("data.weights are all 0: at least one is above")
        if self.index and self.images:
            raise ValueError(
                f"data.index {self.index!r} is an index of captioned shards: "
                "it does not go with data.images"
            )


@dataclass(frozen=True)
class ViewConfig:
    """Global view and its augmentations."""

    side_px: Side = 224
    """Side of the square view in pixels."""
    scale: FractionRange = (0.4, 1.0)
    """Smallest and largest area of a random crop, as a share of the photo's area."""
    mirror: Fraction = 0.5
    """Probability of a horizontal flip, drawn separately for each view."""
    jitter: tuple[Weight, Weight, Weight, Weight] = (0.4, 0.4, 0.4, 0.1)
    """Strength of the color jitter: brightness, contrast, saturation, hue (in turns)."""
