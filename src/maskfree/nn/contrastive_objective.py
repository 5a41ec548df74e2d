"""What the objectives of several methods share: the image-text contrast, and a network that follows another."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskfree.losses.contrastive import retrieval_accuracy
from maskfree.types import Losses

Gather = Callable[[Tensor], Tensor]
Contrast = Callable[[Tensor, Tensor, Tensor], Tensor]


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move TEACHER's parameters towards STUDENT's: an exponential moving average, of MOMENTUM in [0, 1]."""
    for followed, leading in zip(teacher.parameters(), student.parameters(), strict=True):
        followed.lerp_(leading, 1 - momentum)


class ContrastiveObjective(nn.Module):
    """L_cross: image-text contrast over the global batch, with a learned, bounded scale (1 / temperature)."""

    def __init__(
        self, *, weight: float, contrast: Contrast, initial_scale: float, max_scale: float
    ):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(initial_scale)))
        self._weight, self._contrast, self._max_log_scale = weight, contrast, math.log(max_scale)

    @property
    def scale(self) -> float:
        """The inverse temperature, within its bounds."""
        return self.factor.item()

    @property
    def factor(self) -> Float[Tensor, ""]:
        """The inverse temperature, within its bounds, with its gradient."""
        return self.log_scale.clamp_max(self._max_log_scale).exp()

    def forward(
        self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], gather: Gather
    ) -> Losses:
        """Compare unit-norm embeddings; those of all processes are each other's negatives."""
        image, text = gather(image).float(), gather(text).float()
        scale = self.factor
        metrics = {
            "logit_scale": scale.detach(),
            "retrieval_accuracy": retrieval_accuracy(image, text).detach(),
        }
        return Losses({"cross": self._weight * self._contrast(image, text, scale)}, metrics)

    def after_step(self) -> None:
        """Keep the scale where its gradient still lives."""
        with torch.no_grad():
            self.log_scale.clamp_(max=self._max_log_scale)
