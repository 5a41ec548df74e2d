"""Words of a few DAVIS scenes, with which videos are segmented without a first mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from maskfree.data.benchmarks.davis import VideoSequence, find_sequences

DAVIS_WORDS: Mapping[str, tuple[str, ...]] = {
    "blackswan": ("swan/bird", "water", "plant/bush", "wall"),
    "car-shadow": ("car", "road/street", "building/house", "tree", "sky"),
    "dog": ("dog", "grass/ground", "plant/bush", "fence"),
}
"""Words of each scene, written down from its frames before anything was measured; the first word is
the object of the masks."""


def worded_sequences(root: Path, chosen: Sequence[str] = ()) -> tuple[VideoSequence, ...]:
    """Find sequences that have words.

    Args:
        root: DAVIS folder.
        chosen: Names of sequences, or of lists in ImageSets; none means those of `DAVIS_WORDS`.

    Returns:
        The sequences, as by `find_sequences`.

    Raises:
        FileNotFoundError: The root is not a DAVIS folder, a sequence is missing, or a frame has no
            mask.
        ValueError: A sequence has no words.
    """
    found = find_sequences(root, chosen or tuple(DAVIS_WORDS))
    for sequence in found:
        if sequence.name not in DAVIS_WORDS:
            raise ValueError(
                f"the sequence {sequence.name!r} has no words: only {', '.join(DAVIS_WORDS)} have"
            )
    return found
