"""Photos on their way to the network: read, resized, padded to whole patches, in chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from maskfree.data.photo import PhotoLike, photo_name, pixels_of, read_photo
from maskfree.inference.config import Inference

# Batches of photos in a chunk, so that photos of equal size share a batch.
_CHUNK_BATCHES = 2
# A chunk takes no further photo once it has so many pixels, those of a usual camera.
_CHUNK_PIXELS = 12_000_000
# Pixels of all chunks that are held at once; one chunk may exceed it by its last photo.
_HELD_PIXELS = 40_000_000


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

    @property
    def num_pixels(self) -> int:
        """Pixels of the photo at its own size.

        Returns:
            Height times width.
        """
        return self.image.shape[0] * self.image.shape[1]


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
    if not any(after for _, after in padding):
        return np.array(small)
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


Chunk: TypeAlias = "deque[PreparedPhoto | PhotoError]"
"""Photos that go through the network together, and errors, in their order."""


class HeldPixels:
    """Bound on the pixels of photos that wait in memory between two threads."""

    def __init__(self) -> None:
        self._count = 0
        self._is_open = True
        self._changed = Condition()

    def wait(self) -> None:
        """Wait until one more chunk may be read."""
        with self._changed:
            self._changed.wait_for(self._has_room)

    def add(self, pixels: int) -> None:
        """Count pixels of a photo that was read, or, if negative, of one that was released.

        Args:
            pixels: Pixels of the photo.
        """
        with self._changed:
            self._count += pixels
            self._changed.notify_all()

    def close(self) -> None:
        """Let no one wait any more."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()

    def _has_room(self) -> bool:
        """Whether the pixels of a chunk fit beside those that are held."""
        return not self._is_open or self._count + _CHUNK_PIXELS <= _HELD_PIXELS


def read_chunks(
    opened: Iterator[OpenedPhoto | PhotoError],
    prepare: Callable[[Image.Image, str], PreparedPhoto],
    batch_size: int,
    held: HeldPixels,
) -> Iterator[Chunk]:
    """Collect photos in chunks that are bounded in number and pixels.

    Args:
        opened: Photos and errors.
        prepare: Prepares a photo, given with its name.
        batch_size: Photos per forward pass; a chunk holds a few batches.
        held: Counts the pixels of the photos; the caller takes them off as it frees a photo.

    Yields:
        Queues of prepared photos and errors in their order; the caller empties each one, so that
        its photos are freed.
    """
    while True:
        held.wait()
        chunk = _next_chunk(opened, prepare, _CHUNK_BATCHES * batch_size)
        if not chunk:
            return
        for item in chunk:
            if not isinstance(item, PhotoError):
                held.add(item.num_pixels)
        yield chunk


def _next_chunk(
    opened: Iterator[OpenedPhoto | PhotoError],
    prepare: Callable[[Image.Image, str], PreparedPhoto],
    max_photos: int,
) -> Chunk:
    """Take the next chunk; empty if there are no more photos."""
    chunk: Chunk = deque()
    pixels = 0

    for item in opened:
        if isinstance(item, PhotoError):
            chunk.append(item)
        else:
            chunk.append(prepare(*item))
            pixels += item[0].width * item[0].height
            # Release the decoded photo, so that a large one is not held twice.
            del item

        if len(chunk) >= max_photos or pixels >= _CHUNK_PIXELS:
            break

    return chunk
