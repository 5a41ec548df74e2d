"""Segmentation metrics: confusion matrices, IoU, accuracy, boundary scores, reliability."""

from maskfree.metrics.boundaries import (
    BoundaryScores,
    boundary_counts,
    boundary_f,
    boundary_scores,
    region_similarity,
    tolerance_px,
)
from maskfree.metrics.confusion_matrix import confusion, sweep_confusions
from maskfree.metrics.reliability import NUM_BINS, expected_error, reliability_counts
from maskfree.metrics.segmentation_scores import SegmentationScores, harmonic_mean, scores

__all__ = [
    "NUM_BINS",
    "BoundaryScores",
    "SegmentationScores",
    "boundary_counts",
    "boundary_f",
    "boundary_scores",
    "confusion",
    "expected_error",
    "harmonic_mean",
    "region_similarity",
    "reliability_counts",
    "scores",
    "sweep_confusions",
    "tolerance_px",
]
