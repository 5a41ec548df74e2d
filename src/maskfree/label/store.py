"""The canonical files of a labeled data set: label maps as PNG, and regions in the manifest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt, UInt8, UInt16
from PIL import Image

from maskfree.data.id_maps import read_ids
from maskfree.files.atomic import replace_bytes
from maskfree.files.leftovers import replacing
from maskfree.files.outputs import check_replaceable, png_mark
from maskfree.label.classes import palette, words_sha256
from maskfree.label.labeled import UNLABELED, LabelClass, LabeledPhoto
from maskfree.label.manifest import Manifest
from maskfree.label.opening import file_sha256
from maskfree.label.photo_row import DONE, PhotoRow, packed, unpacked
from maskfree.results.regions import Region
from maskfree.results.segmentation import Segmentation

LABELS, PHOTOS = "labels", "photos"
"""Folders of the label maps, and of the photos that were taken out of shards."""


@dataclass(frozen=True)
class Store:
    """The folder of a labeled data set."""

    folder: Path
    """Place of the data set."""
    classes: tuple[LabelClass, ...]
    """Its classes: the words in the order of a `Segmentation`, then the background, if any."""

    def label_path(self, name: str) -> Path:
        """Place of a photo's label map.

        Args:
            name: Name of the photo in the data set.

        Returns:
            Path of the PNG.
        """
        # Names may hold dots, so that `with_suffix` would cut them.
        return self.folder / LABELS / f"{name}.png"

    def photo_path(self, row: PhotoRow) -> Path:
        """Place of a photo.

        Args:
            row: Its row.

        Returns:
            The file itself; for a member of a shard, the copy in the data set.
        """
        if not row.member:
            return row.path
        suffix = row.member.rpartition(".")[2].lower()
        return self.folder / PHOTOS / f"{row.name}.{suffix}"

    def write(
        self, row: PhotoRow, result: Segmentation, content: bytes, min_area_px: int, abstain: float
    ) -> dict[str, Any]:
        """Write the label map of a photo.

        Args:
            row: PhotoRow of the photo.
            result: Its segmentation.
            content: The encoded photo, if it is a member of a shard, which is copied.
            min_area_px: Smallest area of a region; smaller ones are given to their neighbors.
            abstain: Pixels of a lower confidence get no label.

        Returns:
            Values for the columns of its row.

        Raises:
            FileExistsError: Another file is in the place of the label map or of the photo's copy.
            OSError: It cannot be written.
        """
        regions = tuple(self._regions(result, min_area_px, abstain))
        labels = self._painted(regions, result.labels.shape)

        path = self.label_path(row.name)
        check_replaceable(path)
        if content:
            self._copy_photo(row, content)
        with replacing(path) as unfinished:
            info = png_mark()
            info.add_text("words_sha256", words_sha256(self.classes))
            self._image(labels).save(unfinished, "PNG", pnginfo=info)

        height, width = labels.shape
        return {
            "width": width,
            "height": height,
            "confidence": _mean_confidence(regions),
            "unlabeled": float(np.mean(labels == UNLABELED)),
            "words": _words_text(self.classes, regions),
            "regions": packed([_packed_region(region) for region in regions]),
        }

    def _copy_photo(self, row: PhotoRow, content: bytes) -> None:
        """Write a photo out of a shard; what is in its place must be a copy of it."""
        path = self.photo_path(row)
        if os.path.lexists(path):
            copies = (row.sha256, hashlib.sha256(content).hexdigest())
            if not path.is_file() or file_sha256(path) not in copies:
                raise FileExistsError(
                    f"{path} exists and is no photo that maskfree copied: it is not overwritten"
                )
        replace_bytes(path, content)

    def photos(self) -> Iterator[LabeledPhoto]:
        """Read the labeled photos one by one, in the order of their names.

        Yields:
            Photos; their files may be gone.

        Raises:
            ValueError: The manifest or a label map is damaged.
            OSError: A file cannot be read.
        """
        with Manifest(self.folder) as manifest:
            for row, regions in manifest.done():
                yield self._photo(row, regions)

    def num_photos(self) -> int:
        """Count the labeled photos.

        Returns:
            Their number, also of those whose file is gone.
        """
        with Manifest(self.folder) as manifest:
            return manifest.count()[DONE]

    def _photo(self, row: PhotoRow, regions: bytes) -> LabeledPhoto:
        """Read a labeled photo."""
        labels = self.read_labels(row.name)
        height, width = labels.shape
        named = {each.id: each.name for each in self.classes}

        return LabeledPhoto(
            path=self.photo_path(row),
            name=row.name,
            width=width,
            height=height,
            labels=labels,
            regions=tuple(
                _unpacked_region(region, named, (height, width)) for region in unpacked(regions)
            ),
        )

    def read_labels(self, name: str) -> UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]:
        """Read the label map of a photo.

        Args:
            name: Name of the photo in the data set.

        Returns:
            Id of each pixel's class, or 255; 8 bits where all ids fit.
        """
        labels = read_ids(self.label_path(name), "label map")
        if palette(self.classes) is not None:
            return labels.astype(np.uint8)
        return labels

    def _regions(self, result: Segmentation, min_area_px: int, abstain: float) -> Iterator[Region]:
        """Connected regions of a result, with the ids of the data set."""
        # Last of all, so that no doubtful pixel gets a label again.
        result = result.cleaned(min_area_px)
        if abstain:
            result = result.abstained(abstain)

        for region in result.regions():
            yield replace(region, class_id=self.classes[region.class_id].id)

    def _painted(
        self, regions: Sequence[Region], size: tuple[int, ...]
    ) -> UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]:
        """Label map of the regions; what is in none has no label."""
        kind = np.uint16 if palette(self.classes) is None else np.uint8
        labels = np.full(size, UNLABELED, kind)

        for region in regions:
            left, top, right, bottom = region.box
            labels[top:bottom, left:right][region.crop] = region.class_id
        return labels

    def _image(self, labels: UInt[np.ndarray, "h w"]) -> Image.Image:
        """Picture of a label map, with the colors of the classes if 8 bits are enough."""
        image = Image.fromarray(labels)
        colors = palette(self.classes)
        if colors is not None:
            image.putpalette(colors.tobytes())
        return image


def _words_text(classes: Sequence[LabelClass], regions: Sequence[Region]) -> str:
    """JSON of the area and mean confidence of each class that occurs."""
    words: dict[str, dict[str, float | None]] = {}
    for each in classes:
        own = [region for region in regions if region.class_id == each.id]
        if own:
            area = sum(region.area for region in own)
            words[each.name] = {"area": area, "confidence": _mean_confidence(own)}
    return json.dumps(words, ensure_ascii=False)


def _mean_confidence(regions: Sequence[Region]) -> float | None:
    """Mean confidence over the pixels of regions; None where it is not known."""
    if not regions:
        return None
    areas = [region.area_px for region in regions]
    mean = float(np.average([region.confidence for region in regions], weights=areas))
    return None if np.isnan(mean) else mean


def _packed_region(region: Region) -> dict[str, Any]:
    """Plain values of a region, its mask as lengths of runs."""
    return {
        "id": region.class_id,
        "box": region.box,
        "score": region.score,
        "confidence": None if np.isnan(region.confidence) else region.confidence,
        "runs": runs_of(region.crop),
    }


def _unpacked_region(
    values: Mapping[str, Any], named: Mapping[int, str], size: tuple[int, int]
) -> Region:
    """Region of plain values."""
    left, top, right, bottom = values["box"]
    confidence = values["confidence"]

    return Region(
        name=named[values["id"]],
        class_id=values["id"],
        box=(left, top, right, bottom),
        crop=mask_of(values["runs"], (bottom - top, right - left)),
        size=size,
        score=values["score"],
        confidence=float("nan") if confidence is None else confidence,
    )


def runs_of(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """Lengths of the runs of a mask, row by row.

    Args:
        mask: The mask.

    Returns:
        Numbers of pixels that are False, True, False and so on; the first may be 0.

    Example:
        >>> runs_of(np.array([[True, False], [False, True]]))
        [0, 1, 2, 1]
    """
    flat = mask.ravel()
    # The runs begin with False.
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return np.diff(changes, prepend=0, append=len(flat)).tolist()


def mask_of(runs: Sequence[int], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Mask of the lengths of its runs.

    Args:
        runs: What `runs_of` returned.
        size: Height and width of the mask.

    Returns:
        The mask.
    """
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size)
