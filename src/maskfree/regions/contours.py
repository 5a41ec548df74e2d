"""Contour strength and direction of a photo by a classical detector that needs no weights.

For each direction and scale it compares the two sides of a pixel: the histograms of brightness, of
two color axes and of textons, by their Hellinger distance, as Martin, Fowlkes and Malik 2004 and
Arbelaez et al. 2011 do with half discs and chi-square. A logistic function of the distances gives
the strength.

Differs: a side is a Gaussian window beside the pixel, so that one smoothed histogram serves all
directions; coarse scales are computed at half the resolution; there is no spectral part.
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float32, Int, UInt8

from maskfree.regions.gaussian import gaussian_blur, gaussian_matrix

NUM_DIRECTIONS = 8
_NUM_BINS = 16
_NUM_TEXTONS = 16
_TEXTON_SAMPLES = 3000
# Logistic regression of the distances, fitted to 25 validation photos of BSDS500 (every fourth of
# the 100, none of which `evaluate regions --photos 50` takes). Textures were then lowered to .6 and
# the whole raised again, as boundary F of the regions of ten of these photos is better so.
_WEIGHTS = {
    "brightness fine": 5.36,
    "red-green fine": 1.79,
    "blue-yellow fine": 2.13,
    "brightness coarse": 0.81,
    "red-green coarse": 2.88,
    "blue-yellow coarse": 1.5,
    "texture coarse": 1.24,
    "texture coarsest": 1.66,
}
# Chosen on ten of these photos for boundary F and covering of the maps by the rule.
_OFFSET = -5.8
_CHANNELS = ("brightness", "red-green", "blue-yellow")


def contour_strength(
    photo: UInt8[np.ndarray, "h w 3"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Compute the strength and direction of contours.

    Args:
        photo: RGB photo.

    Returns:
        Probability-like strength of a contour at each pixel, in [0, 1], and the direction across
        it: an angle in [0, pi) from the x axis towards the y axis, that is, downwards.

    Raises:
        ValueError: scikit-image or SciPy is not installed.
    """
    if np.ptp(photo.reshape(-1, 3), axis=0).max() == 0:
        return np.zeros(photo.shape[:2], np.float32), np.zeros(photo.shape[:2], np.float32)

    fine, coarse = contour_distances(photo)
    evidence = (
        _weighted(fine)
        + _double(_weighted(coarse), (photo.shape[0], photo.shape[1]))
        + np.float32(_OFFSET)
    )

    highest = evidence.max(0)
    return (1 / (1 + np.exp(-highest))).astype(np.float32), _direction(np.exp(evidence - highest))


def contour_distances(
    photo: UInt8[np.ndarray, "h w 3"],
) -> tuple[dict[str, Float32[np.ndarray, "o h w"]], dict[str, Float32[np.ndarray, "o hp wp"]]]:
    """Compute how much the two sides of each pixel differ, for each direction across.

    Args:
        photo: RGB photo.

    Returns:
        Distances in [0, 1] by channel and scale: the fine ones, and the coarse ones at half the
        resolution, rounded up.

    Raises:
        ValueError: scikit-image or SciPy is not installed.
    """
    lab = _lab(photo)
    half = _half(lab)
    textons = _one_hot(_textons(half[..., 0]), _NUM_TEXTONS)

    # Distance of the two sides and width of their windows, in pixels of each resolution.
    fine, coarse = {}, {}
    for number, name in enumerate(_CHANNELS):
        fine[f"{name} fine"] = _sides(_soft_bins(lab[..., number]), 2, 1.5)
        coarse[f"{name} coarse"] = _sides(_soft_bins(half[..., number]), 4, 3)

    coarse["texture coarse"] = _sides(textons, 3, 2.5)
    coarse["texture coarsest"] = _sides(textons, 7, 5)
    return fine, coarse


def _weighted(distances: dict[str, Float32[np.ndarray, "o h w"]]) -> Float32[np.ndarray, "o h w"]:
    """Weighted sum of distances over the channels."""
    first, *others = distances
    total = np.float32(_WEIGHTS[first]) * distances[first]
    for name in others:
        total += np.float32(_WEIGHTS[name]) * distances[name]
    return total


def _direction(weights: Float32[np.ndarray, "o h w"]) -> Float32[np.ndarray, "h w"]:
    """Weighted mean direction in [0, pi), by double angles."""
    double = np.arange(NUM_DIRECTIONS) * (2 * np.pi / NUM_DIRECTIONS)
    sine = np.tensordot(np.sin(double).astype(np.float32), weights, 1)
    cosine = np.tensordot(np.cos(double).astype(np.float32), weights, 1)
    return np.minimum(
        np.arctan2(sine, cosine) / 2 % np.pi, np.nextafter(np.float32(np.pi), 0)
    ).astype(np.float32)


def _lab(photo: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """CIE Lab, each axis scaled to [0, 1]."""
    try:
        from skimage.color import rgb2lab
    except ImportError as error:
        raise ValueError("contours need scikit-image: pip install 'maskfree[regions]'") from error
    lab = rgb2lab(photo.astype(np.float32) / 255)
    low, high = np.array([0, -60, -60], np.float32), np.array([100, 60, 60], np.float32)
    return np.clip((lab - low) / (high - low), 0, 1).astype(np.float32)


def _half(values: Float32[np.ndarray, "h w c"]) -> Float32[np.ndarray, "hp wp c"]:
    """Downsample by means of 2x2 pixels; a last odd row or column is repeated."""
    height, width, channels = values.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return even.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, channels).mean((1, 3))


def _double(
    values: Float32[np.ndarray, "o hp wp"], size: tuple[int, int]
) -> Float32[np.ndarray, "o h w"]:
    """Undo `_half` by linear interpolation between the centers of 2x2 pixels."""
    for axis in (1, 2):
        last = values.shape[axis] - 1
        index = np.arange(last + 1)
        before, after = (
            values.take(np.maximum(index - 1, 0), axis),
            values.take(np.minimum(index + 1, last), axis),
        )
        pairs = np.stack(
            [0.25 * before + 0.75 * values, 0.25 * after + 0.75 * values], axis=axis + 1
        )
        shape = list(values.shape)
        shape[axis] *= 2
        values = pairs.reshape(shape).take(np.arange(size[axis - 1]), axis)

    return values


def _soft_bins(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "n h w"]:
    """Soft histogram assignment: linear between two bins, then smoothed."""
    place = values.ravel() * (_NUM_BINS - 1)
    low = np.minimum(place.astype(np.int64), _NUM_BINS - 2)
    above = (place - low).astype(np.float32)
    bins = np.zeros((_NUM_BINS, values.size), np.float32)

    # Linear weights of the two nearest bins.
    pixels = np.arange(values.size)
    bins[low, pixels] = 1 - above
    bins[low + 1, pixels] = above

    smoothing = gaussian_matrix(_NUM_BINS, 0.8, truncate=2.5)
    return (smoothing @ bins).reshape(_NUM_BINS, *values.shape)


def _textons(brightness: Float32[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """Texton of each pixel: k-means cluster of Gaussian derivatives within this photo."""
    from scipy.cluster.vq import kmeans2, vq
    from scipy.ndimage import gaussian_filter1d

    orders = ((0, 1), (1, 0), (0, 2), (2, 0), (1, 1))
    responses = []
    for scale in (0.7, 1.5):
        for y, x in orders:
            down = gaussian_filter1d(brightness, scale, 0, y)
            derivative = gaussian_filter1d(down, scale, 1, x)
            responses.append(derivative * scale ** (y + x))

    features = np.stack(responses, axis=-1).reshape(-1, len(responses))
    length = np.linalg.norm(features, axis=1, keepdims=True)
    # Compress the contrast logarithmically.
    features *= np.log1p(length / 0.02) / (length + 0.02)

    # Cluster a fixed sample of the pixels.
    generator = np.random.default_rng(0)
    chosen = features[
        generator.choice(len(features), _TEXTON_SAMPLES, replace=len(features) < _TEXTON_SAMPLES)
    ]

    with warnings.catch_warnings():
        # Warns of empty clusters, which keep their centers and get no pixel.
        warnings.simplefilter("ignore")
        centers, _ = kmeans2(chosen, _NUM_TEXTONS, iter=8, minit="points", rng=generator)
    return vq(features, centers, check_finite=False)[0].reshape(brightness.shape)


def _one_hot(numbers: Int[np.ndarray, "h w"], count: int) -> Float32[np.ndarray, "n h w"]:
    """One channel per number."""
    return (numbers == np.arange(count)[:, None, None]).astype(np.float32)


def _sides(
    bins: Float32[np.ndarray, "n h w"], distance: int, width: float
) -> Float32[np.ndarray, "o h w"]:
    """Hellinger distance between histograms of Gaussian windows on the two sides of each pixel."""
    height, width_px = bins.shape[1:]
    padded = np.empty((len(bins), height + 2 * distance, width_px + 2 * distance), np.float32)
    smooth = padded[:, distance : distance + height, distance : distance + width_px]
    gaussian_blur(bins, width, truncate=2, out=smooth)
    smooth /= smooth.sum(0) + np.float32(1e-6)
    np.sqrt(np.maximum(smooth, 0, out=smooth), out=smooth)
    _repeat_edges(padded, distance)

    # Compare windows shifted to both sides, for each direction.
    result = np.empty((NUM_DIRECTIONS, height, width_px), np.float32)
    for number in range(NUM_DIRECTIONS):
        angle = number * np.pi / NUM_DIRECTIONS

        x, y = round(distance * np.cos(angle)), round(distance * np.sin(angle))
        one = padded[
            :, distance + y : distance + y + height, distance + x : distance + x + width_px
        ]
        other = padded[
            :, distance - y : distance - y + height, distance - x : distance - x + width_px
        ]

        # Bhattacharyya coefficient of square-rooted histograms.
        same = np.einsum("nhw,nhw->hw", one, other)
        result[number] = np.sqrt(np.clip(1 - same, 0, 1))
    return result


def _repeat_edges(padded: Float32[np.ndarray, "n h w"], margin: int) -> None:
    """Fill a margin with the values beside it, as `np.pad` with the mode "edge" does in a copy."""
    inner = slice(margin, -margin)
    padded[:, :margin, inner] = padded[:, margin : margin + 1, inner]
    padded[:, -margin:, inner] = padded[:, -margin - 1 : -margin, inner]
    padded[:, :, :margin] = padded[:, :, margin : margin + 1]
    padded[:, :, -margin:] = padded[:, :, -margin - 1 : -margin]
