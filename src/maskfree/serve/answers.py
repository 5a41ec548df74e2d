"""Results as PNG and as JSON."""

from __future__ import annotations

import io
import json
import math
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import Response
from jaxtyping import UInt
from PIL import Image

from maskfree.results.segmentation import Segmentation


def png_answer(result: Segmentation) -> Response:
    """Answer with the label map.

    Args:
        result: Segmentation of a photo.

    Returns:
        Index PNG with a palette; the header `X-Maskfree-Names` is the list of names by id, JSON
        with percent-encoding.
    """
    image = Image.fromarray(result.labels)
    if len(result.names) <= 256:
        image = Image.fromarray(result.labels.astype(np.uint8))
        image.putpalette(result.palette.tobytes())

    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    names = quote(json.dumps(result.names, ensure_ascii=False))
    return Response(stream.getvalue(), media_type="image/png", headers={"X-Maskfree-Names": names})


def json_answer(result: Segmentation) -> dict[str, Any]:
    """Write a result as plain values.

    Args:
        result: Segmentation of a photo.

    Returns:
        Size, names by id, regions with run lengths, and the record of the result.
    """
    height, width = result.labels.shape
    counts = run_lengths(result.labels, len(result.names))

    regions = [
        {
            "id": region.class_id,
            "name": region.name,
            "score": _rounded(region.score),
            "confidence": _rounded(region.confidence),
            "box": list(region.box),
            "area": region.area,
            "rle": {"size": [height, width], "counts": counts[region.class_id]},
        }
        for region in result
    ]
    return {
        "width": width,
        "height": height,
        "names": list(result.names),
        "regions": regions,
        "record": result.record,
    }


def _rounded(value: float) -> float | None:
    """A number with four decimals; None for one that is not known, which JSON cannot write."""
    return None if math.isnan(value) else round(value, 4)


def run_lengths(labels: UInt[np.ndarray, "h w"], num_ids: int) -> list[list[int]]:
    """Encode the mask of each id as COCO's run lengths.

    Args:
        labels: Id of each pixel.
        num_ids: Number of ids.

    Returns:
        For each id the lengths of runs in column order, of pixels outside and inside in turn; the
        first is outside, and may be 0.
    """
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    stops = np.concatenate([starts[1:], [len(flat)]])
    owners = flat[starts]

    all_counts = []
    for index in range(num_ids):
        mine = owners == index
        # Where the mask begins and ends, and from one to the next how many pixels lie between.
        borders = np.stack([starts[mine], stops[mine]], axis=1).ravel()
        counts = np.diff(borders, prepend=0)
        if not len(borders) or borders[-1] < len(flat):
            counts = np.append(counts, len(flat) - (borders[-1] if len(borders) else 0))
        all_counts.append(counts.tolist())
    return all_counts
