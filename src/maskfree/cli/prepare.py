"""The `maskfree prepare` command: preprocessing of photos and captions for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from tyro.conf import Positional, arg

from maskfree.cli.kinds import Kind, run_kind


def prepare(what: Annotated[Positional[str], arg(metavar="WHAT")]) -> int:
    """Precompute inputs of training: entities, segments, teacher or prototypes.

    Args:
        what: What to prepare.

    Returns:
        Exit status 0.
    """
    return prepare_what([what])


def prepare_what(arguments: Sequence[str]) -> int:
    """Parse the arguments of `prepare` and run it; the options depend on the first one.

    Args:
        arguments: Command line after `prepare`: a key of `KINDS`, then its options.

    Returns:
        Exit status 0.
    """
    return run_kind(prepare, KINDS, arguments)


def _load_entities() -> Callable[..., int]:
    from maskfree.cli.prepare_entities import entities

    return entities


def _load_segments() -> Callable[..., int]:
    from maskfree.cli.prepare_segments import segments

    return segments


def _load_teacher() -> Callable[..., int]:
    from maskfree.cli.prepare_teacher import teacher

    return teacher


def _load_prototypes() -> Callable[..., int]:
    from maskfree.cli.prepare_prototypes import prototypes

    return prototypes


KINDS = {
    "entities": Kind(
        "Index of image-caption pairs by the nouns in their captions.", _load_entities
    ),
    "segments": Kind("Unsupervised regions of photos.", _load_segments),
    "teacher": Kind("Patch embeddings of a model for photos.", _load_teacher),
    "prototypes": Kind("Mean embedding of the segments of each word.", _load_prototypes),
}
"""What can be prepared, the first argument of the command."""
