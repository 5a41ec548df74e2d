"""Scores of phrases on the patches of photos, as the network gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskfree.inference.config import Inference
from maskfree.inference.photos import to_images
from maskfree.inference.runtimes.sessions import Session
from maskfree.method import Method
from maskfree.ops.group_scores import product_scores


def device_of(method: Method) -> torch.device:
    """Return the device of a method's parameters.

    Args:
        method: Segmentation model.

    Returns:
        The device; the CPU for a method without parameters.
    """
    parameter = next(method.parameters(), None)
    if parameter is None:
        return torch.device("cpu")
    return parameter.device


def autocast(device: torch.device, inference: Inference) -> torch.autocast:
    """Return the autocast context for the precision of the inference settings.

    Args:
        device: Device of the network.
        inference: Inference settings.

    Returns:
        Context manager; it changes nothing for float32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=inference.precision == "bfloat16")


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores crops of photos for phrases."""

    method: Method
    """Segmentation model."""
    name: str
    """Name of the model, for messages."""
    words: tuple[Tensor, ...]
    """What the method computes of the phrases alone, by `Method.read_words`."""
    inference: Inference
    """Inference settings."""
    logit_scale: float
    """Factor on the cosines before a softmax, for the score "product"."""
    threshold: float | None
    """Background threshold, for the score "product"."""
    session: Session | None = None
    """Exported image side of the method, which runs in place of torch's; without effect for the
    score "product"."""

    def __call__(self, crops: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Float[Tensor, "b p hp wp"]:
        """Score a batch of crops.

        Args:
            crops: RGB crops of equal size, whose sides are multiples of the patch size.

        Returns:
            Score maps on the CPU: per patch, or per pixel with the score "product".

        Raises:
            ValueError: The network gives scores that are not finite.
        """
        device = device_of(self.method)
        images = to_images(crops, device)

        with autocast(device, self.inference):
            if self.inference.score == "product":
                scores = product_scores(
                    self.method.group(images),
                    self.words[0],
                    logit_scale=self.logit_scale,
                    threshold=self.threshold,
                    size=(images.shape[2], images.shape[3]),
                )
            elif self.session is not None:
                size = (images.shape[2], images.shape[3])
                scores = self.method.compare(self.session(images), self.words, size)
            else:
                scores = self.method.score(images, self.words)

        scores = scores.float().cpu()
        if not scores.isfinite().all():
            raise ValueError(
                f"the model {self.name} gave scores that are not numbers: its weights are unusable"
            )

        return scores
