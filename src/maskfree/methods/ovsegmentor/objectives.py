"""L_entity and L_mask of OVSegmentor and their variants, each with its own parameters."""

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
from maskfree.losses.mask_consistency import (
    chosen,
    learning_only,
    mask_logits,
    matched_dice,
    over_photos,
    subgroups,
)
from maskfree.methods.ovsegmentor.batch import EntityTexts, Partners
from maskfree.methods.ovsegmentor.mask_matching import MaskMatching
from maskfree.nn.contrastive_objective import Gather, ema_update
from maskfree.nn.dual_encoder import TextProjector
from maskfree.nn.entity_decoder import EntityDecoder
from maskfree.nn.grouping_encoder import Grouped, GroupingEncoder
from maskfree.ops.matching import match
from maskfree.types import Losses, Tokens

# Tokens to unit-norm text embeddings.
Embed = Callable[[Tokens], Tensor]
# Groups to the joint space, not normalized.
Project = Callable[[Grouped], Tensor]


@dataclass(frozen=True)
class EntityInputs:
    """Inputs of an entity objective."""

    groups: Float[Tensor, "b g c"]
    """Group features of the images, not projected."""
    overall: Float[Tensor, "b d"]
    """Unit-norm image embeddings."""
    texts: EntityTexts
    """Masked captions, answers and labels."""
    text: TextProjector
    """Text encoder with its projection."""
    embed: Embed
    """Function that embeds tokenized texts with unit norm."""
    scale: Float[Tensor, ""]
    """Inverse temperature."""
    gather: Gather
    """Concatenates a tensor over all processes."""


class EntityObjective(nn.Module, ABC):
    """Base class of losses on the entities of captions."""

    @abstractmethod
    def forward(self, asked: EntityInputs) -> Losses:
        """Compare images with entity texts.

        Args:
            asked: Images, texts and encoders of this batch.

        Returns:
            The term `entity`, with metrics.
        """


class CompletionObjective(EntityObjective):
    """Masked entity completion: contrast completed captions with the masked entities.

    A masked caption attends to the image groups; its embedding must match a sentence that names the
    masked entities. Captions in which nothing was masked are excluded.

    Source: eq. 8 and 9.

    Differs: the released code includes them, and its decoder attends to padding; `released` does
    so too.
    """

    def __init__(
        self,
        *,
        weight: float,
        decoder: EntityDecoder,
        bridge: nn.Module,
        released: bool,
    ):
        super().__init__()
        self.decoder = decoder
        self.bridge = bridge
        self._weight, self._released = weight, released

    def forward(self, asked: EntityInputs) -> Losses:
        """Contrast completed captions with answers over the global batch.

        Args:
            asked: Images, texts and encoders of this batch.

        Returns:
            The term `entity`, with the accuracy of matching as a metric.
        """
        texts, encoder = asked.texts, asked.text.encoder
        # No mask lets the decoder attend to padding.
        mask = None if self._released else texts.questions.mask
        completed = self.decoder(encoder.each(texts.questions), asked.groups, mask)
        # The completed caption is pooled like a text, then projected to the joint space.
        sentences = self.bridge(encoder.pool(completed, texts.questions))

        # Captions without masked entities do not count.
        counted = asked.gather(texts.masked | self._released)
        questions = asked.gather(F.normalize(sentences, dim=-1))[counted].float()
        answers = asked.gather(asked.embed(texts.answers))[counted].float()

        # Zero with a graph, so that every process takes part in the backward pass.
        if not len(questions):
            return Losses({"entity": sentences.sum() * 0}, {})

        metrics = {"completion_accuracy": retrieval_accuracy(questions, answers).detach()}

        return Losses({"entity": self._weight * info_nce(questions, answers, asked.scale)}, metrics)


class MultiLabelObjective(EntityObjective):
    """Multi-label contrast of GroupViT between a photo and the prompts of its entities.

    Source: Table 4.
    """

    def __init__(self, *, weight: float):
        super().__init__()
        self._weight = weight

    def forward(self, asked: EntityInputs) -> Losses:
        """Contrast images with labels over the global batch.

        Args:
            asked: Images, texts and encoders of this batch.

        Returns:
            The term `entity`.
        """
        texts = asked.texts
        assert texts.labels is not None and texts.labeled is not None, (
            "the multi-label contrast needs labels"
        )

        # One row of labels per image.
        labels = asked.gather(asked.embed(texts.labels).unflatten(0, texts.labeled.shape)).float()
        photos = asked.gather(asked.overall).float()
        loss = multi_label_contrast(photos, labels, asked.gather(texts.labeled), asked.scale)

        return Losses({"entity": self._weight * loss}, {})


class MaskedWordsObjective(EntityObjective):
    """Masked language modeling among the entities: each masked word is classified by itself.

    Source: Table 4.
    """

    def __init__(self, *, weight: float, decoder: EntityDecoder | None, classifier: nn.Linear):
        super().__init__()
        # None classifies from the text alone.
        self.decoder = decoder
        self.classifier = classifier
        self._weight = weight

    def forward(self, asked: EntityInputs) -> Losses:
        """Classify the masked words of this process's captions.

        Args:
            asked: Images, texts and encoders of this batch.

        Returns:
            The term `entity`.
        """
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


class MaskConsistencyObjective(nn.Module):
    """Cross-image mask consistency with a momentum encoder that makes the targets.

    Source: eq. 10 to 12.

    Differs: see `maskfree.losses.mask_consistency`.
    """

    def __init__(
        self,
        *,
        weight: float,
        start: float,
        image: GroupingEncoder,
        momentum: float,
        count: int,
        contrast_groups: bool,
        matching: MaskMatching,
    ):
        """Create the momentum encoder.

        Args:
            weight: Weight of the loss.
            start: Share of the training without the loss, in [0, 1].
            image: Image encoder that the momentum encoder starts from.
            momentum: Momentum of its moving average.
            count: Number of groups per photo that are compared: those most similar to the entity.
            contrast_groups: Compare the groups themselves instead of their masks.
            matching: How masks are compared.
        """
        super().__init__()
        # The momentum encoder gets no gradient; it moves in `after_step`.
        self.teacher = deepcopy(image).requires_grad_(False)
        self.progress: Tensor
        # Finished share of the training; a buffer, so that a resumed run restores it.
        self.register_buffer("progress", torch.zeros(()))
        self._weight, self._start, self._momentum = weight, start, momentum
        self._count, self._contrast_groups, self._matching = count, contrast_groups, matching

    def on_train_start(self, image: GroupingEncoder) -> None:
        """Copy the image encoder into the momentum encoder and reset the progress.

        Args:
            image: Trained image encoder with its initial weights.
        """
        self.teacher.load_state_dict(image.state_dict())
        self.progress.zero_()

    @property
    def begun(self) -> bool:
        """Whether the training has reached the part that uses this loss.

        Returns:
            True from the configured share of the training on.
        """
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
        """Compare the masks of the shared entity in images and their partners.

        Each process compares its own photos.

        Args:
            student: Trained image encoder.
            images: Images of the batch.
            seen: Groups of the images by the trained encoder, and their projections.
            project: Projects groups to the joint space.
            partners: For each image another one that shares an entity.
            shared: Unit-norm text embeddings of the shared entities.
            scale: Inverse temperature of the group contrast.

        Returns:
            The term `masks`, with the share of images that have a partner as a metric.
        """
        first, first_groups = seen

        # Targets on the partner, by the momentum encoder.
        with torch.no_grad():
            target = self.teacher(partners.images)
            target_groups = project(target)

        metrics = {"paired": partners.present.float().mean()}
        if self._contrast_groups:
            loss = self._contrast(first_groups, target_groups, shared, partners, scale)
            return Losses({"masks": self._weight * loss}, metrics)

        # The trained encoder sees the partner only if a comparison needs it.
        second = None
        if self._matching.symmetric or self._matching.online_keys:
            second = student(partners.images)

        # Predicted masks are read from these patches of the partner.
        keys = target.assignment.keys
        if second is not None and self._matching.online_keys:
            keys = second.assignment.keys

        loss = self._direction(target, target_groups, keys, first, first_groups, partners, shared)

        # The same with images and partners exchanged.
        if self._matching.symmetric:
            assert second is not None
            with torch.no_grad():
                own = self.teacher(images)
                own_groups = project(own)
            keys = first.assignment.keys if self._matching.online_keys else own.assignment.keys
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
        """Compare masks of the target's groups and of the other photo's groups on its patches."""
        # Queries stand for groups and keys for patches; their product is a mask.
        wanted, given = target.assignment.queries, other.assignment.queries
        best = self._closest(other_groups, shared)

        # Only groups close to the shared entity are compared, or only they get a gradient.
        if self._matching.leave_out:
            wanted, given = (
                chosen(wanted, self._closest(target_groups, shared)),
                chosen(given, best),
            )
        else:
            given = learning_only(given, best)

        losses = matched_dice(
            mask_logits(wanted, target.assignment.keys),
            mask_logits(given, keys),
            patches=target.patches,
            match=match,
            arithmetic=self._matching.arithmetic,
        )

        return over_photos(losses, partners.present, given.shape[1], self._matching.arithmetic)

    def _contrast(
        self,
        first: Float[Tensor, "b g d"],
        second: Float[Tensor, "b g d"],
        shared: Float[Tensor, "b d"],
        partners: Partners,
        scale: Float[Tensor, ""],
    ) -> Float[Tensor, ""]:
        """Contrast the groups of the shared entity: the alternative of Table 6."""
        sides = [
            F.normalize(chosen(side, self._closest(side, shared)), dim=-1)
            for side in (first, second)
        ]

        # Pair groups by the matching with the highest total cosine.
        order = match(sides[0] @ sides[1].mT)

        return group_contrast(sides[0], chosen(sides[1], order), partners.present, scale)

    def _closest(self, groups: Float[Tensor, "b g d"], shared: Float[Tensor, "b d"]) -> Tensor:
        """Indices of the groups most similar to the shared entity."""
        return subgroups((groups.detach() @ shared[..., None]).squeeze(-1), self._count)

    @torch.no_grad()
    def after_step(self, student: GroupingEncoder, progress: float) -> None:
        """Update the momentum encoder.

        Args:
            student: Trained image encoder.
            progress: Finished share of the training, in (0, 1].
        """
        ema_update(self.teacher, student, self._momentum)
        self.progress.fill_(progress)
