"""Pseudo labels of photos: the labels of a zero-shot teacher with their confidence."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from maskfree import run_dir
from maskfree.files.atomic import escape, replace_bytes
from maskfree.inference.photos import PhotoError
from maskfree.inference.segmenter import Segmenter
from maskfree.losses.pseudo_labels import LEVELS, confidence
from maskfree.ops.ignore import IGNORE
from maskfree.progress import Watch, unwatched

log = logging.getLogger(__name__)


def link(photos: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Link photos under numbered names, so that no two have the same stem.

    Args:
        photos: Photo files.
        folder: Folder for the links; may hold those of an earlier call.

    Returns:
        The links, in the order of the photos.

    Raises:
        ValueError: There are no photos, or the folder holds others.
        FileNotFoundError: A photo is missing.
    """
    if not photos:
        raise ValueError("no photos were given to learn from")
    folder.mkdir(parents=True, exist_ok=True)

    names = [escape(photo.name) for photo in photos]
    links = tuple(folder / f"{index:06d}-{name}" for index, name in enumerate(names))
    # Other links would be labeled and learned from, too.
    if surplus := sorted({each.name for each in folder.iterdir()} - {each.name for each in links}):
        raise ValueError(
            f"{folder} holds {surplus[0]}, which is not among the photos: give another folder"
        )

    for photo, place in zip(photos, links, strict=True):
        if not photo.is_file():
            raise FileNotFoundError(f"the photo {photo} is missing")
        if place.is_symlink() and place.resolve() != photo.resolve():
            raise ValueError(
                f"{place} is a link to another photo than {photo}: give another folder"
            )
        if not place.is_symlink():
            place.symlink_to(photo.resolve())
    return links


def pseudo_label(
    segmenter: Segmenter, photos: Sequence[Path], folder: Path, watch: Watch = unwatched
) -> Int64[np.ndarray, "k v"]:
    """Write pseudo labels with their confidence as PNG files.

    Channel 1 is the class, channel 2 its confidence: the softmax probability over all phrases, in
    the 8 bits of `losses.pseudo_labels.confidence`. Photos with a PNG are not labeled again, and
    unreadable photos are left out. A JSON file beside the folder records the model, the words and
    the settings.

    Args:
        segmenter: Teacher, with class names and without a background rule.
        photos: Photo files with different stems.
        folder: Folder for the PNG files, named by the photos' stems.
        watch: Wraps the photos that are still to be labeled, to show progress.

    Returns:
        Number of pixels of each class and confidence level.

    Raises:
        ValueError: The folder holds labels of another model, other words or settings; or two photos
            have the same stem.
        OSError: A file cannot be written.
    """
    if len({photo.stem for photo in photos}) < len(photos):
        raise ValueError("two photos have the same stem: label maps are named by it")

    vocabulary = segmenter.vocabulary
    if vocabulary is None or len(vocabulary.classes) > IGNORE or segmenter.background:
        raise ValueError(f"pseudo labels need 1 to {IGNORE} words and no background rule")

    # Confidence is the softmax probability of the label.
    segmenter = segmenter.with_inference(
        replace(segmenter.inference, score="softmax", refine="none")
    )
    _check_record(segmenter, photos, folder)

    folder.mkdir(parents=True, exist_ok=True)
    places = {photo: folder / f"{photo.stem}.png" for photo in photos}
    # An earlier call may have been stopped.
    missing = [photo for photo in photos if not places[photo].is_file()]

    results = segmenter.segment_many(missing)
    for photo in watch(missing, "labeling"):
        result = next(results)
        if isinstance(result, PhotoError):
            log.warning("skipped %s: %s", photo, result.reason)
            continue
        _write(places[photo], np.stack([result.labels, confidence(result.scores)], axis=-1))

    # Count over all files, also those of an earlier call.
    histogram = np.zeros((len(vocabulary.classes), LEVELS), np.int64)
    for place in places.values():
        if place.is_file():
            with Image.open(place) as png:
                pairs = np.array(png)
            np.add.at(histogram, (pairs[..., 0].ravel(), pairs[..., 1].ravel()), 1)

    return histogram


def _check_record(segmenter: Segmenter, photos: Sequence[Path], folder: Path) -> None:
    """Record what the labels depend on, or compare it with the record there."""
    assert segmenter.vocabulary is not None
    record = {
        "weights_sha256": segmenter.weights_hash,
        "words": [list(synonyms) for synonyms in segmenter.vocabulary.classes],
        "templates": list(segmenter.templates),
        "inference": asdict(segmenter.inference),
        "photos_sha256": hashlib.sha256(
            "\n".join(photo.name for photo in photos).encode()
        ).hexdigest(),
    }

    run_dir.check_record(folder.with_name(f"{folder.name}.json"), record, folder)


def _write(path: Path, pairs: UInt8[np.ndarray, "h w 2"]) -> None:
    """Write a PNG of two channels (gray and alpha) atomically."""
    memory = io.BytesIO()
    Image.fromarray(pairs, "LA").save(memory, "PNG", compress_level=1)
    replace_bytes(path, memory.getvalue())
