"""One photo of a manifest: its row, and its regions as compressed plain values."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAITING, DONE, FAILED = "waiting", "done", "failed"
"""States of a photo: to be labeled, labeled, not readable."""


@dataclass(frozen=True)
class PhotoRow:
    """One photo of the manifest."""

    id: int
    """Number of the row."""
    source: str
    """Absolute path of the photo; SHARD::MEMBER within a shard."""
    name: str
    """Name in the data set, unique in any letter case."""
    member: str
    """Name in the shard; empty for a file."""
    offset: int
    """Position of the member in the shard, in bytes."""
    bytes: int | None
    """Size of the encoded photo when it was last looked at; None if it is missing."""
    modified_ns: int | None
    """Time of its last change, or that of its shard."""
    sha256: str | None
    """Hash of the encoded photo that was labeled."""
    state: str
    """`WAITING`, `DONE` or `FAILED`."""
    settings: str | None
    """Hash of the settings that it was labeled with."""
    error: str | None
    """Why it could not be labeled, in one line."""
    width: int | None
    """Width of the upright photo in pixels."""
    height: int | None
    """Height of the upright photo in pixels."""
    confidence: float | None
    """Mean confidence over the pixels that have a label."""

    @property
    def path(self) -> Path:
        """File of the photo, or of its shard.

        Returns:
            Absolute path.
        """
        if not self.member:
            return Path(self.source)
        return Path(self.source.removesuffix(f"::{self.member}"))


def packed(content: Any) -> bytes:
    """Compress plain values for the column `regions`.

    Args:
        content: Lists, dicts, texts and numbers.

    Returns:
        JSON, compressed by zlib.
    """
    return zlib.compress(json.dumps(content, separators=(",", ":")).encode())


def unpacked(content: bytes) -> Any:
    """Plain values of the column `regions`.

    Args:
        content: What `packed` returned.

    Returns:
        The values.

    Raises:
        ValueError: The content is damaged.
    """
    try:
        return json.loads(zlib.decompress(content))
    except (ValueError, TypeError, zlib.error) as error:
        raise ValueError(f"the regions of a photo are damaged: {error}") from error
