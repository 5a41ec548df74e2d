"""Entries of the catalog of models: what is said of a model that has a name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """Published mIoU of a model in percent; None where it is not in print."""

    voc21: float | None = None
    """VOC 2012, 20 classes and background."""
    voc20: float | None = None
    """VOC 2012 without background."""
    context60: float | None = None
    """PASCAL Context, 59 classes and background."""
    ade: float | None = None
    """ADE20K, 150 classes."""
    printed_in: str = ""
    """Where the numbers are printed."""


@dataclass(frozen=True)
class CatalogEntry:
    """A model that can be loaded by its name."""

    name: str
    """Name that `--model` accepts."""
    method: str
    """Method that reads the weights, a key of `METHODS`; "vilseg" of the bundled model."""
    source: str
    """Hugging Face name of the weights; empty for a model in the package."""
    size_mb: int
    """Size of the weights and the tokenizer in megabytes (1e6 bytes)."""
    license: str
    """License of the weights."""
    commercial: bool
    """Whether the license allows commercial use."""
    patch_px: int
    """Side of a patch in pixels: the scores are as coarse as this."""
    side_px: int
    """Length in pixels to which the shorter side of a photo is resized."""
    description: str
    """What the model is, in a few words."""
    also: str = ""
    """Hugging Face name of a second encoder that it needs; empty: none."""
    quality: Quality = Quality()
    """Published mIoU."""
