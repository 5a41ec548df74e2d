"""DAVIS video benchmarks on disk: photo sequences with object masks, and single masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from maskfree.data.id_maps import read_ids
from maskfree.data.photo_folders import only_photos
from maskfree.files.atomic import read_text
from maskfree.ops.ignore import IGNORE

_PHOTOS, _MASKS = "JPEGImages", "Annotations"
_RESOLUTIONS = ("480p", "Full-Resolution", "1080p")


@dataclass(frozen=True)
class VideoSequence:
    """Video sequence: its frames in order, and the mask of each."""

    name: str
    """Name of the sequence."""
    photos: tuple[Path, ...]
    """Paths of the frames, in order."""
    masks: tuple[Path, ...]
    """Path of the mask of each frame."""


def find_sequences(root: Path, chosen: Sequence[str] = ()) -> tuple[VideoSequence, ...]:
    """Find the sequences of a DAVIS folder, at 480p if there are several resolutions.

    Args:
        root: DAVIS folder.
        chosen: Names of sequences, or of lists in ImageSets without suffix, such as "2017/val";
            none means all.

    Returns:
        The sequences without duplicates, in the chosen or else in alphabetical order.

    Raises:
        FileNotFoundError: The root is not a DAVIS folder, a sequence is missing, or a frame has no
            mask.
    """
    resolution = next((each for each in _RESOLUTIONS if (root / _PHOTOS / each).is_dir()), None)
    if resolution is None:
        raise FileNotFoundError(
            f"{root} is no DAVIS folder: it holds no {_PHOTOS}/{_RESOLUTIONS[0]}"
        )

    photos = root / _PHOTOS / resolution
    present = sorted(folder.name for folder in photos.iterdir() if folder.is_dir())

    # Replace lists by the names in them.
    names: list[str] = []
    for each in chosen:
        names += _expand(root, each)
    if not chosen:
        names = present
    if not names:
        raise FileNotFoundError(f"{photos} holds no sequence")

    for name in names:
        if name not in present:
            raise FileNotFoundError(
                f"there is no sequence {name!r} in {photos}: {', '.join(present)}"
            )
    masks = root / _MASKS / resolution
    return tuple(_sequence(photos / name, masks / name) for name in dict.fromkeys(names))


def read_objects(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Read the object mask of a frame.

    The file is an index image with or without a palette, a gray image of object ids, or one of 0
    and 255, which become 0 and 1. Beside other ids, 255 is `IGNORE`.

    Args:
        path: The image file.

    Returns:
        Object id at each pixel; 0 for none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no such image.
    """
    ids = _read_mask(path)
    # Of 0 and 255 alone, 255 is the object, not void.
    if _is_binary(ids):
        ids = np.minimum(ids, 1)
    return ids


def read_masks(sequence: VideoSequence) -> list[UInt8[np.ndarray, "h w"]]:
    """Read all masks of a sequence.

    Args:
        sequence: The sequence.

    Returns:
        Object ids as by `read_objects`; the first mask decides whether 255 is an object or
        `IGNORE`.

    Raises:
        ValueError: A mask is damaged, or differs in size from the first.
    """
    masks = [_read_mask(path) for path in sequence.masks]
    # All frames of a video have one size.
    for path, mask in zip(sequence.masks, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise ValueError(
                f"the mask {path} is {mask.shape[1]}x{mask.shape[0]}: the first is of another size"
            )

    # The first mask decides how all of them are read.
    if _is_binary(masks[0]):
        masks = [np.minimum(mask, 1) for mask in masks]
    return masks


def _is_binary(ids: UInt8[np.ndarray, "h w"]) -> bool:
    """Whether a mask holds no values but 0 and 255."""
    return set(np.unique(ids)) <= {0, IGNORE}


def _read_mask(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Values of a mask file, at most 255."""
    ids = read_ids(path, "mask", grays_as_colors=True)
    if ids.max() > IGNORE:
        raise ValueError(f"the mask {path} holds object {ids.max()}: numbers run to 255")
    return ids.astype(np.uint8)


def _expand(root: Path, name: str) -> list[str]:
    """Sequences of a list in ImageSets, or the name itself if there is no such list."""
    listed = root / "ImageSets" / f"{name}.txt"
    if not listed.is_file():
        return [name]

    firsts = [line.split()[0] for line in read_text(listed).splitlines() if line.strip()]
    if not firsts:
        raise ValueError(f"{listed} names no sequence")

    # A line is a sequence, or the path of a photo in it, as in the lists of DAVIS 2016.
    names = []
    for first in firsts:
        if "/" in first:
            first = Path(first).parent.name
        names.append(first)
    return names


def _sequence(photos: Path, masks: Path) -> VideoSequence:
    """Photos and masks of a sequence; each photo needs a mask."""
    found = only_photos(photos.iterdir(), photos)
    if not found:
        raise FileNotFoundError(f"the sequence {photos} holds no photo")

    mask_paths = tuple(masks / f"{path.stem}.png" for path in found)
    for path in mask_paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"the sequence {photos.name} has no mask {path}: each frame needs one"
            )
    return VideoSequence(photos.name, tuple(found), mask_paths)
