"""Dense prediction with CLIP's ResNets: one embedding per patch."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from maskfree.nn.convolutions import freeze_batch_norms
from maskfree.nn.dense_patches import DensePatches
from maskfree.nn.dense_tower import DenseTower
from maskfree.nn.encoder_config import Value

# The stem has stride 4, and three of the stages have stride 2.
_PX_A_PATCH = 32


class DenseClipResNet(DenseTower):
    """CLIP ResNet that returns one embedding per patch, for images of any size.

    CLIP's pooling is an attention from the mean to all positions. Each position is embedded as if
    it were the only one, by value and output projection.

    Source: arXiv:2112.01071, section 3.2.
    """

    def __init__(self, *, tower: nn.Module, statistics: str):
        """Wrap a ResNet.

        Args:
            tower: open_clip's `ModifiedResNet`, or a module with the same attributes.
            statistics: Name of the color normalization, a key of `STATISTICS`.
        """
        super().__init__(tower=tower, statistics=statistics)
        # Batch normalization keeps its pretrained statistics in training.
        freeze_batch_norms(tower)

    def read(self, images: Float[Tensor, "b 3 h w"]) -> DensePatches:
        """Compute the features and keys of each patch, before the projection.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.

        Returns:
            Features of the last stage, and their keys in the pooling.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """
        # Checks the size.
        self.grid(images)

        # The network without its attention pooling.
        features = self.tower.stem(self.normalized(images))
        for stage in (self.tower.layer1, self.tower.layer2, self.tower.layer3, self.tower.layer4):
            features = stage(features)

        return DensePatches(
            features, self.tower.attnpool.k_proj(features.movedim(1, -1)).movedim(-1, 1)
        )

    def project(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Project features to the embedding space of the texts, each patch by itself.

        Args:
            features: Patch features as `read` returns them.

        Returns:
            Patch embeddings, not normalized.
        """
        pool = self.tower.attnpool

        # Over a single position, attention returns its value.
        return pool.c_proj(pool.v_proj(features.movedim(1, -1))).movedim(-1, 1)

    def embed_whole(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embed whole images by the mean of their patch embeddings.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.

        Returns:
            Image embeddings, not normalized.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.

        Differs: CLIP's pooling weights the patches, with positions of one image size only.
        """
        return self.forward(images).mean((2, 3))

    @property
    def patch_size(self) -> int:
        """Return the side of a patch.

        Returns:
            Side in pixels.
        """
        return _PX_A_PATCH

    @property
    def dim(self) -> int:
        """Return the number of channels of the embeddings.

        Returns:
            Number of channels.
        """
        return self.tower.attnpool.c_proj.out_features


def make_resnet(architecture: Mapping[str, Value]) -> nn.Module:
    """Build open_clip's ModifiedResNet with random weights.

    Args:
        architecture: Arguments of ModifiedResNet.

    Returns:
        The network.

    Raises:
        ValueError: open_clip is not installed, or an argument is unknown or missing.
    """
    try:
        # open_clip is an optional dependency, since it requires torchvision.
        from open_clip.modified_resnet import ModifiedResNet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            "a CLIP with a ResNet needs open_clip: pip install 'maskfree[zoo]'"
        ) from error

    try:
        return ModifiedResNet(**architecture)
    except TypeError as error:
        raise ValueError(f"ModifiedResNet cannot be built: {error}") from error
