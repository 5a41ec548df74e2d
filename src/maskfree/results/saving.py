"""Files of a result: label image, overlay, record, and the score map if the result has one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from maskfree.files.leftovers import unfinished_folder, writing
from maskfree.files.outputs import (
    RESULT_SUFFIXES,
    SCORES_SUFFIX,
    check_replaceable,
    png_mark,
    scores_mark,
)

if TYPE_CHECKING:
    from maskfree.results.segmentation import Segmentation

# Longest side of a saved overlay: a photo of 4:3 still fills a screen of 1920x1080. The label map
# keeps the photo's size.
_SAVED_SIDE_PX = 1600
# zlib's strategy Z_RLE: the quickest, and smaller here than the default at the same level.
_RUN_LENGTHS = 3


def save_result(
    result: Segmentation, folder: Path, stem: str, scores: bool = False
) -> tuple[Path, ...]:
    """Write the files of a result: all or none.

    Args:
        result: Result to write.
        folder: Folder for the files; created if missing.
        stem: Stem of their names.
        scores: Whether to write the score map, too.

    Returns:
        Paths of the files, in the order of `RESULT_SUFFIXES`, then that of the scores.

    Raises:
        FileExistsError: One of them exists, and was not written by maskfree.
        OSError: They cannot be written.
        ValueError: The photo's name is not UTF-8, or there is no score map.
    """
    suffixes = RESULT_SUFFIXES
    if scores:
        if result.score_map is None:
            raise ValueError("there is no score map: this model scores pixels, not patches")
        suffixes = (*suffixes, SCORES_SUFFIX)
    targets = tuple(folder / f"{stem}{suffix}" for suffix in suffixes)
    check_replaceable(*targets)
    if not _is_utf8(result.record["photo"]["name"], stem):
        raise ValueError(f"the name of {folder / stem}.* is not UTF-8: rename the photo")

    # Files are written to a temporary folder and moved together.
    with writing(folder / f"{stem}.*"), unfinished_folder(folder) as unfinished:
        index, overlay, sidecar, *_ = (unfinished / target.name for target in targets)
        _save_png(_index_image(result), index)
        _save_png(result.overlay(max_side_px=_SAVED_SIDE_PX), overlay)
        sidecar.write_text(_record_text(result), encoding="utf-8")
        if scores:
            _save_scores(result, unfinished / targets[-1].name)

        for target in targets:
            (unfinished / target.name).replace(target)
    return targets


def _index_image(result: Segmentation) -> Image.Image:
    """Image of the ids, with a palette if they fit one."""
    image = Image.fromarray(result.labels)
    # A PNG palette has at most 256 colors.
    if len(result.names) <= 256:
        image = Image.fromarray(result.labels.astype(np.uint8))
        image.putpalette(result.palette.tobytes())
    return image


def _record_text(result: Segmentation) -> str:
    """The record, with area and confidence of each name."""
    record = result.record | {"areas": result.areas()}
    if result.confidence is not None:
        record["confidence"] = {region.name: round(region.confidence, 4) for region in result}
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _save_scores(result: Segmentation, path: Path) -> None:
    """Write the score map with the names of its classes and the part that the photo covers."""
    assert result.score_map is not None
    scores, extent = result.score_map
    arrays: dict[str, Any] = {
        "scores": scores,
        # Under a threshold the background has no score.
        "names": np.array(result.names[: len(scores)]),
        "extent": np.array(extent),
    }
    np.savez_compressed(path, **arrays, **scores_mark())


def _save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG quickly, with the mark of maskfree."""
    image.save(path, compress_level=1, compress_type=_RUN_LENGTHS, pnginfo=png_mark())


def _is_utf8(*names: str) -> bool:
    """Whether no name has bytes that are not UTF-8, which Python decodes as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in "".join(names))
