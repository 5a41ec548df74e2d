"""k-nearest-neighbor probe: a segment takes the majority class of the nearest training segments.

Source: SegSort (arXiv:1910.06962), section 4; HSG, hsg/utils/segsort/eval.py; CLIP-S4 (CVPR 2023),
Table 4.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskfree.data.benchmarks.catalog import AnnotatedPhoto
from maskfree.evaluation.probes.common import ProbeRow, count, opened, spread
from maskfree.evaluation.probes.config import (
    KMEANS_ITERATIONS,
    LOCATION_WEIGHT,
    KnnConfig,
)
from maskfree.inference.features import embed
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.ignore import IGNORE
from maskfree.ops.onednn import products
from maskfree.ops.segments import segment_sums, spherical_kmeans
from maskfree.progress import Watch, unwatched

# Block sizes of the search, which bound its memory.
_QUERIES_AT_ONCE = 1024
_BANK_AT_ONCE = 65536


class EmbeddedSegments(NamedTuple):
    """Segments of a photo, some of which may be empty."""

    ids: Int[Tensor, "h w"]
    """Segment of each cell."""
    embeddings: Float[Tensor, "m d"]
    """Unit-norm mean embedding of each segment; zero for an empty one."""
    sizes: Float[Tensor, " m"]
    """Number of cells of each segment."""


class Bank(NamedTuple):
    """Labeled segments of the training photos."""

    embeddings: Float[Tensor, "n d"]
    """Unit-norm embedding of each segment."""
    labels: Int[Tensor, " n"]
    """Class of each segment."""


def knn_probe(
    segmenter: Segmenter,
    train: Sequence[AnnotatedPhoto],
    test: Sequence[AnnotatedPhoto],
    classes: Sequence[str],
    config: KnnConfig,
    watch: Watch = unwatched,
) -> ProbeRow:
    """Label the segments of test photos by their nearest training segments, and count pixels.

    Args:
        segmenter: Segmenter whose embeddings are probed.
        train: Photos whose masks label the training segments.
        test: Photos to label.
        classes: Class names, in the order of the ids of the truth maps.
        config: Settings of the probe.
        watch: Wraps the photos to show progress.

    Returns:
        Counts over the test photos.

    Raises:
        ValueError: A setting is invalid, a photo cannot be read, there are fewer training segments
            than neighbors, or faiss is not installed.
        OSError: A photo or its truth map cannot be read.
    """
    config.check()
    bank = segment_bank(segmenter, train, len(classes), config, watch)

    matrix, seconds = np.zeros((len(classes), len(classes)), np.int64), 0.0

    for photo, truth in opened(test, watch):
        start = time.perf_counter()
        segments = segments_of(segmenter, photo, config)
        labels = neighbor_labels(segments.embeddings, bank, config)
        predicted = spread(labels[segments.ids], photo.height, photo.width)
        seconds += time.perf_counter() - start

        matrix += count(truth, predicted, len(classes))

    return ProbeRow(tuple(classes), matrix, len(train), len(test), seconds)


def segment_bank(
    segmenter: Segmenter,
    samples: Sequence[AnnotatedPhoto],
    num_classes: int,
    config: KnnConfig,
    watch: Watch = unwatched,
) -> Bank:
    """Embed the segments of labeled photos and label each by the class of most of its pixels.

    Segments without a labeled pixel are left out; a tie goes to the class with the smallest id.

    Args:
        segmenter: Segmenter whose embeddings are probed.
        samples: Labeled photos.
        num_classes: Number of classes.
        config: Settings of the probe.
        watch: Wraps the photos to show progress.

    Returns:
        Embeddings and labels of the segments of all photos.

    Raises:
        ValueError: A photo cannot be read, or no pixel is labeled.
        OSError: A photo or its truth map cannot be read.
    """
    embeddings, labels = [], []
    for photo, truth in opened(samples, watch):
        segments = segments_of(segmenter, photo, config)
        votes = _votes(segments, torch.from_numpy(truth).to(segments.ids.device), num_classes)

        # Empty segments and those in unlabeled areas have no votes.
        known = votes.any(dim=1)
        embeddings.append(segments.embeddings[known])
        labels.append(votes[known].argmax(dim=1))

    bank = Bank(torch.cat(embeddings), torch.cat(labels))
    if not len(bank.labels):
        raise ValueError(f"none of the {len(samples)} training photos has a labeled pixel")
    return bank


@torch.inference_mode()
def segments_of(segmenter: Segmenter, photo: Image.Image, config: KnnConfig) -> EmbeddedSegments:
    """Segment a photo by spherical k-means on the embeddings and positions of its pixels.

    Args:
        segmenter: Segmenter whose embeddings are clustered.
        photo: RGB photo.
        config: Settings of the probe.

    Returns:
        Segment of each cell, and embedding and size of each segment.
    """
    seen = embed(segmenter, photo)

    # K-means runs on several cells per patch, with interpolated embeddings.
    height, width = seen.num_cells()
    pixels = seen.at(height, width)[None]
    ids = spherical_kmeans(pixels, config.segments, KMEANS_ITERATIONS, LOCATION_WEIGHT)

    sums, sizes = segment_sums(pixels, ids, config.segments)
    return EmbeddedSegments(ids[0], F.normalize(sums[0], dim=-1), sizes[0])


def neighbor_labels(
    embeddings: Float[Tensor, "m d"], bank: Bank, config: KnnConfig
) -> Int[Tensor, " m"]:
    """Predict the class of segments by a majority vote of their nearest neighbors.

    Args:
        embeddings: Unit-norm embeddings of the segments.
        bank: Training segments.
        config: Settings of the probe.

    Returns:
        Class of each segment.

    Raises:
        ValueError: There are fewer training segments than neighbors.
    """
    search = {"torch": nearest, "faiss": nearest_by_faiss}[config.search]
    return majority(bank.labels[search(embeddings, bank.embeddings, config.neighbors)])


def nearest(
    queries: Float[Tensor, "m d"], bank: Float[Tensor, "n d"], count: int
) -> Int[Tensor, "m c"]:
    """Find the rows with the highest dot product for each query, in blocks of bounded memory.

    Args:
        queries: Embeddings to search for.
        bank: Embeddings to search in.
        count: Number of neighbors, at most the number of rows of `bank`.

    Returns:
        Row numbers of the neighbors of each query, by decreasing dot product.

    Raises:
        ValueError: `bank` has fewer rows than `count`.
    """
    _check_count(count, len(bank))

    # Blocks bound the memory of the similarities.
    found = [_nearest_in_blocks(part, bank, count) for part in queries.split(_QUERIES_AT_ONCE)]
    return torch.cat(found)


def nearest_by_faiss(
    queries: Float[Tensor, "m d"], bank: Float[Tensor, "n d"], count: int
) -> Int[Tensor, "m c"]:
    """Find the same neighbors as `nearest`, by faiss's exact search.

    Args:
        queries: Embeddings to search for.
        bank: Embeddings to search in.
        count: Number of neighbors, at most the number of rows of `bank`.

    Returns:
        Row numbers of the neighbors of each query, by decreasing dot product.

    Raises:
        ValueError: `bank` has fewer rows than `count`, or faiss is not installed.
    """
    _check_count(count, len(bank))
    try:
        import faiss
    except ImportError as error:
        raise ValueError("the search by faiss needs faiss: pip install faiss-cpu") from error

    # IP: inner product, by exhaustive search.
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank.cpu().float().numpy())
    _, found = index.search(queries.cpu().float().numpy(), count)
    return torch.from_numpy(found).to(queries.device)


def majority(labels: Int[Tensor, "m c"]) -> Int[Tensor, " m"]:
    """Return the most frequent label of each row; a tie goes to the smallest label.

    Args:
        labels: Labels of the neighbors of each segment.

    Returns:
        Most frequent label of each row.

    Example:
        >>> majority(torch.tensor([[3, 1, 1], [2, 0, 1]])).tolist()
        [1, 0]
    """
    return F.one_hot(labels).sum(dim=1).argmax(dim=1)


def _nearest_in_blocks(
    queries: Float[Tensor, "m d"], bank: Float[Tensor, "n d"], count: int
) -> Int[Tensor, "m c"]:
    """Nearest rows for one block of queries, merged over blocks of the bank."""
    best = torch.empty(len(queries), 0, dtype=bank.dtype, device=bank.device)
    rows = torch.empty(len(queries), 0, dtype=torch.long, device=bank.device)

    for start in range(0, len(bank), _BANK_AT_ONCE):
        here = products(queries, bank[start : start + _BANK_AT_ONCE])
        numbers = torch.arange(start, start + here.shape[1], device=bank.device).expand_as(here)

        # Keep the best of the earlier blocks and of this one.
        together = torch.cat([best, here], dim=1)
        best, places = together.topk(min(count, together.shape[1]), dim=1)
        rows = torch.cat([rows, numbers], dim=1).gather(1, places)
    return rows


def _votes(segments: EmbeddedSegments, truth: Tensor, num_classes: int) -> Int[Tensor, "m k"]:
    """Count the labeled pixels of each class in each segment, at the truth's size."""
    ids = spread(segments.ids, *truth.shape)
    known = truth != IGNORE

    # One histogram over pairs of segment and class.
    pairs = ids[known].long() * num_classes + truth[known].long()
    num_segments = len(segments.embeddings)
    return torch.bincount(pairs, minlength=num_segments * num_classes).view(
        num_segments, num_classes
    )


def _check_count(count: int, rows: int) -> None:
    """Check that there are enough training segments."""
    if not 1 <= count <= rows:
        raise ValueError(f"{count} neighbors are asked for, but there are {rows} training segments")
