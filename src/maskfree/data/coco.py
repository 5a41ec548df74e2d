"""COCO's instance masks, painted into one truth map for each photo."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from maskfree.data.label_ids import read_renaming
from maskfree.data.layouts import Layout, Sample, check_size, existing, need


@dataclass(frozen=True)
class CocoInstances(Layout):
    """Photos with COCO instance masks, painted into one map.

    Masks (polygons and RLE, crowds too) of all categories are painted in order of decreasing area, so that where
    objects overlap the smaller one is on top; a category outside the class list is painted as nothing.
    """

    photo_folders: tuple[str, ...] = ("images",)  # the first that is there is read
    annotations: str = "instances.json"
    renamed: str | None = None  # file in classes/ of "category: class" lines; None: the categories bear the class names

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
        paths = tuple(f"{folder}/{image['file_name']}" for image in self._read(root)[1])
        for path in paths:
            existing(root / path)
        return paths

    def samples(self, root: Path, classes: tuple[str, ...], nothing: int) -> tuple[Sample, ...]:
        """List the photos that the annotation file names, by their file name."""
        need("pycocotools", "COCO masks")
        folder, path = self._folder(root), root / self.annotations
        names, photos, painted = self._read(root)
        ids = self._class_ids(names, classes, path)
        samples = []
        for image in photos:
            key = f"{folder}/{image['file_name']}"
            size = (image["width"], image["height"])
            check_size(existing(root / key), size, f"{path.name} says")
            samples.append(Sample(key, root / key, partial(_paint, tuple(painted[image["id"]]), size, ids, nothing)))
        return tuple(samples)

    def _folder(self, root: Path) -> str:
        if absent := self.missing(root):
            raise FileNotFoundError(f"{absent} is missing")
        return next(folder for folder in self.photo_folders if (root / folder).is_dir())

    def _read(self, root: Path) -> tuple[dict[int, str], list[dict[str, Any]], dict[int, list[dict[str, Any]]]]:
        """Return category names by id, photos by file name, and each photo's masks, the largest first."""
        path = root / self.annotations
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            names = {c["id"]: c["name"] for c in content["categories"]}
            photos = sorted(content["images"], key=lambda image: image["file_name"])
            painted: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in photos}
            for annotation in sorted(content["annotations"], key=lambda a: -a["area"]):
                painted[annotation["image_id"]].append(annotation)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no COCO instance file: {error!r}") from error
        if not photos:
            raise ValueError(f"{path} names no photo")
        return names, photos, painted

    def _class_ids(self, names: Mapping[int, str], classes: tuple[str, ...], path: Path) -> dict[int, int]:
        """Class id of each COCO category id; the categories left out are nothing."""
        renamed = read_renaming(self.renamed) if self.renamed else dict(zip(classes, classes, strict=True))
        absent = sorted(set(renamed) - set(names.values()))
        if absent:
            raise ValueError(f"{path} has no category {absent[0]!r}")
        return {i: classes.index(renamed[name]) for i, name in names.items() if name in renamed}


def _paint(
    annotations: tuple[dict[str, Any], ...], size: tuple[int, int], ids: Mapping[int, int], nothing: int
) -> UInt8[np.ndarray, "h w"]:
    """Paint masks in the given order, later ones on top."""
    from pycocotools import mask as coco

    width, height = size
    truth = np.full((height, width), nothing, dtype=np.uint8)
    for annotation in annotations:
        outline = annotation["segmentation"]
        if isinstance(outline, list):
            encoded = coco.merge(coco.frPyObjects(outline, height, width))
        elif isinstance(outline["counts"], list):
            encoded = coco.frPyObjects(outline, height, width)
        else:
            encoded = outline
        with warnings.catch_warnings():  # pycocotools 2.0 still speaks numpy 1's array protocol
            warnings.simplefilter("ignore", DeprecationWarning)
            mask = coco.decode(encoded).astype(bool)
        truth[mask] = ids.get(annotation["category_id"], nothing)
    return truth
