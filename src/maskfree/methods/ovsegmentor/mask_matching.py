"""How the masks of two photos are compared: in the paper, in one direction, and as released."""

from __future__ import annotations

from dataclasses import dataclass

from maskfree.losses.mask_arithmetic import PAPER, RELEASED, MaskArithmetic


@dataclass(frozen=True)
class MaskMatching:
    """How the groups of two photos that share an entity are compared."""

    symmetric: bool
    """Compare in both photos instead of the partner only."""
    online_keys: bool
    """Read predicted masks from the trained encoder's patches instead of the momentum encoder's."""
    final: bool
    """Make masks from the encoder's final groups and image features instead of the binding's
    queries and keys."""
    scaled: bool
    """Divide mask logits by the square root of the number of channels."""
    leave_out: bool
    """Leave out the other groups, instead of only stopping their gradient."""
    arithmetic: MaskArithmetic
    """How logits become masks, are matched and averaged."""


MATCHINGS = {
    # arXiv:2301.09121, eq. 10 to 12, with the products that bind patches to groups (eq. 4).
    "paper": MaskMatching(
        symmetric=True,
        online_keys=True,
        final=False,
        scaled=False,
        leave_out=True,
        arithmetic=PAPER,
    ),
    # Eq. 10 to the letter: its image features and groups are those of eq. 2, the encoder's output.
    "features": MaskMatching(
        symmetric=True,
        online_keys=True,
        final=True,
        scaled=False,
        leave_out=True,
        arithmetic=PAPER,
    ),
    # The trained encoder never sees the partner, which saves a pass; logits as in the binding.
    "one_way": MaskMatching(
        symmetric=False,
        online_keys=False,
        final=False,
        scaled=True,
        leave_out=True,
        arithmetic=PAPER,
    ),
    "released": MaskMatching(
        symmetric=False,
        online_keys=False,
        final=False,
        scaled=True,
        leave_out=False,
        arithmetic=RELEASED,
    ),
}
"""Ways to compare masks, by name."""
