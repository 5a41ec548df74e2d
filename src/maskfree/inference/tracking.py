"""A clip with every pixel named: what a first mask or words say of one frame is followed through the others."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskfree.config.rules import Range, check
from maskfree.data.benchmarks.davis import VOID
from maskfree.files.atomic import replace_bytes, replace_text
from maskfree.files.outputs import check_replaceable, png_mark
from maskfree.inference.features import embed
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.label_map import label_map
from maskfree.ops.propagation import LabelPropagation, PropagationConfig, stretch
from maskfree.types import Segmentation

_FRESH = 0.4  # weight of a frame's own labels beside those carried to it: below a half, as one frame may err

Frame = tuple[str, Image.Image]  # its name, and an upright RGB photo


@dataclass(frozen=True)
class TrackConfig:
    """How a clip is shown to the network, and how labels are carried through it."""

    propagation: PropagationConfig = field(default_factory=PropagationConfig)
    side_px: Annotated[int, Range(1, 4096)] = 720  # shorter side of a frame as the network sees it
    finer: Annotated[int, Range(1, 16)] = (
        1  # cells a side that a patch of the network is divided into, bilinearly
    )

    def __post_init__(self) -> None:
        check(self)


def follow_mask(
    segmenter: Segmenter,
    frames: Iterable[Frame],
    first: UInt8[np.ndarray, "h w"],
    config: TrackConfig,
) -> Iterator[Segmentation]:
    """Follow the objects of FIRST, numbers from 1 on, through FRAMES, of which the first one is its own.

    The words of the results are the numbers; what is none of the objects, or `VOID` beside others, is the background.

    Raises:
        ValueError: there is no frame, FIRST has no object or another size than a frame.
    """
    numbers = [number for number in np.unique(first).tolist() if number and number != VOID]
    if not numbers:
        raise ValueError(
            "the first mask holds no object: 0 is the background, 255 stands for 1 where nothing else is"
        )
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
    grids = _grids(segmenter, frames, config)
    name, image, grid = _next(grids)
    if labels.shape != (image.height, image.width):
        mask = f"{labels.shape[1]}x{labels.shape[0]}"
        raise ValueError(
            f"the first mask is {mask}, the frame {name} {image.width}x{image.height}: not the same size"
        )
    certain = np.ones(labels.shape, np.float16)
    result = _named(
        Segmentation(labels, words, certain, np.asarray(image), record), name, image, config
    )
    yield result
    carried = LabelPropagation(config.propagation, grid, _shares(result, grid))
    for name, image, grid in grids:
        soft = stretch(
            carried(grid), labels.shape
        )  # all that the mask holds is taken to be still there
        yield _read_off(soft, result, name, image, config)


def follow_words(
    segmenter: Segmenter, frames: Iterable[Frame], config: TrackConfig, every: int = 0
) -> Iterator[Segmentation]:
    """Label the first of FRAMES by the words of SEGMENTER and carry its labels through the others.

    With EVERY the words are looked for again in each so many frames, and what is found joins what was carried there:
    things that come into view get their names.

    Raises:
        ValueError: there is no frame, or SEGMENTER has no words.
    """
    if every < 0:  # before a frame is read
        raise ValueError(f"every {every} must not be negative: 0 looks at the first frame only")
    grids = _grids(segmenter, frames, config)
    name, image, grid = _next(grids)
    result = segmenter(image)
    if len(result.names) > 256:
        raise ValueError(
            f"{len(result.names)} words are too many to follow: 256 are the most, with the background"
        )
    result = replace(result, record=result.record | {"ids": list(range(len(result.names)))})
    result = _named(result, name, image, config)
    yield result
    carried = LabelPropagation(config.propagation, grid, _shares(result, grid))
    for index, (name, image, grid) in enumerate(grids, 1):
        soft = carried(grid)
        if every and index % every == 0:
            soft = torch.lerp(soft, _shares(segmenter(image), grid), _FRESH)
            carried.correct(soft)
        yield _read_off(soft, result, name, image, config)


def index_map(result: Segmentation) -> UInt8[np.ndarray, "h w"]:
    """Return the numbers that stand for the words of a followed frame: those of the first mask, or their indices."""
    return np.array(result.record["ids"], np.uint8)[result.labels]


def save_clip(results: Iterable[Segmentation], out: Path) -> Iterator[Segmentation]:
    """Write the followed frames into OUT as they pass, and pass them on.

    labels/NAME.png holds the `index_map` of each with a palette, track.json the record of the first, first.png its
    overlay with a legend. OUT is made when the first frame is there; each file is whole or not there.

    Raises:
        FileExistsError: track.json or first.png is there, and no run of maskfree wrote it.
        OSError: they cannot be written.
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
        picture = Image.fromarray(index_map(result))
        palette = np.zeros((256, 3), np.uint8)
        palette[result.record["ids"]] = result.palette
        picture.putpalette(palette.tobytes())
        _save(picture, labels / f"{result.record['photo']['name']}.png")
        yield result


def plain_overlay(result: Segmentation) -> Image.Image:
    """Return the overlay of RESULT at the photo's size, without the legend, whose size differs from frame to frame."""
    return result.overlay().crop((0, 0, result.image.shape[1], result.image.shape[0]))


def _grids(
    segmenter: Segmenter, frames: Iterable[Frame], config: TrackConfig
) -> Iterator[tuple[str, Image.Image, Float[Tensor, "d h w"]]]:
    """The embeddings of each frame on a grid that spans it evenly."""
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
    first = next(grids, None)
    if first is None:
        raise ValueError("the clip holds no frames")
    return first


def _shares(result: Segmentation, grid: Float[Tensor, "d h w"]) -> Float[Tensor, "c h w"]:
    """The share of each cell of GRID that each label covers."""
    labels = torch.from_numpy(result.labels.astype(np.int16)).to(grid.device)
    cells = (grid.shape[1], grid.shape[2])
    shares = [
        F.adaptive_avg_pool2d((labels == i).float()[None], cells) for i in range(len(result.names))
    ]
    return torch.cat(shares)


def _read_off(
    soft: Float[Tensor, "c h w"],
    like: Segmentation,
    name: str,
    image: Image.Image,
    config: TrackConfig,
) -> Segmentation:
    """The labels that win in a frame; their scores are what was carried to it, in [0, 1]."""
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
    photo = {"name": name, "width": image.width, "height": image.height}
    return replace(result, record=result.record | {"photo": photo, "tracking": asdict(config)})


def _save(picture: Image.Image, path: Path) -> None:
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=1, pnginfo=png_mark())
    replace_bytes(path, content.getvalue())
