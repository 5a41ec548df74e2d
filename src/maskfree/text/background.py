"""Background rules: which pixels are assigned to no class."""

from __future__ import annotations

import math
from dataclasses import dataclass

from maskfree.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Background:
    """Background rule: no background, a cosine threshold, or background words."""

    threshold: float | None = None
    """Pixels whose best cosine is below this value are background, in [-1, 1]; None for no
    threshold."""
    words: tuple[tuple[str, ...], ...] = ()
    """Words whose pixels are background, each with its synonyms."""

    @classmethod
    def parse(cls, rule: str) -> Background:
        """Parse a background rule.

        Args:
            rule: `none`, `threshold:T` with T in [-1, 1], or `words:W,W,...`.

        Returns:
            The background rule.

        Raises:
            ValueError: The rule is none of them.

        Example:
            >>> Background.parse("words:wall,sky/cloud").words
            (('wall',), ('sky', 'cloud'))
        """
        kind, _, value = rule.strip().partition(":")
        if kind == "none" and not value:
            return cls()
        if kind == "threshold":
            try:
                threshold = float(value)
            except ValueError:
                threshold = math.nan

            # Also refuses NaN.
            if not -1 <= threshold <= 1:
                raise ValueError(
                    f"the background threshold {value!r} is not a cosine: a number in [-1, 1]"
                )

            return cls(threshold=threshold)

        if kind == "words":
            return cls(words=Vocabulary.parse([value]).classes)

        raise ValueError(
            f"the background rule {rule!r} is unknown: none, threshold:T or words:W,W,..."
        )

    def __str__(self) -> str:
        if self.threshold is not None:
            return f"threshold:{self.threshold:g}"
        if self.words:
            return "words:" + ",".join(map("/".join, self.words))
        return "none"

    def __bool__(self) -> bool:
        return self.threshold is not None or bool(self.words)
