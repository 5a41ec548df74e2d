"""A training sample: what the data hold of it, and the transform that a method applies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from maskfree.types import Batch


@dataclass(frozen=True)
class Partner:
    """Another photo that shares an entity with the sample, drawn anew in each pass."""

    entity: str
    """Name of the shared entity."""
    photo: Image
    """RGB image."""


@dataclass(frozen=True)
class Source:
    """What the data hold of one sample."""

    key: str
    """Key of the sample, unique within the data."""
    photo: Image
    """RGB image."""
    captions: Sequence[str] = ()
    """Captions; empty for an unlabeled photo."""
    partner: Partner | None = None
    """Partner photo; None if the transform takes none or none exists."""


class Transform(ABC):
    """Turns a source into training inputs on a data worker, and inputs into a batch.

    A transform must be picklable.
    """

    @property
    def takes_partner(self) -> bool:
        """Whether `sample` uses the source's partner.

        Returns:
            False by default; then no partner is read.
        """
        return False

    @property
    def partners_from(self) -> float:
        """Share of the training from which on partners are used.

        Returns:
            0 by default: from the first step on. Before it no partner is read.
        """
        return 0.0

    @property
    def learns_without_captions(self) -> bool:
        """Whether a sample of a shard teaches something without any text.

        Returns:
            False by default: such samples are left out. If True, they come with one empty caption.
        """
        return False

    @property
    def reads_maps(self) -> bool:
        """Whether `sample` reads files named by the photo's stem.

        Returns:
            False by default. If True, no two photos may share a stem.
        """
        return False

    @property
    def entities(self) -> tuple[str, ...] | None:
        """The entities that an index may name.

        Returns:
            Their names; None allows any.
        """
        return None

    @abstractmethod
    def sample(self, source: Source, seed: int) -> Any:
        """Augment one photo.

        Args:
            source: The photo with its captions and partner.
            seed: Seed of all randomness.

        Returns:
            Training inputs, as `collate` takes them.
        """

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> Batch:
        """Stack samples into a batch.

        Args:
            samples: Results of `sample`.

        Returns:
            The batch.
        """
