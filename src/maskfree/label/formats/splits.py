"""Which photos are for training and which for validation."""

from __future__ import annotations

import hashlib

# A tenth, as is common; by name, so that a photo stays where it is when others are added.
_VALIDATION = 0.1


def is_validation(name: str) -> bool:
    """Decide by a hash of a photo's name whether it is for validation.

    Args:
        name: Name of the photo in the data set.

    Returns:
        True for a tenth of the names, always the same ones.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < _VALIDATION
