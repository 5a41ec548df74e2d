"""Photos to label: of folders, globs, files, lists of paths and shards, found one by one."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from maskfree.data.examples import PHOTO_SUFFIXES
from maskfree.data.photo_urls import is_url
from maskfree.data.tar_members import tar_members
from maskfree.files.atomic import escape

_LISTS = (".txt",)
_SHARDS = (".tar",)
# File systems allow 255 bytes; suffixes and numbers need some of them.
_MAX_PART_BYTES = 200
# A path may have 4096 bytes, of which the data set's folder needs some.
_MAX_NAME_BYTES = 1500
# Longest line of a list that is a path.
_MAX_LINE_BYTES = 16384
# What some file system or text format cannot have in a name; unprintable letters are added.
_BAD_LETTERS = re.compile(r'[\\:*?"<>|]')


class FoundPhoto(NamedTuple):
    """A photo to label."""

    path: Path
    """File of the photo, or of the shard that holds it."""
    member: str
    """Name within the shard; empty for a file."""
    name: str
    """Preferred name in the data set: relative, with "/" and without suffix."""
    offset: int = 0
    """Position of a member's first byte in the shard."""
    size: int = 0
    """Number of bytes of a member."""
    problem: str = ""
    """Why it cannot be read, in one line, if that is known already."""

    @property
    def source(self) -> str:
        """What identifies the photo from run to run.

        Returns:
            The absolute path, followed by the name of the member if it lies in a shard.
        """
        path = os.path.abspath(self.path)  # noqa: PTH100 - symbolic links are kept
        return f"{path}::{self.member}" if self.member else path


def check_places(places: Sequence[str], out: Path) -> None:
    """Check the places before any work, without reading them.

    Args:
        places: What `find` is given.
        out: Folder of the data set.

    Raises:
        FileNotFoundError: A place does not exist, or a pattern matches nothing.
        ValueError: A place is a web address or holds `out`.
    """
    for place in places:
        if is_url(place) or re.match(r"(s3|gs|file|pipe):", place):
            raise ValueError(f"{place!r} is a web address: download the photos first")

        path = Path(place).expanduser()
        if path.is_dir():
            if out.resolve().is_relative_to(path.resolve()):
                raise ValueError(
                    f"--out {out} lies in the photos' folder {place}, and would be taken for "
                    "photos: give one outside of it"
                )
        elif not path.exists() and next(_globbed(place), None) is None:
            raise FileNotFoundError(f"there is no file or folder {place!r}")


def find(places: Sequence[str], out: Path) -> Iterator[FoundPhoto]:
    """Find photos one by one, so that memory does not grow with their number.

    Args:
        places: Folders (photos at any depth, by suffix), globs, photos, text files with one path a
            line (relative to the text file), and shards (.tar), in any mixture.
        out: Folder of the data set, in which a glob from outside finds nothing.

    Yields:
        Photos; with several folders their names begin with that of the folder. A file that is
        named itself, not found in a folder, may be missing or no photo. Folders and shards that
        cannot be read are found as photos with a problem.

    Raises:
        OSError: A list of paths cannot be read.
        ValueError: A list of paths is no text.
    """
    num_folders = sum(Path(place).expanduser().is_dir() for place in places)
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            start = f"{path.resolve().name}/" if num_folders > 1 else ""
            yield from _of_folder(path, start)
        elif path.exists():
            yield from _of_file(path, Path(path.name))
        else:
            yield from _of_glob(place, out)


def is_photo(name: str) -> bool:
    """Tell by its name whether a file of a folder or shard is a photo.

    Args:
        name: Path of the file.

    Returns:
        Whether its suffix is that of a photo and it is not hidden.
    """
    last = name.rpartition("/")[2]
    suffix = last.rpartition(".")[2].lower()
    return suffix in PHOTO_SUFFIXES and "." in last and not last.startswith(".")


def clean_name(path: str) -> str:
    r"""Turn a relative path into a name that every file system and format can have.

    Args:
        path: Path with "/"; its suffix is dropped if it is a photo's.

    Returns:
        The name. Letters that some system refuses become "_", and long parts are cut, with a hash
        of the whole.

    Example:
        >>> clean_name("dogs/rex: 1.jpg"), clean_name("../a/b.v2")
        ('dogs/rex_ 1', 'a/b.v2')
    """
    stem, _, suffix = path.rpartition(".")
    if not stem or suffix.lower() not in PHOTO_SUFFIXES:
        stem = path

    parts = []
    for part in stem.split("/"):
        if part not in ("", ".", ".."):
            parts.append(_clean_part(part))

    name = "/".join(parts) or "photo"
    if len(name.encode()) > _MAX_NAME_BYTES:
        name = f"{_hash(name)}/{parts[-1]}"
    return name


def _clean_part(part: str) -> str:
    """One part of a path without letters that some system refuses, and not too long."""
    letters = [letter if letter.isprintable() else "_" for letter in escape(part)]
    cleaned = _BAD_LETTERS.sub("_", "".join(letters))

    # Windows drops dots and spaces at the end; a dot at the beginning hides a file.
    cleaned = cleaned.rstrip(" .") or "_"
    if cleaned.startswith("."):
        cleaned = f"_{cleaned[1:]}"

    encoded = cleaned.encode()
    if len(encoded) > _MAX_PART_BYTES:
        cleaned = f"{encoded[: _MAX_PART_BYTES - 20].decode(errors='ignore')}-{_hash(cleaned)}"
    return cleaned


def _hash(name: str) -> str:
    """Short hash of a name."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def _of_folder(folder: Path, start: str) -> Iterator[FoundPhoto]:
    """Photos under a folder, sorted within each folder; links to folders are not followed."""
    unread: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=unread.append):
        # os.walk goes on with what is left in the list, in its order.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            path = Path(parent) / file
            if is_photo(file):
                relative = path.relative_to(folder).as_posix()
                yield FoundPhoto(path, "", clean_name(start + relative))
            elif file.lower().endswith(_SHARDS):
                yield from _of_shard(path)

    for error in unread:
        yield _unreadable(Path(error.filename), str(error.strerror))


def _unreadable(path: Path, reason: str) -> FoundPhoto:
    """A folder or shard that cannot be read."""
    problem = f"{path} cannot be read: {reason}"
    return FoundPhoto(path, "", clean_name(path.name), problem=problem)


def _of_glob(pattern: str, out: Path) -> Iterator[FoundPhoto]:
    """Photos, lists and shards that match a pattern, named below its last plain folder."""
    plain: list[str] = []
    for part in Path(pattern).expanduser().parts:
        if glob.has_magic(part):
            break
        plain.append(part)
    root = Path(*plain)

    # The label maps of an earlier run are no photos.
    made = out.resolve()
    is_inside = root.resolve().is_relative_to(made)
    for path in _globbed(pattern):
        if not is_inside and path.resolve().is_relative_to(made):
            continue
        if path.is_file() and path.suffix.lower() in (*_LISTS, *_SHARDS):
            yield from _of_file(path, Path(path.name))
        elif path.is_file() and is_photo(path.name):
            yield from _of_file(path, path.relative_to(root))


def _globbed(pattern: str) -> Iterator[Path]:
    """Paths that match a pattern, in which ** stands for folders of any depth."""
    # Path.glob takes no absolute pattern.
    full = str(Path(pattern).expanduser())
    return map(Path, glob.iglob(full, recursive=True))  # noqa: PTH207


def _of_file(path: Path, relative: Path) -> Iterator[FoundPhoto]:
    """What a file stands for: itself, the photos of a shard, or those that a text file lists."""
    suffix = path.suffix.lower()
    if suffix in _SHARDS:
        yield from _of_shard(path)
    elif suffix in _LISTS:
        yield from _of_list(path)
    else:
        yield FoundPhoto(path, "", clean_name(relative.as_posix()))


def _of_list(path: Path) -> Iterator[FoundPhoto]:
    """Photos that a text file lists, one path a line, relative to it; # begins a comment line."""
    try:
        with path.open("rb") as lines:
            while line := lines.readline(_MAX_LINE_BYTES):
                if len(line) == _MAX_LINE_BYTES or b"\0" in line:
                    raise ValueError(f"{path} is no list of paths: one in each line")

                text = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf")).strip()
                if text and not text.startswith("#"):
                    photo = path.parent / Path(text).expanduser()
                    yield FoundPhoto(photo, "", clean_name(text))
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror or error}") from error


def _of_shard(path: Path) -> Iterator[FoundPhoto]:
    """Photos of a shard, named by their path in it."""
    try:
        for member in tar_members(path):
            if is_photo(member.name):
                name = clean_name(member.name)
                yield FoundPhoto(path, member.name, name, member.offset, member.size)
    except tarfile.TarError as error:
        yield _unreadable(path, f"the shard is damaged: {error}")
    except OSError as error:
        yield _unreadable(path, error.strerror or str(error))
