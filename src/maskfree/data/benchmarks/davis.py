"""The DAVIS benchmarks on disk: sequences of photos, and a mask of the objects in each; also single masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from maskfree.data.id_maps import read_ids
from maskfree.data.photo_folders import only_photos
from maskfree.files.atomic import read_text

VOID = 255  # in a mask of several objects: unknown
_PHOTOS, _MASKS = "JPEGImages", "Annotations"
_RESOLUTIONS = ("480p", "Full-Resolution", "1080p")


@dataclass(frozen=True)
class VideoSequence:
    """The frames of a sequence in order, and the mask of each."""

    name: str
    photos: tuple[Path, ...]
    masks: tuple[Path, ...]


def find_sequences(root: Path, chosen: Sequence[str] = ()) -> tuple[VideoSequence, ...]:
    """Find the sequences of a DAVIS folder, at 480p if they are there at several sizes.

    CHOSEN are names of sequences, or of lists as in ImageSets/2017/val.txt ("2017/val"); none means all.

    Raises:
        FileNotFoundError: ROOT is no DAVIS folder, a sequence is not there, or a frame of it has no mask.
    """
    resolution = next((each for each in _RESOLUTIONS if (root / _PHOTOS / each).is_dir()), None)
    if resolution is None:
        raise FileNotFoundError(
            f"{root} is no DAVIS folder: it holds no {_PHOTOS}/{_RESOLUTIONS[0]}"
        )
    photos = root / _PHOTOS / resolution
    present = sorted(folder.name for folder in photos.iterdir() if folder.is_dir())
    names = [name for each in chosen for name in _expand(root, each)] if chosen else present
    if not names:
        raise FileNotFoundError(f"{photos} holds no sequence")
    for name in names:
        if name not in present:
            raise FileNotFoundError(
                f"there is no sequence {name!r} in {photos}: {', '.join(present)}"
            )
    return tuple(
        _sequence(photos / name, root / _MASKS / resolution / name) for name in dict.fromkeys(names)
    )


def read_objects(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Read a mask: the number of the object at each pixel, 0 where there is none.

    It is a picture of indices with or without a palette, a gray one of object numbers, or one of 0 and 255, which are
    0 and 1 then. Beside other numbers 255 is `VOID`, unknown.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such picture.
    """
    ids = _read_mask(path)
    return np.minimum(ids, 1) if set(np.unique(ids)) <= {0, VOID} else ids


def read_masks(sequence: VideoSequence) -> list[UInt8[np.ndarray, "h w"]]:
    """Read all masks of a sequence as `read_objects` does; the first one tells whether 255 is an object or `VOID`.

    Raises:
        ValueError: a mask is damaged, or of another size than the first.
    """
    masks = [_read_mask(path) for path in sequence.masks]
    binary = set(np.unique(masks[0])) <= {0, VOID}
    for path, mask in zip(sequence.masks, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise ValueError(
                f"the mask {path} is {mask.shape[1]}x{mask.shape[0]}: the first is of another size"
            )
    return [np.minimum(mask, 1) if binary else mask for mask in masks]


def _read_mask(path: Path) -> UInt8[np.ndarray, "h w"]:
    """The numbers in a mask's file, at most 255."""
    ids = read_ids(path, "mask", greys_as_colors=True)
    if ids.max() > VOID:
        raise ValueError(
            f"the mask {path} holds object {ids.max()}: numbers run to 255, and so many are the most"
        )
    return ids.astype(np.uint8)


def _expand(root: Path, name: str) -> list[str]:
    """The sequences of a list in ImageSets, whose lines are names or paths of photos; else NAME itself."""
    listed = root / "ImageSets" / f"{name}.txt"
    if not listed.is_file():
        return [name]
    firsts = [line.split()[0] for line in read_text(listed).splitlines() if line.strip()]
    if not firsts:
        raise ValueError(f"{listed} names no sequence")
    return [Path(first).parent.name if "/" in first else first for first in firsts]


def _sequence(photos: Path, masks: Path) -> VideoSequence:
    found = only_photos(photos.iterdir(), photos)
    if not found:
        raise FileNotFoundError(f"the sequence {photos} holds no photo")
    theirs = tuple(masks / f"{path.stem}.png" for path in found)
    if missing := [path for path in theirs if not path.is_file()]:
        raise FileNotFoundError(
            f"the sequence {photos.name} has no mask {missing[0]}: each frame needs one"
        )
    return VideoSequence(photos.name, tuple(found), theirs)
