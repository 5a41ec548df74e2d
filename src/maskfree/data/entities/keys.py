"""Keys of the samples of a shard, their hashes, and fingerprints of shards."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from maskfree.data.remote_files import is_remote, read_at, size_of

# Shards up to this many bytes are hashed completely.
_WHOLE = 2**24
# Number and bytes of the pieces that are hashed of a larger shard.
_SAMPLES, _SAMPLE = 64, 2**12


def key_hash(key: str) -> int:
    """Hash a key to 64 bits, the same on every machine.

    Args:
        key: Key of a pair.

    Returns:
        An integer in [0, 2**64).
    """
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def sample_key(name: str) -> str:
    """Get the key of a file in a shard.

    The key ends at the first dot after the folders, as in WebDataset.

    Args:
        name: Path of the file in the shard.

    Returns:
        The key.

    Example:
        >>> sample_key("a.b/c.seg.png")
        'a.b/c'
    """
    folders, slash, base = name.rpartition("/")
    return folders + slash + base.split(".", 1)[0]


def fingerprint(shard: Path | str) -> tuple[int, str]:
    """Get the size and a hash of a shard.

    Above 16 MiB only 64 evenly spaced pieces are hashed.

    Args:
        shard: Path or address of a tar file.

    Returns:
        Size in bytes and hexadecimal hash.
    """
    shard = str(shard)
    if is_remote(shard):
        size = size_of(shard)
    else:
        size = Path(shard).stat().st_size

    digest = hashlib.blake2b(digest_size=16)
    if size <= _WHOLE:
        digest.update(read_piece(shard, 0, size))
    else:
        # The first piece is at the start of the shard, the last one at its end.
        for piece in range(_SAMPLES):
            digest.update(read_piece(shard, piece * (size - _SAMPLE) // (_SAMPLES - 1), _SAMPLE))

    return size, digest.hexdigest()


def read_piece(shard: str, start: int, size: int) -> bytes:
    """Read some bytes of a shard.

    Args:
        shard: Path or address.
        start: Position of the first byte.
        size: Number of bytes.

    Returns:
        The bytes; fewer at the end of the shard.

    Raises:
        OSError: The shard cannot be read.
        ValueError: Its server gives whole files only.
    """
    if is_remote(shard):
        return read_at(shard, start, size)
    with Path(shard).open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, start)
