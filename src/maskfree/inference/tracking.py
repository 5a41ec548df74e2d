"""Video segmentation: labels of a first mask or of words are propagated through a clip."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskfree.ahead import ahead
from maskfree.files.atomic import replace_bytes, replace_text
from maskfree.files.outputs import check_replaceable, png_mark
from maskfree.inference.clip_naming import ClipNaming
from maskfree.inference.features import embed
from maskfree.inference.segmenter import Segmenter
from maskfree.inference.tracking_config import TrackConfig
from maskfree.ops.ignore import IGNORE
from maskfree.ops.label_map import label_map
from maskfree.ops.propagation import LabelPropagation, stretch
from maskfree.results.segmentation import Segmentation

# Name of a frame, and its upright RGB image.
Frame = tuple[str, Image.Image]


def follow_mask(
    segmenter: Segmenter,
    frames: Iterable[Frame],
    first: UInt8[np.ndarray, "h w"],
    config: TrackConfig,
) -> Iterator[Segmentation]:
    """Propagate the objects of a first mask through a clip.

    Args:
        segmenter: Model and inference settings; it needs no words.
        frames: Names and upright RGB images; the first one is the frame of the mask. A thread
            reads and embeds them, one ahead.
        first: Object number of each pixel, from 1 on; 0 is the background, and so is `IGNORE` if
            other objects are there.
        config: Settings of the propagation.

    Yields:
        One Segmentation per frame, whose words are the object numbers.

    Raises:
        ValueError: There is no frame, the mask has no object, or its size differs from the frame's.
    """
    numbers = [number for number in np.unique(first).tolist() if number and number != IGNORE]
    if not numbers:
        raise ValueError(
            "the first mask holds no object: 0 is the background, "
            "255 stands for 1 where nothing else is"
        )

    # Map object numbers to label ids; everything else is background.
    places = np.full(256, len(numbers), np.uint8)
    places[numbers] = np.arange(len(numbers), dtype=np.uint8)
    labels = places[first]

    words = tuple(map(str, numbers))
    record = {
        "words": [[word] for word in words],
        "background": {"rule": "mask", "id": len(words)},
        "ids": [*numbers, 0],
        "model": {"name": segmenter.name, "weights_sha256": segmenter.weights_hash},
    }

    grids = ahead(_grids(segmenter, frames, config))
    name, image, grid = _next(grids)
    if labels.shape != (image.height, image.width):
        mask = f"{labels.shape[1]}x{labels.shape[0]}"
        raise ValueError(
            f"the first mask is {mask}, the frame {name} {image.width}x{image.height}: "
            "not the same size"
        )

    # The mask is the result of the first frame, with full certainty.
    certain = np.ones(labels.shape, np.float16)
    result = _named(
        Segmentation(labels, words, certain, np.asarray(image), record), name, image, config
    )
    yield result

    carried = LabelPropagation(config.propagation, grid, _shares(result.labels, result, grid))
    for name, image, grid in grids:
        # Every object of the mask is assumed to be still in view.
        soft = stretch(carried(grid), labels.shape)
        yield _read_off(soft, result, name, image, config)


def follow_words(
    segmenter: Segmenter, frames: Iterable[Frame], config: TrackConfig, every: int = 0
) -> Iterator[Segmentation]:
    """Segment frames by the words of a Segmenter and propagate their labels through a clip.

    Every n-th frame is labeled by the words, whose scores are averaged over alike patches of all
    frames labeled so far, and averaged with the labels propagated to it. All labeled frames count
    the same there, so that a mistake of one of them is outvoted by the next ones.

    Args:
        segmenter: Model with its words.
        frames: Names and upright RGB images. A thread reads and embeds them, one ahead.
        config: Settings of the propagation.
        every: Label every so many frames by the words; 0 labels the first frame only.

    Yields:
        One Segmentation per frame.

    Raises:
        ValueError: There is no frame, the Segmenter has no words or too many, or `every` is
            negative.
    """
    # Checked before a frame is read.
    if every < 0:
        raise ValueError(f"every {every} must not be negative: 0 looks at the first frame only")

    grids = ahead(_grids(segmenter, frames, config))
    name, image, grid = _next(grids)
    result = segmenter(image)
    if len(result.names) > 256:
        raise ValueError(
            f"{len(result.names)} words are too many to follow: "
            "256 are the most, with the background"
        )

    # The first frame is labeled like those after it.
    clip_naming = ClipNaming(segmenter)
    labels, scores = clip_naming(image, grid)
    result = replace(result, labels=labels, scores=scores, confidence=None)

    about = {"ids": list(range(len(result.names))), "every": every}
    result = _named(replace(result, record=result.record | about), name, image, config)
    yield result

    carried = LabelPropagation(config.propagation, grid, _shares(result.labels, result, grid))
    for index, (name, image, grid) in enumerate(grids, 1):
        soft = carried(grid)

        # Average with the labels of this frame by itself.
        if every and index % every == 0:
            labels, _ = clip_naming(image, grid)
            soft = torch.lerp(soft, _shares(labels, result, grid), clip_naming.weight)
            carried.correct(soft)

        yield _read_off(soft, result, name, image, config)


def index_map(result: Segmentation) -> UInt8[np.ndarray, "h w"]:
    """Return the label image of a tracked frame.

    Args:
        result: A frame of `follow_mask` or `follow_words`.

    Returns:
        Object numbers of the first mask, or indices of the words.
    """
    return np.array(result.record["ids"], np.uint8)[result.labels]


def save_clip(results: Iterable[Segmentation], out: Path) -> Iterator[Segmentation]:
    """Write tracked frames to a folder as they pass, and pass them on.

    The folder gets labels/NAME.png (the `index_map` of each frame, with a palette), track.json (the
    record of the first frame) and first.png (its overlay with a legend). Each file is written as a
    whole or not at all.

    Args:
        results: Tracked frames.
        out: Folder for the files; created when the first frame arrives.

    Yields:
        The frames, unchanged.

    Raises:
        FileExistsError: track.json or first.png exists, and was not written by maskfree.
        OSError: A file cannot be written.
    """
    labels = out / "labels"
    for index, result in enumerate(results):
        if index == 0:
            check_replaceable(out / "track.json", out / "first.png")
            record = json.dumps(
                result.record | {"names": result.names}, indent=2, ensure_ascii=False
            )
            replace_text(out / "track.json", record + "\n")
            _save(result.overlay(), out / "first.png")

        # Put the palette colors at the ids that the label image holds.
        picture = Image.fromarray(index_map(result))
        palette = np.zeros((256, 3), np.uint8)
        palette[result.record["ids"]] = result.palette
        picture.putpalette(palette.tobytes())

        _save(picture, labels / f"{result.record['photo']['name']}.png")
        yield result


def plain_overlay(result: Segmentation) -> Image.Image:
    """Return the overlay of a frame without its legend, whose size differs from frame to frame.

    Args:
        result: A tracked frame.

    Returns:
        Overlay at the size of the frame.
    """
    return result.overlay().crop((0, 0, result.image.shape[1], result.image.shape[0]))


def _grids(
    segmenter: Segmenter, frames: Iterable[Frame], config: TrackConfig
) -> Iterator[tuple[str, Image.Image, Float[Tensor, "d h w"]]]:
    """Embeddings of each frame on a grid that spans it evenly."""
    shown = segmenter.with_inference(replace(segmenter.inference, side_px=config.side_px))
    unit = segmenter.method.patch_size
    size = None

    for name, image in frames:
        if size not in (None, image.size):
            was, now = (f"{each[0]}x{each[1]}" for each in (size, image.size))
            raise ValueError(
                f"the frame {name} is {now}, those before it {was}: a clip has one size"
            )

        size = image.size
        height, width = shown.inference.resized(image.height, image.width)
        cells = [max(1, round(side / unit * config.finer)) for side in (height, width)]
        yield name, image, embed(shown, image).at(*cells)


def _next(grids: Iterator[tuple[str, Image.Image, Tensor]]) -> tuple[str, Image.Image, Tensor]:
    """The first frame, which must exist."""
    first = next(grids, None)
    if first is None:
        raise ValueError("the clip holds no frames")
    return first


def _shares(
    labels: UInt[np.ndarray, "height width"], like: Segmentation, grid: Float[Tensor, "d h w"]
) -> Float[Tensor, "c h w"]:
    """Share of each grid cell that each label covers."""
    ids = torch.from_numpy(labels.astype(np.int16)).to(grid.device)
    cells = (grid.shape[1], grid.shape[2])
    shares = [
        F.adaptive_avg_pool2d((ids == i).float()[None], cells) for i in range(len(like.names))
    ]
    return torch.cat(shares)


def _read_off(
    soft: Float[Tensor, "c h w"],
    like: Segmentation,
    name: str,
    image: Image.Image,
    config: TrackConfig,
) -> Segmentation:
    """Arg-max labels of a frame; scores are the propagated label weights, in [0, 1]."""
    size = (image.height, image.width)
    labels, scores = label_map(
        soft.cpu(), size=size, extent=(float(soft.shape[1]), float(soft.shape[2]))
    )
    return _named(
        replace(like, labels=labels, scores=scores, image=np.asarray(image)), name, image, config
    )


def _named(
    result: Segmentation, name: str, image: Image.Image, config: TrackConfig
) -> Segmentation:
    """Add the frame's name and the tracking settings to the record."""
    photo = {"name": name, "width": image.width, "height": image.height}
    return replace(result, record=result.record | {"photo": photo, "tracking": asdict(config)})


def _save(picture: Image.Image, path: Path) -> None:
    """Write a PNG file as a whole."""
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=1, pnginfo=png_mark())
    replace_bytes(path, content.getvalue())
