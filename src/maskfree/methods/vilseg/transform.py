"""Training views of ViL-Seg: a global view, local crops, and a recolored, mirrored view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from maskfree.data.sample import Source, Transform
from maskfree.data.transforms import color_jitter, crop, random_box
from maskfree.text.nouns import nouns
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Batch, Tokens


class ViLSegSample(NamedTuple):
    """Training views of one photo; parts that no objective needs are None."""

    key: str
    caption: str | None
    image: Tensor
    box: Tensor
    flipped: bool
    local_views: Tensor | None
    local_boxes: Tensor | None
    local_flipped: Tensor | None
    augmented: Tensor | None
    augmented_flipped: bool
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

    def sample(self, source: Source, seed: int) -> ViLSegSample:
        """Create the training views of one photo.

        Args:
            source: Photo with its key and captions.
            seed: Seed of all random choices.

        Returns:
            The augmented sample.
        """
        rng = np.random.default_rng(seed)
        photo, captions = source.photo, source.captions
        caption = captions[int(rng.integers(len(captions)))] if captions else None

        box = random_box(rng, photo.size, self.scale)
        flipped = bool(rng.random() < self.mirror)
        image = crop(photo, box, self.side_px, flipped)

        # The augmented view has the geometry of the global view, up to a flip.
        augmented, augmented_flipped = None, False
        if self.with_augmented:
            augmented_flipped = bool(rng.random() < self.mirror)
            augmented = color_jitter(
                image.flip(-1) if augmented_flipped else image.clone(), rng, *self.jitter
            )

        local = [self._local_view(photo, rng) for _ in range(self.num_local_views)]

        return ViLSegSample(
            key=source.key,
            caption=caption,
            image=image,
            box=torch.tensor(box),
            flipped=flipped,
            local_views=torch.stack([view for view, _, _ in local]) if local else None,
            local_boxes=torch.stack([local_box for _, local_box, _ in local]) if local else None,
            local_flipped=torch.tensor([mirrored for _, _, mirrored in local]) if local else None,
            augmented=augmented,
            augmented_flipped=augmented_flipped,
            nouns=_shares([nouns(text) for text in captions]) if self.kinds is not None else {},
            prompted=bool(rng.random() < self.prompted),
        )

    def collate(self, samples: Sequence[ViLSegSample]) -> Batch:
        """Stack samples into a batch.

        Args:
            samples: Samples of this process's photos; either all or none have captions.

        Returns:
            The batch; captions are tokenized if there are any.
        """
        captions = [sample.caption for sample in samples if sample.caption is not None]
        # The contrast pairs images and captions by index, so none may be missing.
        assert len(captions) in (0, len(samples)), "a batch is either captioned or not"

        assert self.tokenizer is not None or not captions, "captions need a tokenizer"

        words, word_weights = self._words(samples)

        return Batch(
            images=torch.stack([sample.image for sample in samples]),
            boxes=torch.stack([sample.box for sample in samples]),
            flipped=torch.tensor([sample.flipped for sample in samples]),
            captions=self.tokenizer(captions) if self.tokenizer and captions else None,
            local_views=_stack([sample.local_views for sample in samples]),
            local_boxes=_stack([sample.local_boxes for sample in samples]),
            local_flipped=_stack([sample.local_flipped for sample in samples]),
            augmented_view=_stack([sample.augmented for sample in samples]),
            augmented_flipped=torch.tensor([sample.augmented_flipped for sample in samples])
            if self.with_augmented
            else None,
            words=words,
            word_weights=word_weights,
            keys=tuple(sample.key for sample in samples),
        )

    def _words(self, samples: Sequence[ViLSegSample]) -> tuple[Tokens | None, Tensor | None]:
        """Tokens of superclasses and other nouns of the batch, and their weights per photo."""
        if self.kinds is None:
            return None, None

        assert self.tokenizer is not None, "words need a tokenizer"

        # Sorted, so that the order does not depend on hashing.
        others = sorted(
            {noun for sample in samples for noun in sample.nouns}.difference(self.kinds)
        )
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

    def _local_view(self, photo: Image, rng: np.random.Generator) -> tuple[Tensor, Tensor, bool]:
        """Crop, mirror and jitter one local view."""
        box = random_box(rng, photo.size, _LOCAL_SCALE)
        mirrored = bool(rng.random() < self.mirror)
        view = color_jitter(crop(photo, box, self.local_side_px, mirrored), rng, *self.jitter)
        return view, torch.tensor(box), mirrored


def _shares(named: Sequence[Sequence[str]]) -> Mapping[str, float]:
    """Share of the captions that contain each noun."""
    counts = Counter(word for words in named for word in words)
    return {word: count / len(named) for word, count in counts.items()}


def _stack(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Stack the tensors that are present; None if there are none."""
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present) if present else None
