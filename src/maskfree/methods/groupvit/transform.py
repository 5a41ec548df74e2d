"""Training views of GroupViT: one crop of a photo and one of its captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from maskfree.data.config import ViewConfig
from maskfree.data.sample import Source, Transform
from maskfree.data.transforms import View, random_caption, random_view, tokenized_captions
from maskfree.methods.groupvit.batch import GroupViTBatch
from maskfree.text.tokenize import Tokenizer


class GroupViTSample(NamedTuple):
    """Training view of one photo with one of its captions, if it has any."""

    caption: str | None
    view: View


@dataclass(frozen=True)
class GroupViTTransform(Transform):
    """Crop, mirror and jitter one photo, and sample one of its captions."""

    tokenizer: Tokenizer | None
    """Tokenizer for captions; None if no photo has a caption."""
    views: ViewConfig
    """Size and augmentation of the view."""

    def sample(self, source: Source, seed: int) -> GroupViTSample:
        """Create the training view of one photo.

        Args:
            source: Photo with its captions.
            seed: Seed of all random choices.

        Returns:
            The augmented sample.
        """
        rng, config = np.random.default_rng(seed), self.views
        caption = random_caption(rng, source.captions)
        view = random_view(
            rng, source.photo, config.side_px, config.scale, config.mirror, config.jitter
        )
        return GroupViTSample(caption, view)

    def collate(self, samples: Sequence[GroupViTSample]) -> GroupViTBatch:
        """Stack samples into a batch.

        Args:
            samples: Samples of this process's photos; either all or none have captions.

        Returns:
            The batch; captions are tokenized if there are any.
        """
        return GroupViTBatch(
            images=torch.stack([sample.view.image for sample in samples]),
            captions=tokenized_captions(self.tokenizer, [sample.caption for sample in samples]),
        )
