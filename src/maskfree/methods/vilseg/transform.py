"""Training views of ViL-Seg: a global view, local crops, and a recolored, mirrored view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maskfree.data.colors import ColorMatrix, color_jitter
from maskfree.data.packed import Packed, PackedViews
from maskfree.data.sample import Source, Transform
from maskfree.data.transforms import (
    View,
    random_caption,
    random_view,
    tokenized_captions,
)
from maskfree.methods.vilseg.batch import ViLSegBatch
from maskfree.text.nouns import nouns
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Tokens


class Augmentation(NamedTuple):
    """What makes the augmented view of the global view."""

    flipped: bool
    """Whether the augmented view is mirrored relative to the global view."""
    colors: ColorMatrix
    """Its change of colors."""


class ViLSegSample(NamedTuple):
    """Training views of one photo; parts that no objective needs are None."""

    caption: str | None
    view: View
    """Global view."""
    local_views: tuple[View, ...]
    augmented: Augmentation | None
    """What is done to the global view for the augmented view."""
    nouns: Mapping[str, float]
    """Nouns of the captions, with the share of the captions that contain each."""
    prompted: bool


PROMPTED_SHARE = 0.5
"""Share of the batches whose words are inserted into the prompt: class names come with and without
one at inference."""
_PROMPT = "a photo of a {}"
# Smallest and largest area of a local crop, as a fraction of the photo; as in DINO.
_LOCAL_SCALE = (0.05, 0.4)


@dataclass(frozen=True)
class ViLSegTransform(Transform):
    """Crop, mirror and jitter one photo, and sample one of its captions."""

    tokenizer: Tokenizer | None
    """Tokenizer for captions; None if no photo has a caption."""
    side_px: int
    """Side of the global view, in pixels."""
    scale: tuple[float, float]
    """Smallest and largest area of the global view, as a fraction of the photo."""
    mirror: float
    """Probability of a horizontal flip, for each view."""
    jitter: tuple[float, float, float, float]
    """Strength of brightness, contrast, saturation and hue jitter of local and augmented views."""
    num_local_views: int = 0
    """Number of local crops."""
    local_side_px: int = 96
    """Side of a local crop, in pixels."""
    with_augmented: bool = False
    """Whether to create the augmented view."""
    kinds: tuple[str, ...] | None = None
    """Words that every batch contains; None disables words."""
    prompted: float = 0.0
    """Probability that a batch is prompted."""

    @property
    def learns_without_captions(self) -> bool:
        """Whether L_vision or L_cluster learns from a photo without any text.

        Returns:
            True if there are local or augmented views.
        """
        return self.num_local_views > 0 or self.with_augmented

    def sample(self, source: Source, seed: int) -> ViLSegSample:
        """Create the training views of one photo.

        Args:
            source: Photo with its key and captions.
            seed: Seed of all random choices.

        Returns:
            The augmented sample.
        """
        rng = np.random.default_rng(seed)
        caption = random_caption(rng, source.captions)
        pixels = np.asarray(source.photo)
        view = random_view(rng, pixels, self.side_px, self.scale, self.mirror)

        # The augmented view has the geometry of the global view, up to a flip.
        augmented = None
        if self.with_augmented:
            flipped = bool(rng.random() < self.mirror)
            augmented = Augmentation(flipped, color_jitter(rng, *self.jitter))

        local_views = []
        for _ in range(self.num_local_views):
            local_views.append(
                random_view(
                    rng,
                    pixels,
                    self.local_side_px,
                    _LOCAL_SCALE,
                    self.mirror,
                    self.jitter,
                )
            )

        named = []
        if self.kinds is not None:
            named = [nouns(text) for text in source.captions]

        return ViLSegSample(
            caption=caption,
            view=view,
            local_views=tuple(local_views),
            augmented=augmented,
            nouns=_shares(named),
            prompted=bool(rng.random() < self.prompted),
        )

    def collate(self, samples: Sequence[ViLSegSample]) -> Packed[ViLSegBatch]:
        """Stack samples into a batch.

        Args:
            samples: Samples of this process's photos; either all or none have captions.

        Returns:
            The batch; captions are tokenized if there are any.
        """
        words, word_weights = self._words(samples)
        captions = tokenized_captions(self.tokenizer, [sample.caption for sample in samples])
        # Where photos without a text may come, every process must say which have one.
        described = None
        if captions is not None and self.learns_without_captions:
            described = torch.tensor([bool(sample.caption) for sample in samples])

        images = PackedViews.of([sample.view for sample in samples])
        fields: dict[str, Any] = {
            "images": images,
            "captions": captions,
            "described": described,
            "words": words,
            "word_weights": word_weights,
        }

        if self.num_local_views:
            local = [view for sample in samples for view in sample.local_views]
            fields["local_views"] = PackedViews.of(local, self.num_local_views)

        if self.with_augmented:
            augmented = [sample.augmented for sample in samples if sample.augmented is not None]
            colors = [each.colors for each in augmented]
            flipped = [each.flipped for each in augmented]
            fields["augmented_view"] = images.again(colors, flipped)
            fields["augmented_flipped"] = torch.tensor(flipped)

        return Packed(ViLSegBatch, fields)

    def _words(self, samples: Sequence[ViLSegSample]) -> tuple[Tokens | None, Tensor | None]:
        """Tokens of superclasses and other nouns of the batch, and their weights per photo."""
        if self.kinds is None:
            return None, None

        assert self.tokenizer is not None, "words need a tokenizer"

        # Sorted, so that the order does not depend on hashing.
        found = set[str]().union(*(sample.nouns for sample in samples))
        others = sorted(found.difference(self.kinds))
        # The superclasses come first, as the word objective expects.
        column = {word: index for index, word in enumerate((*self.kinds, *others))}
        if not column:
            return None, None

        weights = torch.zeros(len(samples), len(column))

        for row, sample in enumerate(samples):
            for noun, share in sample.nouns.items():
                weights[row, column[noun]] = share

        # The first photo decides for the batch, so that all words have the same form.
        prompt = _PROMPT if samples[0].prompted else "{}"
        tokens = self.tokenizer([prompt.replace("{}", word) for word in column])

        return tokens, weights / weights.sum(1, keepdim=True).clamp_min(1e-6)


def _shares(named: Sequence[Sequence[str]]) -> Mapping[str, float]:
    """Share of the captions that contain each noun."""
    counts = Counter(word for words in named for word in words)
    return {word: count / len(named) for word, count in counts.items()}
