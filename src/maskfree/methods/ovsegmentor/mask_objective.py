"""L_mask of OVSegmentor: cross-image mask consistency with a momentum encoder."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from jaxtyping import Bool, Float
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
    target_shares,
)
from maskfree.methods.ovsegmentor.batch import Partners
from maskfree.methods.ovsegmentor.mask_matching import MaskMatching
from maskfree.nn.contrastive_objective import Gather, ema_update
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
        gather: Gather,
    ) -> Losses:
        """Compare the masks of the shared entity in images and their partners.

        Each process compares its own photos; groups are contrasted with those of all processes.

        Args:
            student: Trained image encoder.
            images: Images of the batch.
            grouped: Groups of the images by the trained encoder, and their projections.
            project: Projects groups to the joint space.
            partners: For each image another one that shares an entity.
            shared: Unit-norm text embeddings of the shared entities.
            scale: Inverse temperature of the group contrast.
            gather: Concatenates a tensor over all processes.

        Returns:
            The term `masks`, with metrics: the share of images that have a partner (`paired`), of
            target masks without a patch (`empty_targets`), and of patches that target masks hold
            (`sure_patches`).
        """
        metrics = {"paired": partners.present.float().mean()}

        # Targets on the partner, by the momentum encoder.
        with torch.no_grad():
            target = self.teacher(partners.images)
            target_groups = project(target)

        present = gather(partners.present)
        if self._contrast_groups:
            loss = self._contrast((grouped[1], target_groups), shared, present, scale, gather)
            return Losses({"masks": self._weight * loss}, metrics)

        # The trained encoder sees the partner only if a comparison needs it.
        second = None
        if self._matching.symmetric or self._matching.online_keys:
            second = student(partners.images)

        # Predicted masks are read from these patches of the partner.
        keys = self._patches(target)
        if second is not None and self._matching.online_keys:
            keys = self._patches(second)

        compared = [self._logits((target, target_groups), grouped, keys, shared)]

        # The same with images and partners exchanged.
        if self._matching.symmetric:
            assert second is not None
            with torch.no_grad():
                own = self.teacher(images)
                own_groups = project(own)

            keys = self._patches(own)
            if self._matching.online_keys:
                keys = self._patches(grouped[0])
            compared.append(
                self._logits((own, own_groups), (second, project(second)), keys, shared)
            )

        # Processes may have different numbers of partners: all divide by the mean number.
        num_present = present.sum().clamp_min(1) * (len(images) / len(present))

        each = [
            self._dice(pair, target.patches, partners.present, num_present) for pair in compared
        ]
        loss, empty, sure = torch.stack(each).mean(0)
        metrics |= {"empty_targets": empty.detach(), "sure_patches": sure.detach()}
        return Losses({"masks": self._weight * loss}, metrics)

    def _logits(
        self,
        target: tuple[Grouped, Float[Tensor, "b g d"]],
        other: tuple[Grouped, Float[Tensor, "b g d"]],
        keys: Float[Tensor, "b n c"],
        shared: Float[Tensor, "b d"],
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (b k n) of the target's groups, and of the other photo's on the same photo.

        TARGET and OTHER are groups with their projections, KEYS the patches of the predictions.
        """
        scaled = self._matching.scaled
        queries, predicted = self._groups(target[0]), self._groups(other[0])
        closest = self._closest(other[1], shared)

        # Only groups close to the shared entity are compared, or only they get a gradient.
        if self._matching.leave_out:
            queries = chosen(queries, self._closest(target[1], shared))
            predicted = chosen(predicted, closest)
        else:
            predicted = learning_only(predicted, closest)

        targets = mask_logits(queries, self._patches(target[0]), scaled=scaled)
        return targets, mask_logits(predicted, keys, scaled=scaled)

    def _dice(
        self,
        logits: tuple[Float[Tensor, "b k n"], Float[Tensor, "b k n"]],
        patches: tuple[int, int],
        present: Bool[Tensor, " b"],
        num_present: Float[Tensor, ""],
    ) -> Float[Tensor, 3]:
        """Loss of targets and predictions, share of empty targets, and share of sure patches."""
        arithmetic = self._matching.arithmetic
        losses = matched_dice(*logits, patches=patches, match=match, arithmetic=arithmetic)
        loss = over_photos(losses, present, logits[0].shape[1], arithmetic, num_present)

        return torch.stack([loss, *target_shares(logits[0], present, arithmetic)])

    def _groups(self, grouped: Grouped) -> Float[Tensor, "b g c"]:
        """What stands for groups in a mask."""
        if self._matching.final:
            return grouped.groups
        return grouped.assignment.queries

    def _patches(self, grouped: Grouped) -> Float[Tensor, "b n c"]:
        """What stands for patches in a mask."""
        if not self._matching.final:
            return grouped.assignment.keys
        assert grouped.features is not None, "the encoder has no final image features"
        return grouped.features

    def _contrast(
        self,
        sides: tuple[Float[Tensor, "b g d"], Float[Tensor, "b g d"]],
        shared: Float[Tensor, "b d"],
        present: Bool[Tensor, " c"],
        scale: Float[Tensor, ""],
        gather: Gather,
    ) -> Float[Tensor, ""]:
        """Contrast the groups of the shared entity: the alternative of Table 6.

        SIDES are the projected groups of images and partners; PRESENT is of all processes.
        """
        first, second = [
            F.normalize(chosen(side, self._closest(side, shared)), dim=-1) for side in sides
        ]

        # Pair groups by the matching with the highest total cosine.
        second = chosen(second, match(first @ second.mT))

        return group_contrast(gather(first), gather(second), present, scale)

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
