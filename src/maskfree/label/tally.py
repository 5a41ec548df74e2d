"""Sums over the photos of a labeled data set, in memory that does not grow with their number."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Ranges of confidence, a tenth each.
_BINS = 10


@dataclass
class LabelTally:
    """Number of photos, areas and confidences of a data set."""

    total: int = 0
    """Number of photos."""
    num_photos: Counter[str] = field(default_factory=Counter)
    """Number of photos in which each word occurs."""
    histogram: list[int] = field(default_factory=lambda: [0] * _BINS)
    """Number of photos by mean confidence, from [0, 0.1) to [0.9, 1]."""
    _areas: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    # Areas with a confidence, and confidences times these areas, by word; "" for all.
    _known: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _unlabeled: float = 0.0

    @classmethod
    def of(
        cls, figures: Iterable[tuple[float | None, float, Mapping[str, Mapping[str, Any]]]]
    ) -> LabelTally:
        """Sum the figures of photos.

        Args:
            figures: Mean confidence of each photo, its unlabeled fraction, and area and confidence
                of each of its words.

        Returns:
            The sums.
        """
        tally = cls()
        for confidence, unlabeled, words in figures:
            tally.total += 1
            tally._unlabeled += unlabeled
            if confidence is not None:
                tally.histogram[min(int(confidence * _BINS), _BINS - 1)] += 1
                tally._note("", 1.0, confidence)

            for word, values in words.items():
                tally.num_photos[word] += 1
                tally._areas[word] += values["area"]
                tally._note(word, values["area"], values["confidence"])
        return tally

    @property
    def mean_confidence(self) -> float | None:
        """Mean confidence of the photos.

        Returns:
            Probability in [0, 1]; None if none is known.
        """
        return self.confidence("")

    @property
    def mean_unlabeled(self) -> float:
        """Mean fraction of a photo without labels.

        Returns:
            Fraction in [0, 1].
        """
        return self._unlabeled / max(1, self.total)

    def area(self, word: str) -> float:
        """Mean fraction of a photo that a word covers.

        Args:
            word: Name of the class.

        Returns:
            Fraction in [0, 1], over all photos.
        """
        return self._areas[word] / max(1, self.total)

    def confidence(self, word: str) -> float | None:
        """Mean confidence of a word's pixels, each photo counting as large as any other.

        Args:
            word: Name of the class.

        Returns:
            Probability in [0, 1]; None if none is known.
        """
        if not self._known[word]:
            return None
        return self._sums[word] / self._known[word]

    def _note(self, word: str, area: float, confidence: float | None) -> None:
        """Add a confidence, if there is one."""
        if confidence is not None:
            self._known[word] += area
            self._sums[word] += area * confidence
