"""Video object segmentation by words on DAVIS: no mask is given, the words name the object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from maskfree.data.benchmarks.davis import VideoSequence, read_masks
from maskfree.data.benchmarks.davis_words import DAVIS_WORDS
from maskfree.data.photo import read_photo
from maskfree.evaluation.tracking import TrackRow, overall, score_masks
from maskfree.inference.segmenter import Segmenter
from maskfree.inference.tracking import follow_words
from maskfree.inference.tracking_config import TrackConfig
from maskfree.progress import Watch, unwatched
from maskfree.results.segmentation import Segmentation


def track_by_words(
    segmenter: Segmenter,
    sequences: Sequence[VideoSequence],
    config: TrackConfig,
    every: int,
    watch: Watch = unwatched,
) -> list[TrackRow]:
    """Segment DAVIS sequences by the words of their scenes and score the object they name.

    Args:
        segmenter: Model; its present words do not matter.
        sequences: Sequences that have words, as by `worded_sequences`.
        config: Settings of the propagation.
        every: The words label every so many frames; 0 labels the first frame only.
        watch: Wraps the frames to show progress.

    Returns:
        A row for each object, and the mean over all objects last. As with a given mask, the first
        and the last frame do not count.

    Raises:
        ValueError: A photo or mask cannot be read.
    """
    rows = []
    for sequence in sequences:
        worded = segmenter.with_words(DAVIS_WORDS[sequence.name], "none")
        truth = read_masks(sequence)

        # Frames are decoded one by one: a sequence need not fit in memory.
        shown = watch(sequence.photos, sequence.name, len(truth))
        frames = ((path.stem, read_photo(path)) for path in shown)

        followed = follow_words(worded, frames, config, every)
        rows += score_masks(truth, map(_named_object, followed), sequence.name)

    return [*rows, overall(rows)]


def _named_object(result: Segmentation) -> UInt8[np.ndarray, "h w"]:
    """Mask of the first word, as object 1."""
    return (result.labels == 0).astype(np.uint8)
