"""Labelled data sets as people have them on disk: one literal per benchmark, one class per layout.

A truth map holds class ids 0..k-1 in the order of the class list, k where the pixel belongs to no class of the list
(the background, where the benchmark knows it), and 255 where the pixel does not count. Class lists are files in
`classes/`: one class a line, its synonyms behind slashes.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

IGNORE = 255  # truth id of pixels that do not count
CLASSES = Path(__file__).parent / "classes"


@dataclass(frozen=True)
class Sample:
    """One labelled photo; `read_truth` decodes its truth map when it is needed."""

    key: str  # the photo's path under the root
    photo: Path
    read_truth: Callable[[], UInt8[np.ndarray, "h w"]]


class Layout(ABC):
    """How a data set lies on disk."""

    @abstractmethod
    def samples(self, root: Path, classes: tuple[str, ...]) -> tuple[Sample, ...]:
        """List the labelled photos under ROOT in a fixed order, having checked that files and sizes fit together.

        Raises:
            ValueError, OSError: a file is missing, or does not fit the others.
        """

    @abstractmethod
    def describe(self) -> str:
        """Say in one line what must lie under the root."""


@dataclass(frozen=True)
class CocoInstances(Layout):
    """Photos with COCO instance masks, painted into one map.

    Masks (polygons and RLE, crowds too) of all categories are painted in order of decreasing area, so that where
    objects overlap the smaller one is on top; a category outside the class list is painted as background.
    """

    photos: str = "images"
    annotations: str = "instances.json"
    renamed: str | None = None  # file in classes/ of "category: class" lines; None: the categories bear the class names

    def describe(self) -> str:
        """Say in one line what must lie under the root."""
        return f"{self.photos}/*.jpg and {self.annotations} (COCO instances)"

    def samples(self, root: Path, classes: tuple[str, ...]) -> tuple[Sample, ...]:
        """List the photos that the annotation file names, by their file name."""
        _need_pycocotools()
        path = _existing(root / self.annotations, self)
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
        ids = self._class_ids(names, classes, path)
        samples = []
        for image in photos:
            photo = _existing(root / self.photos / image["file_name"], self)
            size = (image["width"], image["height"])
            _check_size(photo, size, f"{path.name} says")
            truth = partial(_paint, tuple(painted[image["id"]]), size, ids, len(classes))
            samples.append(Sample(f"{self.photos}/{image['file_name']}", photo, truth))
        return tuple(samples)

    def _class_ids(self, names: Mapping[int, str], classes: tuple[str, ...], path: Path) -> dict[int, int]:
        """Class id of each COCO category id; the categories left out are background."""
        renamed = dict(zip(classes, classes, strict=True))
        if self.renamed:
            lines = (CLASSES / f"{self.renamed}.txt").read_text(encoding="utf-8").splitlines()
            renamed = dict(line.split(": ", 1) for line in lines)
        absent = sorted(set(renamed) - set(names.values()))
        if absent:
            raise ValueError(f"{path} has no category {absent[0]!r}")
        return {i: classes.index(renamed[name]) for i, name in names.items() if name in renamed}


@dataclass(frozen=True)
class IndexMaps(Layout):
    """Photos beside index PNGs of the same stem, whose values are class ids."""

    photos: str = "images"
    labels: str = "labels"
    void: int | None = None  # the value of pixels that do not count, besides 255

    def describe(self) -> str:
        """Say in one line what must lie under the root."""
        return f"{self.photos}/* and {self.labels}/*.png (index PNGs of the same stems)"

    def samples(self, root: Path, classes: tuple[str, ...]) -> tuple[Sample, ...]:
        """List the photos by their file name, each with its index PNG."""
        folder = _existing(root / self.photos, self)
        photos = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
        if not photos:
            raise ValueError(f"{folder} holds no photo")
        samples = []
        for photo in photos:
            labels = _existing(root / self.labels / f"{photo.stem}.png", self)
            with Image.open(labels) as png:
                _check_size(photo, png.size, f"{labels.name} is")
            truth = partial(_read_index, labels, self.void, len(classes))
            samples.append(Sample(f"{self.photos}/{photo.name}", photo, truth))
        return tuple(samples)


@dataclass(frozen=True)
class Benchmark:
    """A labelled data set: where its files lie, what its classes are called, and whether it knows the background."""

    name: str
    title: str
    layout: Layout
    names: Mapping[str, str] = field(default_factory=dict)  # name set -> file in classes/; "plain" is always there
    background: bool = False  # pixels of no class are labelled as such

    def words(self, name_set: str = "plain") -> tuple[str, ...]:
        """Read a class list, synonyms behind slashes, as `Segmenter.with_words` takes it.

        Raises:
            ValueError: the benchmark has no such name set.
        """
        return tuple(self._names_file(name_set).read_text(encoding="utf-8").splitlines())

    def names_sha256(self, name_set: str) -> str:
        """SHA-256 of the file that holds a class list."""
        return hashlib.sha256(self._names_file(name_set).read_bytes()).hexdigest()

    def samples(self, root: Path) -> tuple[Sample, ...]:
        """List the labelled photos under ROOT; none is decoded yet, but every file is there and of the right size."""
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is no folder; {self.name} needs {self.layout.describe()} under its root")
        return self.layout.samples(root, self.words())

    def _names_file(self, name_set: str) -> Path:
        if name_set not in self.names:
            raise ValueError(f"{self.name} has no name set {name_set!r}: choose from {', '.join(self.names)}")
        return CLASSES / f"{self.names[name_set]}.txt"


def files_sha256(samples: tuple[Sample, ...]) -> str:
    """SHA-256 of the photos' paths under the root, a line each: it tells whether two runs saw the same files."""
    return hashlib.sha256("\n".join(sample.key for sample in samples).encode()).hexdigest()


_VOC20 = {"plain": "voc20", "synonyms": "voc20_synonyms"}
BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "coco-mini",
            "159 COCO-2017 photos, the 20 classes of PASCAL VOC",
            CocoInstances(renamed="coco_to_voc20"),
            _VOC20,
            background=True,
        ),
        Benchmark(
            "coco-mini-80",
            "159 COCO-2017 photos, all 80 thing classes",
            CocoInstances(),
            {"plain": "coco80"},
            background=True,
        ),
        Benchmark(
            "camvid",
            "CamVid validation, 101 street scenes, 11 classes",
            IndexMaps("val/images", "val/labels", void=11),
            {"plain": "camvid11"},
        ),
        Benchmark(
            "camvid-train",
            "CamVid training, 367 street scenes, 11 classes",
            IndexMaps("train/images", "train/labels", void=11),
            {"plain": "camvid11"},
        ),
    )
}


def benchmark(name: str) -> Benchmark:
    """Look a benchmark up by name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}: choose from {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def _existing(path: Path, layout: Layout) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; the layout is {layout.describe()}")
    return path


def _check_size(photo: Path, size: tuple[int, int], who: str) -> None:
    try:
        with Image.open(photo) as opened:
            width, height = opened.size
    except OSError as error:
        raise OSError(f"{photo} cannot be read as a photo: {error}") from error
    if (width, height) != size:
        raise ValueError(f"{photo} is {width}x{height} but {who} {size[0]}x{size[1]}")


def _need_pycocotools() -> None:
    if find_spec("pycocotools") is None:
        raise ValueError("COCO masks need pycocotools: pip install 'maskfree[evaluate]'")


def _paint(
    annotations: tuple[dict[str, Any], ...], size: tuple[int, int], ids: Mapping[int, int], background: int
) -> UInt8[np.ndarray, "h w"]:
    """Paint masks in the given order, later ones on top."""
    from pycocotools import mask as coco

    width, height = size
    truth = np.full((height, width), background, dtype=np.uint8)
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
        truth[mask] = ids.get(annotation["category_id"], background)
    return truth


def _read_index(path: Path, void: int | None, num_classes: int) -> UInt8[np.ndarray, "h w"]:
    with Image.open(path) as png:
        if png.mode not in ("P", "L", "1"):
            raise ValueError(f"{path} has mode {png.mode}: an index PNG has one 8-bit channel")
        truth = np.array(png, dtype=np.uint8)
    if void is not None:
        truth[truth == void] = IGNORE
    wrong = truth[(truth >= num_classes) & (truth != IGNORE)]
    if len(wrong):
        raise ValueError(f"{path} holds id {wrong[0]}: ids run from 0 to {num_classes - 1}")
    return truth
