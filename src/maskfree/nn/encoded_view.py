"""Images with their features, for objectives whose encoder may be a copy of the trained one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd


class EncodedView:
    """Images and their features by one encoder.

    While that encoder is frozen, its copies give the same features: then they are not computed
    again. Weights are compared each time, which takes a thousandth of a network's time.
    """

    def __init__(self, images: Float[Tensor, "b 3 h w"], encoder: nn.Module):
        """Compute the features.

        Args:
            images: RGB images in [0, 1].
            encoder: Trained encoder.
        """
        self.images = images
        self.features = encoder(images)
        self._encoder = encoder

    @torch.no_grad()
    def features_by(self, encoder: nn.Module) -> Float[Tensor, "b c hp wp"]:
        """Return the features that another encoder computes, without a gradient.

        Args:
            encoder: Encoder that gets no gradient.

        Returns:
            Features of the images; those of the trained encoder if the weights are equal.
        """
        if _are_equal(self._encoder, encoder):
            return self.features.detach()
        return encoder(self.images)


def _are_equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks give the same output, and running them changes neither."""
    if _has_state(one) or _has_state(other):
        return False

    mine, theirs = one.state_dict(), other.state_dict()
    if mine.keys() != theirs.keys():
        return False
    return all(torch.equal(value, theirs[name]) for name, value in mine.items())


def _has_state(network: nn.Module) -> bool:
    """Whether a network draws random numbers or updates statistics when it runs."""
    for module in network.modules():
        counts_batches = getattr(module, "num_batches_tracked", None) is not None
        if module.training and (counts_batches or isinstance(module, _DropoutNd)):
            return True
    return False
