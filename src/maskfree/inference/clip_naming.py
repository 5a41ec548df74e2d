"""Labels of single frames by words, with the class prior of the clip instead of the frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt
from PIL import Image
from torch import Tensor

from maskfree.inference.photos import prepare_photo
from maskfree.inference.pipeline import score_photos
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.class_prior import CLASS_PRIOR_MAX, apply_class_prior, class_level

# All labeled frames weigh the same, until one would weigh less than this: what comes into view late
# in a long clip still gets its name.
_MIN_WEIGHT = 0.2


class ClipNaming:
    """Labels frames of a clip by words, with the class prior and level of the frames so far.

    The prior of a single frame follows that frame's mistakes: a class that wins somewhere by
    mistake is not lowered there. Over the clip it has to win again and again. The levels make the
    words of a clip comparable: a word whose scores are high everywhere does not take every pixel.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        """Start before the first frame.

        Args:
            segmenter: Model with its words. Without a class prior in its settings frames are
                labeled one by one.
        """
        inference = segmenter.inference
        self._prior_weight = inference.class_prior
        self._segmenter = segmenter.with_inference(replace(inference, class_prior=0.0))
        self._prior = torch.zeros(())
        self._level = torch.zeros(())
        self._num_frames = 0

    @property
    def weight(self) -> float:
        """Weight of the last labeled frame against those before it, in (0, 1].

        Returns:
            1 for the first frame.
        """
        return max(1 / self._num_frames, _MIN_WEIGHT)

    def __call__(
        self, frame: Image.Image
    ) -> tuple[UInt[np.ndarray, "h w"], Float16[np.ndarray, "h w"]]:
        """Label a frame, and let it count in the class prior of the clip.

        Args:
            frame: Upright RGB image.

        Returns:
            Class id and winning score of each pixel.
        """
        segmenter = self._segmenter
        photo = prepare_photo(frame, "", segmenter.inference, segmenter.method.patch_size)
        scores = score_photos(segmenter, [photo])[0]

        self._num_frames += 1
        if self._prior_weight:
            scores = scores + self._prior_weight * self._clip_prior(scores)

        return segmenter.labels_of(scores, (frame.height, frame.width), photo.padded)

    @torch.inference_mode()
    def _clip_prior(self, scores: Float[Tensor, "k hp wp"]) -> Float[Tensor, "k 1 1"]:
        """Value to add to the scores of each class, after this frame."""
        shape = (len(scores), 1, 1)
        prior = apply_class_prior(scores[None])[0]
        self._prior = torch.lerp(self._prior.expand(shape), prior, self.weight)
        self._level = torch.lerp(
            self._level.expand(shape), class_level(scores[None])[0], self.weight
        )

        # A class that wins nowhere is probably absent: it gets the highest level, lest noise win.
        present = (1 + self._prior / CLASS_PRIOR_MAX).clamp_min(0)
        level = torch.lerp(self._level.amax(0).expand(shape), self._level, present)
        return self._prior - level
