"""Photos of a written data set: linked or copied from where they are, upright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maskfree.data.decoding import picture_header
from maskfree.data.photo import read_photo
from maskfree.label.labeled import LabeledPhoto

Linking = Literal["hard", "symbolic", "copy"]
"""How photos come into the folder of a format."""

# Formats that trainers and browsers read; other photos are written as JPEG.
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp"}
_JPEG_QUALITY = 95
_JPEG_END = b"\xff\xd9"
# Most photos that were left out of which the reasons are listed.
_MAX_REASONS = 10


@dataclass(frozen=True, eq=False)
class PhotoFile:
    """A labeled photo that is still what it was when it was labeled."""

    labeled: LabeledPhoto
    """The photo and its labels."""
    suffix: str
    """Suffix of the file that is written, such as ".jpg"."""
    linking: Linking
    """How the photo comes into the data set."""
    is_plain: bool
    """Whether the file can be taken as it is: of a common format and stored upright."""

    @property
    def name(self) -> str:
        """Name of the photo in the data set.

        Returns:
            A relative path without suffix, in letters that every file system takes.
        """
        return self.labeled.name

    def put(self, target: Path) -> None:
        """Link, copy or convert the photo to a place in the data set.

        Args:
            target: File that does not exist; its folder is created.

        Raises:
            FileExistsError: Another photo has this name.
            OSError: The photo cannot be read or written.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            raise FileExistsError(
                f"{self.labeled.path} has the name {target.name} of another photo"
            )

        source = Path(os.path.realpath(self.labeled.path))
        if not self.is_plain:
            picture = read_photo(source)
            picture.save(target, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        elif self.linking == "copy" or not _is_complete(source):
            shutil.copyfile(source, target)
        elif self.linking == "symbolic":
            target.symlink_to(source)
        else:
            _link_or_copy(source, target)


class PhotoFiles:
    """The photos of a data set that are there, and those that were left out."""

    def __init__(self, photos: Iterable[LabeledPhoto], linking: Linking):
        """Wrap the photos.

        Args:
            photos: Labeled photos, read one by one.
            linking: How photos come into the data set.
        """
        self._photos = photos
        self._linking: Linking = linking
        self.num_photos = 0
        self.num_left_out = 0
        self.reasons: list[str] = []

    def __iter__(self) -> Iterator[PhotoFile]:
        """Iterate once over the photos whose files are there and have the size of their labels."""
        for labeled in self._photos:
            try:
                photo = self._checked(labeled)
            except (OSError, ValueError) as error:
                self.num_left_out += 1
                if len(self.reasons) < _MAX_REASONS:
                    self.reasons.append(str(error))
                continue

            self.num_photos += 1
            yield photo

    def _checked(self, labeled: LabeledPhoto) -> PhotoFile:
        """Read a photo's header; raise OSError or ValueError where it is not what was labeled."""
        if not labeled.path.is_file():
            raise FileNotFoundError(f"there is no file {labeled.path}")

        header = picture_header(labeled.path)
        if header.size != (labeled.width, labeled.height):
            width, height = header.size
            raise ValueError(
                f"{labeled.path} has {width}x{height} pixels, and had "
                f"{labeled.width}x{labeled.height} when it was labeled"
            )

        is_plain = header.is_upright and header.format in _SUFFIXES
        suffix = ".jpg"
        if is_plain:
            suffix = _SUFFIXES[header.format]
        return PhotoFile(labeled, suffix, self._linking, is_plain)


def _is_complete(photo: Path) -> bool:
    """Whether a file is no JPEG that was cut off."""
    # Ultralytics writes such a JPEG anew, in place: through a link that would be the original.
    with photo.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return True
        file.seek(-2, os.SEEK_END)
        return file.read(2) == _JPEG_END


def _link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link, or a copy where the file system or its rules allow no link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
