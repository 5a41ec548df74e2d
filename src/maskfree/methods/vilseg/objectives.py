"""L_vision and L_cluster of ViL-Seg's objective, each with the parameters and the state that it owns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from copy import deepcopy

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskfree.losses.distillation import entropy, global_to_local, moved_centre, self_distillation
from maskfree.losses.mutual_information import co_occurrence, negative_mutual_information
from maskfree.nn.cluster_head import ClusterHead
from maskfree.nn.contrastive_objective import Gather, follow
from maskfree.types import Losses


class VisionTerm(nn.Module, ABC):
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
    def begin(self, image: nn.Module) -> None:
        """Start from IMAGE, the trained image encoder with its first weights."""

    @abstractmethod
    def after_step(self, image: nn.Module, progress: float) -> None:
        """Follow the trained image encoder IMAGE; PROGRESS of the training is in [0, 1]."""


class LiteralVision(VisionTerm):
    """Eq. 2 as printed: one network, gradients on both sides. It collapses; `Distillation` is the working form."""

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
        health = _assignment_health("vision", gather(logits.detach()).float().softmax(-1))
        return Losses({"vision": self._weight * global_to_local(logits, self.head(local))}, health)

    def begin(self, image: nn.Module) -> None:
        """Nothing to start."""

    def after_step(self, image: nn.Module, progress: float) -> None:
        """Nothing follows."""


class Distillation(VisionTerm):
    """DINO's form: the global view is seen by a teacher, the running mean of the student, centred and sharpened."""

    def __init__(
        self,
        *,
        weight: float,
        image: nn.Module,
        head: nn.Module,
        out_dim: int,
        temperatures: tuple[float, float],
        teacher_momentum: float,
        centre_momentum: float,
    ):
        super().__init__()
        self.head = head
        self.teacher = deepcopy(image).requires_grad_(False)
        self.teacher_head = deepcopy(head).requires_grad_(False)
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(out_dim))
        self._weight, self._temperatures = weight, temperatures
        self._teacher_momentum, self._centre_momentum = teacher_momentum, centre_momentum
        self._seen: list[Tensor] = []  # the teacher's mean logits since the last step; empty between steps

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
            health = _assignment_health("vision", ((everywhere - self.centre) / teacher_temperature).softmax(-1))
        loss = self_distillation(
            logits[:, None], self.head(local), self.centre, teacher_temperature, student_temperature
        )
        return Losses({"vision": self._weight * loss}, health)

    def begin(self, image: nn.Module) -> None:
        """Make the teacher the student's copy, which it was already unless a checkpoint was read since."""
        self.teacher.load_state_dict(image.state_dict())
        self.teacher_head.load_state_dict(self.head.state_dict())

    @torch.no_grad()
    def after_step(self, image: nn.Module, progress: float) -> None:
        """Move the teacher, with a momentum that rises to 1 as a cosine, and the centre."""
        momentum = 1 - (1 - self._teacher_momentum) * (math.cos(math.pi * progress) + 1) / 2
        follow(self.teacher, image, momentum)
        follow(self.teacher_head, self.head, momentum)
        if self._seen:
            self.centre.copy_(moved_centre(self.centre, torch.stack(self._seen).mean(0), self._centre_momentum))
            self._seen.clear()


class ClusterTerm(nn.Module):
    """L_cluster: the clusters of a pixel and of its recoloured twin must tell each other's."""

    def __init__(self, *, weight: float, head: ClusterHead, detach: bool, displacement: int, lamb: float):
        super().__init__()
        self.head = head
        self.detach = detach
        self._weight, self._displacement, self._lamb = weight, displacement, lamb

    def forward(
        self,
        pixels: Float[Tensor, "b d hp wp"],
        twins: Float[Tensor, "b d hp wp"],
        twins_flipped: Bool[Tensor, " b"],
        gather: Gather,
    ) -> Losses:
        """Pair the pixels of a view with its twin's; a mirrored twin's map is mirrored back first."""
        if self.detach:
            pixels, twins = pixels.detach(), twins.detach()
        self.head.observe(pixels, gather)
        first, second = self.head(pixels), unflip(self.head(twins), twins_flipped)
        counts = gather(co_occurrence(first, second, self._displacement)[None]).sum(0)
        loss = negative_mutual_information(counts, self._lamb)
        return Losses({"cluster": self._weight * loss}, _cluster_health(first.detach(), gather))


def unflip(maps: Float[Tensor, "b c hp wp"], flipped: Bool[Tensor, " b"]) -> Float[Tensor, "b c hp wp"]:
    """Mirror those maps left to right whose image was mirrored."""
    return torch.where(flipped[:, None, None, None], maps.flip(-1), maps)


def _cluster_health(assignment: Float[Tensor, "b c hp wp"], gather: Gather) -> dict[str, Tensor]:
    """Entropy of the mean assignment (at most log C), mean entropy of a pixel's, and clusters with a fair share."""
    per_photo = gather(
        torch.cat([assignment.mean((2, 3)), entropy(assignment.movedim(1, -1)).mean((1, 2))[:, None]], 1)
    )
    share, blur = per_photo[:, :-1].mean(0), per_photo[:, -1].mean()
    in_use = (share > 1 / (4 * len(share))).sum().float()
    return {"cluster_entropy": entropy(share), "cluster_conditional_entropy": blur, "clusters_in_use": in_use}


def _assignment_health(name: str, probabilities: Float[Tensor, "b p"]) -> dict[str, Tensor]:
    """Mean entropy of one image's output, and entropy of the mean output: if they meet, all images say the same."""
    return {
        f"{name}_entropy": entropy(probabilities).mean(),
        f"{name}_mean_entropy": entropy(probabilities.mean(0)),
    }
