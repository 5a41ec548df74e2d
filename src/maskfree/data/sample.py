"""One sample on its way into training: what the data have of it, and what a method makes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from maskfree.types import Batch


@dataclass(frozen=True)
class Partner:
    """Another photo of the data, drawn anew in each pass, and the entity that it shares."""

    entity: str
    photo: Image  # RGB


@dataclass(frozen=True)
class Source:
    """What the data have for one sample."""

    key: str
    photo: Image  # RGB
    captions: Sequence[str] = ()  # none of an unlabeled photo
    partner: Partner | None = None  # where the transform takes one, and there is one


class Transform(ABC):
    """What a method wants made of one sample, on a data worker, and how samples become a batch. Must be picklable."""

    @property
    def takes_partner(self) -> bool:
        """Whether `sample` looks at the source's partner; by default it does not, and none is read."""
        return False

    @property
    def reads_maps(self) -> bool:
        """Whether `sample` reads files named by the photo's stem, so that no two photos may share one."""
        return False

    @property
    def entities(self) -> tuple[str, ...] | None:
        """The entities that an index may name; None: any."""
        return None

    @abstractmethod
    def sample(self, source: Source, seed: int) -> Any:
        """Augment one photo; all randomness comes from SEED."""

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> Batch:
        """Stack samples into a batch."""
