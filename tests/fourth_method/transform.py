"""Training views of CLIPpy: one crop of a photo and one of its captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from maskfree.methods.clippy.batch import CLIPpyBatch

from maskfree.data.config import ViewConfig
from maskfree.data.packed import Packed, PackedViews
from maskfree.data.sample import Source, Transform
from maskfree.data.transforms import (
    View,
    random_caption,
    random_view,
    tokenized_captions,
)
from maskfree.text.tokenize import Tokenizer


@dataclass(frozen=True)
class CLIPpyTransform(Transform):
    """Crop and mirror a photo, and choose one of its captions."""

    tokenizer: Tokenizer | None
    """Tokenizer for captions; None if no photo has a caption."""
    views: ViewConfig
    """Size and augmentation of the view."""

    def sample(self, source: Source, seed: int) -> tuple[str | None, View]:
        """Create the training view of one photo."""
        rng, config = np.random.default_rng(seed), self.views
        caption = random_caption(rng, source.captions)
        pixels = np.asarray(source.photo)
        view = random_view(rng, pixels, config.side_px, config.scale, config.mirror)
        return caption, view

    def collate(self, samples: Sequence[tuple[str | None, View]]) -> Packed[CLIPpyBatch]:
        """Stack samples into a batch."""
        captions = tokenized_captions(self.tokenizer, [caption for caption, _ in samples])
        images = PackedViews.of([view for _, view in samples])
        return Packed(CLIPpyBatch, {"images": images, "captions": captions})
