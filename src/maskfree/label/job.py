"""What a run of `maskfree label` is to do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maskfree.label.config import LabelConfig
from maskfree.label.store import Store


@dataclass(frozen=True)
class Job:
    """What a run of `maskfree label` is to do."""

    places: tuple[str, ...]
    """Where the photos are, as `find` takes it."""
    store: Store
    """Where the labels go."""
    config: LabelConfig
    """Settings of the labels."""
    asked: dict[str, Any]
    """Everything that labels depend on, as far as it is known before the model is loaded."""
    redo: bool = False
    """Label all photos anew."""
    has_own_background: bool = True
    """Whether somebody asked for the background rule; otherwise it follows from the words."""


@dataclass(frozen=True)
class LabelCounts:
    """Number of photos of a run by outcome."""

    labeled: int
    """Photos that were labeled now."""
    kept: int
    """Photos that were labeled before."""
    failed: int
    """Photos that could not be labeled."""
    reasons: tuple[str, ...]
    """Why, in one line each, of the first of them."""
    seconds: float
    """Time that labeling took, without the loading of the model."""
