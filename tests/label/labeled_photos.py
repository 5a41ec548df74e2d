"""A small labeled data set with everything that made some writer or reader of data sets fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from maskfree.label.labeled import UNLABELED, LabelClass, LabeledPhoto
from maskfree.results.components import connected_regions

CLASSES = (
    LabelClass(0, "sky", ("sky", "blue sky"), (255, 60, 60)),
    LabelClass(2, "potted plant, red", ("potted plant, red",), (60, 255, 60)),
    LabelClass(4, 'the "big" one', ('the "big" one',), (60, 60, 255)),
    LabelClass(7, "été: 猫 & <b>", ("été: 猫 & <b>",), (255, 200, 60)),
    LabelClass(8, "background", (), (0, 0, 0)),
)
NAMES = (
    "plain",
    "a folder/with blanks",
    "images/in a folder called images",
    "café/日本 猫",
    "it's, a comma",
    "100%/#1 [x]; & {y}",
    " blank at the start",
    "__cache__/photo",
    "dots.in.name",
    "all unlabeled",
    "only background",
    "turned",
    "many more",
    "for both splits",
    "for both splits too",
    "p13",
)


def labeled_photo(
    folder: Path, name: str, number: int = 0, classes: Sequence[LabelClass] = CLASSES
) -> LabeledPhoto:
    """A photo of noise with labels that have holes, diagonal neighbors and lines of one pixel."""
    generator = np.random.default_rng(number)
    height, width = 47 + number, 64 - number
    labels = labels_of(generator, (height, width), classes)
    if name == "all unlabeled":
        labels[:] = UNLABELED
    if name == "only background":
        labels[:] = 8

    pixels = generator.integers(0, 256, (height, width, 3), np.uint8)
    suffix = (".jpg", ".png", ".bmp", ".webp", ".tiff", ".gif")[number % 6]
    path = folder / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if name == "turned":
        # The file stores the photo on its side.
        path = path.with_suffix(".jpg")
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    else:
        picture.save(path)
    return with_regions(path, name, labels, classes)


def labels_of(
    generator: np.random.Generator, size: tuple[int, int], classes: Sequence[LabelClass]
) -> np.ndarray:
    """Ids of blocks and of single pixels, some unlabeled."""
    ids = np.array([each.id for each in classes] + [UNLABELED])
    height, width = size
    blocks = generator.choice(ids, (height // 12 + 1, width // 12 + 1))
    labels = np.kron(blocks, np.ones((12, 12), int))[:height, :width]

    # Holes, diagonal neighbors and crumbs.
    is_crumb = generator.random(size) < 0.03
    labels[is_crumb] = generator.choice(ids, int(is_crumb.sum()))
    return labels.astype(np.min_scalar_type(int(max(ids))))


def with_regions(
    path: Path, name: str, labels: np.ndarray, classes: Sequence[LabelClass]
) -> LabeledPhoto:
    """A labeled photo with its connected regions."""
    names = [""] * (1 + max(each.id for each in classes))
    for each in classes:
        names[each.id] = each.name

    confidence = np.full(labels.shape, 0.75, np.float16)
    masked = labels.astype(np.uint16)
    masked[labels == UNLABELED] = 65535
    regions = tuple(connected_regions(masked, confidence, confidence, names))
    return LabeledPhoto(path, name, labels.shape[1], labels.shape[0], labels, regions)


def data_set(folder: Path) -> list[LabeledPhoto]:
    """All photos of the data set."""
    return [labeled_photo(folder, name, number) for number, name in enumerate(NAMES)]


def object_masks(photo: LabeledPhoto) -> dict[str, np.ndarray]:
    """Masks by name of the classes that occur, without the background."""
    masks = {each.name: photo.labels == each.id for each in CLASSES if not each.is_background}
    return {name: mask for name, mask in masks.items() if mask.any()}
