"""Image-text contrastive objective, and exponential moving average of a network."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskfree.losses.contrastive import retrieval_accuracy
from maskfree.types import Losses

Gather = Callable[[Tensor], Tensor]
"""Function that concatenates a tensor of all processes along the batch axis."""
Contrast = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Loss of (image embeddings, text embeddings, scale)."""

# Initial value and upper bound of the scale (1 / temperature), as in CLIP (arXiv:2103.00020).
_INITIAL_SCALE = 1 / 0.07
_MAX_LOG_SCALE = math.log(100)


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Update a teacher network as the exponential moving average of a student.

    Args:
        teacher: Network whose parameters are updated in place.
        student: Network of the same architecture.
        momentum: Share of the teacher's old value that is kept, in [0, 1].
    """
    for followed, leading in zip(teacher.parameters(), student.parameters(), strict=True):
        followed.lerp_(leading, 1 - momentum)


class ContrastiveObjective(nn.Module):
    """Image-text contrastive loss over the global batch, with a learned and bounded scale."""

    def __init__(self, *, weight: float, contrast: Contrast):
        """Create the objective.

        Args:
            weight: Weight of the loss.
            contrast: Loss of unit-norm image and text embeddings and the scale.
        """
        super().__init__()

        # Trained in log space, so that the scale stays positive.
        self.log_scale = nn.Parameter(torch.tensor(math.log(_INITIAL_SCALE)))
        self._weight, self._contrast = weight, contrast

    @property
    def scale(self) -> float:
        """Return the scale (1 / temperature) as a number.

        Returns:
            The scale, at most 100.
        """
        return self.factor.item()

    @property
    def factor(self) -> Float[Tensor, ""]:
        """Return the scale (1 / temperature) as a tensor with a gradient.

        Returns:
            The scale, at most 100.
        """
        return self.log_scale.clamp_max(_MAX_LOG_SCALE).exp()

    def forward(
        self,
        image: Float[Tensor, "b d"],
        text: Float[Tensor, "b d"],
        gather: Gather,
        described: Bool[Tensor, " b"] | None = None,
    ) -> Losses:
        """Compute the contrastive loss of a batch.

        Args:
            image: Unit-norm image embeddings of this process.
            text: Unit-norm text embeddings; text[i] describes image[i].
            gather: Function that concatenates a tensor of all processes along the batch axis.
            described: False where an image has no text, and its pair does not count; None if all
                count.

        Returns:
            The weighted loss "cross", with the scale and the retrieval accuracy as metrics; zero if
            no pair counts.
        """
        # Embeddings of all processes are negatives of each other.
        image, text = gather(image).float(), gather(text).float()
        scale = self.factor

        if described is not None:
            counted = gather(described)
            image, text = image[counted], text[counted]
        # Zero with a graph, so that every process takes part in the backward pass.
        if not len(image):
            metrics = {"logit_scale": scale.detach(), "retrieval_accuracy": scale.detach() * 0}
            return Losses({"cross": (image.sum() + text.sum()) * scale * 0}, metrics)

        metrics = {
            "logit_scale": scale.detach(),
            "retrieval_accuracy": retrieval_accuracy(image, text).detach(),
        }

        return Losses({"cross": self._weight * self._contrast(image, text, scale)}, metrics)

    def after_step(self) -> None:
        """Clamp the scale to its upper bound, beyond which its gradient would be zero."""
        with torch.no_grad():
            self.log_scale.clamp_(max=_MAX_LOG_SCALE)
