"""Retrieval of image segments by a word: the closest segments of many photos, ranked.

Source: CLIP-S4 (CVPR 2023), section 4.2 and Fig. 4b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from maskfree.data.photo_folders import find_photos
from maskfree.inference.photo_segments import PhotoSegments, segments_of
from maskfree.inference.photos import PhotoError
from maskfree.inference.search_config import KMEANS, RetrievalConfig
from maskfree.inference.search_index import SearchIndex
from maskfree.inference.search_words import Query, Words, make_queries, parse_word
from maskfree.inference.segmenter import Segmenter
from maskfree.progress import Watch, unwatched


@dataclass(frozen=True, eq=False)
class Hit:
    """A retrieved segment."""

    photo: Path
    """File of the photo."""
    box: tuple[int, int, int, int]
    """Left, top, right and bottom in pixels of the upright photo; right and bottom are exclusive.
    """
    score: float
    """Cosine of the segment's mean embedding and the word's, the maximum over synonyms; unless the
    background is "none", less the soft mean of those of everyday words."""
    area: float
    """Share of the photo that the segment covers."""
    mask: Bool[np.ndarray, "h w"]
    """Segment mask on a grid of cells that divide the photo evenly."""

    def __repr__(self) -> str:
        """Return a single line without the mask."""
        return (
            f"Hit({str(self.photo)!r}, score={self.score:.3f}, "
            f"box={self.box}, area={self.area:.1%})"
        )

    def record(self) -> dict[str, Any]:
        """Return the hit without its mask, as values that JSON can hold.

        Returns:
            Photo path, box, score and area by name.
        """
        return {
            "photo": self.photo.as_posix(),
            "box": list(self.box),
            "score": self.score,
            "area": self.area,
        }


@dataclass(frozen=True)
class Retrieved:
    """Result of a retrieval."""

    hits: tuple[Hit, ...]
    """Retrieved segments, the closest first."""
    num_photos: int
    """Number of photos that were searched."""
    skipped: tuple[PhotoError, ...] = field(default=())
    """Photos that could not be read, or whose regions could not."""


def photos_of(places: Sequence[Path]) -> tuple[Path, ...]:
    """List photos given as files or folders, each once.

    Args:
        places: Photo files, and folders that are searched at any depth.

    Returns:
        Paths of the photos in the order of the places.

    Raises:
        ValueError: No place is given.
        FileNotFoundError: A place does not exist, or is a folder without a photo.
    """
    if not places:
        raise ValueError("no photos were given: name photos, or folders of photos")

    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += map(Path, find_photos([str(place)]))
        elif place.exists():
            found.append(place)
        else:
            raise FileNotFoundError(f"there is no photo or folder {place}")

    return tuple(dict.fromkeys(found))


def retrieve(
    segmenter: Segmenter,
    word: str,
    photos: Sequence[Path],
    config: RetrievalConfig,
    watch: Watch = unwatched,
) -> Retrieved:
    """Find the segments that are closest to a word.

    Args:
        segmenter: Model and inference settings; its own words are not used.
        word: Word to look for, with synonyms as "sofa/couch".
        photos: Photo files to search.
        config: Settings of the retrieval.
        watch: Wraps the photos to show progress.

    Returns:
        The closest segments, and the photos that were skipped.

    Raises:
        ValueError: The word is empty or several words, the settings name no segments, or no photo
            can be read.
    """
    words = [parse_word(word)]
    return retrieve_all(segmenter, words, photos, config, watch)[0]


def retrieve_all(
    segmenter: Segmenter,
    words: Sequence[Words],
    photos: Sequence[Path],
    config: RetrievalConfig,
    watch: Watch = unwatched,
) -> list[Retrieved]:
    """Find the segments that are closest to each of several words.

    Photos are read one after the other, and only the closest segments so far are kept in memory.

    Args:
        segmenter: Model and inference settings; its own words are not used.
        words: Words to look for, each with its synonyms.
        photos: Photo files to search.
        config: Settings of the retrieval.
        watch: Wraps the photos to show progress.

    Returns:
        The closest segments of each word, and the photos that were skipped.

    Raises:
        ValueError: A word is not known, the settings name no segments, or no photo can be read.
    """
    if not photos:
        raise ValueError("no photos were given: name photos, or folders of photos")
    if config.segments != KMEANS and not Path(config.segments).is_dir():
        raise ValueError(
            f"the segments {config.segments!r} are neither {KMEANS} nor a folder of region PNGs"
        )

    queries = make_queries(segmenter, words, config.background)
    best: list[list[Hit]] = [[] for _ in queries]
    skipped: list[PhotoError] = []

    with SearchIndex(segmenter, config) as known:
        for path in watch(photos):
            try:
                found = _segments(segmenter, path, config, known)
            except (ValueError, OSError) as error:
                skipped.append(PhotoError(str(path), str(error)))
                continue

            # Keep only the closest segments so far, to bound memory.
            for place, query in enumerate(queries):
                hits = _hits(query, path, found, config)
                best[place] = sorted([*best[place], *hits], key=_rank)[: config.top]

    if len(skipped) == len(photos):
        message = f"no photo can be read: {skipped[0].reason}"
        if len(photos) > 1:
            message += f", and {len(photos) - 1} more"
        raise ValueError(message)

    count = len(photos) - len(skipped)
    return [Retrieved(tuple(hits), count, tuple(skipped)) for hits in best]


def _segments(
    segmenter: Segmenter, path: Path, config: RetrievalConfig, known: SearchIndex
) -> PhotoSegments:
    """Segments of a photo, from the index or by the network."""
    found = known.find(path)
    if found is None:
        found = segments_of(segmenter, path, config)
        known.add(path, found)
    return found


@torch.inference_mode()
def _hits(query: Query, path: Path, segments: PhotoSegments, config: RetrievalConfig) -> list[Hit]:
    """The closest segments of one photo, the closest first."""
    device = query.texts.device
    scores = query.scores(torch.from_numpy(segments.embeddings.astype(np.float32)).to(device)).cpu()

    # Drop small segments and sort the others by score.
    sizes = torch.from_numpy(segments.sizes.copy())
    large = (sizes > 0) & (sizes >= config.min_area * segments.ids.size)
    numbers = large.nonzero()[:, 0]
    order = numbers[scores[numbers].argsort(descending=True, stable=True)]

    return [
        _hit(path, segments.ids == number, float(scores[number]), segments.photo_size)
        for number in order[: min(config.top, config.per_photo or config.top)].tolist()
    ]


def _hit(path: Path, mask: Bool[np.ndarray, "h w"], score: float, size: tuple[int, int]) -> Hit:
    """Convert a segment's cells to a box in pixels of the photo."""
    sides = []
    for axis, length in ((1, size[0]), (0, size[1])):
        inside = np.flatnonzero(mask.any(axis=axis))
        cells = mask.shape[1 - axis]
        sides.append((int(inside[0] * length / cells), round((inside[-1] + 1) * length / cells)))

    # A box has at least one pixel.
    (top, bottom), (left, right) = sides
    return Hit(
        path,
        (left, top, max(right, left + 1), max(bottom, top + 1)),
        score,
        float(mask.mean()),
        mask,
    )


def _rank(hit: Hit) -> tuple[float, str, tuple[int, int, int, int]]:
    """Sort key: highest score first, ties by photo and box."""
    return -hit.score, hit.photo.as_posix(), hit.box
