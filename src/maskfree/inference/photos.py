"""Photos on their way to the network: read, resized, padded to whole patches, read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from maskfree.data.photo import PhotoLike, photo_name, pixels_of, read_photo
from maskfree.inference.config import Inference

# Batches of photos decoded ahead, so that photos of equal size share a batch
_AHEAD_BATCHES = 4
# Pixels decoded ahead: no further photo once these are reached
_AHEAD_PIXELS = 40_000_000


@dataclass(frozen=True)
class PhotoError:
    """A photo that could not be read, and why, in one line."""

    photo: str
    """File or name of the photo."""
    reason: str
    """Why it could not be read."""


OpenedPhoto: TypeAlias = tuple[Image.Image, str]
"""An upright RGB photo and its name."""


class PreparedPhoto(NamedTuple):
    """A photo at its own size and as the network sees it."""

    name: str
    """Name of the photo."""
    image: UInt8[np.ndarray, "h w 3"]
    """The photo at its own size."""
    padded: UInt8[np.ndarray, "hp wp 3"]
    """The photo resized and padded to whole patches."""


def open_photo(photo: PhotoLike | object) -> OpenedPhoto | PhotoError:
    """Read a photo, or say why it cannot be read.

    Args:
        photo: Photo in any form.

    Returns:
        The photo and its name, or the reason why it cannot be read.
    """
    try:
        return read_photo(photo), photo_name(photo)
    except (ValueError, OSError) as error:
        name = photo_name(photo)
        if isinstance(photo, str | Path):
            name = str(photo)
        return PhotoError(name, str(error))


def fit_to_patches(
    photo: Image.Image, inference: Inference, patch_size: int
) -> UInt8[np.ndarray, "hp wp 3"]:
    """Resize a photo for the network and pad it to whole patches by repeating its border.

    Args:
        photo: Upright RGB photo.
        inference: Inference settings, which determine the size.
        patch_size: Side of a patch in pixels.

    Returns:
        The padded photo, whose sides are multiples of the patch size.
    """
    height, width = inference.resized(photo.height, photo.width)
    small = photo.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)

    padding = ((0, -height % patch_size), (0, -width % patch_size), (0, 0))
    return np.pad(np.asarray(small), padding, mode="edge")


def prepare_photo(
    photo: Image.Image, name: str, inference: Inference, patch_size: int
) -> PreparedPhoto:
    """Prepare a photo for the network.

    Args:
        photo: Upright RGB photo.
        name: Name of the photo.
        inference: Inference settings.
        patch_size: Side of a patch in pixels.

    Returns:
        The photo at its own size and as the network sees it.
    """
    return PreparedPhoto(name, pixels_of(photo), fit_to_patches(photo, inference, patch_size))


def to_images(
    crops: Sequence[UInt8[np.ndarray, "h w 3"]], device: torch.device
) -> Float[Tensor, "b 3 h w"]:
    """Stack crops of equal size to a batch of images.

    Args:
        crops: RGB crops of equal size.
        device: Device of the batch.

    Returns:
        Images in [0, 1], in channels-last memory format.
    """
    # Permuting h w 3 gives channels-last memory format, which convolutions run fastest on.
    pixels = torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2)
    return pixels.float().div_(255)


def read_ahead(
    opened: Iterator[OpenedPhoto | PhotoError],
    prepare: Callable[[Image.Image, str], PreparedPhoto],
    batch_size: int,
) -> Iterator[deque[PreparedPhoto | PhotoError]]:
    """Collect photos in chunks that are bounded in number and pixels.

    Args:
        opened: Photos and errors.
        prepare: Prepares a photo, given with its name.
        batch_size: Photos per forward pass; a chunk holds a few batches.

    Yields:
        Queues of prepared photos and errors in their order; the caller empties each one, so that
        its photos are freed.
    """
    while chunk := _next_chunk(opened, prepare, _AHEAD_BATCHES * batch_size):
        yield chunk


def _next_chunk(
    opened: Iterator[OpenedPhoto | PhotoError],
    prepare: Callable[[Image.Image, str], PreparedPhoto],
    max_photos: int,
) -> deque[PreparedPhoto | PhotoError]:
    """Take the next chunk; empty if there are no more photos."""
    chunk: deque[PreparedPhoto | PhotoError] = deque()
    pixels = 0

    for item in opened:
        if isinstance(item, PhotoError):
            chunk.append(item)
        else:
            chunk.append(prepare(*item))
            pixels += item[0].width * item[0].height
            # Release the decoded photo, so that a large one is not held twice.
            del item

        if len(chunk) >= max_photos or pixels >= _AHEAD_PIXELS:
            break

    return chunk
