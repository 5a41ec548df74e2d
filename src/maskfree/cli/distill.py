"""The `maskfree distill` command: train a student from a model, on photos without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from tyro.conf import Positional, arg

from maskfree.cli.kinds import Kind, run_kind


def distill(how: Annotated[Positional[str], arg(metavar="HOW")]) -> int:
    """Train a student from any model, on photos without labels: clips4 or pseudo-labels.

    Args:
        how: How the student is trained.

    Returns:
        Exit status 0.
    """
    return distill_how([how])


def distill_how(arguments: Sequence[str]) -> int:
    """Parse the arguments of `distill` and run it; the options depend on the first one.

    Args:
        arguments: Command line after `distill`: a key of `KINDS`, then its options.

    Returns:
        Exit status 0.
    """
    return run_kind(distill, KINDS, arguments)


def _load_clips4() -> Callable[..., int]:
    from maskfree.cli.distill_clips4 import clips4

    return clips4


def _load_pseudo_labels() -> Callable[..., int]:
    from maskfree.cli.distill_pseudo_labels import pseudo_labels

    return pseudo_labels


# What the help of both kinds lists.
_COMMON = (
    "words",
    "model",
    "out",
    "conduct.quiet",
    "settings.student.side_px",
    "settings.student.weights",
    "settings.student.family",
    "settings.student.workers",
    "settings.student.train.steps",
    "settings.student.train.batch_size",
    "settings.student.train.learning_rate",
    "settings.student.train.accelerator",
    "settings.student.train.seed",
    "settings.student.train.save_every",
)

KINDS = {
    "clips4": Kind(
        "A student with sharper masks, which segments any words.",
        _load_clips4,
        common=(
            *_COMMON,
            "settings.segments.kind",
            "settings.top",
            "settings.num_unknown",
            "settings.student.crop_px",
            "settings.student.train.precision",
            "settings.student.train.devices",
        ),
    ),
    "pseudo-labels": Kind(
        "A student trained on the model's confident labels of the photos.",
        _load_pseudo_labels,
        common=(
            *_COMMON,
            "benchmark",
            "data",
            "settings.smooth",
            "settings.class_prior",
            "settings.keep",
            "settings.balance",
            "settings.correct",
        ),
    ),
}
"""Ways to train a student, the first argument of the command."""
