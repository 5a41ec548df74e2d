"""Settings of what a run learns from, and of the views that it makes of photos."""

from __future__ import annotations

from dataclasses import dataclass

from maskfree.config.rules import (
    Count,
    CountOrZero,
    Fraction,
    FractionRange,
    Side,
    SideOrZero,
    Weight,
    check,
)


@dataclass(frozen=True)
class DataConfig:
    """What a run learns from: either shards of image-caption pairs, or folders of photos."""

    shards: tuple[str, ...] = ()
    """WebDataset shards: files, folders, globs, braces as in train-{000..005}.tar, http(s) URLs."""
    images: tuple[str, ...] = ()
    """Folders of photos without captions, for methods that need none."""
    shapes: CountOrZero = 0
    """For a trial run: draw this many captioned photos of colored shapes, and a tokenizer, and train on those."""
    index: str = ""
    """Folder written by `maskfree prepare entities` for these shards: photos without an entity are passed over, and
    each photo comes with another that shares one. With shapes anything at all: the index is made of those drawn."""
    shuffle_buffer: Count = 1000
    """Encoded samples that each worker holds, to mix those of a shard."""
    decode_px: SideOrZero = 512
    """Large JPEGs are decoded at 1/2, 1/4 or 1/8 as long as the shorter side keeps this many pixels; 0: full size."""
    workers: CountOrZero = 2
    """Data processes beside each training process; 0 loads in the training process itself."""

    def check(self) -> None:
        """Make sure that the values make sense.

        Raises:
            ValueError: one of them does not.
        """
        check(self, "data")
        if (bool(self.shards) + bool(self.images) + bool(self.shapes)) != 1:
            raise ValueError("data needs exactly one of shards, images and shapes")
        if self.index and self.images:
            raise ValueError(
                f"data.index {self.index!r} is an index of captioned shards: it does not go with data.images"
            )


@dataclass(frozen=True)
class ViewConfig:
    """The global view and the augmentations."""

    side_px: Side = 224
    scale: FractionRange = (0.4, 1.0)  # share of the photo's area
    mirror: Fraction = 0.5  # probability, of each view by itself
    jitter: tuple[Weight, Weight, Weight, Weight] = (
        0.4,
        0.4,
        0.4,
        0.1,
    )  # brightness, contrast, saturation, hue
