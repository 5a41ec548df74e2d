"""Training views of GroupViT: one crop of a photo, one of its captions, and its nouns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from maskfree.data.config import ViewConfig
from maskfree.data.packed import Packed, PackedViews
from maskfree.data.sample import Source, Transform
from maskfree.data.transforms import (
    View,
    random_caption,
    random_view,
    tokenized_captions,
    tokenized_labels,
)
from maskfree.methods.groupvit.batch import GroupViTBatch
from maskfree.text.nouns import nouns
from maskfree.text.templates import TEMPLATES
from maskfree.text.tokenize import Tokenizer

# The set that the paper takes from CLIP.
_PROMPTS = TEMPLATES["imagenet"]


class GroupViTSample(NamedTuple):
    """Training view of one photo with one of its captions, if it has any."""

    caption: str | None
    view: View
    labels: tuple[str, ...] = ()
    """Prompted nouns of the caption."""


@dataclass(frozen=True)
class GroupViTTransform(Transform):
    """Crop, mirror and jitter one photo, and sample one of its captions."""

    tokenizer: Tokenizer | None
    """Tokenizer for captions; None if no photo has a caption."""
    views: ViewConfig
    """Size and augmentation of the view."""
    num_labels: int = 0
    """Largest number of prompted nouns per photo; 0 for none."""

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
            rng,
            np.asarray(source.photo),
            config.side_px,
            config.scale,
            config.mirror,
            config.jitter,
        )
        return GroupViTSample(caption, view, self._labels(caption, rng))

    def collate(self, samples: Sequence[GroupViTSample]) -> Packed[GroupViTBatch]:
        """Stack samples into a batch.

        Args:
            samples: Samples of this process's photos; either all or none have captions.

        Returns:
            The batch; captions are tokenized if there are any.
        """
        captions = tokenized_captions(self.tokenizer, [sample.caption for sample in samples])
        fields: dict[str, Any] = {
            "images": PackedViews.of([sample.view for sample in samples]),
            "captions": captions,
        }
        if not self.num_labels or captions is None:
            return Packed(GroupViTBatch, fields)

        assert self.tokenizer is not None, "labels need a tokenizer"
        labels, labeled = tokenized_labels(
            self.tokenizer, [sample.labels for sample in samples], self.num_labels
        )
        return Packed(GroupViTBatch, {**fields, "labels": labels, "labeled": labeled})

    def _labels(self, caption: str | None, rng: np.random.Generator) -> tuple[str, ...]:
        """Up to `num_labels` random nouns of a caption, each in a random prompt."""
        if not self.num_labels or caption is None:
            return ()

        found = nouns(caption)
        chosen = rng.permutation(len(found))[: self.num_labels]
        prompts = rng.integers(len(_PROMPTS), size=len(chosen))
        return tuple(
            _PROMPTS[int(prompt)].replace("{}", found[int(number)])
            for number, prompt in zip(chosen, prompts, strict=True)
        )
