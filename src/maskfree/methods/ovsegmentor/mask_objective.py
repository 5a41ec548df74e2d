"""L_mask of OVSegmentor: cross-image mask consistency with a momentum encoder."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.losses.entities import group_contrast
from maskfree.losses.mask_consistency import (
    chosen,
    learning_only,
    mask_logits,
    matched_dice,
    over_photos,
    subgroups,
)
from maskfree.methods.ovsegmentor.batch import Partners
from maskfree.methods.ovsegmentor.mask_matching import MaskMatching
from maskfree.nn.contrastive_objective import ema_update
from maskfree.nn.grouping_encoder import Grouped, GroupingEncoder
from maskfree.ops.matching import match
from maskfree.types import Losses

# Groups to the joint space, not normalized.
Project = Callable[[Grouped], Tensor]


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
        grouped: tuple[Grouped, Float[Tensor, "b g d"]],
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
            grouped: Groups of the images by the trained encoder, and their projections.
            project: Projects groups to the joint space.
            partners: For each image another one that shares an entity.
            shared: Unit-norm text embeddings of the shared entities.
            scale: Inverse temperature of the group contrast.

        Returns:
            The term `masks`, with the share of images that have a partner as a metric.
        """
        first, first_groups = grouped

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
            keys = own.assignment.keys
            if self._matching.online_keys:
                keys = first.assignment.keys
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
        target_queries = target.assignment.queries
        other_queries = other.assignment.queries
        closest = self._closest(other_groups, shared)

        # Only groups close to the shared entity are compared, or only they get a gradient.
        if self._matching.leave_out:
            target_queries = chosen(target_queries, self._closest(target_groups, shared))
            other_queries = chosen(other_queries, closest)
        else:
            other_queries = learning_only(other_queries, closest)

        arithmetic = self._matching.arithmetic
        losses = matched_dice(
            mask_logits(target_queries, target.assignment.keys),
            mask_logits(other_queries, keys),
            patches=target.patches,
            match=match,
            arithmetic=arithmetic,
        )
        return over_photos(losses, partners.present, other_queries.shape[1], arithmetic)

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
