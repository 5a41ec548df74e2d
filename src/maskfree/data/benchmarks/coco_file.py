"""Read and validate COCO instance files: photos, categories and annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from maskfree.data.benchmarks.coco_masks import ObjectMask, read_mask
from maskfree.files.atomic import read_json

_MAX_BYTES = 2**30  # COCO's training file has half of it
_MAX_SHOWN = 100  # characters of a value in a message
_MAX_DIGITS = 100  # of an id that is compared with its other spelling


@dataclass(frozen=True)
class Annotation:
    """Annotation of one object in the file.

    Attributes:
        name: Its name in messages.
        category: Id of its category.
        segmentation: Its mask, not validated yet.
        area: Its area in pixels, if the file has it.
    """

    name: str
    category: int | str
    segmentation: Any
    area: float | None


@dataclass(frozen=True)
class CocoPhoto:
    """Photo in the file.

    Attributes:
        file_name: Path below the folder of the photos.
        size: Width and height in pixels, if the file has them.
        annotations: Its objects, in the order of the file.
    """

    file_name: str
    size: tuple[int, int] | None
    annotations: list[Annotation]


@dataclass(frozen=True)
class Instances:
    """Content of a COCO instance file.

    Attributes:
        path: Path of the file.
        categories: Names of the categories by id.
        photos: The photos, sorted by file name.
        num_unlisted: Number of annotations left out because the file does not list their photo.
    """

    path: Path
    categories: Mapping[int | str, str]
    photos: tuple[CocoPhoto, ...]
    num_unlisted: int

    def masks(self, photo: CocoPhoto, size: tuple[int, int]) -> list[tuple[int | str, ObjectMask]]:
        """Validate the masks of a photo and sort them by decreasing area.

        Args:
            photo: Photo of this file.
            size: Width and height of the photo in pixels.

        Returns:
            Category id and mask of each object, the largest first.

        Raises:
            ValueError: A mask is malformed, or does not fit the size; the message names file and
                annotation.
        """
        found = []
        for annotation in photo.annotations:
            try:
                mask = read_mask(annotation.segmentation, *size)
            except ValueError as error:
                raise ValueError(f"{self.path}, {annotation.name}: {error}") from error

            # COCO's own area counts, where the file has it.
            area = annotation.area
            if area is None:
                area = mask.area
            found.append((-area, annotation.category, mask))
        return [(category, mask) for _, category, mask in sorted(found, key=itemgetter(0))]


def read_instances(path: Path) -> Instances:
    """Read a COCO instance file; the masks are not validated yet.

    Args:
        path: The JSON file.

    Returns:
        The content of the file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a COCO instance file; the message says what is wrong.
    """
    content = read_json(path, _MAX_BYTES, allow_nan=True)
    try:
        return _read(path, content)
    except ValueError as error:
        raise ValueError(f"{path} is no COCO instance file: {error}") from error


def _read(path: Path, content: Any) -> Instances:
    """Validate the content of a COCO instance file."""
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
    # A photo that is listed under two ids would be evaluated twice.
    if len({photo.file_name for photo in photos.values()}) < len(photos):
        raise ValueError(f"it lists {_repeated(photos)!r} twice")

    # Assign each annotation to its photo.
    num_unlisted = 0
    for name, annotation in _entries(content, "annotations", "annotation"):
        image_id = _id(annotation, "image_id", name, photos)
        category_id = _id(annotation, "category_id", name, categories)
        if category_id not in categories:
            raise ValueError(
                f"{name} has the category_id {category_id!r}, which is not among the categories"
            )
        # Annotations of unlisted photos are counted, not refused.
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
    """Objects in a list of the file, each with its name in messages."""
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise ValueError(f"it has no list {key!r}")

    for number, entry in enumerate(content[key], 1):
        if not isinstance(entry, dict):
            raise ValueError(f"number {number} of its {key} is no object")
        name = f"{singular} number {number}"
        if "id" in entry:
            name = f"{singular} {_short(entry['id'])}"
        yield name, entry


def _new_id(entry: dict[str, Any], name: str, known: Mapping[int | str, Any]) -> int | str:
    """The id of an entry, which no entry before it may have."""
    found = _id(entry, "id", name)
    if found in known:
        raise ValueError(f"{name} is there twice")
    return found


def _id(
    entry: dict[str, Any], key: str, name: str, known: Mapping[int | str, Any] | None = None
) -> int | str:
    """An integer or string id; a known one may not be written as the other type."""
    found = entry.get(key)
    # Ids exported from a table of floats.
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, (int, str)):
        message = f"{name} has no {key}"
        if key in entry:
            message += " that is a number"
        raise ValueError(message)

    # 1 and "1" are different ids, but a file with both means the same one.
    other = _other_spelling(found)
    if known is not None and found not in known and other in known:
        raise ValueError(
            f"{name} has the {key} {_short(found)}, but what it names has the id {_short(other)}"
        )

    return found


def _other_spelling(found: int | str) -> int | str | None:
    """The same id as the other type, if it has one."""
    # Python refuses to convert integers with very many digits.
    if isinstance(found, str):
        if found.isascii() and found.isdecimal() and len(found) < _MAX_DIGITS:
            return int(found)
        return None
    if abs(found) < 10**_MAX_DIGITS:
        return str(found)
    return None


def _file_name(image: dict[str, Any], name: str) -> str:
    """File name of a photo, which may not lead out of the folder."""
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
    """Width and height of a photo, or None if the file has neither."""
    width, height = image.get("width"), image.get("height")
    if width is None and height is None:
        return None
    # Both sides or none.
    if not (_is_side(width) and _is_side(height)):
        raise ValueError(f"{name} has the width {_short(width)} and the height {_short(height)}")
    return int(width), int(height)


def _is_side(side: Any) -> TypeGuard[float]:
    """Whether a value is a number of pixels; 640.0 counts, as exported from a table of floats."""
    whole = isinstance(side, int) or (isinstance(side, float) and side.is_integer())
    return whole and not isinstance(side, bool) and side >= 1


def _area(annotation: dict[str, Any], name: str) -> float | None:
    """Area of an object, or None if the file has none."""
    area = annotation.get("area")
    if area is None:
        return None

    # Also refuses NaN.
    if isinstance(area, bool) or not isinstance(area, (int, float)) or not 0 <= area < float("inf"):
        raise ValueError(f"{name} has the area {_short(area)}")
    return area


def _repeated(photos: Mapping[int | str, CocoPhoto]) -> str:
    """The first file name that occurs twice."""
    names = Counter(photo.file_name for photo in photos.values())
    return next(name for name, number in names.items() if number > 1)


def _short(value: Any) -> str:
    """The start of a value, for a message."""
    return repr(value)[:_MAX_SHOWN]
