"""Which parts of a teacher a student takes over, and which of its weights these are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from maskfree.hub import checkpoint, loading
from maskfree.method_config import StudentParts
from maskfree.nn.encoder_config import ImageEncoderConfig


class InitialWeights(NamedTuple):
    """Weights of a teacher's checkpoint that a student starts from."""

    renamed: tuple[tuple[str, str], ...]
    """Prefixes of the teacher's weights, each with the student's prefix, where they differ."""
    without: tuple[str, ...]
    """Prefixes of the teacher's weights that the student does not take."""


def parts_of(name: str, folder: Path) -> StudentParts:
    """Read what a student can take over from a teacher.

    Args:
        name: Name of the teacher, for the error.
        folder: Folder of the teacher's checkpoint.

    Returns:
        The parts that the teacher's method states.

    Raises:
        ValueError: The method cannot teach, or the checkpoint is damaged.
        OSError: The checkpoint cannot be read.
    """
    config = loading.read_config(folder)
    parts = config.student_parts()
    if parts is None:
        method = type(config).__name__.removesuffix("Config")
        raise ValueError(f"{name} cannot teach: a student cannot take the text side of a {method}")
    return parts


def own_image_encoder(name: str, parts: StudentParts) -> ImageEncoderConfig:
    """Return the image encoder that a student shares with its teacher.

    Args:
        name: Name of the teacher, for the error.
        parts: Parts of the teacher.

    Returns:
        Settings of the encoder.

    Raises:
        ValueError: A student cannot have the teacher's image encoder.
    """
    if parts.image is None:
        raise ValueError(
            f"a student cannot have the image side of {name}: "
            "name the weights of another encoder (--weights)"
        )
    return parts.image


def initial_weights(folder: Path, taken: Mapping[str, str]) -> InitialWeights:
    """Choose the weights of a teacher that a student starts from.

    Args:
        folder: Folder of the teacher's checkpoint.
        taken: Prefixes of the teacher's weights that are taken, each with the student's prefix.

    Returns:
        The weights, as the initial weights of a recipe are named.

    Raises:
        ValueError: The checkpoint is damaged.
        OSError: The checkpoint cannot be read.
    """
    without = set()
    for name in checkpoint.weight_names(folder):
        if not any(checkpoint.has_prefix(name, prefix) for prefix in taken):
            without.add(_widest_prefix(name, taken))

    renamed = tuple((there, here) for there, here in taken.items() if there != here)
    return InitialWeights(renamed, tuple(sorted(without)))


def _widest_prefix(name: str, taken: Mapping[str, str]) -> str:
    """Shortest prefix of a name under which nothing is taken."""
    steps = name.split(".")
    for length in range(1, len(steps)):
        prefix = ".".join(steps[:length])
        if not any(checkpoint.has_prefix(kept, prefix) for kept in taken):
            return prefix
    return name
