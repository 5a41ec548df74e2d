"""Settings of `maskfree label`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskfree.config.rules import CountOrZero, Fraction, check


@dataclass(frozen=True)
class LabelConfig:
    """What labels depend on, beside the words and the model."""

    background: str | None = None
    """Background rule, as for `segment`; None: that of the words file, if it has one."""
    templates: str = ""
    """Prompt templates: plain, photo or ensemble; the model's own if empty."""
    first_id: Literal[0, 1] = 0
    """Id of the first word: 0 (background, if there is one, follows the last word), or 1 (0 is
    background). 255 is always unlabeled."""
    abstain: Fraction = 0.0
    """Pixels whose label is right with a lower probability become unlabeled."""
    min_area: CountOrZero = 0
    """Pixels of the smallest region; smaller ones are given to the neighbor that scores best."""

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        check(self)
