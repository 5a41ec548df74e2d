"""Partner photos, which share an entity with a photo."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from maskfree.data.entities.index import EntityIndex
from maskfree.data.examples import DECODE_PX, decode
from maskfree.data.order import seed_of
from maskfree.data.sample import Partner

log = logging.getLogger(__name__)


class PartnerPhotos:
    """Draws partner photos; an unreadable partner is logged once per pass and left out."""

    def __init__(self, index: EntityIndex | None, seed: int):
        """Store where partners come from.

        Args:
            index: Index that partners are drawn from; None for no partners.
            seed: Seed of the draws.
        """
        self._index, self._seed = index, seed
        self._last_epoch_warned = -1

    def draw(self, key: str, epoch: int) -> Partner | None:
        """Draw the partner of a photo.

        Args:
            key: The photo's key.
            epoch: The pass, from 0.

        Returns:
            The partner; None without an index, or where no other photo shares an entity.
        """
        if self._index is None:
            return None
        row = self._index.find(key)
        if row is None:
            return None

        rng = np.random.default_rng(seed_of(self._seed, "partner", epoch, key))
        try:
            found = self._index.partner(row, rng)
            if found is None:
                return None
            entity, example = found
            return Partner(entity, decode(example, DECODE_PX))
        # Only the partner is lost: the photo itself is still used.
        except Exception as error:
            # One warning per pass is enough.
            if epoch != self._last_epoch_warned:
                log.warning("no partner for sample %r: %s", key, " ".join(str(error).split()))
            self._last_epoch_warned = epoch
            return None


def check_entities(named: Sequence[str], known: Sequence[str]) -> None:
    """Check that an index names only entities of the method's list.

    Args:
        named: Entities of the index.
        known: Entities of the method's list.

    Raises:
        ValueError: An entity of the index is not in the list.
    """
    if unknown := sorted(set(named).difference(known)):
        raise ValueError(
            f"the index has the entity {unknown[0]!r}, which is not in the method's list: "
            "name the index's entities.txt with --method.entities"
        )
