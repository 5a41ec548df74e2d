"""Segmentation metrics: confusion matrices, IoU, accuracy, and region and boundary scores."""

from maskfree.metrics.boundaries import (
    BoundaryScores,
    boundary_counts,
    boundary_f,
    boundary_scores,
    region_similarity,
    tolerance_px,
)
from maskfree.metrics.confusion_matrix import confusion, sweep_confusions
from maskfree.metrics.segmentation_scores import SegmentationScores, harmonic_mean, scores

__all__ = [
    "BoundaryScores",
    "SegmentationScores",
    "boundary_counts",
    "boundary_f",
    "boundary_scores",
    "confusion",
    "harmonic_mean",
    "region_similarity",
    "scores",
    "sweep_confusions",
    "tolerance_px",
]
