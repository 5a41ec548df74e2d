"""A projection through visual words: what a pixel looks like to a classifier, told in the space of the texts."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class ClassifierMixture(nn.Module):
    """A linear map plus the expected embedding of a soft choice among visual words.

    A classifier's class names give the words their first embeddings, and its last layer the choice; everything learns.
    Source: the expectation is Norouzi et al. 2014, eq. 2 (arXiv:1312.5650). Differs: all words, not the top ten, and
    the linear map beside them.
    """

    def __init__(self, *, channels: int, num_words: int, dim: int):
        super().__init__()
        self.linear = nn.Conv2d(channels, dim, 1)
        self.classifier = nn.Conv2d(channels, num_words, 1)
        self.words = nn.Conv2d(num_words, dim, 1, bias=False)
        nn.init.normal_(self.linear.weight, std=0.002)  # the words lead at first
        nn.init.zeros_(self.linear.bias)  # pyright: ignore[reportArgumentType] - it has one

    def forward(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Return the pixel embeddings, not normalized."""
        # An encoder's maps have the channels last in memory: a softmax along the last axis need not turn them around.
        chosen = self.classifier(features).movedim(1, -1).softmax(-1).movedim(-1, 1)
        return self.linear(features) + self.words(chosen)
