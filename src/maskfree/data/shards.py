"""Read image-caption pairs from WebDataset shards, on disk or by URL.

A shard is a tar file of `KEY.jpg` with `KEY.txt` or `KEY.json`.
"""

from __future__ import annotations

import contextlib
import glob
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, cast

from maskfree.config.extras import need
from maskfree.data.captions import captions_of, is_text
from maskfree.data.examples import (
    BROKEN_SHARD,
    NO_CAPTION,
    NO_PHOTO,
    PHOTO_SUFFIXES,
    UNREADABLE_CAPTIONS,
    UNREADABLE_NAME,
    UNREADABLE_PHOTO,
    Example,
)
from maskfree.data.remote_files import RemoteFile, check_readable, is_remote
from maskfree.data.tar_members import BLOCK, is_plain_tar, tar_members

# Largest file of a shard that is read into memory.
_MAX_BYTES = 2**28
# Reads allowed at the end of the stream; more mean that a header tells a wrong size.
_MAX_READS_AT_END = 3
# Names of WebDataset's own metadata, which are no samples.
_META = re.compile(r"__[^/]*__($|/)")


def find_shards(patterns: Sequence[str]) -> tuple[str, ...]:
    """Expand patterns to shards.

    Args:
        patterns: Files, folders of `*.tar`, globs, braces as in `train-{000..005}.tar`, or URLs
            of http(s), s3 or gs.

    Returns:
        Paths and URLs, in the order of the patterns.

    Raises:
        FileNotFoundError: A pattern matches no file.
        ValueError: A shard is empty, a URL has another scheme (WebDataset's `pipe:` would run a
            shell command), or a package that reads it or expands braces is not installed.
    """
    shards: list[str] = []
    for pattern in patterns:
        for name in _without_braces(pattern):
            scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", name)
            # A path without a scheme is a local file.
            if scheme is None:
                shards.extend(_local_shards(name))
            elif scheme[1] == "file":
                shards.extend(_local_shards(name.removeprefix("file://").removeprefix("file:")))
            elif is_remote(name):
                check_readable(name)
                shards.append(name)
            else:
                raise ValueError(
                    f"shard {name!r}: {scheme[1]}: is not allowed; give a path, or a URL of "
                    "http(s), s3 or gs"
                )

    return tuple(shards)


def _without_braces(pattern: str) -> Iterable[str]:
    """Expand the braces of a pattern."""
    if "{" not in pattern:
        return [pattern]

    # braceexpand is a dependency of webdataset.
    if find_spec("braceexpand") is None:
        need(f"the list of shards {pattern!r}", "train", modules=("webdataset",))

    from braceexpand import braceexpand

    return braceexpand(pattern)


def _local_shards(name: str) -> list[str]:
    """Shards on disk that a file name, a folder or a glob stands for."""
    path = Path(name).expanduser()
    if path.is_dir():
        found = sorted(path.glob("*.tar"))
    else:
        # Path.glob takes no absolute pattern.
        found = [Path(match) for match in sorted(glob.glob(str(path)))]  # noqa: PTH207

    if not found:
        message = f"no shard {name!r}"
        if path.is_dir():
            message += ": the folder holds no .tar file"
        raise FileNotFoundError(message)

    for shard in found:
        if not shard.stat().st_size:
            raise ValueError(f"shard {str(shard)!r} is empty")

    return [str(shard) for shard in found]


def read_shards(shards: Sequence[str]) -> Iterator[Example]:
    """Read every pair of some shards, in order.

    A pair that cannot be read becomes an example with a problem, and reading goes on.

    Args:
        shards: Paths and URLs, as `find_shards` returns them.

    Yields:
        Examples with encoded photos and captions.
    """
    from webdataset.tariterators import group_by_keys

    for shard in shards:
        broken: list[Example] = []

        def note(error: Exception, shard: str = shard, broken: list[Example] = broken) -> bool:
            """Record an error of the current shard.

            Args:
                error: What was raised.
                shard: The current shard.
                broken: List that the error is added to.

            Returns:
                True: WebDataset goes on reading.
            """
            # WebDataset appends to `args`; str() hides this for an OSError only.
            reason = str(error)
            if error.args and not isinstance(error, OSError):
                reason = str(error.args[0])
            reason = " ".join(reason.split())

            problem = f"{BROKEN_SHARD}: {type(error).__name__}: {reason}"
            broken.append(Example("", shard, problem=problem))
            return True

        for fields in group_by_keys(_files(shard, note), handler=note):
            yield _example(shard, fields)
        yield from broken


def _open(shard: str) -> contextlib.AbstractContextManager[Any]:
    """Open a shard by path or URL."""
    if is_remote(shard):
        return contextlib.closing(RemoteFile(shard))
    return Path(shard).open("rb")


def _files(shard: str, note: Callable[[Exception], bool]) -> Iterator[dict[str, Any]]:
    """Files of an archive in WebDataset's form; the data of a file that is too large are None."""
    try:
        members = _streamed_members
        if not is_remote(shard) and is_plain_tar(Path(shard)):
            members = _plain_members
        for name, data in members(shard):
            if not _META.match(name):
                yield {"fname": name, "data": data, "__url__": shard}
    # A shard that cannot be opened counts as broken, too. tarfile and its decompressors raise many
    # kinds of errors on damaged archives.
    except Exception as error:
        note(error)


def _plain_members(shard: str) -> Iterator[tuple[str, bytes | None]]:
    """Names and data of the files of an uncompressed archive on disk, in a third of the time."""
    path, end = Path(shard), 0
    with path.open("rb") as file:
        for member in tar_members(path):
            data = None
            if member.size <= _MAX_BYTES:
                file.seek(member.offset)
                data = file.read(member.size)
            yield member.name, data
            end = member.offset + member.size

        # Contents are padded to whole blocks.
        if file.seek(0, io.SEEK_END) < -(-end // BLOCK) * BLOCK:
            raise tarfile.ReadError("unexpected end of data")


def _streamed_members(shard: str) -> Iterator[tuple[str, bytes | None]]:
    """Names and data of the files of any archive."""
    # Read as a stream: an HTTP response cannot seek.
    with (
        _open(shard) as stream,
        tarfile.open(fileobj=cast("IO[bytes]", _Ending(stream)), mode="r|*") as archive,
    ):
        for info in archive:
            if info.isreg():
                data = None
                if info.size <= _MAX_BYTES and (file := archive.extractfile(info)):
                    data = file.read()
                yield info.name, data

            # Else tarfile keeps every member in memory.
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]


class _Ending:
    """A stream that raises at its end, where tarfile would read on as far as a header says."""

    def __init__(self, stream: Any):
        self._stream, self._reads_at_end = stream, 0

    def read(self, size: int) -> bytes:
        """Read some bytes.

        Args:
            size: Largest number of bytes to read.

        Returns:
            The bytes; empty at the end.

        Raises:
            tarfile.ReadError: The stream was read repeatedly after its end.
        """
        content = self._stream.read(size)
        self._reads_at_end += not content
        if self._reads_at_end > _MAX_READS_AT_END:
            raise tarfile.ReadError("unexpected end of data")
        return content


def _example(shard: str, fields: Mapping[str, Any]) -> Example:
    """Build an example from the files of one key."""
    key = fields["__key__"]
    if not is_text(key):
        return Example(
            key, shard, problem=f"{UNREADABLE_NAME}: names of files in a shard are UTF-8"
        )

    # The order of the suffixes is their priority.
    suffix = next((suffix for suffix in PHOTO_SUFFIXES if suffix in fields), None)
    if suffix is None:
        return Example(key, shard, problem=f"{NO_PHOTO}: {_why_no_photo(fields)}")

    photo = fields[suffix]
    if photo is None:
        return Example(key, shard, problem=f"{UNREADABLE_PHOTO}: it is over {_MAX_BYTES:,} bytes")

    try:
        captions = captions_of(fields)
    # Not JSON, not UTF-8, or JSON of another structure.
    except (ValueError, TypeError) as error:
        return Example(key, shard, photo, problem=f"{UNREADABLE_CAPTIONS}: {error}")

    if not captions:
        return Example(key, shard, photo, problem=NO_CAPTION)

    return Example(key, shard, photo, captions)


def _why_no_photo(suffixes: Iterable[str]) -> str:
    """Explain why a sample with these suffixes has no photo."""
    known = ", ".join(PHOTO_SUFFIXES)
    dotted = next((suffix for suffix in suffixes if is_dotted(suffix)), None)
    if dotted is None:
        return f"none of its files ends with {known}"
    return (
        f"a file ends with .{dotted}, for the key ends at the first dot of a name: "
        f"have no other dot before {known}"
    )


def is_dotted(suffix: str) -> bool:
    """Tell whether a photo's name has more dots, which would belong to no key.

    WebDataset ends the key at the first dot, so such a photo is not found.

    Args:
        suffix: What follows the key and its dot in a file name.

    Returns:
        True if it ends with a photo's suffix after another dot.

    Example:
        >>> is_dotted("v2.0001.jpg"), is_dotted("jpg"), is_dotted("seg.npy")
        (True, False, False)
    """
    before, _, last = suffix.rpartition(".")
    return bool(before) and last in PHOTO_SUFFIXES
