"""Precompute a teacher's patch features of photos.

Source: CLIP-S4 (arXiv:2305.01040), section 3.2: the teacher sees the whole original photo, and its
features are cropped to the training views.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskfree import run_dir
from maskfree.config.rules import MapStorage
from maskfree.data.cache.teacher_maps import RECORD, TeacherMaps
from maskfree.data.examples import Example, decode
from maskfree.data.photo_sources import file_stem, read_sources
from maskfree.inference.config import MAX_LONG_PX
from maskfree.inference.features import embed
from maskfree.inference.segmenter import Segmenter
from maskfree.progress import Watch, unwatched

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherCounts:
    """Number of photos by outcome."""

    written: int
    """Photos whose features were written."""
    kept: int
    """Photos whose features are there from an earlier run."""
    skipped: int
    """Photos that could not be read."""


def prepare_teacher(
    segmenter: Segmenter,
    sources: Sequence[str],
    out: Path,
    watch: Watch = unwatched,
    storage: MapStorage = "float16",
) -> TeacherCounts:
    """Write a teacher's patch features of whole photos, and keep those that are there.

    The file teacher.json records the model and its view of the photos. Unreadable photos are left
    out.

    Args:
        segmenter: Teacher.
        sources: Folders of photos, or shards.
        out: Folder for the features, one file per photo.
        watch: Wraps the photos, to show progress.
        storage: Number format of the features; int8 takes half the room.

    Returns:
        Number of photos by outcome.

    Raises:
        FileNotFoundError: A source does not exist or holds no photo.
        ValueError: The folder holds the features of another teacher, or two photos have the same
            stem.
        OSError: A file cannot be written.
    """
    examples = read_sources(sources)
    with run_dir.held(out):
        return _prepare(segmenter, sources, examples, out, watch, storage)


def _prepare(
    segmenter: Segmenter,
    sources: Sequence[str],
    examples: Iterable[Example],
    out: Path,
    watch: Watch,
    storage: MapStorage,
) -> TeacherCounts:
    """Run `prepare_teacher` in a folder that this process holds."""
    record: dict[str, Any] = {"model": segmenter.name, "weights_sha256": segmenter.weights_hash}
    # The features depend on the size of the photos, and on no other inference setting.
    record |= {"inference": {"side_px": segmenter.inference.side_px, "max_long_px": MAX_LONG_PX}}

    # None stands for half precision, which records of older versions do not name.
    record["storage"] = storage if storage != "float16" else None

    run_dir.check_record(out / RECORD, record, made="*.safetensors")

    maps, seen, counts = TeacherMaps(out), set(), {"written": 0, "kept": 0, "skipped": 0}
    for example in watch(examples, "looking"):
        counts[_see(segmenter, example, maps, seen, storage)] += 1

    if not seen:
        raise ValueError(f"no photo of {', '.join(map(str, sources))} can be read")

    return TeacherCounts(**counts)


def _see(
    segmenter: Segmenter,
    example: Example,
    maps: TeacherMaps,
    seen: set[str],
    storage: MapStorage,
) -> str:
    """Write the features of one photo; return its outcome, a field of `TeacherCounts`."""
    stem = file_stem(example.key)
    if stem in seen:
        raise ValueError(
            f"two photos have the stem {stem!r}: what is prepared of them is named by it"
        )

    # Features of an earlier run are kept.
    if not example.problem and maps.path(example.key).is_file():
        seen.add(stem)
        return "kept"

    try:
        photo = decode(example, segmenter.inference.side_px)
    except Exception as error:  # whatever a decoder raises on a broken file
        log.warning("skipped %s of %s: %s", example.key or "a photo", example.source, error)
        return "skipped"

    seen.add(stem)

    embeddings = embed(segmenter, photo)
    # Whole patches only: padding is not part of the photo.
    rows, columns = (max(1, math.floor(length)) for length in embeddings.extent)
    maps.write(example.key, embeddings.at(rows, columns), storage)
    return "written"
