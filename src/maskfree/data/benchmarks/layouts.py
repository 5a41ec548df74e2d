"""Layouts of labeled data sets on disk: which photos there are, and checks of their files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from maskfree.data.decoding import picture_size


@dataclass(frozen=True)
class AnnotatedPhoto:
    """Labeled photo; its ground-truth map is decoded by `read_truth` when it is needed."""

    key: str
    """Path of the photo under the root."""
    photo: Path
    """Path of the photo."""
    read_truth: Callable[[], UInt8[np.ndarray, "h w"]]
    """Function that decodes the ground-truth map."""


class Layout(ABC):
    """Layout of a data set on disk."""

    @abstractmethod
    def describe(self) -> str:
        """Describe the required files in one line.

        Returns:
            The description, for messages.
        """

    @abstractmethod
    def missing(self, root: Path) -> Path | None:
        """Find the first missing folder or file of those that are required.

        Args:
            root: Folder of the data set.

        Returns:
            The missing path, or None if all exist.
        """

    @abstractmethod
    def photos(self, root: Path) -> tuple[str, ...]:
        """List the photos in a fixed order.

        Every photo and ground-truth map is checked to exist; none is opened.

        Args:
            root: Folder of the data set.

        Returns:
            Paths of the photos under the root.

        Raises:
            ValueError, OSError: A file is missing, or cannot be read as a list of photos.
        """

    @abstractmethod
    def samples(
        self, root: Path, classes: tuple[str, ...], nothing: int
    ) -> tuple[AnnotatedPhoto, ...]:
        """List the labeled photos in the order of `photos`, and check that sizes match.

        Args:
            root: Folder of the data set.
            classes: Names of the class ids.
            nothing: Value for pixels of no class.

        Returns:
            The labeled photos; none is decoded yet.

        Raises:
            ValueError, OSError: A file is missing, or does not fit the others.
        """


def existing(path: Path) -> Path:
    """Check that a path exists.

    Args:
        path: Path to check.

    Returns:
        The same path.

    Raises:
        FileNotFoundError: The path does not exist.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    return path


def check_size(photo: Path, size: tuple[int, int], who: str) -> None:
    """Check that an upright photo has the size of its ground truth; usually reads only the header.

    Args:
        photo: Path of the photo.
        size: Width and height in pixels that it should have.
        who: Subject and verb before the expected size in the message, such as "a.png is".

    Raises:
        ValueError, OSError: The photo has another size, or is not a photo.
    """
    shown = photo_size(photo)
    if shown == size:
        return

    found = f"{photo} is {shown[0]}x{shown[1]} but {who} {size[0]}x{size[1]}"
    # Swapped sides: the ground truth was made without the EXIF rotation.
    if shown == size[::-1]:
        found += (
            ": a photo is shown upright, as its EXIF orientation says, and so must its truth be"
        )
    raise ValueError(found)


def photo_size(photo: Path) -> tuple[int, int]:
    """Size of a photo in upright orientation; usually reads only the header.

    Args:
        photo: Path of the photo.

    Returns:
        Width and height in pixels.

    Raises:
        OSError: The file is not a photo.
    """
    try:
        return picture_size(photo)
    except (ValueError, OSError) as error:
        raise OSError(f"{photo} cannot be read as a photo: {error}") from error


def need(package: str, what: str) -> None:
    """Check that a package is installed.

    Args:
        package: Name of the package.
        what: Kind of file that needs it, for the message.

    Raises:
        ValueError: The package is missing.
    """
    if find_spec(package) is None:
        raise ValueError(f"{what} need {package}: pip install 'maskfree[evaluate]'")
