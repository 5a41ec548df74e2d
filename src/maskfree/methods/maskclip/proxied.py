"""Patches of a CLIP that attend as the patches of another encoder, the proxy, are alike."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.methods.maskclip.config import RegionKind
from maskfree.nn.dense_patches import DensePatches, PatchAttention
from maskfree.nn.dense_tower import DenseTower
from maskfree.nn.dense_transformer import DenseTransformer
from maskfree.nn.self_attention import proxy_attention, scoped_attention
from maskfree.ops.region_scope import merge_alike
from maskfree.regions.patch_regions import patch_regions


def read_by_proxy(
    image: DenseTower,
    features: Float[Tensor, "b c hp wp"],
    images: Float[Tensor, "b 3 h w"],
    scope: RegionKind | None,
) -> DensePatches:
    """Read images on the grid of a proxy, and by its attention if the last block says so.

    Args:
        image: Image encoder of the CLIP.
        features: Features of the proxy's patches, which cover the images.
        images: RGB images in [0, 1].
        scope: Regions that patches attend within; None: all patches that are alike.

    Returns:
        Features on the proxy's grid, and keys on the encoder's own.

    Raises:
        ValueError: The library that finds the regions is not installed.
    """
    # A ResNet has no proxy, as the config says.
    assert isinstance(image, DenseTransformer)
    grid = (features.shape[2], features.shape[3])
    images_of_clip = whole_patches(images, image.patch_size)

    if image.last_block.attention != "proxy":
        dense = image.read(images_of_clip)
        resized = F.interpolate(dense.features, grid, mode="bilinear", align_corners=False)
        return DensePatches(resized, dense.keys)

    if scope is None:
        weights = proxy_attention(features)
    else:
        regions = patch_regions(images, grid, scope)
        regions = merge_alike(features.flatten(2).mT, regions)
        weights = scoped_attention(features, regions)

    return image.read(images_of_clip, PatchAttention(weights, grid))


def whole_patches(images: Float[Tensor, "b 3 h w"], patch_size: int) -> Float[Tensor, "b 3 hs ws"]:
    """Enlarge images a little where their sides are no multiples of a patch.

    Args:
        images: Images of any size.
        patch_size: Side of a patch in pixels.

    Returns:
        Images whose sides are multiples; the same if they were already.
    """
    height, width = images.shape[2:]
    size = (height + -height % patch_size, width + -width % patch_size)
    if size == (height, width):
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False)
