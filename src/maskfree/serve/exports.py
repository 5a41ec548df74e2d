"""Labels that were changed in the page, in the formats of annotation tools."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastapi import Response
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from maskfree.data.photo import read_photo
from maskfree.label.formats.registry import write_format
from maskfree.label.labeled import UNLABELED, LabelClass, LabeledPhoto
from maskfree.results.components import connected_regions

PNG = "png"
"""Format of a label map alone."""
TITLES = {
    PNG: "PNG label map",
    "coco": "COCO, masks",
    "coco-polygons": "COCO, polygons",
    "yolo": "YOLO segmentation",
    "labelme": "labelme",
    "voc": "PASCAL VOC",
    "cvat": "CVAT for images",
    "label-studio": "Label Studio",
}
"""Formats that the page offers, with their titles."""
_MAX_NAMES = 250


@dataclass(frozen=True)
class Drawn:
    """Labels of a photo as the page sends them."""

    labels: UInt8[np.ndarray, "h w"]
    """Index into `names` of each pixel, or 255 for none."""
    names: tuple[str, ...]
    """Names of the classes."""
    colors: tuple[tuple[int, int, int], ...]
    """Color of each class."""
    background: int
    """Index of the background."""


def read_drawn(
    runs: bytes, size: tuple[int, int], names: str, colors: str, background: int
) -> Drawn:
    """Read what the page sends.

    Args:
        runs: Pairs of label and number of pixels, little-endian and of 32 bits, row by row.
        size: Height and width in pixels.
        names: JSON list of the names.
        colors: JSON list of red, green and blue of each name.
        background: Index of the background.

    Returns:
        The labels.

    Raises:
        ValueError: Something does not fit.
    """
    listed, palette = _json(names, "names"), _json(colors, "colors")
    if not listed or len(listed) > _MAX_NAMES or not all(map(_is_name, listed)):
        raise ValueError(f"names: a list of 1 to {_MAX_NAMES} texts is needed")
    if len(set(listed)) < len(listed):
        raise ValueError("names: each name may occur once")
    if len(palette) != len(listed) or not all(map(_is_color, palette)):
        raise ValueError("colors: three numbers from 0 to 255 are needed for each name")

    if len(runs) % 8:
        raise ValueError("runs: pairs of 32-bit numbers are needed")
    values, lengths = np.frombuffer(runs, "<u4").reshape(-1, 2).T
    height, width = size
    if int(lengths.sum(dtype=np.uint64)) != height * width:
        raise ValueError(f"runs: they must sum to {width}x{height} pixels")
    if not (values[values != UNLABELED] < len(listed)).all():
        raise ValueError("runs: a label has no name")

    labels = np.repeat(values.astype(np.uint8), lengths).reshape(height, width)
    rgb = tuple((int(red), int(green), int(blue)) for red, green, blue in palette)
    return Drawn(labels, tuple(listed), rgb, background)


def export_answer(drawn: Drawn, photo: bytes, name: str, format_name: str) -> Response:
    """Write labels in a format.

    Args:
        drawn: The labels.
        photo: Bytes of the photo's file.
        name: Name of the photo's file.
        format_name: A key of `TITLES`.

    Returns:
        PNG, or a zip.

    Raises:
        ValueError: There is no such format, or it cannot hold the labels.
    """
    if format_name not in TITLES:
        raise ValueError(f"the format {format_name[:100]!r} is unknown: {', '.join(TITLES)}")
    if format_name == PNG:
        return Response(png_file(drawn), media_type="image/png")
    content = zip_file(drawn, photo, name, format_name)
    return Response(content, media_type="application/zip")


def png_file(drawn: Drawn) -> bytes:
    """Write the label map.

    Args:
        drawn: The labels.

    Returns:
        Index PNG whose text "names" is the JSON list of the names.
    """
    image = Image.fromarray(drawn.labels)
    # A whole palette, since a shorter one would leave too few bits for 255.
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(drawn.colors)] = drawn.colors
    image.putpalette(palette.tobytes())
    info = PngInfo()
    info.add_itxt("names", json.dumps(drawn.names, ensure_ascii=False))
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def zip_file(drawn: Drawn, photo: bytes, name: str, format_name: str) -> bytes:
    """Write a data set of one photo.

    Args:
        drawn: Its labels.
        photo: Bytes of its file.
        name: Name of its file.
        format_name: Name of the format.

    Returns:
        Zip of the data set's folder.

    Raises:
        ValueError: There is no such format, an extra is missing, or the photo does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="maskfree-") as folder:
        place = Path(folder)
        # The name is only that of the data set's files.
        source = place / f"photo{Path(name).suffix}"
        source.write_bytes(photo)

        out = place / "out"
        labeled = _labeled(drawn, source, Path(name).stem or "photo")
        write_format(format_name, _classes(drawn), [labeled], out, linking="copy")

        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(out.rglob("*")):
                # Hidden files are records of maskfree.
                if file.is_file() and not file.name.startswith("."):
                    archive.write(file, file.relative_to(out))
        return stream.getvalue()


def _classes(drawn: Drawn) -> list[LabelClass]:
    """Classes of the labels; the background only where it occurs."""
    classes = []
    for index, (name, color) in enumerate(zip(drawn.names, drawn.colors, strict=True)):
        if index != drawn.background:
            classes.append(LabelClass(index, name, (name,), color))
        elif (drawn.labels == index).any():
            classes.append(LabelClass(index, name, (), (0, 0, 0)))
    return classes


def _labeled(drawn: Drawn, source: Path, name: str) -> LabeledPhoto:
    """The photo with its labels at its own size."""
    with read_photo(source) as image:
        width, height = image.size
    picture = Image.fromarray(drawn.labels).resize((width, height), Image.Resampling.NEAREST)
    labels = np.asarray(picture)

    # What the page labels has no scores that a format could hold.
    nothing = np.zeros(labels.shape, np.float16)
    found = connected_regions(labels, nothing, None, drawn.names)
    regions = tuple(region for region in found if region.class_id != drawn.background)
    return LabeledPhoto(source, name, width, height, labels, regions)


def _json(text: str, field: str) -> list:
    """A list in JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise ValueError(f"{field}: a JSON list is needed")
    return value


def _is_name(name: object) -> bool:
    """Whether a name can stand in any format."""
    return isinstance(name, str) and 0 < len(name) <= 100 and name.isprintable()


def _is_color(color: object) -> bool:
    """Whether a value is red, green and blue."""
    if not isinstance(color, list) or len(color) != 3:
        return False
    return all(type(each) is int and 0 <= each <= 255 for each in color)
