"""Score maps for the page, which makes labels of them by itself."""

from __future__ import annotations

import base64
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maskfree.inference.photos import PreparedPhoto
from maskfree.inference.pipeline import background_record, postprocessing
from maskfree.inference.refinement import refine
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.class_prior import class_levels
from maskfree.ops.label_map import enlarge
from maskfree.serve.batching import Scores

# Cells that the score "product" is reduced to on the longer side: it scores pixels.
_PRODUCT_CELLS = 160


def score_grid(
    segmenter: Segmenter, photo: PreparedPhoto, scores: Scores, class_level: float
) -> dict[str, Any]:
    """Write scores so that labels can be made of them without the network.

    For scores that are cosines the labels are those of `Segmenter`: enlarge bilinearly, take the
    best class. The others are reduced to probabilities of cells first, and differ at borders.

    Args:
        segmenter: Model with its words, without a background threshold or class levels.
        photo: The photo that was scored.
        scores: Its scores as `score_photos` returns them.
        class_level: Weight of the class levels, an inference setting of the model.

    Returns:
        Size, names, `rows` x `columns` cells, of which `extent` are covered by the photo; base64 of
        the scores as little-endian float16, class by class; `levels`, to be taken off them unless
        a threshold is applied; `scale`, the factor on scores before the softmax that gives
        confidences, 0 if they are probabilities; `none`, the score of one more class in it;
        `background`, as in the record of a result.
    """
    height, width = photo.image.shape[:2]
    steps, inference = postprocessing(segmenter), segmenter.inference
    extent = steps.extent((height, width))
    calibration = segmenter.calibration
    scale = segmenter.logit_scale
    if calibration.temperature:
        scale = 1 / calibration.temperature
    levels = class_level * class_levels(scores[None]).flatten()

    if inference.score == "softmax":
        scores, scale = _probabilities(scores, segmenter), 0.0
        levels = torch.zeros(len(scores))
    elif inference.score == "product":
        scores, extent, scale = *_reduced(scores, extent), 0.0
    elif inference.refine != "none":
        small = photo.padded[: inference.resized(height, width)[0]]
        small = small[:, : inference.resized(height, width)[1]]
        scores = refine(inference.refine, small, scores, extent)
        extent = (float(scores.shape[1]), float(scores.shape[2]))

    names = list(steps.vocabulary.names)
    if len(scores) > len(names):
        names.append("background")
    return {
        "width": width,
        "height": height,
        "names": names,
        "num_words": len(steps.vocabulary.names),
        "rows": scores.shape[1],
        "columns": scores.shape[2],
        "extent": list(extent),
        "scores": base64.b64encode(scores.numpy().astype("<f2").tobytes()).decode(),
        "levels": levels.tolist(),
        "scale": scale,
        "none": calibration.none,
        "background": background_record(segmenter),
    }


def _probabilities(scores: Scores, segmenter: Segmenter) -> Float[Tensor, "k hp wp"]:
    """Probability of each class in each cell: that of its best phrase."""
    shares = (segmenter.logit_scale * scores).softmax(0)
    counts = postprocessing(segmenter).synonyms
    return torch.stack([part.amax(0) for part in shares.split(counts)])


def _reduced(
    scores: Scores, extent: tuple[float, float]
) -> tuple[Float[Tensor, "k hc wc"], tuple[float, float]]:
    """Scores of pixels, sampled on a coarser grid that the photo covers."""
    step = max(1.0, max(extent) / _PRODUCT_CELLS)
    rows, columns = (max(1, round(side / step)) for side in extent)
    return enlarge(scores, (rows, columns), extent), (float(rows), float(columns))
