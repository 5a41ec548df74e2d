"""Keys of the samples of a shard, their hashes, and fingerprints of shards."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

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


def fingerprint(shard: Path) -> tuple[int, str]:
    """Get the size and a hash of a shard.

    Above 16 MiB only 64 evenly spaced pieces are hashed.

    Args:
        shard: Tar file.

    Returns:
        Size in bytes and hexadecimal hash.
    """
    size = shard.stat().st_size
    digest = hashlib.blake2b(digest_size=16)

    with shard.open("rb", buffering=0) as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            # The first piece is at the start of the shard, the last one at its end.
            for piece in range(_SAMPLES):
                digest.update(
                    os.pread(file.fileno(), _SAMPLE, piece * (size - _SAMPLE) // (_SAMPLES - 1))
                )

    return size, digest.hexdigest()
