"""L_vision and L_cluster of ViL-Seg's objective, each with the parameters and the state that it owns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from copy import deepcopy

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskfree.losses.distillation import entropy, global_to_local, self_distillation, update_center
from maskfree.losses.mutual_information import co_occurrence, negative_mutual_information
from maskfree.nn.cluster_head import ClusterHead
from maskfree.nn.contrastive_objective import Gather, ema_update
from maskfree.types import Losses


class VisionObjective(nn.Module, ABC):
    """L_vision: the local views' features must say what the global view's say."""

    @abstractmethod
    def forward(
        self,
        images: Float[Tensor, "b 3 h w"],
        overall: Float[Tensor, "b d"],
        local: Float[Tensor, "b v d"],
        gather: Gather,
    ) -> Losses:
        """Compare the features of the global view (IMAGES, OVERALL) with those of its local views."""

    @abstractmethod
    def on_train_start(self, image: nn.Module) -> None:
        """Start from IMAGE, the trained image encoder with its first weights."""

    @abstractmethod
    def after_step(self, image: nn.Module, progress: float) -> None:
        """Follow the trained image encoder IMAGE; PROGRESS of the training is in [0, 1]."""


class LiteralVisionObjective(VisionObjective):
    """Eq. 2 as printed: one network, gradients on both sides. It collapses.

    `DistillationObjective` is the form that trains.
    """

    def __init__(self, *, weight: float, head: nn.Module):
        super().__init__()
        self.head = head
        self._weight = weight

    def forward(
        self,
        images: Float[Tensor, "b 3 h w"],
        overall: Float[Tensor, "b d"],
        local: Float[Tensor, "b v d"],
        gather: Gather,
    ) -> Losses:
        """Compare both under the same head."""
        logits = self.head(overall)
        metrics = _assignment_metrics("vision", gather(logits.detach()).float().softmax(-1))
        return Losses({"vision": self._weight * global_to_local(logits, self.head(local))}, metrics)

    def on_train_start(self, image: nn.Module) -> None:
        """Nothing to start."""

    def after_step(self, image: nn.Module, progress: float) -> None:
        """Nothing follows."""


class DistillationObjective(VisionObjective):
    """DINO's form: the global view is seen by a teacher, the running mean of the student, centerd and sharpened."""

    def __init__(
        self,
        *,
        weight: float,
        image: nn.Module,
        head: nn.Module,
        out_dim: int,
        temperatures: tuple[float, float],
        teacher_momentum: float,
        center_momentum: float,
    ):
        super().__init__()
        self.head = head
        self.teacher = deepcopy(image).requires_grad_(False)
        self.teacher_head = deepcopy(head).requires_grad_(False)
        self.center: Tensor
        self.register_buffer("center", torch.zeros(out_dim))
        self._weight, self._temperatures = weight, temperatures
        self._teacher_momentum, self._center_momentum = teacher_momentum, center_momentum
        self._seen: list[
            Tensor
        ] = []  # the teacher's mean logits since the last step; empty between steps

    def forward(
        self,
        images: Float[Tensor, "b 3 h w"],
        overall: Float[Tensor, "b d"],
        local: Float[Tensor, "b v d"],
        gather: Gather,
    ) -> Losses:
        """Compare the student's local views with the teacher's view of IMAGES."""
        teacher_temperature, student_temperature = self._temperatures
        with torch.no_grad():
            logits = self.teacher_head(self.teacher(images).mean((2, 3))).float()
            everywhere = gather(logits)
            if self.training:
                self._seen.append(everywhere.mean(0))
            metrics = _assignment_metrics(
                "vision", ((everywhere - self.center) / teacher_temperature).softmax(-1)
            )
        loss = self_distillation(
            logits[:, None], self.head(local), self.center, teacher_temperature, student_temperature
        )
        return Losses({"vision": self._weight * loss}, metrics)

    def on_train_start(self, image: nn.Module) -> None:
        """Make the teacher the student's copy, which it was already unless a checkpoint was read since."""
        self.teacher.load_state_dict(image.state_dict())
        self.teacher_head.load_state_dict(self.head.state_dict())

    @torch.no_grad()
    def after_step(self, image: nn.Module, progress: float) -> None:
        """Move the teacher, with a momentum that rises to 1 as a cosine, and the center."""
        momentum = 1 - (1 - self._teacher_momentum) * (math.cos(math.pi * progress) + 1) / 2
        ema_update(self.teacher, image, momentum)
        ema_update(self.teacher_head, self.head, momentum)
        if self._seen:
            self.center.copy_(
                update_center(self.center, torch.stack(self._seen).mean(0), self._center_momentum)
            )
            self._seen.clear()


class ClusterObjective(nn.Module):
    """L_cluster: IIC loss between a pixel and its augmented view."""

    def __init__(
        self, *, weight: float, head: ClusterHead, detach: bool, displacement: int, lamb: float
    ):
        super().__init__()
        self.head = head
        self.detach = detach
        self._weight, self._displacement, self._lamb = weight, displacement, lamb

    def forward(
        self,
        pixels: Float[Tensor, "b d hp wp"],
        augmented_view: Float[Tensor, "b d hp wp"],
        augmented_flipped: Bool[Tensor, " b"],
        gather: Gather,
    ) -> Losses:
        """Pair the pixels of a view with those of its augmented view, mirrored back first."""
        if self.detach:
            pixels, augmented_view = pixels.detach(), augmented_view.detach()
        self.head.observe(pixels, gather)
        first, second = self.head(pixels), unflip(self.head(augmented_view), augmented_flipped)
        counts = gather(co_occurrence(first, second, self._displacement)[None]).sum(0)
        loss = negative_mutual_information(counts, self._lamb)
        return Losses({"cluster": self._weight * loss}, _cluster_metrics(first.detach(), gather))


def unflip(
    maps: Float[Tensor, "b c hp wp"], flipped: Bool[Tensor, " b"]
) -> Float[Tensor, "b c hp wp"]:
    """Mirror those maps left to right whose image was mirrored."""
    return torch.where(flipped[:, None, None, None], maps.flip(-1), maps)


def _cluster_metrics(assignment: Float[Tensor, "b c hp wp"], gather: Gather) -> dict[str, Tensor]:
    """Entropy of the mean assignment (at most log C), mean entropy of a pixel's, and clusters with a fair share."""
    per_photo = gather(
        torch.cat(
            [assignment.mean((2, 3)), entropy(assignment.movedim(1, -1)).mean((1, 2))[:, None]], 1
        )
    )
    share, blur = per_photo[:, :-1].mean(0), per_photo[:, -1].mean()
    in_use = (share > 1 / (4 * len(share))).sum().float()
    return {
        "cluster_entropy": entropy(share),
        "cluster_conditional_entropy": blur,
        "clusters_in_use": in_use,
    }


def _assignment_metrics(name: str, probabilities: Float[Tensor, "b p"]) -> dict[str, Tensor]:
    """Mean entropy of one image's output, and entropy of the mean output: if they meet, all images say the same."""
    return {
        f"{name}_entropy": entropy(probabilities).mean(),
        f"{name}_mean_entropy": entropy(probabilities.mean(0)),
    }
