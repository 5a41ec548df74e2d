"""L_vision and L_cluster of ViL-Seg, each with its own parameters and buffers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from copy import deepcopy

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskfree.losses.distillation import (
    TEACHER_TEMPERATURE,
    entropy,
    global_to_local,
    self_distillation,
    update_center,
)
from maskfree.losses.mutual_information import co_occurrence, negative_mutual_information
from maskfree.nn.cluster_head import ClusterHead
from maskfree.nn.contrastive_objective import Gather, ema_update
from maskfree.nn.dual_encoder import ImageProjector
from maskfree.nn.encoded_view import EncodedView
from maskfree.types import Losses


class VisionObjective(nn.Module, ABC):
    """Base class of L_vision: local views must predict the head's output for the global view."""

    @abstractmethod
    def forward(
        self,
        view: EncodedView,
        overall: Float[Tensor, "b d"],
        local: Float[Tensor, "b v d"],
        gather: Gather,
    ) -> Losses:
        """Compare the features of a global view with those of its local views.

        Args:
            view: Global views with their features.
            overall: Mean embedding of each global view.
            local: Mean embeddings of the local views of each image.
            gather: Concatenates a tensor over all processes.

        Returns:
            The term `vision` with entropies of the head's output as metrics.
        """

    @abstractmethod
    def on_train_start(self, image: nn.Module) -> None:
        """Initialize the teacher before the first step.

        Args:
            image: Trained image encoder with its initial weights.
        """

    @abstractmethod
    def after_step(self, image: nn.Module, progress: float) -> None:
        """Update the teacher after an optimizer step.

        Args:
            image: Trained image encoder.
            progress: Finished share of the training, in [0, 1].
        """


class LiteralVisionObjective(VisionObjective):
    """L_vision as eq. 2 is printed: one network with gradients on both sides, which collapses.

    `DistillationObjective` is the form that trains.
    """

    def __init__(self, *, weight: float, head: nn.Module):
        super().__init__()
        self.head = head
        self._weight = weight

    def forward(
        self,
        view: EncodedView,
        overall: Float[Tensor, "b d"],
        local: Float[Tensor, "b v d"],
        gather: Gather,
    ) -> Losses:
        """Compare both views with the same head.

        Args:
            view: Global views with their features.
            overall: Mean embedding of each global view.
            local: Mean embeddings of the local views of each image.
            gather: Concatenates a tensor over all processes.

        Returns:
            The term `vision` with entropies of the head's output as metrics.
        """
        logits = self.head(overall)
        metrics = _assignment_metrics("vision", gather(logits.detach()).float().softmax(-1))
        return Losses({"vision": self._weight * global_to_local(logits, self.head(local))}, metrics)

    def on_train_start(self, image: nn.Module) -> None:
        """Do nothing; there is no teacher.

        Args:
            image: Unused.
        """

    def after_step(self, image: nn.Module, progress: float) -> None:
        """Do nothing; there is no teacher.

        Args:
            image: Unused.
            progress: Unused.
        """


class DistillationObjective(VisionObjective):
    """L_vision as in DINO: a momentum teacher with centering sees the global view."""

    def __init__(
        self,
        *,
        weight: float,
        image: ImageProjector,
        head: nn.Module,
        out_dim: int,
        teacher_momentum: float,
    ):
        super().__init__()
        self.head = head
        # The teacher gets no gradient; it moves in `after_step`.
        self.teacher = deepcopy(image).requires_grad_(False)
        self.teacher_head = deepcopy(head).requires_grad_(False)
        self.center: Tensor
        self.register_buffer("center", torch.zeros(out_dim))
        self._weight, self._teacher_momentum = weight, teacher_momentum
        # Mean logits of the teacher since the last step: one per forward pass.
        self._batch_means: list[Tensor] = []

    def forward(
        self,
        view: EncodedView,
        overall: Float[Tensor, "b d"],
        local: Float[Tensor, "b v d"],
        gather: Gather,
    ) -> Losses:
        """Compare the student's local views with the teacher's global view.

        Args:
            view: Global views with their features.
            overall: Mean embedding of each global view.
            local: Mean embeddings of the local views of each image.
            gather: Concatenates a tensor over all processes.

        Returns:
            The term `vision` with entropies of the head's output as metrics.
        """
        # Mean logits for the center; the center itself moves after the optimizer step.
        with torch.no_grad():
            features = view.features_by(self.teacher.encoder)
            logits = self.teacher_head(self.teacher.projection(features).mean((2, 3))).float()
            everywhere = gather(logits)
            if self.training:
                self._batch_means.append(everywhere.mean(0))
            metrics = _assignment_metrics(
                "vision", ((everywhere - self.center) / TEACHER_TEMPERATURE).softmax(-1)
            )

        loss = self_distillation(logits[:, None], self.head(local), self.center)

        return Losses({"vision": self._weight * loss}, metrics)

    def on_train_start(self, image: nn.Module) -> None:
        """Copy the student into the teacher, also after a checkpoint was loaded.

        Args:
            image: Trained image encoder with its initial weights.
        """
        self.teacher.load_state_dict(image.state_dict())
        self.teacher_head.load_state_dict(self.head.state_dict())

    @torch.no_grad()
    def after_step(self, image: nn.Module, progress: float) -> None:
        """Move the teacher, with a momentum that rises to 1 on a cosine schedule, and the center.

        Args:
            image: Trained image encoder.
            progress: Finished share of the training, in [0, 1].
        """
        # DINO's schedule: cosine from the initial momentum to 1.
        momentum = 1 - (1 - self._teacher_momentum) * (math.cos(math.pi * progress) + 1) / 2
        ema_update(self.teacher, image, momentum)
        ema_update(self.teacher_head, self.head, momentum)
        if self._batch_means:
            self.center.copy_(update_center(self.center, torch.stack(self._batch_means).mean(0)))
            self._batch_means.clear()


class ClusterObjective(nn.Module):
    """L_cluster: mutual information (IIC) between a pixel's clusters in two views.

    Eq. 1 names only the head's parameters under L_cluster, so its gradient stops at the embeddings.
    """

    def __init__(self, *, weight: float, head: ClusterHead):
        super().__init__()
        self.head = head
        self._weight = weight

    def forward(
        self,
        pixels: Float[Tensor, "b d hp wp"],
        augmented_view: Float[Tensor, "b d hp wp"],
        augmented_flipped: Bool[Tensor, " b"],
        gather: Gather,
    ) -> Losses:
        """Pair the pixels of a view with those of its augmented view.

        Args:
            pixels: Embeddings of the global view.
            augmented_view: Embeddings of the augmented view.
            augmented_flipped: Whether the augmented view is mirrored relative to the global view.
            gather: Concatenates a tensor over all processes.

        Returns:
            The term `cluster` with statistics of the assignments as metrics.
        """
        pixels, augmented_view = pixels.detach(), augmented_view.detach()

        # The head may track channel statistics of the global batch.
        self.head.observe(pixels, gather)
        first, second = self.head(pixels), unflip(self.head(augmented_view), augmented_flipped)

        # Counts are summed over processes, so that the joint is that of the global batch.
        counts = gather(co_occurrence(first, second)[None]).sum(0)
        loss = negative_mutual_information(counts)

        return Losses({"cluster": self._weight * loss}, _cluster_metrics(first.detach(), gather))


def unflip(
    maps: Float[Tensor, "b c hp wp"], flipped: Bool[Tensor, " b"]
) -> Float[Tensor, "b c hp wp"]:
    """Undo the horizontal flip of maps.

    Args:
        maps: One map per image.
        flipped: Whether each map is mirrored.

    Returns:
        The maps, all in the orientation of the unmirrored view.
    """
    return torch.where(flipped[:, None, None, None], maps.flip(-1), maps)


def _cluster_metrics(assignment: Float[Tensor, "b c hp wp"], gather: Gather) -> dict[str, Tensor]:
    """Entropy of the mean assignment, mean entropy per pixel, and number of clusters in use."""
    # One row per photo, so that means are over the global batch.
    per_photo = gather(
        torch.cat(
            [assignment.mean((2, 3)), entropy(assignment.movedim(1, -1)).mean((1, 2))[:, None]], 1
        )
    )
    share, blur = per_photo[:, :-1].mean(0), per_photo[:, -1].mean()

    # A cluster is in use if it has a quarter of an equal share.
    in_use = (share > 1 / (4 * len(share))).sum().float()

    return {
        "cluster_entropy": entropy(share),
        "cluster_conditional_entropy": blur,
        "clusters_in_use": in_use,
    }


def _assignment_metrics(name: str, probabilities: Float[Tensor, "b p"]) -> dict[str, Tensor]:
    """Mean entropy of the outputs, and entropy of their mean; equal values mean collapse."""
    return {
        f"{name}_entropy": entropy(probabilities).mean(),
        f"{name}_mean_entropy": entropy(probabilities.mean(0)),
    }
