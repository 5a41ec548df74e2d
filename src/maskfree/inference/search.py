"""Segments of photos that look like a word: the closest ones of however many photos, ranked.

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

from maskfree.config.rules import Count, CountOrZero, Fraction, Width, check
from maskfree.data.cache.region_maps import VOID, SegmentMaps
from maskfree.data.photo import read_photo
from maskfree.data.photo_folders import find_photos
from maskfree.inference.features import PatchEmbeddings, embed
from maskfree.inference.segmenter import PhotoError, Segmenter
from maskfree.ops.segments import segment_sums, spherical_kmeans
from maskfree.progress import Watch, unwatched
from maskfree.text.vocabulary import Vocabulary

KMEANS = "kmeans"


@dataclass(frozen=True)
class RetrievalConfig:
    """Which segments are looked at, and how many are kept."""

    top: Count = 16
    """Segments that are kept, the closest ones."""
    per_photo: CountOrZero = 1
    """Segments of one photo that are kept at most; 0: any number."""
    segments: str = KMEANS
    """kmeans: pixels grouped by embedding and place; or a folder of region PNGs, one for each photo's stem."""
    num_segments: Width = 36
    """For kmeans: segments of a photo."""
    enlarge: Count = 2
    """Pixels on each side of a patch that are grouped; embeddings between patches are interpolated."""
    least_area: Fraction = 0.005
    """Share of the photo that a segment covers at least."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, eq=False)
class Hit:
    """A segment that looks like the word."""

    photo: Path
    box: tuple[int, int, int, int]
    """Left, top, right and bottom in pixels of the upright photo; right and bottom are just outside."""
    score: float
    """Cosine of the segment's mean embedding and the word's, in [-1, 1]; of synonyms the best."""
    area: float
    """Share of the photo that it covers."""
    mask: Bool[np.ndarray, "h w"]
    """Where it is, in cells that divide the photo evenly."""

    def record(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "photo": self.photo.as_posix(),
            "box": list(self.box),
            "score": self.score,
            "area": self.area,
        }


@dataclass(frozen=True)
class Retrieved:
    """What was found in a run, the closest first."""

    hits: tuple[Hit, ...]
    num_photos: int
    """Photos that were looked at."""
    skipped: tuple[PhotoError, ...] = field(default=())
    """Photos that could not be read, or whose regions could not."""


def photos_of(places: Sequence[Path]) -> tuple[Path, ...]:
    """List photos: files as they are given, of folders all photos at any depth; each once.

    Raises:
        ValueError: no place is given.
        FileNotFoundError: a place does not exist, or is a folder without a photo.
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
    """Read one word with its synonyms, as "sofa/couch".

    Raises:
        ValueError: it is empty, or several words.
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
    """Find the segments of PHOTOS whose mean embedding is the closest to that of WORD.

    Photos are read one after the other, and no more is kept of them than the closest segments so far. WATCH wraps them
    to show progress.

    Raises:
        ValueError: WORD is empty or several words, or no photo can be read.
    """
    parse_word(word)
    if not photos:
        raise ValueError("no photos were given: name photos, or folders of photos")
    if config.segments != KMEANS and not Path(config.segments).is_dir():
        raise ValueError(
            f"the segments {config.segments!r} are neither {KMEANS} nor a folder of region PNGs"
        )
    texts = segmenter.with_words([word], "none").embeddings
    assert texts is not None  # they come with the words
    best: list[Hit] = []
    skipped: list[PhotoError] = []
    for path in watch(photos):
        try:
            found = _hits(segmenter, texts, path, config)
        except (ValueError, OSError) as error:
            skipped.append(PhotoError(str(path), str(error)))
            continue
        best = sorted([*best, *found], key=_rank)[: config.top]
    if len(skipped) == len(photos):
        others = f", and {len(photos) - 1} more" if len(photos) > 1 else ""
        raise ValueError(f"no photo can be read: {skipped[0].reason}{others}")
    return Retrieved(tuple(best), len(photos) - len(skipped), tuple(skipped))


@torch.inference_mode()
def _hits(
    segmenter: Segmenter, texts: Float[Tensor, "p d"], path: Path, config: RetrievalConfig
) -> list[Hit]:
    """The closest segments of one photo, the closest first."""
    photo = read_photo(path)
    seen = embed(segmenter, photo)
    height, width = (max(1, round(length * config.enlarge)) for length in seen.extent)
    ids, values = _segments(seen, height, width, path, (photo.height, photo.width), config)
    most = int(ids.max()) + 1
    if most < 1:
        return []
    sums, sizes = segment_sums(values[None], ids[None], most)
    scores = (F.normalize(sums[0], dim=1) @ texts.T).amax(dim=1)
    large = (sizes[0] > 0) & (sizes[0] >= config.least_area * ids.numel())
    numbers = large.nonzero()[:, 0]
    order = numbers[scores[numbers].argsort(descending=True, stable=True)]
    cells = ids.cpu().numpy()
    return [
        _hit(path, cells == number, float(scores[number]), (photo.height, photo.width))
        for number in order[: min(config.top, config.per_photo or config.top)].tolist()
    ]


def _segments(
    seen: PatchEmbeddings,
    height: int,
    width: int,
    path: Path,
    size: tuple[int, int],
    config: RetrievalConfig,
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "d h w"]]:
    """The segment of each of HEIGHT x WIDTH cells of a photo, -1 for none, and the cells' embeddings."""
    values = seen.at(height, width)
    if config.segments == KMEANS:
        return spherical_kmeans(values[None], config.num_segments)[0], values
    regions = SegmentMaps(Path(config.segments)).of(path.as_posix(), size)
    small = Image.fromarray(regions).resize((width, height), Image.Resampling.NEAREST)
    ids = np.where(np.asarray(small) == VOID, -1, np.asarray(small, np.int64))
    return torch.from_numpy(ids).to(values.device), values


def _hit(path: Path, mask: Bool[np.ndarray, "h w"], score: float, size: tuple[int, int]) -> Hit:
    """Put a segment's cells into the photo."""
    sides = []
    for axis, length in ((1, size[0]), (0, size[1])):
        inside = np.flatnonzero(mask.any(axis=axis))
        cells = mask.shape[1 - axis]
        sides.append((int(inside[0] * length / cells), round((inside[-1] + 1) * length / cells)))
    (top, bottom), (left, right) = sides
    return Hit(
        path,
        (left, top, max(right, left + 1), max(bottom, top + 1)),
        score,
        float(mask.mean()),
        mask,
    )


def _rank(hit: Hit) -> tuple[float, str, tuple[int, int, int, int]]:
    return -hit.score, hit.photo.as_posix(), hit.box
