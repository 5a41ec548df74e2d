"""From an encoder's features to the space that images and texts share, and to a contrast head's prototypes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from maskfree.nn.pyramid_pooling import PyramidPooling
from maskfree.nn.visual_words import VisualWords

_pointwise: Callable[[int, int], nn.Module] = partial(nn.Conv2d, kernel_size=1)
_VECTORS = {"near": "texts", "batchnorm_mlp": "vectors"}


@dataclass(frozen=True)
class ProjectionConfig:
    """How features become embeddings.

    As they are, by one linear map, by two with a GELU between or with a batch normalisation and a ReLU, by a linear map
    of unit vectors that starts as the identity ("near"), or for pixels through visual words or with pyramid pooling.
    """

    kind: Literal["identity", "linear", "mlp", "batchnorm_mlp", "near", "words", "pyramid"] = "linear"
    hidden: int = 2048  # width between the maps of "mlp", "batchnorm_mlp" and "pyramid"
    num_words: int = 1000  # of "words"
    bias: bool = True  # of "linear"; CLIP's projections have none

    def build_for_pixels(self, channels: int, dim: int) -> nn.Module:
        """Make the map of a (b, c, hp, wp) feature map to DIM channels, the same at every pixel."""
        if self.kind == "words":
            return VisualWords(channels=channels, num_words=self.num_words, dim=dim)
        if self.kind == "pyramid":
            return PyramidPooling(channels=channels, width=self.hidden, dim=dim)
        return self._build(_pointwise, channels, dim)

    def build_for_vectors(self, channels: int, dim: int) -> nn.Module:
        """Make the map of (*b, c) features to DIM."""
        if self.kind == "batchnorm_mlp":
            return BatchNormMlp(channels=channels, hidden=self.hidden, dim=dim)
        return self._build(nn.Linear, channels, dim)

    def _build(self, layer: Callable[[int, int], nn.Module], channels: int, dim: int) -> nn.Module:
        if self.kind == "linear":
            return layer(channels, dim) if self.bias else _without_bias(layer(channels, dim))
        if self.kind == "mlp":
            return nn.Sequential(layer(channels, self.hidden), nn.GELU(), layer(self.hidden, dim))
        if self.kind in ("words", "pyramid") or (self.kind in _VECTORS and layer is not nn.Linear):
            raise ValueError(f"the projection {self.kind!r} is for {_VECTORS.get(self.kind, 'pixels')} only")
        if channels != dim:
            raise ValueError(f"the projection {self.kind!r} keeps {channels} channels, but the embedding has {dim}")
        return NearIdentity(dim) if self.kind == "near" else nn.Identity()


def _without_bias(layer: nn.Module) -> nn.Module:
    layer.register_parameter("bias", None)
    return layer


class NearIdentity(nn.Module):
    """A linear map of unit vectors that starts as the identity, for features that mean something already."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Return the mapped directions."""
        return self.linear(F.normalize(features, dim=-1))


class BatchNormMlp(nn.Module):
    """Two linear maps with a batch normalisation and a ReLU between; its statistics are those of all vectors given."""

    def __init__(self, *, channels: int, hidden: int, dim: int):
        super().__init__()
        self.widen = nn.Linear(channels, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.narrow = nn.Linear(hidden, dim)

    def forward(self, features: Float[Tensor, "*b c"]) -> Float[Tensor, "*b d"]:
        """Return the mapped features."""
        normalised = self.norm(self.widen(features.flatten(0, -2)))
        return self.narrow(F.relu(normalised)).unflatten(0, features.shape[:-1])


class DinoHead(nn.Module):
    """DINO's head: a GELU MLP to a narrow unit vector, then its cosine to each of `out_dim` learned directions.

    Source: Caron et al. 2021, appendix C (arXiv:2104.14294).
    """

    def __init__(self, *, channels: int, out_dim: int, hidden: int = 2048, bottleneck: int = 256):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.mlp.apply(_truncate)
        self.directions = parametrizations.weight_norm(nn.Linear(bottleneck, out_dim, bias=False))
        lengths = self.directions.get_parameter("parametrizations.weight.original0")
        nn.init.ones_(lengths)
        lengths.requires_grad_(False)

    def forward(self, features: Float[Tensor, "*b c"]) -> Float[Tensor, "*b p"]:
        """Return one logit per direction, in [-1, 1]."""
        return self.directions(F.normalize(self.mlp(features), dim=-1))


def _truncate(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
