"""Projection through class probabilities to the embedding space of texts."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class ClassifierMixture(nn.Module):
    """Linear map plus the expected embedding over a classifier's classes.

    An image classifier gives the initial values: the class names those of the embeddings, and the
    last layer those of the logits. All layers are trained.

    Source: Norouzi et al. 2014, eq. 2 (arXiv:1312.5650), for the expectation.

    Differs: the expectation is over all classes, not the top ten, and a linear map is added.
    """

    def __init__(self, *, channels: int, num_classes: int, dim: int):
        """Create the layers.

        Args:
            channels: Number of input channels.
            num_classes: Number of classes.
            dim: Number of output channels.
        """
        super().__init__()
        self.linear = nn.Conv2d(channels, dim, 1)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.words = nn.Conv2d(num_classes, dim, 1, bias=False)
        # Small weights, so that the classes determine the output at first.
        nn.init.normal_(self.linear.weight, std=0.002)
        nn.init.zeros_(self.linear.bias)  # pyright: ignore[reportArgumentType] - it has one

    def forward(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Map features to embeddings.

        Args:
            features: Feature map.

        Returns:
            Pixel embeddings, not normalized.
        """
        # Encoders return maps with channels last in memory; this softmax needs no copy of them.
        chosen = self.classifier(features).movedim(1, -1).softmax(-1).movedim(-1, 1)
        return self.linear(features) + self.words(chosen)
