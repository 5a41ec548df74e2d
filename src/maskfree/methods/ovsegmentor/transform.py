"""Training data of OVSegmentor: views, entity texts of captions, and partners.

A partner is another photo that shares an entity.

Source: arXiv:2301.09121, sections 3.2 and 3.3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from maskfree.data.packed import Packed, PackedViews
from maskfree.data.sample import Source, Transform
from maskfree.data.transforms import (
    View,
    random_caption,
    random_view,
    tokenized_captions,
    tokenized_labels,
)
from maskfree.methods.ovsegmentor.batch import EntityTexts, OVSegmentorBatch, Partners
from maskfree.text.entities import EntitySet, Mention, entity_sentence, masked
from maskfree.text.nouns import noun_mentions
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Tokens

# Each part of a sample has its own random numbers, so that leaving one out changes no other part.
_CAPTION, _VIEW, _QUESTION, _LABELS, _PARTNER = range(5)


class CaptionTexts(NamedTuple):
    """Entity texts of one caption."""

    question: str
    """Caption with masked entities."""
    answer: str
    """Sentence that names the masked entities."""
    masked: bool
    """Whether anything is masked."""
    hidden: tuple[int, ...]
    """Index of the entity behind each mask token of the question; -1 if it is not in the set."""
    labels: tuple[str, ...]
    """Prompted entities of the caption."""


class OVSegmentorSample(NamedTuple):
    """View, caption and entity texts of one photo, with the view and entity of its partner."""

    view: View
    caption: str | None
    texts: CaptionTexts | None
    partner: tuple[str, View] | None
    """Shared entity and view of the partner."""


LABELS_PER_PHOTO = 3
"""Prompted entities per photo of the multi-label contrast; GroupViT's default."""


@dataclass(frozen=True)
class OVSegmentorTransform(Transform):
    """Augment a photo and its partner, sample a caption and mask its entities."""

    tokenizer: Tokenizer
    """Tokenizer with a mask token."""
    entity_set: EntitySet
    """Entities that captions are searched for."""
    side_px: int
    """Side of a view, in pixels."""
    scale: tuple[float, float]
    """Smallest and largest area of a view, as a fraction of the photo."""
    mirror: float
    """Probability of a horizontal flip, for each view."""
    jitter: tuple[float, float, float, float]
    """Strength of brightness, contrast, saturation and hue jitter; zeros switch it off."""
    masking: Literal["entities", "one", "nouns"]
    """What is masked: all mentions of "entities", "one" of them, or all "nouns"."""
    templates: tuple[str, ...]
    """Prompt templates of answers and labels."""
    label_count: int = 0
    """Number of prompted entities per photo."""
    shared_prompt: str = "a photo of a {}"
    """Prompt template of the entity that partners share."""
    with_questions: bool = True
    """Whether to create entity texts."""
    with_partner: bool = True
    """Whether to create the partner's view."""
    partner_start: float = 0.0
    """Share of the training without partners, in [0, 1]."""

    @property
    def partners_from(self) -> float:
        """Share of the training from which on partners are used.

        Returns:
            `partner_start`.
        """
        return self.partner_start

    @property
    def takes_partner(self) -> bool:
        """Whether `sample` reads the partner of a photo.

        Returns:
            `with_partner`.
        """
        return self.with_partner

    @property
    def entities(self) -> tuple[str, ...]:
        """Entities that captions are searched for.

        Returns:
            Names of the entities, in the order of their indices.
        """
        return self.entity_set.entities

    def sample(self, source: Source, seed: int) -> OVSegmentorSample:
        """Create the view, entity texts and partner's view of one photo.

        Args:
            source: Photo with its key, captions and partner.
            seed: Seed of all random choices.

        Returns:
            The augmented sample.

        Raises:
            ValueError: Captions are to be masked, and the tokenizer has no mask token.
        """
        caption = random_caption(_rng(seed, _CAPTION), source.captions)
        view = self._view(source.photo, _rng(seed, _VIEW))

        texts = None
        if self.with_questions and caption is not None:
            texts = self._texts(caption, seed)

        partner = None
        if self.with_partner and source.partner is not None:
            partner_view = self._view(source.partner.photo, _rng(seed, _PARTNER))
            partner = (source.partner.entity, partner_view)

        return OVSegmentorSample(view=view, caption=caption, texts=texts, partner=partner)

    def collate(self, samples: Sequence[OVSegmentorSample]) -> Packed[OVSegmentorBatch]:
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

        texts = [sample.texts for sample in samples if sample.texts is not None]
        if texts:
            fields["entities"] = self._entities(texts)
        # Before L_mask begins, no photo has a partner.
        if any(sample.partner is not None for sample in samples):
            fields["partners"] = self._partners(samples)

        return Packed(OVSegmentorBatch, fields)

    def _view(self, photo: Image, rng: np.random.Generator) -> View:
        """Crop, mirror and jitter a photo."""
        jitter = self.jitter if any(self.jitter) else None
        return random_view(rng, np.asarray(photo), self.side_px, self.scale, self.mirror, jitter)

    def _texts(self, caption: str, seed: int) -> CaptionTexts:
        """Mask the entities of a caption and name them; without any, both texts are the caption."""
        numbers = {entity: number for number, entity in enumerate(self.entity_set.entities)}
        known = self.entity_set.mentions(caption)
        labels = self._labels(_distinct(known), _rng(seed, _LABELS))

        # What to mask; nouns outside the entity set may be included.
        rng = _rng(seed, _QUESTION)
        template = self.templates[int(rng.integers(len(self.templates)))]
        hidden = known
        if self.masking == "nouns":
            hidden = noun_mentions(caption)
        elif self.masking == "one" and hidden:
            hidden = (hidden[int(rng.integers(len(hidden)))],)
        if not hidden:
            return CaptionTexts(caption, caption, False, (), labels)

        mask = self.tokenizer.mask_token
        # Entity index by position; a mask token that the caption already contains hides nothing.
        tokens = {match.start(): -1 for match in re.finditer(re.escape(mask), caption)}

        # A masked noun that overlaps a known mention counts as its entity.
        for mention in hidden:
            entity = mention.entity
            for other in known:
                if other.start < mention.end and mention.start < other.end:
                    entity = other.entity
                    break
            tokens[mention.start] = numbers.get(entity, -1)

        return CaptionTexts(
            question=masked(caption, hidden, mask),
            answer=entity_sentence(_distinct(hidden), template),
            masked=True,
            hidden=tuple(tokens[start] for start in sorted(tokens)),
            labels=labels,
        )

    def _labels(self, entities: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
        """Prompts of up to `label_count` random entities, each with a random template."""
        # A random subset, since a caption may name more entities than there are labels.
        chosen = [entities[int(i)] for i in rng.permutation(len(entities))[: self.label_count]]
        drawn = rng.integers(len(self.templates), size=len(chosen))
        return tuple(
            entity_sentence((entity,), self.templates[int(number)])
            for entity, number in zip(chosen, drawn, strict=True)
        )

    def _entities(self, texts: Sequence[CaptionTexts]) -> EntityTexts:
        """Tokenize the entity texts of a batch."""
        questions = self.tokenizer([text.question for text in texts])

        made = EntityTexts(
            questions=questions,
            answers=self.tokenizer([text.answer for text in texts]),
            masked=torch.tensor([text.masked for text in texts]),
            targets=self._targets(questions, texts),
        )
        if not self.label_count:
            return made

        labels, labeled = tokenized_labels(
            self.tokenizer, [text.labels for text in texts], self.label_count
        )
        return replace(made, labels=labels, labeled=labeled)

    def _targets(self, questions: Tokens, texts: Sequence[CaptionTexts]) -> Tensor:
        """Entity index of each mask token in order; truncation may cut off the last ones."""
        targets = torch.full_like(questions.ids, -1)
        if any(text.masked for text in texts):
            positions = questions.ids == self.tokenizer.mask_id
            for row, text in enumerate(texts):
                # An unmasked caption has no hidden entities, hence no places.
                places = positions[row].nonzero().flatten()[: len(text.hidden)]
                targets[row, places] = torch.tensor(text.hidden[: len(places)], dtype=targets.dtype)

        return targets

    def _partners(self, samples: Sequence[OVSegmentorSample]) -> Packed[Partners]:
        """Stack the partners' views; black for a photo without a partner."""
        views, sentences, present = [], [], []
        shape = samples[0].view.image.shape
        for sample in samples:
            # `present` marks the rows that are real.
            present.append(sample.partner is not None)
            if sample.partner is None:
                black = torch.zeros(shape, dtype=torch.uint8)
                views.append(View(black, (0.0, 0.0, 1.0, 1.0), flipped=False))
                sentences.append("")
            else:
                entity, view = sample.partner
                views.append(view)
                sentences.append(entity_sentence((entity,), self.shared_prompt))

        fields = {
            "images": PackedViews.of(views),
            "entities": self.tokenizer(sentences),
            "present": torch.tensor(present),
        }
        return Packed(Partners, fields)


def _rng(seed: int, part: int) -> np.random.Generator:
    """Random number generator of one part of a sample."""
    return np.random.default_rng([seed, part])


def _distinct(mentions: Sequence[Mention]) -> tuple[str, ...]:
    """Entities of mentions, without repetition, in order."""
    return tuple(dict.fromkeys(mention.entity for mention in mentions))
