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
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskfree.data.cache.region_maps import SegmentMaps
from maskfree.data.photo import read_photo
from maskfree.data.photo_folders import find_photos
from maskfree.inference.features import PatchEmbeddings, embed
from maskfree.inference.photos import PhotoError
from maskfree.inference.search_config import KMEANS, RetrievalConfig
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.ignore import IGNORE
from maskfree.ops.segments import segment_sums, spherical_kmeans
from maskfree.progress import Watch, unwatched
from maskfree.text.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Hit:
    """A retrieved segment."""

    photo: Path
    """File of the photo."""
    box: tuple[int, int, int, int]
    """Left, top, right and bottom in pixels of the upright photo; right and bottom are exclusive.
    """
    score: float
    """Cosine of the segment's mean embedding and the word's, in [-1, 1]; maximum over synonyms."""
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


def parse_word(word: str) -> tuple[str, ...]:
    """Parse one word with its synonyms.

    Args:
        word: A word with synonyms separated by slashes, as "sofa/couch".

    Returns:
        The word and its synonyms.

    Raises:
        ValueError: The word is empty, or there are several words.
    """
    if not word.strip():
        raise ValueError("the word is empty: name what to look for")

    classes = Vocabulary.parse([word]).classes
    if len(classes) != 1:
        raise ValueError(
            f"{word!r} names {len(classes)} words: one at a time, with synonyms as in sofa/couch"
        )
    return classes[0]


def retrieve(
    segmenter: Segmenter,
    word: str,
    photos: Sequence[Path],
    config: RetrievalConfig,
    watch: Watch = unwatched,
) -> Retrieved:
    """Find the segments whose mean embedding is closest to that of a word.

    Photos are read one after the other, and only the closest segments so far are kept in memory.

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
    parse_word(word)
    if not photos:
        raise ValueError("no photos were given: name photos, or folders of photos")

    if config.segments != KMEANS and not Path(config.segments).is_dir():
        raise ValueError(
            f"the segments {config.segments!r} are neither {KMEANS} nor a folder of region PNGs"
        )

    # Background words play no part in retrieval.
    texts = segmenter.with_words([word], "none").embeddings
    # They come with the words.
    assert texts is not None
    best: list[Hit] = []
    skipped: list[PhotoError] = []

    for path in watch(photos):
        try:
            found = _hits(segmenter, texts, path, config)
        except (ValueError, OSError) as error:
            skipped.append(PhotoError(str(path), str(error)))
            continue

        # Keep only the closest segments so far, to bound memory.
        best = sorted([*best, *found], key=_rank)[: config.top]

    if len(skipped) == len(photos):
        message = f"no photo can be read: {skipped[0].reason}"
        if len(photos) > 1:
            message += f", and {len(photos) - 1} more"
        raise ValueError(message)

    return Retrieved(tuple(best), len(photos) - len(skipped), tuple(skipped))


@torch.inference_mode()
def _hits(
    segmenter: Segmenter, texts: Float[Tensor, "p d"], path: Path, config: RetrievalConfig
) -> list[Hit]:
    """The closest segments of one photo, the closest first."""
    photo = read_photo(path)
    embeddings = embed(segmenter, photo)
    height, width = embeddings.num_cells()
    ids, values = _segments(embeddings, height, width, path, (photo.height, photo.width), config)
    num_segments = int(ids.max()) + 1
    if num_segments < 1:
        return []

    # Score each segment by its mean embedding, with the maximum over synonyms.
    sums, sizes = segment_sums(values[None], ids[None], num_segments)
    scores = (F.normalize(sums[0], dim=1) @ texts.T).amax(dim=1)

    # Drop small segments and sort the others by score.
    large = (sizes[0] > 0) & (sizes[0] >= config.min_area * ids.numel())
    numbers = large.nonzero()[:, 0]
    order = numbers[scores[numbers].argsort(descending=True, stable=True)]

    cells = ids.cpu().numpy()
    return [
        _hit(path, cells == number, float(scores[number]), (photo.height, photo.width))
        for number in order[: min(config.top, config.per_photo or config.top)].tolist()
    ]


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
