"""Labels of single frames by words, with the scores of alike patches of the whole clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt
from PIL import Image
from torch import Tensor

from maskfree.inference.features import sample_evenly
from maskfree.inference.photos import prepare_photo
from maskfree.inference.pipeline import postprocessing, score_photos
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.clip_clusters import ClipClusters

# All labeled frames weigh the same, until one would weigh less than this: what comes into view late
# in a long clip still gets its name.
_MIN_WEIGHT = 0.2


class ClipNaming:
    """Labels frames of a clip by words, with the scores of the frames so far.

    A frame by itself is named badly in two ways: its scores are blurred around an object, and a
    word that scores high everywhere takes every pixel. Clusters of alike patches of all labeled
    frames share their scores, and each word counts from its own level.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        """Start before the first frame.

        Args:
            segmenter: Model with its words. Class prior and levels of single photos are not
                used: the levels of the clip take their place.
        """
        inference = replace(segmenter.inference, class_prior=0.0, class_level=0.0)
        self._segmenter = segmenter.with_inference(inference)
        self._clusters = ClipClusters()
        self._num_frames = 0

    @property
    def weight(self) -> float:
        """Weight of the last labeled frame against those before it, in (0, 1].

        Returns:
            1 for the first frame.
        """
        return max(1 / self._num_frames, _MIN_WEIGHT)

    @torch.inference_mode()
    def __call__(
        self, frame: Image.Image, grid: Float[Tensor, "d h w"]
    ) -> tuple[UInt[np.ndarray, "height width"], Float16[np.ndarray, "height width"]]:
        """Label a frame, and let it count in the clusters of the clip.

        Args:
            frame: Upright RGB image.
            grid: Unit-norm embeddings on a grid that spans it evenly.

        Returns:
            Class id and winning score of each pixel.
        """
        segmenter = self._segmenter
        steps = postprocessing(segmenter)
        size = (frame.height, frame.width)
        cells = (grid.shape[1], grid.shape[2])

        photo = prepare_photo(frame, "", segmenter.inference, segmenter.method.patch_size)
        scores = score_photos(segmenter, [photo])[0]
        scores = sample_evenly(scores, steps.extent(size), *cells).to(grid.device)

        self._num_frames += 1
        self._clusters.add(grid, scores, self.weight)

        # A threshold is meant for the scores as they are.
        leveled = segmenter.background.threshold is None
        scores = self._clusters.scores(grid, leveled).cpu()
        extent = (float(cells[0]), float(cells[1]))
        return steps.labels(scores, size, photo.padded, extent)
