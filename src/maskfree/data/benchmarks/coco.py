"""COCO's instance masks, painted into one truth map for each photo."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from maskfree.data.benchmarks.coco_file import Instances, read_instances
from maskfree.data.benchmarks.coco_masks import ObjectMask
from maskfree.data.benchmarks.label_ids import read_renaming
from maskfree.data.benchmarks.layouts import (
    LabeledPhoto,
    Layout,
    check_size,
    existing,
    need,
    photo_size,
)
from maskfree.data.examples import PHOTO_SUFFIXES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoInstances(Layout):
    """Photos with COCO instance masks, painted into one map.

    Masks (polygons and RLE, crowds too) of all categories are painted in order of decreasing area, so that where
    objects overlap the smaller one is on top; a category outside the class list is painted as nothing.
    """

    photo_folders: tuple[str, ...] = ("images",)  # the first that is there is read
    annotations: str = "instances.json"
    renamed: str | None = (
        None  # file in classes/ of "category: class" lines; None: the categories bear the class names
    )

    def describe(self) -> str:
        """Say in one line what must lie under the root."""
        photos = " or ".join(f"{folder}/*.jpg" for folder in self.photo_folders)
        return f"{photos} and {self.annotations} (COCO instances)"

    def missing(self, root: Path) -> Path | None:
        """Return the photo folder or the annotation file if it is absent."""
        if not any((root / folder).is_dir() for folder in self.photo_folders):
            return root / self.photo_folders[0]
        annotations = root / self.annotations
        return None if annotations.exists() else annotations

    def photos(self, root: Path) -> tuple[str, ...]:
        """List the photos that the annotation file names, by their file name."""
        folder = self._folder(root)
        paths = tuple(
            f"{folder}/{photo.file_name}"
            for photo in read_instances(root / self.annotations).photos
        )
        for path in paths:
            existing(root / path)
        return paths

    def samples(
        self, root: Path, classes: tuple[str, ...], nothing: int
    ) -> tuple[LabeledPhoto, ...]:
        """List the photos that the annotation file names, by their file name; what it does not name is counted."""
        need("pycocotools", "COCO masks")
        folder, instances = self._folder(root), read_instances(root / self.annotations)
        ids = self._class_ids(instances, classes)
        _tell_left_out(root / folder, instances)

        samples = []
        for photo in instances.photos:
            key = f"{folder}/{photo.file_name}"
            path = existing(root / key)
            if photo.size:
                check_size(path, photo.size, f"{instances.path.name} says")
            size = photo.size or photo_size(path)
            masks = tuple((ids.get(i, nothing), mask) for i, mask in instances.masks(photo, size))
            samples.append(LabeledPhoto(key, path, partial(_paint, masks, size, nothing)))
        return tuple(samples)

    def _folder(self, root: Path) -> str:
        if absent := self.missing(root):
            raise FileNotFoundError(f"{absent} is missing")
        return next(folder for folder in self.photo_folders if (root / folder).is_dir())

    def _class_ids(self, instances: Instances, classes: tuple[str, ...]) -> Mapping[int | str, int]:
        """Class id of each COCO category id; the categories left out are nothing."""
        renamed = (
            read_renaming(self.renamed)
            if self.renamed
            else dict(zip(classes, classes, strict=True))
        )
        absent = sorted(set(renamed) - set(instances.categories.values()))
        if absent:
            raise ValueError(f"{instances.path} has no category {absent[0]!r}")
        return {
            i: classes.index(renamed[name])
            for i, name in instances.categories.items()
            if name in renamed
        }


def _tell_left_out(folder: Path, instances: Instances) -> None:
    """Say how many annotations belong to no photo of the file, and how many photos the file does not name."""
    if instances.num_unlisted:
        log.warning(
            "%s: %d of its annotations belong to photos that it does not list: left out",
            instances.path,
            instances.num_unlisted,
        )

    named = {folder / photo.file_name for photo in instances.photos}
    others = [
        path
        for path in folder.iterdir()
        if path not in named
        and path.suffix.lower().lstrip(".") in PHOTO_SUFFIXES
        and not path.name.startswith(".")
    ]
    if others:
        example = min(path.name for path in others)
        log.warning(
            "%s does not list %d of the photos in %s, such as %s: left out",
            instances.path,
            len(others),
            folder,
            example,
        )


def _paint(
    masks: tuple[tuple[int, ObjectMask], ...], size: tuple[int, int], nothing: int
) -> UInt8[np.ndarray, "h w"]:
    """Paint masks, each with its class id, in the given order, later ones on top."""
    width, height = size
    truth = np.full((height, width), nothing, dtype=np.uint8)
    for value, mask in masks:
        mask.paint(truth, value)
    return truth
