"""The contract between a method and whatever trains, evaluates or runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from maskfree.types import Batch, Groups, Losses, Tokens


def _identity(tensor: Tensor) -> Tensor:
    return tensor


class Method(nn.Module, ABC):
    """A published segmentation method: encoders, one grouping head and its losses.

    `gather` concatenates a tensor of every process along its first axis, with gradients; the training loop replaces the
    identity by the real collective, so that a method sees the global batch and never talks to processes itself.
    """

    gather: Callable[[Tensor], Tensor] = staticmethod(_identity)

    @abstractmethod
    def forward(self, batch: Batch) -> Losses:
        """Return the weighted terms whose sum is minimised."""

    @abstractmethod
    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts; unit norm."""

    @abstractmethod
    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Group the patches of photos whose sides are multiples of `patch_size`."""

    def segment(
        self, images: Float[Tensor, "b 3 h w"], classes: Float[Tensor, "k d"]
    ) -> Float[Tensor, "b k hp wp"]:
        """Cosine of each patch, through its groups, to each class, in [-1, 1]."""
        groups = self.group(images)
        return groups.spread(groups.embeddings @ classes.T)

    @property
    @abstractmethod
    def logit_scale(self) -> float:
        """Factor that the method's training puts on cosines before a softmax over texts, the inverse temperature."""

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Pixels a patch spans on each side."""

    def on_train_start(self) -> None:
        """Set what follows from other weights, now that their first values are there; by default nothing.

        For example a moving-average teacher. Called once, before the first step of a run.
        """

    def after_step(self, step: int, steps: int) -> None:
        """Update what gradients do not reach after step STEP of STEPS, counted from 0; by default nothing.

        For example a moving-average teacher, a center or a memory bank.
        """
