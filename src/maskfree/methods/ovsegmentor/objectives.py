"""L_entity and L_mask of OVSegmentor's objective and their variants, each with the parameters that it owns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.losses.contrastive import info_nce, retrieval_accuracy
from maskfree.losses.entities import group_contrast, masked_language, multi_label_contrast
from maskfree.losses.mask_arithmetic import MaskArithmetic
from maskfree.losses.mask_consistency import (
    chosen,
    consistency,
    learning_only,
    mask_logits,
    over_photos,
    subgroups,
)
from maskfree.nn.contrastive_objective import Gather, ema_update
from maskfree.nn.dual_encoder import TextProjector
from maskfree.nn.entity_decoder import EntityDecoder
from maskfree.nn.grouping_encoder import Grouped, GroupingEncoder
from maskfree.ops.matching import match
from maskfree.types import EntityTexts, Losses, Partners, Tokens

Embed = Callable[[Tokens], Tensor]  # texts to unit-norm embeddings
Project = Callable[[Grouped], Tensor]  # groups to the space of the texts, of any length


@dataclass(frozen=True)
class EntityInputs:
    """What an entity term sees of a batch, and with what."""

    groups: Float[Tensor, "b g c"]
    overall: Float[Tensor, "b d"]  # of the photos, unit norm
    texts: EntityTexts
    text: TextProjector
    embed: Embed
    scale: Float[Tensor, ""]  # the inverse temperature
    gather: Gather


class EntityObjective(nn.Module, ABC):
    """What the entities of a caption teach."""

    @abstractmethod
    def forward(self, asked: EntityInputs) -> Losses:
        """Compare the photos with the texts."""


class CompletionObjective(EntityObjective):
    """Masked entity completion: a masked caption that has looked at the groups must name what was masked.

    Captions in which nothing was masked do not count. Source: eq. 8 and 9. Differs: the released code counts them, and
    the decoder attends to padding; ALL_QUESTIONS and SEE_PADDING do, too.
    """

    def __init__(
        self,
        *,
        weight: float,
        decoder: EntityDecoder,
        bridge: nn.Module,
        all_questions: bool,
        see_padding: bool,
    ):
        super().__init__()
        self.decoder = decoder
        self.bridge = bridge
        self._weight, self._all_questions, self._see_padding = weight, all_questions, see_padding

    def forward(self, asked: EntityInputs) -> Losses:
        """Contrast completed questions with answers, over the global batch."""
        texts, encoder = asked.texts, asked.text.encoder
        seen = None if self._see_padding else texts.questions.mask
        completed = self.decoder(encoder.each(texts.questions), asked.groups, seen)
        sentences = self.bridge(encoder.pool(completed, texts.questions))
        counted = asked.gather(texts.masked | self._all_questions)
        questions = asked.gather(F.normalize(sentences, dim=-1))[counted].float()
        answers = asked.gather(asked.embed(texts.answers))[counted].float()
        if not len(questions):
            return Losses({"entity": sentences.sum() * 0}, {})
        metrics = {"completion_accuracy": retrieval_accuracy(questions, answers).detach()}
        return Losses({"entity": self._weight * info_nce(questions, answers, asked.scale)}, metrics)


class MultiLabelObjective(EntityObjective):
    """GroupViT's multi-label contrast: a photo and the prompts of its entities. Source: Table 4."""

    def __init__(self, *, weight: float):
        super().__init__()
        self._weight = weight

    def forward(self, asked: EntityInputs) -> Losses:
        """Contrast photos with labels, over the global batch."""
        texts = asked.texts
        assert texts.labels is not None and texts.labeled is not None, (
            "the multi-label contrast needs labels"
        )
        labels = asked.gather(asked.embed(texts.labels).unflatten(0, texts.labeled.shape)).float()
        photos = asked.gather(asked.overall).float()
        loss = multi_label_contrast(photos, labels, asked.gather(texts.labeled), asked.scale)
        return Losses({"entity": self._weight * loss}, {})


class MaskedWordsObjective(EntityObjective):
    """Masked language modelling among the entities: each masked word is guessed by itself. Source: Table 4."""

    def __init__(self, *, weight: float, decoder: EntityDecoder | None, classifier: nn.Linear):
        super().__init__()
        self.decoder = decoder  # None: from the text alone
        self.classifier = classifier
        self._weight = weight

    def forward(self, asked: EntityInputs) -> Losses:
        """Guess the masked words of this process's captions."""
        questions = asked.texts.questions
        hidden = asked.text.encoder.each(questions)
        if self.decoder is not None:
            hidden = self.decoder(hidden, asked.groups, questions.mask)
        return Losses(
            {
                "entity": self._weight
                * masked_language(self.classifier(hidden), asked.texts.targets)
            },
            {},
        )


@dataclass(frozen=True)
class MaskMatchingConfig:
    """How the groups of two photos that share an entity are compared."""

    count: int  # groups of each photo that take part: those closest to the entity
    contrast_groups: bool  # the groups themselves instead of their masks
    symmetric: bool  # in both photos instead of the partner only
    online_keys: bool  # predicted masks are read from the trained model's patches instead of the momentum model's
    leave_out: bool  # the other groups take no part, instead of only having no gradient
    arithmetic: MaskArithmetic


class MaskConsistencyObjective(nn.Module):
    """Cross-image mask consistency, with the momentum model that makes its targets.

    Source: eq. 10 to 12. Differs: see `maskfree.losses.mask_consistency`.
    """

    def __init__(
        self,
        *,
        weight: float,
        start: float,
        image: GroupingEncoder,
        momentum: float,
        comparison: MaskMatchingConfig,
    ):
        super().__init__()
        self.teacher = deepcopy(image).requires_grad_(False)
        self.progress: Tensor
        self.register_buffer(
            "progress", torch.zeros(())
        )  # of the training; saved, so that a resumed run knows
        self._weight, self._start, self._momentum, self._comparison = (
            weight,
            start,
            momentum,
            comparison,
        )

    def on_train_start(self, image: GroupingEncoder) -> None:
        """Start from IMAGE, the trained encoder with its first weights."""
        self.teacher.load_state_dict(image.state_dict())
        self.progress.zero_()

    @property
    def begun(self) -> bool:
        """Whether the part of the training has begun that has this term."""
        return self.progress.item() >= self._start

    def forward(
        self,
        student: GroupingEncoder,
        images: Float[Tensor, "b 3 h w"],
        seen: tuple[Grouped, Float[Tensor, "b g d"]],
        project: Project,
        partners: Partners,
        shared: Float[Tensor, "b d"],
        scale: Float[Tensor, ""],
    ) -> Losses:
        """Ground what IMAGES and PARTNERS share in each other; each process compares its own photos.

        SHARED is the embedding of what they share, SEEN what STUDENT saw in IMAGES.
        """
        first, first_groups = seen
        with torch.no_grad():
            target = self.teacher(partners.images)
            target_groups = project(target)
        metrics = {"paired": partners.present.float().mean()}
        if self._comparison.contrast_groups:
            loss = self._contrast(first_groups, target_groups, shared, partners, scale)
            return Losses({"masks": self._weight * loss}, metrics)
        second = (
            student(partners.images)
            if self._comparison.symmetric or self._comparison.online_keys
            else None
        )
        keys = (
            second.assignment.keys
            if second and self._comparison.online_keys
            else target.assignment.keys
        )
        loss = self._direction(target, target_groups, keys, first, first_groups, partners, shared)
        if self._comparison.symmetric:
            assert second is not None
            with torch.no_grad():
                own = self.teacher(images)
                own_groups = project(own)
            keys = first.assignment.keys if self._comparison.online_keys else own.assignment.keys
            back = self._direction(own, own_groups, keys, second, project(second), partners, shared)
            loss = (loss + back) / 2
        return Losses({"masks": self._weight * loss}, metrics)

    def _direction(
        self,
        target: Grouped,
        target_groups: Float[Tensor, "b g d"],
        keys: Float[Tensor, "b n c"],
        other: Grouped,
        other_groups: Float[Tensor, "b g d"],
        partners: Partners,
        shared: Float[Tensor, "b d"],
    ) -> Float[Tensor, ""]:
        """Compare the masks that TARGET's groups make of its patches with those that the OTHER photo's groups make."""
        wanted, given = target.assignment.queries, other.assignment.queries
        best = self._closest(other_groups, shared)
        if self._comparison.leave_out:
            wanted, given = (
                chosen(wanted, self._closest(target_groups, shared)),
                chosen(given, best),
            )
        else:
            given = learning_only(given, best)
        losses = consistency(
            mask_logits(wanted, target.assignment.keys),
            mask_logits(given, keys),
            patches=target.patches,
            match=match,
            arithmetic=self._comparison.arithmetic,
        )
        return over_photos(losses, partners.present, given.shape[1], self._comparison.arithmetic)

    def _contrast(
        self,
        first: Float[Tensor, "b g d"],
        second: Float[Tensor, "b g d"],
        shared: Float[Tensor, "b d"],
        partners: Partners,
        scale: Float[Tensor, ""],
    ) -> Float[Tensor, ""]:
        """Draw the groups of the shared entity to each other: Table 6's other objective."""
        sides = [
            F.normalize(chosen(side, self._closest(side, shared)), dim=-1)
            for side in (first, second)
        ]
        order = match(sides[0] @ sides[1].mT)
        return group_contrast(sides[0], chosen(sides[1], order), partners.present, scale)

    def _closest(self, groups: Float[Tensor, "b g d"], shared: Float[Tensor, "b d"]) -> Tensor:
        return subgroups((groups.detach() @ shared[..., None]).squeeze(-1), self._comparison.count)

    @torch.no_grad()
    def after_step(self, student: GroupingEncoder, progress: float) -> None:
        """Move the momentum model; PROGRESS of the training is in (0, 1]."""
        ema_update(self.teacher, student, self._momentum)
        self.progress.fill_(progress)
