"""What OVSegmentor trains on: a view of each photo, questions about its caption, and a partner that shares an entity.

Source: arXiv:2301.09121, sections 3.2 and 3.3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from maskfree.data.sample import Source, Transform
from maskfree.data.transforms import color_jitter, crop, random_box
from maskfree.text.entities import EntitySet, Mention, entity_sentence, masked, noun_mentions
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Batch, EntityTexts, Partners, Tokens

# Each part of a sample has its own random numbers, so that leaving one out changes none of the others.
_CAPTION, _VIEW, _QUESTION, _LABELS, _PARTNER = range(5)


class Texts(NamedTuple):
    """What a caption says of entities, as texts."""

    question: str
    answer: str
    masked: bool
    hidden: tuple[
        int, ...
    ]  # number of the entity behind each mask token of the question; -1 for none of the set
    labels: tuple[str, ...]


class OVSegmentorSample(NamedTuple):
    """One photo's view, caption and texts, with its partner's view and entity."""

    key: str
    image: Tensor
    box: Tensor
    flipped: bool
    caption: str | None
    texts: Texts | None
    partner: tuple[str, Tensor] | None


@dataclass(frozen=True)
class OVSegmentorTransform(Transform):
    """Crop, mirror and recolor a photo and its partner; draw a caption, mask its entities and ask for them."""

    tokenizer: Tokenizer
    entity_set: EntitySet
    side_px: int
    scale: tuple[float, float]  # share of the photo's area
    mirror: float  # probability
    jitter: tuple[float, float, float, float]  # brightness, contrast, saturation, hue; zeros: none
    masking: Literal[
        "entities", "one", "nouns"
    ]  # all mentions of entities, one of them, or all nouns
    templates: tuple[str, ...]  # of answers and labels
    label_count: int = 0  # prompted entities of each photo
    shared_prompt: str = "a photo of a {}"  # for the entity that partners share
    with_questions: bool = True  # and labels
    with_partner: bool = True

    @property
    def takes_partner(self) -> bool:
        """Whether `sample` looks at the source's partner."""
        return self.with_partner

    @property
    def entities(self) -> tuple[str, ...]:
        """The entities that captions are searched for."""
        return self.entity_set.entities

    def sample(self, source: Source, seed: int) -> OVSegmentorSample:
        """Augment one photo; all randomness comes from SEED.

        Raises:
            ValueError: the tokenizer has no mask token, and the captions are to be masked.
        """
        captions = source.captions
        caption = captions[int(_rng(seed, _CAPTION).integers(len(captions)))] if captions else None
        image, box, flipped = self._view(source.photo, _rng(seed, _VIEW))
        partner = source.partner if self.with_partner else None
        return OVSegmentorSample(
            key=source.key,
            image=image,
            box=box,
            flipped=flipped,
            caption=caption,
            texts=self._texts(caption, seed)
            if self.with_questions and caption is not None
            else None,
            partner=(partner.entity, self._view(partner.photo, _rng(seed, _PARTNER))[0])
            if partner
            else None,
        )

    def collate(self, samples: Sequence[OVSegmentorSample]) -> Batch:
        """Stack samples into a batch; captions are tokenized if the samples have any."""
        captions = [sample.caption for sample in samples if sample.caption is not None]
        assert len(captions) in (0, len(samples)), "a batch is either captioned or not"
        texts = [sample.texts for sample in samples if sample.texts is not None]
        return Batch(
            images=torch.stack([sample.image for sample in samples]),
            boxes=torch.stack([sample.box for sample in samples]),
            flipped=torch.tensor([sample.flipped for sample in samples]),
            captions=self.tokenizer(captions) if captions else None,
            entities=self._entities(texts) if texts else None,
            partners=self._partners(samples) if self.with_partner else None,
            keys=tuple(sample.key for sample in samples),
        )

    def _view(self, photo: Image, rng: np.random.Generator) -> tuple[Tensor, Tensor, bool]:
        box = random_box(rng, photo.size, self.scale)
        flipped = bool(rng.random() < self.mirror)
        view = crop(photo, box, self.side_px, flipped)
        return (
            color_jitter(view, rng, *self.jitter) if any(self.jitter) else view,
            torch.tensor(box),
            flipped,
        )

    def _texts(self, caption: str, seed: int) -> Texts:
        """Mask what CAPTION names and say what it was; where it names nothing, both texts are the caption itself."""
        numbers = {entity: number for number, entity in enumerate(self.entity_set.entities)}
        known = self.entity_set.mentions(caption)
        labels = self._labels(_distinct(known), _rng(seed, _LABELS))
        rng = _rng(seed, _QUESTION)
        template = self.templates[int(rng.integers(len(self.templates)))]
        hidden = noun_mentions(caption) if self.masking == "nouns" else known
        if self.masking == "one" and hidden:
            hidden = (hidden[int(rng.integers(len(hidden)))],)
        if not hidden:
            return Texts(caption, caption, False, (), labels)
        mask = self.tokenizer.mask_token
        # A caption may hold the mask token itself, which hides nothing.
        tokens = {match.start(): -1 for match in re.finditer(re.escape(mask), caption)}
        for mention in hidden:
            meant = next(
                (m for m in known if m.start < mention.end and mention.start < m.end), mention
            )
            tokens[mention.start] = numbers.get(meant.entity, -1)
        return Texts(
            question=masked(caption, hidden, mask),
            answer=entity_sentence(_distinct(hidden), template),
            masked=True,
            hidden=tuple(tokens[start] for start in sorted(tokens)),
            labels=labels,
        )

    def _labels(self, entities: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
        """Prompt up to `label_count` of a caption's ENTITIES, each with a template of its own."""
        chosen = [entities[int(i)] for i in rng.permutation(len(entities))[: self.label_count]]
        drawn = rng.integers(len(self.templates), size=len(chosen))
        return tuple(
            entity_sentence((entity,), self.templates[int(number)])
            for entity, number in zip(chosen, drawn, strict=True)
        )

    def _entities(self, texts: Sequence[Texts]) -> EntityTexts:
        questions = self.tokenizer([text.question for text in texts])
        labels = [text.labels + ("",) * (self.label_count - len(text.labels)) for text in texts]
        counts = torch.tensor([len(text.labels) for text in texts])
        return EntityTexts(
            questions=questions,
            answers=self.tokenizer([text.answer for text in texts]),
            masked=torch.tensor([text.masked for text in texts]),
            targets=self._targets(questions, texts),
            labels=self.tokenizer([label for row in labels for label in row])
            if self.label_count
            else None,
            labeled=torch.arange(self.label_count) < counts[:, None] if self.label_count else None,
        )

    def _targets(self, questions: Tokens, texts: Sequence[Texts]) -> Tensor:
        """Number the mask tokens by what they hide, in order; truncation may have cut the last ones off."""
        targets = torch.full_like(questions.ids, -1)
        if any(text.masked for text in texts):
            positions = questions.ids == self.tokenizer.mask_id
            for row, text in enumerate(texts):
                places = positions[row].nonzero().flatten()[: len(text.hidden)]
                targets[row, places] = torch.tensor(text.hidden[: len(places)], dtype=targets.dtype)
        return targets

    def _partners(self, samples: Sequence[OVSegmentorSample]) -> Partners:
        """Stack the partners' views; a photo without one has zeros."""
        none = torch.zeros(3, self.side_px, self.side_px)
        found = [sample.partner for sample in samples]
        return Partners(
            images=torch.stack([partner[1] if partner else none for partner in found]),
            entities=self.tokenizer(
                [
                    entity_sentence(partner[:1], self.shared_prompt) if partner else ""
                    for partner in found
                ]
            ),
            present=torch.tensor([partner is not None for partner in found]),
        )


def _rng(seed: int, part: int) -> np.random.Generator:
    return np.random.default_rng([seed, part])


def _distinct(mentions: Sequence[Mention]) -> tuple[str, ...]:
    """What MENTIONS are of, each once, in their order."""
    return tuple(dict.fromkeys(mention.entity for mention in mentions))
