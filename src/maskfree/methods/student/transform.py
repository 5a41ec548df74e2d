"""Training crops of the student with their pseudo labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from maskfree.data.colors import color_jitter
from maskfree.data.packed import Packed, PackedViews
from maskfree.data.sample import Source, Transform
from maskfree.data.transforms import View
from maskfree.methods.student.batch import StudentBatch
from maskfree.methods.student.config import StudentViews
from maskfree.ops.ignore import IGNORE

# Fill color of padding.
_GRAY = (128, 128, 128)


class StudentSample(NamedTuple):
    """Training crop of one photo with its labels."""

    view: View
    labels: UInt8[Tensor, "h w"]
    """Class of each pixel; 255 is ignored."""


@dataclass(frozen=True)
class StudentTransform(Transform):
    """Zoom, crop, mirror and jitter a photo together with its label map."""

    labels: Path
    """Folder of label maps."""
    thresholds: tuple[int, ...]
    """Minimum confidence of a label, for each class, from 0 to 255."""
    views: StudentViews
    """Size and augmentation of the crops."""

    @property
    def reads_maps(self) -> bool:
        """Whether `sample` reads a file per photo.

        Returns:
            True: the label maps.
        """
        return True

    def sample(self, source: Source, seed: int) -> StudentSample:
        """Create the training crop of one photo.

        Args:
            source: Photo with its key, whose stem names the label map.
            seed: Seed of all random choices.

        Returns:
            The augmented sample.

        Raises:
            FileNotFoundError: The photo has no label map.
            ValueError: The label map contains a class without a threshold.
        """
        rng = np.random.default_rng(seed)
        views = self.views
        window = _CropWindow.draw(rng, source.photo.size, views)
        labels = confident(self.labels / f"{Path(source.key).stem}.png", self.thresholds)

        # The same crop of photo and labels; labels are not interpolated.
        image = window.cut(source.photo, Image.Resampling.BILINEAR, _GRAY)
        labels = np.asarray(window.cut(Image.fromarray(labels), Image.Resampling.NEAREST, IGNORE))
        pixels, labels = torch.from_numpy(np.array(image)), torch.from_numpy(labels.copy())
        flipped = bool(rng.random() < views.mirror)
        if flipped:
            pixels, labels = pixels.flip(1), labels.flip(1)

        view = View(pixels, window.box, flipped, color_jitter(rng, *views.jitter))
        return StudentSample(view, labels)

    def collate(self, samples: Sequence[StudentSample]) -> Packed[StudentBatch]:
        """Stack samples into a batch.

        Args:
            samples: Samples of this process's photos.

        Returns:
            The batch.
        """
        fields = {
            "images": PackedViews.of([sample.view for sample in samples]),
            "labels": torch.stack([sample.labels for sample in samples]),
        }
        return Packed(StudentBatch, fields)


def confident(path: Path, thresholds: Sequence[int]) -> UInt8[np.ndarray, "h w"]:
    """Read a label map and ignore labels below their class's threshold.

    Args:
        path: PNG file with two channels, class and confidence.
        thresholds: Minimum confidence of each class, from 0 to 255.

    Returns:
        Class of each pixel; `IGNORE` where the confidence is too low.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is no label map, or contains a class without a threshold.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: every photo needs its label map")

    with Image.open(path) as png:
        if png.mode != "LA":
            raise ValueError(
                f"{path} has mode {png.mode}: a label map has two channels, class and confidence"
            )
        labels, sure = np.moveaxis(np.array(png), -1, 0)

    # Thresholds are looked up by class below, so every class needs one.
    if (highest := labels.max()) >= len(thresholds):
        raise ValueError(f"{path} holds class {highest}: there are {len(thresholds)}")

    return np.where(sure >= np.array(thresholds)[labels], labels, IGNORE).astype(np.uint8)


class _CropWindow(NamedTuple):
    """Part of a photo that a crop shows, and its place in the crop; the rest is padding."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom as fractions of the photo."""
    place: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels of the crop."""
    crop_px: int
    """Side of the crop, in pixels."""

    @classmethod
    def draw(
        cls, rng: np.random.Generator, size: tuple[int, int], views: StudentViews
    ) -> _CropWindow:
        """Sample a log-uniform zoom and a position.

        Args:
            rng: Random number generator.
            size: Width and height of the photo, in pixels.
            views: Size and zoom range of the crops.

        Returns:
            The window.
        """
        # Log-uniform, so that halving and doubling the size are equally likely.
        zoom = np.exp(rng.uniform(*np.log(views.zoom))) * views.side_px / min(size)
        (left, right, x, to_x), (top, bottom, y, to_y) = (
            _overlap(rng, max(1, round(side * zoom)), views.crop_px) for side in size
        )
        return cls((left, top, right, bottom), (x, y, to_x, to_y), views.crop_px)

    def cut(self, picture: Image.Image, filter: Image.Resampling, padding: Any) -> Image.Image:
        """Cut the window out of a picture.

        Args:
            picture: Photo or label map, of any size.
            filter: Resampling filter.
            padding: Color or label of the padding.

        Returns:
            A square picture of side `crop_px`.
        """
        (width, height), (left, top, right, bottom) = picture.size, self.place

        bounds = (
            self.box[0] * width,
            self.box[1] * height,
            self.box[2] * width,
            self.box[3] * height,
        )

        # reducing_gap 2.0 reduces in two steps, which is faster at nearly the same quality.
        resized = picture.resize((right - left, bottom - top), filter, box=bounds, reducing_gap=2.0)
        if resized.size == (self.crop_px, self.crop_px):
            return resized

        # A photo smaller than the crop is padded.
        whole = Image.new(picture.mode, (self.crop_px, self.crop_px), padding)
        whole.paste(resized, (left, top))

        return whole


def _overlap(rng: np.random.Generator, side_px: int, crop_px: int) -> tuple[float, float, int, int]:
    """Visible range of one side as fractions of the photo, and its place in the crop in pixels."""
    # A negative start places a photo that is smaller than the crop.
    start = int(rng.integers(min(0, side_px - crop_px), max(0, side_px - crop_px) + 1))
    first, last = max(0, start), min(side_px, start + crop_px)
    return first / side_px, last / side_px, first - start, last - start
