"""COCO's instance files: photos, categories and annotations, each of which is checked before it is believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from maskfree.data.benchmarks.coco_masks import ObjectMask, read_mask
from maskfree.files.atomic import read_json

_MAX_BYTES = 2**30  # COCO's training file has half of it
_SHOWN = 100  # characters of a value in a message


@dataclass(frozen=True)
class Annotation:
    """One object as the file has it.

    Attributes:
        name: What the annotation is called in messages.
        category: The id of its category.
        segmentation: Its mask, not yet checked.
        area: Its area in pixels, if the file says one.
    """

    name: str
    category: int | str
    segmentation: Any
    area: float | None


@dataclass(frozen=True)
class CocoPhoto:
    """One photo as the file has it.

    Attributes:
        file_name: Its path below the folder of the photos.
        size: Width and height in pixels, if the file says them.
        annotations: Its objects, in the order of the file.
    """

    file_name: str
    size: tuple[int, int] | None
    annotations: list[Annotation]


@dataclass(frozen=True)
class Instances:
    """A COCO instance file.

    Attributes:
        path: Where it lies.
        categories: Names of the categories by id.
        photos: The photos, by file name.
        num_unlisted: Annotations of photos that the file does not list; they are left out.
    """

    path: Path
    categories: Mapping[int | str, str]
    photos: tuple[CocoPhoto, ...]
    num_unlisted: int

    def masks(self, photo: CocoPhoto, size: tuple[int, int]) -> list[tuple[int | str, ObjectMask]]:
        """Return category id and mask of each of PHOTO's objects, the largest first, for its SIZE.

        Raises:
            ValueError: A mask is malformed, or does not fit the size; the message names file and annotation.
        """
        found = []
        for annotation in photo.annotations:
            try:
                mask = read_mask(annotation.segmentation, *size)
            except ValueError as error:
                raise ValueError(f"{self.path}, {annotation.name}: {error}") from error
            area = mask.area if annotation.area is None else annotation.area
            found.append((-area, annotation.category, mask))
        return [(category, mask) for _, category, mask in sorted(found, key=lambda each: each[0])]


def read_instances(path: Path) -> Instances:
    """Read a COCO instance file; the masks are not looked at yet.

    Args:
        path: The JSON file.

    Returns:
        Its content.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file; the message names what is wrong.
    """
    content = read_json(path, _MAX_BYTES, allow_nan=True)
    try:
        return _read(path, content)
    except ValueError as error:
        raise ValueError(f"{path} is no COCO instance file: {error}") from error


def _read(path: Path, content: Any) -> Instances:
    categories: dict[int | str, str] = {}
    for name, category in _entries(content, "categories", "category"):
        number = _new_id(category, name, categories)
        if not isinstance(category.get("name"), str):
            raise ValueError(f"{name} has no name")
        categories[number] = category["name"]

    photos: dict[int | str, CocoPhoto] = {}
    for name, image in _entries(content, "images", "image"):
        photos[_new_id(image, name, photos)] = CocoPhoto(
            _file_name(image, name), _size(image, name), []
        )
    if not photos:
        raise ValueError("it names no photo")
    if len({photo.file_name for photo in photos.values()}) < len(photos):
        raise ValueError(f"it lists {_repeated(photos)!r} twice")

    num_unlisted = 0
    for name, annotation in _entries(content, "annotations", "annotation"):
        image_id = _id(annotation, "image_id", name, photos)
        category_id = _id(annotation, "category_id", name, categories)
        if category_id not in categories:
            raise ValueError(
                f"{name} has the category_id {category_id!r}, which is not among the categories"
            )
        if image_id not in photos:
            num_unlisted += 1
            continue
        read = Annotation(
            name, category_id, annotation.get("segmentation"), _area(annotation, name)
        )
        photos[image_id].annotations.append(read)

    ordered = sorted(photos.values(), key=lambda photo: photo.file_name)
    return Instances(path, categories, tuple(ordered), num_unlisted)


def _entries(content: Any, key: str, singular: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a list of the file, each with what messages call it."""
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f"it has no list {key!r}")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise ValueError(f"number {number} of its {key} is no object")
        yield (
            (
                f"{singular} {_short(entry['id'])}"
                if "id" in entry
                else f"{singular} number {number}"
            ),
            entry,
        )


def _new_id(entry: dict[str, Any], name: str, known: Mapping[int | str, Any]) -> int | str:
    found = _id(entry, "id", name)
    if found in known:
        raise ValueError(f"{name} is there twice")
    return found


def _id(
    entry: dict[str, Any], key: str, name: str, known: Mapping[int | str, Any] | None = None
) -> int | str:
    """An id: a whole number, or a string; KNOWN are those that it may be one of."""
    found = entry.get(key)
    if isinstance(found, float) and found.is_integer():  # as tables of numbers are exported
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, (int, str)):
        raise ValueError(
            f"{name} has no {key} that is a number" if key in entry else f"{name} has no {key}"
        )

    # 1 and "1" are two ids, but who writes both means one.
    other = _other_spelling(found)
    if known is not None and found not in known and other in known:
        raise ValueError(
            f"{name} has the {key} {_short(found)}, but what it names has the id {_short(other)}"
        )
    return found


def _other_spelling(found: int | str) -> int | str | None:
    if isinstance(found, str):
        return int(found) if found.isascii() and found.isdecimal() and len(found) < _SHOWN else None
    return str(found) if abs(found) < 10**_SHOWN else None


def _file_name(image: dict[str, Any], name: str) -> str:
    found = image.get("file_name")
    if not isinstance(found, str) or not found.isprintable() or not found:
        raise ValueError(f"{name} has no file_name that is a path")
    path = PurePosixPath(found)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{name} has the file_name {_short(found)}, which leads out of the folder of photos"
        )
    return found


def _size(image: dict[str, Any], name: str) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    if width is None and height is None:
        return None
    if not (_is_side(width) and _is_side(height)):
        raise ValueError(f"{name} has the width {_short(width)} and the height {_short(height)}")
    return int(width), int(height)


def _is_side(side: Any) -> TypeGuard[float]:
    """Whether SIDE is a number of pixels; as tables of numbers are exported it may be 640.0."""
    whole = isinstance(side, int) or (isinstance(side, float) and side.is_integer())
    return whole and not isinstance(side, bool) and side >= 1


def _area(annotation: dict[str, Any], name: str) -> float | None:
    area = annotation.get("area")
    if area is None:
        return None
    if isinstance(area, bool) or not isinstance(area, (int, float)) or not 0 <= area < float("inf"):
        raise ValueError(f"{name} has the area {_short(area)}")
    return area


def _repeated(photos: Mapping[int | str, CocoPhoto]) -> str:
    """The first file name that is there for a second time."""
    seen: set[str] = set()
    names = (photo.file_name for photo in photos.values())
    return next(name for name in names if name in seen or seen.add(name))


def _short(value: Any) -> str:
    return repr(value)[:_SHOWN]
