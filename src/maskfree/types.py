"""The records that cross borders between layers, and the letters that name axes.

Axes: b images, k classes, g groups, n patches, l tokens, d embedding, h w pixels (hp wp: patch grid), v local views.
Images are RGB in [0, 1]; an encoder normalizes for itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int, UInt, UInt8
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from maskfree.files.leftovers import unfinished_folder, writing
from maskfree.files.outputs import RESULT_SUFFIXES, check_replaceable, png_mark
from maskfree.results.lettering import Lettering

BACKGROUND = "background"  # the name shown for pixels that a background rule took from the words
_FIRST_COLOR = (255, 60, 60)
_LEGEND_LETTERS = (
    40  # of the size of the legend's text: a name is no longer, unless the picture is wider
)
_STRIP_PIXELS = 2**20  # an overlay is painted in strips of so many


@dataclass(frozen=True)
class Tokens:
    """A padded batch of token ids; `mask` is True where a token is and False on padding."""

    ids: Int[Tensor, "b l"]
    mask: Bool[Tensor, "b l"]

    def to(self, device: torch.device) -> Tokens:
        """Return the same tokens on DEVICE."""
        return Tokens(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True)
class EntityTexts:
    """What the captions of a batch say of entities, made into training texts."""

    questions: Tokens  # b captions whose entities are masked
    answers: Tokens  # b prompted sentences that name what was masked
    masked: Bool[Tensor, " b"]  # whether anything was
    targets: Int[
        Tensor, "b l"
    ]  # number of the entity that each token of the questions hides; -1 hides none
    labels: Tokens | None = None  # t prompted entities of each photo, b * t texts
    labeled: Bool[Tensor, "b t"] | None = (
        None  # False: the photo has fewer, and the label is anything
    )

    def to(self, device: torch.device) -> EntityTexts:
        """Return the same texts on DEVICE."""
        return _moved(self, device)


@dataclass(frozen=True)
class Partners:
    """For each photo another one that shares an entity with it."""

    images: Float[Tensor, "b 3 h w"]
    entities: Tokens  # b prompted names of what they share
    present: Bool[Tensor, " b"]  # False: there is no partner, and the row is anything

    def to(self, device: torch.device) -> Partners:
        """Return the same partners on DEVICE."""
        return _moved(self, device)


@dataclass(frozen=True)
class PairedViews:
    """Two views of each photo, and on a coarser grid what is known of the photo where each of them lies."""

    images: Float[Tensor, "b 2 3 h w"]
    regions: UInt8[
        Tensor, "b 2 hg wg"
    ]  # coherent region of the photo; the same number in both views; 255 is none
    teacher: Float16[Tensor, "b 2 d hg wg"] | None = None  # another model's embeddings, unit norm

    def to(self, device: torch.device) -> PairedViews:
        """Return the same views on DEVICE."""
        return _moved(self, device)


@dataclass(frozen=True)
class Batch:
    """What a method trains on. Fields that its transform does not fill are None.

    Boxes are (left, top, right, bottom) of the view in the photo, as fractions in [0, 1], before the view was flipped;
    with the flip flags they undo a view's geometry.
    """

    images: Float[Tensor, "b 3 h w"]  # the global view
    boxes: Float[Tensor, "b 4"]
    flipped: Bool[Tensor, " b"]
    captions: Tokens | None = None
    local_views: Float[Tensor, "b v 3 hv wv"] | None = None  # low-resolution local crops
    local_boxes: Float[Tensor, "b v 4"] | None = None
    local_flipped: Bool[Tensor, "b v"] | None = None
    augmented_view: Float[Tensor, "b 3 h w"] | None = (
        None  # the global view recolored and perhaps mirrored
    )
    augmented_flipped: Bool[Tensor, " b"] | None = None  # mirrored relative to the global view
    words: Tokens | None = None  # of all photos of the batch together
    word_weights: Float[Tensor, "b k"] | None = (
        None  # share of each word among a photo's words; rows sum to at most 1
    )
    labels: UInt8[Tensor, "b h w"] | None = (
        None  # class of each pixel of the global view; 255 does not count
    )
    entities: EntityTexts | None = None
    partners: Partners | None = None
    pairs: PairedViews | None = None
    keys: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on DEVICE."""
        return _moved(self, device)


Movable = TypeVar("Movable", EntityTexts, Partners, PairedViews, Batch)
_ON_DEVICES = (Tensor, Tokens, EntityTexts, Partners, PairedViews)


def _moved(record: Movable, device: torch.device) -> Movable:
    """The same record with all its tensors on DEVICE."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return replace(
        record, **{k: v.to(device) if isinstance(v, _ON_DEVICES) else v for k, v in values.items()}
    )


@dataclass(frozen=True)
class Losses:
    """Weighted loss terms by name, whose sum is minimised; `metrics` is for monitoring only and carries no gradient."""

    terms: dict[str, Float[Tensor, ""]]
    metrics: dict[str, Float[Tensor, ""]] = field(default_factory=dict)

    @property
    def total(self) -> Float[Tensor, ""]:
        """Sum of the weighted terms."""
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True)
class Groups:
    """What a method sees in photos: how their patches group, and what each group means. Embeddings have unit norm."""

    embeddings: Float[Tensor, "b g d"]  # of a group without patches: anything finite
    assignment: (
        Float[Tensor, "b g hp wp"] | None
    )  # of each patch to the groups; None: each is its own, row by row
    overall: Float[Tensor, "b d"]  # of the photo as a whole
    patches: tuple[int, int]  # rows and columns of the grid

    @classmethod
    def of_pixels(cls, pixels: Float[Tensor, "b d hp wp"]) -> Groups:
        """Make each patch a group of its own; PIXELS are of any length, and the photo is their mean."""
        overall = functional.normalize(pixels.mean((2, 3)), dim=-1)
        patches = (pixels.shape[2], pixels.shape[3])
        return cls(functional.normalize(pixels.flatten(2).mT, dim=-1), None, overall, patches)

    def spread(self, values: Float[Tensor, "b g k"]) -> Float[Tensor, "b k hp wp"]:
        """Give each patch the values of its groups, by its assignment to them."""
        if self.assignment is None:
            return values.mT.unflatten(2, self.patches)
        return (self.assignment.flatten(2).mT @ values).mT.unflatten(2, self.patches)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A photo with every pixel named.

    `labels` holds ids at the photo's size: the index into `words`, or len(words) where a background rule applied.
    `scores` is each pixel's winning score, a cosine in [-1, 1] unless the record's inference says otherwise. `image` is
    the photo, upright. `record` says how the result came about, in plain values; its "words" are lists of synonyms and
    its "background" is None without a rule.
    """

    labels: UInt[np.ndarray, "h w"]
    words: tuple[str, ...]
    scores: Float16[np.ndarray, "h w"]
    image: UInt8[np.ndarray, "h w 3"]
    record: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each id that can occur."""
        return (*self.words, BACKGROUND) if self.record["background"] else self.words

    @property
    def palette(self) -> UInt8[np.ndarray, "n 3"]:
        """The color of each id; the background is black."""
        colors = _distinct_colors(len(self.words))
        return np.concatenate([colors, np.zeros((len(self.names) - len(self.words), 3), np.uint8)])

    def mask(self, word: str) -> Bool[np.ndarray, "h w"]:
        """Return where WORD is, which may be any synonym of a class, or "background".

        Raises:
            ValueError: the result knows no such word.
        """
        sought = " ".join(word.split()).casefold()
        for index, synonyms in enumerate(
            [*self.record["words"], *([name] for name in self.names[len(self.words) :])]
        ):
            if sought in (synonym.casefold() for synonym in synonyms):
                return self.labels == index
        raise ValueError(
            f"the word {word!r} is not among the words of this result: {', '.join(self.names)}"
        )

    def areas(self) -> dict[str, float]:
        """Return the fraction of the photo that each name covers, in the order of the ids; they sum to 1."""
        counts = np.zeros(len(self.names), np.int64)
        for rows in self._strips():  # bincount makes 8 bytes of each label
            counts += np.bincount(self.labels[rows].ravel(), minlength=len(self.names))
        return {
            name: float(count / self.labels.size)
            for name, count in zip(self.names, counts, strict=True)
        }

    def overlay(self, alpha: float = 0.5) -> Image.Image:
        """Draw the label colors over the photo, with a legend of the words that occur below it.

        ALPHA in [0, 1] is how much the colors cover; the background stays as it is in the photo.

        Raises:
            ValueError: ALPHA is outside.
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha {alpha}: the overlay's opacity lies in [0, 1]")
        strength = np.full(len(self.names), round(alpha * 256), np.uint16)
        strength[len(self.words) :] = 0
        tint = self.palette * strength[:, None]
        areas = sorted(self.areas().items(), key=lambda item: -item[1])
        colors = dict(zip(self.names, map(tuple, self.palette.tolist()), strict=True))
        height, width = self.labels.shape
        picture = _with_legend(
            (width, height), [(n, area, colors[n]) for n, area in areas if area > 0]
        )
        for rows in self._strips():  # a large photo at 16 bits would be large indeed
            labels = self.labels[rows]
            photo = self.image[rows] * (256 - strength)[labels][..., None]
            painted = ((photo + tint[labels]) >> 8).astype(np.uint8)
            with_row_below = self.labels[
                rows.start : rows.stop + 1
            ]  # its last row borders on the next strip
            painted[_borders(with_row_below)[: len(labels)]] = 255
            picture.paste(Image.fromarray(painted), (0, rows.start))
        return picture

    def _strips(self) -> Iterator[slice]:
        """Ranges of rows that together are the photo, each of about `_STRIP_PIXELS`."""
        height, width = self.labels.shape
        step = max(1, _STRIP_PIXELS // width)
        return (slice(top, min(top + step, height)) for top in range(0, height, step))

    def save(self, folder: str | Path, stem: str | None = None) -> tuple[Path, Path, Path]:
        """Write STEM.png (ids, with a palette), STEM.overlay.png and STEM.json: all of them or none.

        Args:
            folder: Where they go; made if need be.
            stem: By default the photo's name without its suffix.

        Returns:
            The three files.

        Raises:
            FileExistsError: One of them is there, and no run of maskfree wrote it.
            OSError: They cannot be written.
            ValueError: The photo's name is not UTF-8.
        """
        folder = Path(folder)
        stem = stem or Path(self.record["photo"]["name"]).stem
        index, overlay, sidecar = targets = tuple(
            folder / f"{stem}{suffix}" for suffix in RESULT_SUFFIXES
        )
        check_replaceable(*targets)
        if not _is_utf8(self.record["photo"]["name"], stem):
            raise ValueError(f"the name of {folder / stem}.* is not UTF-8: rename the photo")

        record = self.record | {"areas": self.areas()}
        with writing(folder / f"{stem}.*"), unfinished_folder(folder) as unfinished:
            self._index_image().save(unfinished / index.name, pnginfo=png_mark())
            self.overlay().save(unfinished / overlay.name, compress_level=1, pnginfo=png_mark())
            text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
            (unfinished / sidecar.name).write_text(text, encoding="utf-8")
            for target in targets:
                (unfinished / target.name).replace(target)
        return index, overlay, sidecar

    def _index_image(self) -> Image.Image:
        image = Image.fromarray(self.labels)
        if len(self.names) <= 256:  # a PNG palette holds no more
            image = Image.fromarray(self.labels.astype(np.uint8))
            image.putpalette(self.palette.tobytes())
        return image


def _is_utf8(*names: str) -> bool:
    """Whether no name has bytes that are no UTF-8, which Python holds as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for name in names for letter in name)


def _borders(labels: UInt[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose right or lower neighbour has another label."""
    borders = np.zeros(labels.shape, bool)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1] |= labels[:-1] != labels[1:]
    return borders


@cache
def _distinct_colors(count: int) -> UInt8[np.ndarray, "n 3"]:
    """Colors of which each is as far as can be from all before it, for the eye: greedy in OKLab, on a grid of RGB."""
    levels = np.linspace(0, 255, 15)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _oklab(grid / 255)
    vivid = (
        (np.hypot(lab[:, 1], lab[:, 2]) > 0.1) & (lab[:, 0] > 0.5) & (lab[:, 0] < 0.93)
    )  # neither gray nor black
    grid, lab = grid[vivid], lab[vivid]
    chosen = [int(np.abs(grid - _FIRST_COLOR).sum(1).argmin())]
    distance = np.full(len(lab), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return np.rint(grid[chosen[:count]]).astype(np.uint8)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """Source: Ottosson 2020, "A perceptual color space for image processing"."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_cones = [
        [0.41222147, 0.53633254, 0.05144599],
        [0.2119035, 0.6806995, 0.10739696],
        [0.0883025, 0.2817188, 0.6299787],
    ]
    to_lab = [
        [0.21045426, 0.79361778, -0.00407205],
        [1.9779985, -2.42859221, 0.45059371],
        [0.02590404, 0.78277177, -0.80867577],
    ]
    return np.cbrt(linear @ np.array(to_cones).T) @ np.array(to_lab).T


def _with_legend(
    photo: tuple[int, int], entries: Sequence[tuple[str, float, tuple[int, int, int]]]
) -> Image.Image:
    """Draw color, name and area of each entry below room for a PHOTO of so many pixels; the least are counted only."""
    size = int(np.clip(min(photo) / 24, 12, 96))
    lettering, widest = Lettering(size), max(photo[0], _LEGEND_LETTERS * size)
    shown = [
        (f"{lettering.shortened(name, widest)}  {_percent(area)}", color)
        for name, area, color in entries[:24]
    ]
    if len(entries) > len(shown):
        shown.append((f"and {len(entries) - len(shown)} more", (255, 255, 255)))
    gap, row = size // 2, size * 2
    widths = [size + gap + round(lettering.length(text)) + 2 * gap for text, _ in shown]
    width = max(photo[0], gap + max(widths))
    places, left, top = [], gap, gap // 2
    for item_width in widths:
        if left + item_width > width and left > gap:
            left, top = gap, top + row
        places.append((left, top))
        left += item_width
    canvas = Image.new("RGB", (width, photo[1] + top + row + gap // 2), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for (text, color), (left, top) in zip(shown, places, strict=True):
        middle = photo[1] + top + row // 2
        box = (left, middle - size // 2, left + size, middle + size - size // 2)
        draw.rounded_rectangle(box, radius=max(2, size // 5), fill=color)
        lettering.draw(draw, (left + size + gap, middle), text)
    return canvas


def _percent(fraction: float) -> str:
    return f"{fraction:.0%}" if fraction >= 0.01 else "<1%"
