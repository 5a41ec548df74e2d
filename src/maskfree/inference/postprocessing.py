"""The one place where scores become labels: synonyms, smoothing, class prior and background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt, UInt8
from PIL import Image
from torch import Tensor

from maskfree.inference.calibration import Calibration
from maskfree.inference.config import Inference
from maskfree.inference.refinement import refine
from maskfree.ops.class_prior import apply_class_prior, class_levels, smooth
from maskfree.ops.confidence_map import confidence_map
from maskfree.ops.label_map import (
    best_of_synonyms,
    label_map,
    mean_of_synonyms,
    softmax_map,
    vote_of_synonyms,
)
from maskfree.ops.region_scope import vote
from maskfree.regions.region_maps import SegmentConfig, region_map
from maskfree.results.cleaning import at_most
from maskfree.text.background import Background
from maskfree.text.vocabulary import Vocabulary


class LabeledPixels(NamedTuple):
    """Labels of a photo's pixels, and how sure they are."""

    labels: UInt[np.ndarray, "h w"]
    """Class id of each pixel."""
    scores: Float16[np.ndarray, "h w"]
    """Winning score of each pixel."""
    confidence: Float16[np.ndarray, "h w"] | None
    """Probability of each pixel's class, in [0, 1]; None if it was not asked for."""


@dataclass(frozen=True)
class Postprocessing:
    """Steps from the network's scores to a label for every pixel."""

    inference: Inference
    """Inference settings."""
    vocabulary: Vocabulary
    """Classes, each with its synonyms."""
    background: Background
    """Rule by which pixels become background."""
    patch_size: int
    """Side of a patch in pixels."""
    logit_scale: float
    """Factor on the cosines before a softmax."""

    @property
    def cell_px(self) -> int:
        """Side of a cell of the score map, in pixels of the resized photo.

        Returns:
            1 for the score "product", which scores pixels; otherwise the patch size.
        """
        if self.inference.score == "product":
            return 1
        return self.patch_size

    @property
    def synonyms(self) -> list[int]:
        """Number of scores that the network gives for each class.

        Returns:
            Number of phrases of each class; the background, if it is scored, is the last class.
        """
        counts = [len(synonyms) for synonyms in self.vocabulary.classes]

        if self.background.words:
            counts.append(sum(len(synonyms) for synonyms in self.background.words))
        elif self.background and self.inference.score == "product":
            counts.append(1)

        return counts

    def class_scores(self, scores: Float[Tensor, "p hp wp"]) -> Float[Tensor, "k hp wp"]:
        """Pool synonyms, smooth, and apply image-level prior and levels.

        Args:
            scores: Score map of the phrases.

        Returns:
            Score map of the classes; of the phrases with score "softmax", whose softmax is over
            phrases.
        """
        inference, batch = self.inference, scores[None]
        if inference.score != "softmax":
            batch = self._pooled(batch)

        # The prior is computed from smoothed scores, which are less noisy.
        batch = smooth(batch, inference.smooth)
        if inference.class_prior:
            prior = apply_class_prior(batch)
            batch = batch + inference.class_prior * prior

        # A threshold is a bound on the scores as they are.
        if inference.class_level and self.background.threshold is None:
            batch = batch - inference.class_level * class_levels(batch)

        return batch[0]

    def _pooled(self, scores: Float[Tensor, "b p hp wp"]) -> Float[Tensor, "b k hp wp"]:
        """Score of each class from those of its synonyms."""
        if self.inference.synonyms == "max":
            return best_of_synonyms(scores, self.synonyms)

        # Words of the background are no synonyms of each other: the best one counts.
        counts = [len(synonyms) for synonyms in self.vocabulary.classes]
        own, others = scores.tensor_split([sum(counts)], dim=1)
        if self.inference.synonyms == "mean":
            classes = mean_of_synonyms(own, counts)
        else:
            classes = vote_of_synonyms(own, counts, self.logit_scale)

        if not others.shape[1]:
            return classes
        return torch.cat([classes, others.amax(1, keepdim=True)], dim=1)

    def extent(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the part of the score map that is not padding.

        Args:
            size: Height and width of the photo in pixels.

        Returns:
            Cells down and across that the photo covers.
        """
        height, width = self.inference.resized(*size)
        return height / self.cell_px, width / self.cell_px

    def labels(
        self,
        scores: Float[Tensor, "k hp wp"],
        size: tuple[int, int],
        padded: UInt8[np.ndarray, "hs ws 3"] | None = None,
        extent: tuple[float, float] | None = None,
    ) -> tuple[UInt[np.ndarray, "h w"], Float16[np.ndarray, "h w"]]:
        """Turn class scores into labels and winning scores, as `labeled_pixels` does.

        Args:
            scores: Score map as `class_scores` returns it.
            size: Height and width of the photo in pixels.
            padded: The photo as the network saw it.
            extent: Cells down and across that the photo covers.

        Returns:
            Class id and winning score of each pixel.

        Raises:
            ValueError: The package of the refinement or of the voting regions is missing.
        """
        found = self.labeled_pixels(scores, size, padded, extent)
        return found.labels, found.scores

    def labeled_pixels(
        self,
        scores: Float[Tensor, "k hp wp"],
        size: tuple[int, int],
        padded: UInt8[np.ndarray, "hs ws 3"] | None = None,
        extent: tuple[float, float] | None = None,
        calibration: Calibration | None = None,
    ) -> LabeledPixels:
        """Turn class scores into the label, the winning score and the confidence of each pixel.

        Args:
            scores: Score map as `class_scores` returns it.
            size: Height and width of the photo in pixels.
            padded: The photo as the network saw it, needed by refinement and vote; without it
                scores are enlarged bilinearly.
            extent: Cells down and across that the photo covers; None means those of a score map as
                `class_scores` returns it.
            calibration: How scores become confidences; None leaves confidences out.

        Returns:
            Class id, winning score and confidence of each pixel.

        Raises:
            ValueError: The package of the refinement or of the voting regions is missing.
        """
        inference = self.inference
        threshold = self.background.threshold
        if inference.score == "product":
            # Here the background is a channel of the scores.
            threshold = None

        height, width = inference.resized(*size)
        if extent is None:
            extent = self.extent(size)

        if inference.refine != "none" and padded is not None:
            # The background takes part as one more class: a CRF returns probabilities, to which a
            # cosine threshold does not apply.
            if threshold is not None:
                scores, threshold = _with_level(scores, threshold), None

            scores = refine(inference.refine, padded[:height, :width], scores, extent)
            extent = (float(scores.shape[1]), float(scores.shape[2]))

        # Enlarge to pixels and take the best class.
        if inference.score == "softmax":
            labels, best = softmax_map(
                scores, self._class_of(), logit_scale=self.logit_scale, size=size, extent=extent
            )
        else:
            labels, best = label_map(scores, size=size, extent=extent)

        confidence = None
        if calibration is not None:
            confidence = self._confidence(scores, best, threshold, extent, calibration)

        if threshold is not None:
            labels = self._with_background(labels, best < threshold)
        if inference.vote == "none" or padded is None:
            return LabeledPixels(labels, best, confidence)

        # Regions are found where the network looked, and cover the photo.
        regions = region_map(padded[:height, :width], SegmentConfig(inference.vote))
        covering = Image.fromarray(regions).resize((size[1], size[0]), Image.Resampling.NEAREST)
        voted, best = vote(labels, best, np.asarray(covering))

        if confidence is not None:
            confidence = at_most(confidence, voted != labels)
        return LabeledPixels(voted, best, confidence)

    def _confidence(
        self,
        scores: Float[Tensor, "k hp wp"],
        best: Float16[np.ndarray, "h w"],
        threshold: float | None,
        extent: tuple[float, float],
        calibration: Calibration,
    ) -> Float16[np.ndarray, "h w"]:
        """Probability of the best class of each pixel, or of the background under a threshold."""
        # Scores of these kinds are probabilities already.
        if self.inference.score != "cosine" or self.inference.refine == "crf":
            return best.clip(0, 1)

        if threshold is not None:
            scores = _with_level(scores, threshold)
        return confidence_map(
            scores,
            temperature=calibration.temperature or 1 / self.logit_scale,
            none=calibration.none,
            size=(best.shape[0], best.shape[1]),
            extent=extent,
        )

    def _class_of(self) -> list[int]:
        """Class of each phrase."""
        classes: list[int] = []
        for index, count in enumerate(self.synonyms):
            classes += [index] * count
        return classes

    def _with_background(
        self, labels: UInt[np.ndarray, "h w"], is_background: np.ndarray
    ) -> UInt[np.ndarray, "h w"]:
        """Set the background's id, which follows those of the classes."""
        background_id = len(self.vocabulary.classes)
        if background_id >= 256:
            labels = labels.astype(np.uint16)

        labels[is_background] = background_id
        return labels


def _with_level(scores: Float[Tensor, "k hp wp"], level: float) -> Float[Tensor, "k2 hp wp"]:
    """Add a class that scores the same everywhere."""
    return torch.cat([scores, torch.full_like(scores[:1], level)])
