"""Contour detection by DexiNed, a convolutional network whose weights the user provides.

Source: Soria et al. 2020, WACV (arXiv:1909.01955), as implemented in kornia.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import nn

from maskfree.files.tensors import read_state

# Mean color of the photos that the published weights were trained on.
_BGR_MEAN = (103.939, 116.779, 123.68)
# Smallest side, as the network downsamples four times by 2.
_MIN_SIDE_PX = 32
# In pixels: the scale at which curvature is measured, for contours a few pixels wide.
_SMOOTHING = 2.0


def dexined_strength(
    photo: UInt8[np.ndarray, "h w 3"], weights: str
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Detect contours with DexiNed.

    Args:
        photo: RGB photo.
        weights: File with a state dict of kornia's DexiNed, as safetensors or saved by torch.

    Returns:
        Contour strength in [0, 1], and the direction across the contour as in `direction_across`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: kornia or SciPy is not installed, or the file contains other weights.
    """
    network = _network(weights)
    height, width = photo.shape[:2]
    pixels = torch.from_numpy(photo[..., ::-1].astype(np.float32)) - torch.tensor(_BGR_MEAN)
    pad = (0, max(0, _MIN_SIDE_PX - width), 0, max(0, _MIN_SIDE_PX - height))
    padded = nn.functional.pad(pixels.permute(2, 0, 1)[None], pad, mode="replicate")

    # Remove the padding again.
    with torch.inference_mode():
        strength = network(padded).sigmoid()[0, 0, :height, :width].numpy()
    return strength, direction_across(strength)


def direction_across(strength: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Return the direction of largest curvature of the smoothed contour strength.

    Args:
        strength: Contour strength.

    Returns:
        Angle in [0, pi) from the x axis downwards, in which a ridge falls off most.

    Raises:
        ValueError: SciPy is not installed.
    """
    try:
        from scipy.ndimage import gaussian_filter1d
    except ImportError as error:
        raise ValueError(
            "the direction of contours needs scipy: pip install 'maskfree[regions]'"
        ) from error

    # Second derivatives by Gaussian filters.
    orders = ((0, 2), (2, 0), (1, 1))
    xx, yy, xy = (
        gaussian_filter1d(gaussian_filter1d(strength, _SMOOTHING, 0, y), _SMOOTHING, 1, x)
        for y, x in orders
    )
    return (np.arctan2(-2 * xy, yy - xx) / 2 % np.pi).astype(np.float32)


@lru_cache(maxsize=1)
def _network(weights: str) -> nn.Module:
    """Load DexiNed, keeping the last network."""
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {weights!r} with DexiNed's weights: they do not come with the package"
        )

    try:
        from kornia.models.dexined import DexiNed
    except ImportError as error:
        raise ValueError("the detector dexined needs kornia: pip install kornia") from error

    network = DexiNed(pretrained=False).eval()
    try:
        network.load_state_dict(read_state(path))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{weights!r} does not hold the weights of kornia's DexiNed") from error
    return network
