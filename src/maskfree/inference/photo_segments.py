"""Segments of a photo with their mean embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Int, Int16
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskfree.data.cache.region_maps import SegmentMaps
from maskfree.data.photo import read_photo
from maskfree.inference.features import PatchEmbeddings, embed
from maskfree.inference.search_config import KMEANS, RetrievalConfig
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.ignore import IGNORE
from maskfree.ops.segments import segment_sums, spherical_kmeans


class PhotoSegments(NamedTuple):
    """The segments of a photo."""

    embeddings: Float16[np.ndarray, "s d"]
    """Mean embedding of each segment, of unit norm; halved in size for the index."""
    sizes: Float32[np.ndarray, " s"]
    """Cells of each segment; 0 for one that does not occur."""
    ids: Int16[np.ndarray, "h w"]
    """Segment of each cell; the cells divide the photo evenly, and -1 is none."""
    photo_size: tuple[int, int]
    """Height and width of the photo in pixels."""


@torch.inference_mode()
def segments_of(segmenter: Segmenter, path: Path, config: RetrievalConfig) -> PhotoSegments:
    """Read a photo, find its segments and embed them.

    Args:
        segmenter: Model and inference settings; it needs no words.
        path: File of the photo.
        config: How the photo is segmented.

    Returns:
        The segments.

    Raises:
        ValueError: The photo is damaged, or its region map does not fit it.
        OSError: The photo or its region map cannot be read.
    """
    photo = read_photo(path)
    size = photo.height, photo.width
    embeddings = embed(segmenter, photo)
    height, width = embeddings.num_cells()

    ids, values = _segments(embeddings, height, width, path, size, config)
    num_segments = int(ids.max()) + 1
    sums, sizes = segment_sums(values[None], ids[None], max(1, num_segments))
    return PhotoSegments(
        F.normalize(sums[0], dim=1).cpu().half().numpy(),
        sizes[0].cpu().numpy(),
        ids.cpu().short().numpy(),
        size,
    )


def _segments(
    embeddings: PatchEmbeddings,
    height: int,
    width: int,
    path: Path,
    size: tuple[int, int],
    config: RetrievalConfig,
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "d h w"]]:
    """Segment id of each cell of a photo, -1 for none, and the cells' embeddings."""
    values = embeddings.at(height, width)
    if config.segments == KMEANS:
        return spherical_kmeans(values[None], config.num_segments)[0], values

    # Region maps have a size of their own: resample them to the cells.
    regions = SegmentMaps(Path(config.segments)).of(path.as_posix(), size)
    small = Image.fromarray(regions).resize((width, height), Image.Resampling.NEAREST)
    ids = np.where(np.asarray(small) == IGNORE, -1, np.asarray(small, np.int64))
    return torch.from_numpy(ids).to(values.device), values
