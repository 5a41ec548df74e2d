"""Writing a labeled data set in other formats, beside supervision's and datumaro's own export of
the same masks: photos a second, memory, and how much of the masks a reader finds again.

Needs `pip install supervision datumaro label-studio-sdk` and a folder that `maskfree label` wrote.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image, ImageDraw

from harness import RESULTS, Ratio, report, resident_bytes
from maskfree.label.formats.registry import FORMATS, write_format
from maskfree.label.labeled import LabeledPhoto
from maskfree.label.record import classes_of, read_record
from maskfree.label.store import Store

PACKAGES = ("supervision", "datumaro", "label-studio-sdk")
# The data set is written as it is, and so many times over, to see whether memory grows.
TIMES = (1, 3)
# Smaller masks are left out of the mean IoU, as in the tests of polygons.
MIN_AREA_PX = 100
# The SDK is slow: so many photos are enough.
SDK_PHOTOS = 40


def main(
    data: Path,
    formats: tuple[str, ...] = (),
    repeats: int = 1,
    results: Path = RESULTS,
    one: str = "",
) -> None:
    """Write every format by every writer, each in a process of its own, in turn.

    Args:
        data: Folder of a labeled data set.
        formats: Only these formats; the other rows of the results file are kept.
        repeats: Rounds of which the median counts.
        results: Folder for the results file.
        one: Only this writer and number of copies, such as "maskfree coco 1", in this process.
    """
    if one:
        writer, name, copies = one.split()
        print(json.dumps(measured(data, writer, name, int(copies))))
        return

    cases = [
        f"{writer} {name} {copies}"
        for writer, name in writers()
        for copies in TIMES
        if not formats or name in formats
    ]
    found: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(repeats):
        for case in cases:
            command = [sys.executable, __file__, "--data", str(data), "--one", case]
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
            found[case].append(json.loads(ended.stdout.splitlines()[-1]))

    rows = []
    if formats:
        path = results / "benchmark-label-formats.json"
        before = json.loads(path.read_text(encoding="utf-8"))["rows"]
        rows = [row for row in before if row["format"] not in formats]
    for case, rounds in found.items():
        writer, name, _ = case.split()
        medians = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        rows.append({"writer": writer, "format": name} | medians)

    seconds = {
        f"{row['writer']} {row['format']}, {row['photos']:.0f} photos": row["seconds"]
        for row in rows
    }
    settings = {
        "data": "coco-mini, labeled by pocket with 16 words and background auto",
        "repeats": repeats,
        "clock": "CPU seconds of a process, with reading the labels",
        "memory": "peak above that before writing, in MB",
        "iou": f"mean and least over the masks of a class above {MIN_AREA_PX} pixels",
        "packages": {name: version(name) for name in PACKAGES},
    }
    report("label-formats", seconds, ratios(rows), settings, results, rows)


def writers() -> Iterator[tuple[str, str]]:
    """Each writer with the formats that it has."""
    for name in FORMATS:
        yield "maskfree", name
    for name in ("coco", "yolo", "voc"):
        yield "supervision", name
    for name in ("coco", "voc", "cvat"):
        yield "datumaro", name
    yield "label-studio-sdk", "label-studio"


def ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """Speed and memory of maskfree beside those of the others."""
    by_case = {(row["writer"], row["format"], row["photos"]): row for row in rows}
    most = max(row["photos"] for row in rows)

    made = []
    for (writer, name, photos), row in by_case.items():
        own = by_case["maskfree", name, most]
        if writer == "maskfree":
            if photos == most:
                least = min(each["photos"] for each in rows if each["writer"] == "maskfree")
                few = by_case["maskfree", name, least]
                made.append(
                    Ratio(
                        f"{name}: MB for {most / least:.0f} times the photos over MB for them",
                        (row["memory_mb"] + 1) / (few["memory_mb"] + 1),
                    )
                )
        elif photos == most or writer == "label-studio-sdk":
            own_rate = own["photos"] / own["seconds"]
            rate = row["photos"] / row["seconds"]
            made.append(Ratio(f"{name}: photos a second over those of {writer}", own_rate / rate))
    return made


def measured(data: Path, writer: str, name: str, copies: int) -> dict[str, float]:
    """Write one format in this process."""
    record = read_record(data)
    assert record is not None
    store = Store(data, classes_of(record))

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        count = store.num_photos() * copies
        if writer == "label-studio-sdk":
            count = SDK_PHOTOS
        write = {
            "maskfree": by_maskfree,
            "supervision": by_supervision,
            "datumaro": by_datumaro,
            "label-studio-sdk": by_label_studio,
        }[writer]
        act = write(store, Copied(store, Path(folder) / "photos", copies), name, out)

        before = resident_bytes("VmRSS")
        start = time.process_time()
        act()
        seconds = time.process_time() - start
        after = resident_bytes("VmHWM")
        ious = found_again(store, writer, name, out)

    return {
        "photos": count,
        "seconds": seconds,
        "photos_per_second": count / seconds,
        "memory_mb": max(0, after - before) / 2**20,
    } | ious


@dataclass(frozen=True)
class Copied:
    """The photos of a data set, several times under other names; read anew by each loop."""

    store: Store
    folder: Path
    copies: int

    def __iter__(self) -> Iterator[LabeledPhoto]:
        """Iterate over the photos."""
        for copy in range(self.copies):
            for photo in self.store.photos():
                yield self._renamed(photo, copy)

    def _renamed(self, photo: LabeledPhoto, copy: int) -> LabeledPhoto:
        """A photo under another name."""
        name = f"{photo.name}-{copy}"
        path = self.folder / f"{name}{photo.path.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink():
            path.symlink_to(photo.path)
        return replace(photo, path=path, name=name)


def by_maskfree(store: Store, photos: Copied, name: str, out: Path) -> Callable[[], object]:
    """The package's own writer."""
    return lambda: write_format(name, store.classes, photos, out)


def by_supervision(store: Store, photos: Copied, name: str, out: Path) -> Callable[[], object]:
    """A `DetectionDataset`, and its export without copies of the photos."""
    import supervision as sv

    names = object_names(store)

    def write() -> None:
        annotations = {}
        for photo in photos:
            regions = [each for each in photo.regions if each.class_id in names]
            if not regions:
                annotations[str(photo.path)] = sv.Detections.empty()
                continue
            annotations[str(photo.path)] = sv.Detections(
                xyxy=np.array([each.box for each in regions], np.float32),
                mask=np.stack([each.mask for each in regions]),
                class_id=np.array([list(names).index(each.class_id) for each in regions]),
            )
        made = sv.DetectionDataset(list(names.values()), list(annotations), annotations)
        out.mkdir()
        if name == "coco":
            made.as_coco(None, str(out / "coco.json"), approximation_percentage=0.0)
        elif name == "yolo":
            made.as_yolo(
                None, str(out / "labels"), str(out / "data.yaml"), approximation_percentage=0.0
            )
        else:
            made.as_pascal_voc(None, str(out / "annotations"), approximation_percentage=0.0)

    return write


def by_datumaro(store: Store, photos: Copied, name: str, out: Path) -> Callable[[], object]:
    """A `Dataset` of masks, and its export without the photos."""
    from datumaro import Dataset, DatasetItem, Mask
    from datumaro import Image as Media

    names = object_names(store)
    kind = {"coco": "coco_instances", "voc": "voc_segmentation", "cvat": "cvat"}[name]

    def item(photo: LabeledPhoto) -> DatasetItem:
        masks = [
            Mask(each.mask, label=list(names).index(each.class_id), id=number, group=number)
            for number, each in enumerate(photo.regions, 1)
            if each.class_id in names
        ]
        size = (photo.height, photo.width)
        media = Media.from_file(path=str(photo.path), size=size)
        return DatasetItem(id=photo.name, subset="default", media=media, annotations=masks)

    class Items:
        """Read anew by each loop, of which datumaro has two."""

        def __iter__(self) -> Iterator[DatasetItem]:
            return map(item, photos)

    def write() -> None:
        made = Dataset.from_iterable(Items(), categories=list(names.values()))
        made.export(str(out), kind, save_media=False)

    return write


def by_label_studio(store: Store, photos: Copied, name: str, out: Path) -> Callable[[], object]:
    """Packed masks of the SDK, of a few photos."""
    from label_studio_sdk.converter.brush import mask2rle

    names = object_names(store)

    def write() -> None:
        for _, photo in zip(range(SDK_PHOTOS), photos, strict=False):
            for region in photo.regions:
                if region.class_id in names:
                    mask2rle(region.mask.astype(np.uint8) * 255)

    return write


def object_names(store: Store) -> dict[int, str]:
    """Names of the classes without the background."""
    return {each.id: each.name for each in store.classes if not each.is_background}


def found_again(store: Store, writer: str, name: str, out: Path) -> dict[str, float]:
    """IoU of the masks that a reader finds with those of the labels; nothing for other formats."""
    readers = {
        ("maskfree", "coco"): lambda: coco_masks(out / "annotations" / "instances_default.json"),
        ("maskfree", "coco-polygons"): lambda: coco_masks(
            out / "annotations" / "instances_default.json"
        ),
        ("supervision", "coco"): lambda: coco_masks(out / "coco.json"),
        ("datumaro", "coco"): lambda: coco_masks(out / "annotations" / "instances_default.json"),
        ("maskfree", "yolo"): lambda: yolo_masks(store, out / "labels"),
        ("supervision", "yolo"): lambda: yolo_masks(store, out / "labels"),
    }
    if (writer, name) not in readers:
        return {}

    found = readers[writer, name]()
    ious = []
    for photo in store.photos():
        for class_id, class_name in object_names(store).items():
            mask = photo.labels == class_id
            if mask.sum() > MIN_AREA_PX:
                other = found.get((f"{photo.name}-0", class_name), np.zeros_like(mask))
                ious.append((mask & other).sum() / (mask | other).sum())
    return {"mean_iou": float(np.mean(ious)), "least_iou": float(np.min(ious))}


def coco_masks(path: Path) -> dict[tuple[str, str], np.ndarray]:
    """Masks of a COCO file by photo and class, as pycocotools draws them."""
    from contextlib import redirect_stdout

    from pycocotools.coco import COCO

    with redirect_stdout(sys.stderr):
        coco = COCO(path)
    names = {each["id"]: each["name"] for each in coco.dataset["categories"]}
    photos = {each["id"]: Path(each["file_name"]).stem for each in coco.dataset["images"]}

    masks: dict[tuple[str, str], np.ndarray] = {}
    for each in coco.dataset["annotations"]:
        key = photos[each["image_id"]], names[each["category_id"]]
        # pycocotools stops on the regions of one or two pixels that supervision gives no polygon.
        if key[0].endswith("-0") and each["segmentation"]:
            mask = coco.annToMask(each) > 0
            masks[key] = masks.get(key, np.zeros_like(mask)) | mask
    return masks


def yolo_masks(store: Store, folder: Path) -> dict[tuple[str, str], np.ndarray]:
    """Masks of YOLO's text files by photo and class, drawn with fractions cut off."""
    names = list(object_names(store).values())
    sizes = {f"{photo.name}-0": (photo.width, photo.height) for photo in store.photos()}

    masks: dict[tuple[str, str], np.ndarray] = {}
    for path in folder.rglob("*-0.txt"):
        for line in path.read_text().splitlines():
            number, *values = line.split()
            points = np.array(values, float).reshape(-1, 2) * sizes[path.stem]
            picture = Image.new("1", sizes[path.stem])
            corners = [(int(x), int(y)) for x, y in points]
            ImageDraw.Draw(picture).polygon(corners, fill=1, outline=1)
            key = path.stem, names[int(number)]
            masks[key] = masks.get(key, False) | np.asarray(picture)
    return masks


if __name__ == "__main__":
    tyro.cli(main)
