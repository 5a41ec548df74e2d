"""Data types passed between layers: batches, losses, groups and segmentations.

Axes: b images, k classes, g groups, n patches, l tokens, d embedding, h w pixels (hp wp: patch
grid), v local views.
Images are RGB in [0, 1]; each encoder normalizes its input itself.
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
from maskfree.results.notebook import html_text, png_bytes, shortened
from maskfree.results.regions import Region, regions_of

# Name of the pixels that the background rule takes.
BACKGROUND = "background"
# Color of the first class; the others are chosen far from it.
_FIRST_COLOR = (255, 60, 60)
# Longest name in the legend, in units of the text size, unless the picture is wider.
_LEGEND_LETTERS = 40
# Overlays are painted in strips of about so many pixels.
_STRIP_PIXELS = 2**20


@dataclass(frozen=True)
class Tokens:
    """A padded batch of token ids."""

    ids: Int[Tensor, "b l"]
    """Token ids, with any value on padding."""
    mask: Bool[Tensor, "b l"]
    """True where a token is, False on padding."""

    def to(self, device: torch.device) -> Tokens:
        """Copy the tokens to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new object whose tensors are on the device.
        """
        return Tokens(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True)
class EntityTexts:
    """Training texts made from the entities of the captions of a batch."""

    questions: Tokens
    """Captions with their entities masked, one per photo."""
    answers: Tokens
    """Prompted sentences that name the masked entities, one per photo."""
    masked: Bool[Tensor, " b"]
    """Whether an entity of the caption was masked."""
    targets: Int[Tensor, "b l"]
    """Number of the entity that each token of the questions masks; -1 for none."""
    labels: Tokens | None = None
    """Prompted entities of each photo: t per photo, b * t texts in all."""
    labeled: Bool[Tensor, "b t"] | None = None
    """False where the photo has fewer entities and the label is arbitrary."""

    def to(self, device: torch.device) -> EntityTexts:
        """Copy the texts to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new object whose tensors are on the device.
        """
        return _moved(self, device)


@dataclass(frozen=True)
class Partners:
    """For each photo another photo that shares an entity with it."""

    images: Float[Tensor, "b 3 h w"]
    """Photo of the partner."""
    entities: Tokens
    """Prompted names of the shared entities, one per photo."""
    present: Bool[Tensor, " b"]
    """False where there is no partner and the row is arbitrary."""

    def to(self, device: torch.device) -> Partners:
        """Copy the partners to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new object whose tensors are on the device.
        """
        return _moved(self, device)


@dataclass(frozen=True)
class PairedViews:
    """Two views of each photo, with regions and teacher embeddings on a coarser grid."""

    images: Float[Tensor, "b 2 3 h w"]
    """The two views."""
    regions: UInt8[Tensor, "b 2 hg wg"]
    """Region of the photo at each cell, numbered alike in both views; 255 for none."""
    teacher: Float16[Tensor, "b 2 d hg wg"] | None = None
    """Unit-norm embeddings of a teacher model."""

    def to(self, device: torch.device) -> PairedViews:
        """Copy the views to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new object whose tensors are on the device.
        """
        return _moved(self, device)


@dataclass(frozen=True)
class Batch:
    """A training batch. Fields that the method's transform does not fill are None.

    Boxes are (left, top, right, bottom) of the view in the photo, as fractions in [0, 1], before
    the view was flipped; with the flip flags they undo a view's geometry.
    """

    images: Float[Tensor, "b 3 h w"]
    """Global view of each photo."""
    boxes: Float[Tensor, "b 4"]
    """Box of the global view in the photo."""
    flipped: Bool[Tensor, " b"]
    """Whether the global view was mirrored."""
    captions: Tokens | None = None
    """Caption of each photo."""
    local_views: Float[Tensor, "b v 3 hv wv"] | None = None
    """Low-resolution local crops."""
    local_boxes: Float[Tensor, "b v 4"] | None = None
    """Boxes of the local crops in the photo."""
    local_flipped: Bool[Tensor, "b v"] | None = None
    """Whether each local crop was mirrored."""
    augmented_view: Float[Tensor, "b 3 h w"] | None = None
    """The global view after color augmentation and perhaps mirroring."""
    augmented_flipped: Bool[Tensor, " b"] | None = None
    """Whether the augmented view is mirrored relative to the global view."""
    words: Tokens | None = None
    """Words of all photos of the batch together."""
    word_weights: Float[Tensor, "b k"] | None = None
    """Share of each word among a photo's words; rows sum to at most 1."""
    labels: UInt8[Tensor, "b h w"] | None = None
    """Class of each pixel of the global view; 255 is ignored."""
    entities: EntityTexts | None = None
    """Training texts made from the captions' entities."""
    partners: Partners | None = None
    """Photos that share an entity."""
    pairs: PairedViews | None = None
    """Two views with regions and teacher embeddings."""
    keys: tuple[str, ...] = ()
    """Key of each photo."""

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new object whose tensors are on the device.
        """
        return _moved(self, device)


Movable = TypeVar("Movable", EntityTexts, Partners, PairedViews, Batch)
_ON_DEVICES = (Tensor, Tokens, EntityTexts, Partners, PairedViews)


def _moved(record: Movable, device: torch.device) -> Movable:
    """Copy a record with all its tensors moved to a device."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return replace(
        record, **{k: v.to(device) if isinstance(v, _ON_DEVICES) else v for k, v in values.items()}
    )


@dataclass(frozen=True)
class Losses:
    """Weighted loss terms by name."""

    terms: dict[str, Float[Tensor, ""]]
    """Weighted terms, whose sum is minimized."""
    metrics: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Values for monitoring only, without gradient."""

    @property
    def total(self) -> Float[Tensor, ""]:
        """Sum of the weighted terms.

        Returns:
            The loss to minimize.
        """
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True)
class Groups:
    """Grouping of a photo's patches, and a unit-norm embedding of each group."""

    embeddings: Float[Tensor, "b g d"]
    """Unit-norm group embeddings; arbitrary but finite for a group without patches."""
    assignment: Float[Tensor, "b g hp wp"] | None
    """Assignment of each patch to the groups; None: each patch is its own group, row by row."""
    overall: Float[Tensor, "b d"]
    """Unit-norm embedding of the whole photo."""
    patches: tuple[int, int]
    """Rows and columns of the patch grid."""

    @classmethod
    def of_pixels(cls, pixels: Float[Tensor, "b d hp wp"]) -> Groups:
        """Make each patch a group of its own, and the photo their mean.

        Args:
            pixels: Patch embeddings of any norm.

        Returns:
            Groups without an assignment.
        """
        overall = functional.normalize(pixels.mean((2, 3)), dim=-1)
        patches = (pixels.shape[2], pixels.shape[3])
        return cls(functional.normalize(pixels.flatten(2).mT, dim=-1), None, overall, patches)

    def spread(self, values: Float[Tensor, "b g k"]) -> Float[Tensor, "b k hp wp"]:
        """Distribute values of groups to patches by the assignment.

        Args:
            values: One row of values per group.

        Returns:
            Values of each patch.
        """
        if self.assignment is None:
            return values.mT.unflatten(2, self.patches)
        return (self.assignment.flatten(2).mT @ values).mT.unflatten(2, self.patches)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Segmentation of a photo: a label and a score for every pixel.

    Example:
        for region in result:
            print(region.name, region.score, region.box, region.area)
        sky = result["sky"]
    """

    labels: UInt[np.ndarray, "h w"]
    """Class id of each pixel at the photo's size: index into `words`, or len(words) for background.
    """
    words: tuple[str, ...]
    """Name of each class."""
    scores: Float16[np.ndarray, "h w"]
    """Winning score of each pixel: a cosine in [-1, 1] unless the record's inference settings say
    otherwise."""
    image: UInt8[np.ndarray, "h w 3"]
    """The upright photo."""
    record: dict[str, Any]
    """How the result was made, as plain values; "words" are lists of synonyms, and "background" is
    None without a background rule."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each id that can occur.

        Returns:
            The words, followed by "background" if there is a background rule.
        """
        return (*self.words, BACKGROUND) if self.record["background"] else self.words

    @property
    def palette(self) -> UInt8[np.ndarray, "n 3"]:
        """RGB color of each id; the background is black.

        Returns:
            One color per name, in [0, 255].
        """
        colors = _distinct_colors(len(self.words))
        return np.concatenate([colors, np.zeros((len(self.names) - len(self.words), 3), np.uint8)])

    @property
    def masks(self) -> dict[str, Bool[np.ndarray, "h w"]]:
        """Masks of the names that occur.

        Returns:
            Mask by name, in the order of the ids.
        """
        return {region.name: region.mask for region in self}

    def __iter__(self) -> Iterator[Region]:
        """Iterate over the regions: one for each name that occurs, in the order of the ids."""
        return regions_of(self.labels, self.scores, self.names)

    def __getitem__(self, word: str) -> Bool[np.ndarray, "h w"]:
        """Return the mask of a class, as `mask` does."""
        return self.mask(word)

    def __repr__(self) -> str:
        """Return a single line without the arrays."""
        height, width = self.labels.shape
        return f"Segmentation({width}x{height}, words={shortened(self.words)})"

    def _repr_png_(self) -> bytes:
        """Overlay for notebooks."""
        return png_bytes(self.overlay())

    def _repr_html_(self) -> str:
        """Overlay and areas for notebooks."""
        return html_text(self._repr_png_(), self.areas())

    def mask(self, word: str) -> Bool[np.ndarray, "h w"]:
        """Return the mask of a class.

        Args:
            word: Any synonym of the class, or "background"; case does not matter.

        Returns:
            True where the class is.

        Raises:
            ValueError: The word is not among the result's words.
        """
        # Case and repeated spaces do not matter.
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
        """Return the fraction of the photo that each class covers.

        Returns:
            Fractions by name in the order of the ids; they sum to 1.
        """
        counts = np.zeros(len(self.names), np.int64)

        # By strips, since bincount converts each label to 8 bytes.
        for rows in self._strips():
            counts += np.bincount(self.labels[rows].ravel(), minlength=len(self.names))
        return {
            name: float(count / self.labels.size)
            for name, count in zip(self.names, counts, strict=True)
        }

    def overlay(self, alpha: float = 0.5) -> Image.Image:
        """Draw the label colors over the photo, with a legend of the classes below it.

        Args:
            alpha: Opacity of the colors, in [0, 1]; the background is not colored.

        Returns:
            The picture, as large as the photo plus the legend.

        Raises:
            ValueError: alpha is outside [0, 1].
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha {alpha}: the overlay's opacity lies in [0, 1]")

        # 8-bit fixed-point opacity per id; 0 for the background.
        strength = np.full(len(self.names), round(alpha * 256), np.uint16)
        strength[len(self.words) :] = 0
        tint = self.palette * strength[:, None]

        # The legend lists the classes that occur, the largest first.
        areas = sorted(self.areas().items(), key=lambda item: -item[1])
        colors = dict(zip(self.names, map(tuple, self.palette.tolist()), strict=True))
        height, width = self.labels.shape
        picture = _with_legend(
            (width, height), [(n, area, colors[n]) for n, area in areas if area > 0]
        )

        # By strips, to bound the memory of 16-bit intermediates.
        for rows in self._strips():
            labels = self.labels[rows]
            photo = self.image[rows] * (256 - strength)[labels][..., None]
            painted = ((photo + tint[labels]) >> 8).astype(np.uint8)
            # White outlines between classes; those of the last row depend on the next strip.
            with_row_below = self.labels[rows.start : rows.stop + 1]
            painted[_borders(with_row_below)[: len(labels)]] = 255
            picture.paste(Image.fromarray(painted), (0, rows.start))

        return picture

    def show(self) -> None:
        """Show the overlay in the system's image viewer, or in the notebook."""
        self.overlay().show()

    def _strips(self) -> Iterator[slice]:
        """Ranges of rows that cover the photo, each of about `_STRIP_PIXELS` pixels."""
        height, width = self.labels.shape
        step = max(1, _STRIP_PIXELS // width)
        return (slice(top, min(top + step, height)) for top in range(0, height, step))

    def save(self, folder: str | Path, stem: str | None = None) -> tuple[Path, Path, Path]:
        """Write the label image, the overlay and the record: all three files or none.

        Args:
            folder: Folder for STEM.png (ids, with a palette), STEM.overlay.png and STEM.json;
                created if missing.
            stem: Stem of the file names; by default the photo's name without its suffix.

        Returns:
            Paths of the three files.

        Raises:
            FileExistsError: One of them exists, and was not written by maskfree.
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

        # Files are written to a temporary folder and moved together.
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
        """Image of the ids, with a palette if they fit one."""
        image = Image.fromarray(self.labels)
        # A PNG palette has at most 256 colors.
        if len(self.names) <= 256:
            image = Image.fromarray(self.labels.astype(np.uint8))
            image.putpalette(self.palette.tobytes())
        return image


def _is_utf8(*names: str) -> bool:
    """Whether no name has bytes that are not UTF-8, which Python decodes as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for name in names for letter in name)


def _borders(labels: UInt[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose right or lower neighbor has another label."""
    borders = np.zeros(labels.shape, bool)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1] |= labels[:-1] != labels[1:]
    return borders


@cache
def _distinct_colors(count: int) -> UInt8[np.ndarray, "n 3"]:
    """Perceptually distinct colors: greedy farthest points in OKLab on an RGB grid."""
    levels = np.linspace(0, 255, 15)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _oklab(grid / 255)
    # Exclude colors that are nearly gray, dark or white.
    vivid = (np.hypot(lab[:, 1], lab[:, 2]) > 0.1) & (lab[:, 0] > 0.5) & (lab[:, 0] < 0.93)
    grid, lab = grid[vivid], lab[vivid]

    # Each next color is the farthest from all chosen ones.
    chosen = [int(np.abs(grid - _FIRST_COLOR).sum(1).argmin())]
    distance = np.full(len(lab), np.inf)

    for _ in range(count - 1):
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return np.rint(grid[chosen[:count]]).astype(np.uint8)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB in [0, 1] to OKLab (Ottosson 2020)."""
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
    """White canvas with a legend below the photo's area; only the largest entries are listed."""
    # Text size in pixels, in proportion to the photo.
    size = int(np.clip(min(photo) / 24, 12, 96))
    lettering, widest = Lettering(size), max(photo[0], _LEGEND_LETTERS * size)
    shown = [
        (f"{lettering.shortened(name, widest)}  {_percent(area)}", color)
        for name, area, color in entries[:24]
    ]
    if len(entries) > len(shown):
        shown.append((f"and {len(entries) - len(shown)} more", (255, 255, 255)))

    # Place the entries row by row, starting a new row where one is full.
    gap, row = size // 2, size * 2
    widths = [size + gap + round(lettering.length(text)) + 2 * gap for text, _ in shown]
    width = max(photo[0], gap + max(widths))

    places, left, top = [], gap, gap // 2
    for item_width in widths:
        if left + item_width > width and left > gap:
            left, top = gap, top + row
        places.append((left, top))
        left += item_width

    # Draw the color and the text of each entry.
    canvas = Image.new("RGB", (width, photo[1] + top + row + gap // 2), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)

    for (text, color), (left, top) in zip(shown, places, strict=True):
        middle = photo[1] + top + row // 2
        box = (left, middle - size // 2, left + size, middle + size - size // 2)
        draw.rounded_rectangle(box, radius=max(2, size // 5), fill=color)
        lettering.draw(draw, (left + size + gap, middle), text)
    return canvas


def _percent(fraction: float) -> str:
    """A fraction as a rounded percentage."""
    return f"{fraction:.0%}" if fraction >= 0.01 else "<1%"
