"""Small trees of labeled photos, of any layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskfree.data.benchmarks.label_ids import CLASSES

WIDTH, HEIGHT = 12, 8


def write(root: Path, files: Mapping[str, Any]) -> Path:
    """Write index PNGs and .mat files from arrays, photos from (width, height), and texts.

    Return ROOT.
    """
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, tuple):
            Image.new("RGB", content).save(path)
        elif path.suffix == ".mat":
            from scipy.io import savemat

            savemat(path, {"LabelMap": np.asarray(content, dtype=np.uint16)}, do_compression=True)
        else:
            Image.fromarray(np.asarray(content, dtype=np.uint8)).save(path)
    return root


def size(values: Any) -> tuple[int, int]:
    """Width and height of the photo that fits a truth map."""
    height, width = np.shape(values)
    return width, height


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    """Outline whose pixels are exactly the half-open box."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask: Any) -> dict[str, Any]:
    """Uncompressed COCO run lengths, column by column, starting with zeros."""
    flat = np.asarray(mask, dtype=bool).T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flat, [False]))))
    lengths = np.diff(np.concatenate(([0], edges, [flat.size])))
    return {"counts": lengths.tolist(), "size": list(np.shape(mask))}


def coco_content() -> dict[str, Any]:
    """Two photos: overlapping person, dog and laptop on the first, an RLE crowd of persons on the
    second.
    """
    names = (CLASSES / "coco80.txt").read_text().splitlines()
    crowd = np.zeros((HEIGHT, WIDTH), dtype=bool)
    crowd[2:5, 3:9] = True
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in (7, 3)
        ],
        "categories": [{"id": 10 * i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {
                "image_id": 7,
                "category_id": 10 * names.index("dog"),
                "area": 16,
                "segmentation": box(2, 2, 6, 6),
            },
            {
                "image_id": 7,
                "category_id": 10 * names.index("laptop"),
                "area": 4,
                "segmentation": box(3, 3, 5, 5),
            },
            {"image_id": 7, "category_id": 0, "area": 60, "segmentation": box(0, 1, 10, 7)},
            {
                "image_id": 3,
                "category_id": 0,
                "area": 18,
                "iscrowd": 1,
                "segmentation": runs(crowd),
            },
        ],
    }


def coco_files(photos: str = "images", annotations: str = "instances.json") -> dict[str, Any]:
    """The files of a tree with `coco_content`."""
    files: dict[str, Any] = {f"{photos}/{i}.jpg": (WIDTH, HEIGHT) for i in (3, 7)}
    return files | {annotations: json.dumps(coco_content())}
