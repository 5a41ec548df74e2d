"""The `maskfree distill` command: train a student from a model, on photos without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from tyro.conf import Positional, arg

from maskfree.cli.kinds import Kind, run_kind


def distill(how: Annotated[Positional[str], arg(metavar="HOW")]) -> int:
    """Train a student from any model, on photos without labels.

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


def _settings(*names: str) -> tuple[str, ...]:
    """Names of settings, which are fields of the parameter `settings`."""
    return tuple(f"settings.{name}" for name in names)


# What a user changes of the training, in both kinds.
_TRAIN = ("steps", "batch_size", "learning_rate", "accelerator", "seed", "save_every")

KINDS = {
    "clips4": Kind(
        "A student with sharper masks, which segments any words.",
        _load_clips4,
        common=(
            *("words", "model", "out", "quiet"),
            *_settings("side_px", "segments.kind", "top", "num_unknown"),
            *_settings("weights", "family", "crop_px", "workers"),
            *_settings(*(f"train.{name}" for name in (*_TRAIN, "precision", "devices"))),
        ),
    ),
    "pseudo-labels": Kind(
        "A student trained on the model's confident labels of the photos.",
        _load_pseudo_labels,
        common=(
            *("words", "benchmark", "data", "model", "out", "quiet"),
            *_settings("side_px", "smooth", "class_prior", "keep", "balance", "correct"),
            *_settings("weights", "family", "workers"),
            *_settings(*(f"train.{name}" for name in _TRAIN)),
        ),
    ),
}
"""Ways to train a student, the first argument of the command."""
