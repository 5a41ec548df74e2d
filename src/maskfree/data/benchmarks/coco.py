"""COCO instance masks as one ground-truth map per photo."""

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
    AnnotatedPhoto,
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
    """Photos with COCO instance masks, drawn into one map.

    Masks (polygons and RLE, crowds too) of all categories are drawn in order of decreasing area, so
    that the smaller object is on top where objects overlap; a category outside the class list is
    drawn as no class.
    """

    photo_folders: tuple[str, ...] = ("images",)
    """Possible folders of the photos; the first that exists is read."""
    annotations: str = "instances.json"
    """Path of the annotation file."""
    renamed: str | None = None
    """File in classes/ with "category: class" lines; None if the categories have the
    class names.
    """

    def describe(self) -> str:
        """Describe the required files in one line.

        Returns:
            The description, for messages.
        """
        photos = " or ".join(f"{folder}/*.jpg" for folder in self.photo_folders)
        return f"{photos} and {self.annotations} (COCO instances)"

    def missing(self, root: Path) -> Path | None:
        """Find out whether the photo folder or the annotation file is missing.

        Args:
            root: Folder of the data set.

        Returns:
            The missing path, or None if both exist.
        """
        if not any((root / folder).is_dir() for folder in self.photo_folders):
            return root / self.photo_folders[0]

        annotations = root / self.annotations
        if not annotations.exists():
            return annotations
        return None

    def photos(self, root: Path) -> tuple[str, ...]:
        """List the photos of the annotation file, sorted by file name.

        Args:
            root: Folder of the data set.

        Returns:
            Paths of the photos under the root; all exist.
        """
        folder = self._folder(root)
        paths = []
        for photo in read_instances(root / self.annotations).photos:
            path = f"{folder}/{photo.file_name}"
            existing(root / path)
            paths.append(path)
        return tuple(paths)

    def samples(
        self, root: Path, classes: tuple[str, ...], nothing: int
    ) -> tuple[AnnotatedPhoto, ...]:
        """List the labeled photos of the annotation file, sorted by file name.

        Photos and annotations that are left out are counted in a warning.

        Args:
            root: Folder of the data set.
            classes: Names of the class ids.
            nothing: Value for pixels of no class.

        Returns:
            The labeled photos; all exist and have the size in the annotation file.
        """
        need("pycocotools", "COCO masks")
        folder, instances = self._folder(root), read_instances(root / self.annotations)
        ids = self._class_ids(instances, classes)
        _warn_left_out(root / folder, instances)

        samples = []
        for photo in instances.photos:
            key = f"{folder}/{photo.file_name}"
            path = existing(root / key)
            if photo.size:
                check_size(path, photo.size, f"{instances.path.name} says")
            size = photo.size or photo_size(path)

            # Masks are read now, so that errors show early; drawing waits until the map is needed.
            masks = []
            for category, mask in instances.masks(photo, size):
                masks.append((ids.get(category, nothing), mask))
            read_truth = partial(_paint, tuple(masks), size, nothing)
            samples.append(AnnotatedPhoto(key, path, read_truth))
        return tuple(samples)

    def _folder(self, root: Path) -> str:
        """The first photo folder that exists."""
        if absent := self.missing(root):
            raise FileNotFoundError(f"{absent} is missing")
        return next(folder for folder in self.photo_folders if (root / folder).is_dir())

    def _class_ids(self, instances: Instances, classes: tuple[str, ...]) -> Mapping[int | str, int]:
        """Class id of each COCO category id; categories outside the class list are left out."""
        # Without a renaming, categories are found by the class names themselves.
        renamed: Mapping[str, str] = dict(zip(classes, classes, strict=True))
        if self.renamed:
            renamed = read_renaming(self.renamed)

        absent = sorted(set(renamed) - set(instances.categories.values()))
        if absent:
            raise ValueError(f"{instances.path} has no category {absent[0]!r}")

        ids = {}
        for category, name in instances.categories.items():
            if name in renamed:
                ids[category] = classes.index(renamed[name])
        return ids


def _warn_left_out(folder: Path, instances: Instances) -> None:
    """Warn about annotations without a listed photo and photos without an entry."""
    if instances.num_unlisted:
        log.warning(
            "%s: %d of its annotations belong to photos that it does not list: left out",
            instances.path,
            instances.num_unlisted,
        )

    # Photos in the folder that the file does not list; hidden files are none.
    named = {folder / photo.file_name for photo in instances.photos}
    others = []
    for path in folder.iterdir():
        is_photo = path.suffix.lower().lstrip(".") in PHOTO_SUFFIXES
        if is_photo and path not in named and not path.name.startswith("."):
            others.append(path.name)

    if others:
        example = min(others)
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
    """Draw masks with their class ids in the given order, later ones on top."""
    # Background first, then the masks.
    width, height = size
    truth = np.full((height, width), nothing, dtype=np.uint8)
    for value, mask in masks:
        mask.paint(truth, value)
    return truth
