"""Self-training: a DeepLab-type student learns the confident labels of a zero-shot teacher (ViL-Seg + ST).

The student answers in its teacher's text space, as MaskCLIP+ does (arXiv:2112.01071, section 3.3): its classes are the
teacher's embeddings of their names, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskfree.data.sample import Source, Transform
from maskfree.data.transforms import color_jitter
from maskfree.losses.pseudo_labels import IGNORE, best_of_synonyms, pixel_cross_entropy
from maskfree.method import Method
from maskfree.methods.student.config import StudentViews
from maskfree.nn.dual_encoder import ImageProjector, TextProjector
from maskfree.types import Batch, Groups, Losses, Tokens

_GREY = (128, 128, 128)


class Student(Method):
    """An image encoder with DeepLab's head, and the teacher's text side, which does not learn."""

    def __init__(
        self,
        *,
        image: ImageProjector,
        text: TextProjector,
        synonyms: Sequence[int],
        dim: int,
        scale: float,
    ):
        super().__init__()
        self.image = image
        self.text = text.requires_grad_(False)
        self.phrases: Tensor | None
        phrases = F.normalize(torch.randn(sum(synonyms), dim), dim=-1) if synonyms else None
        self.register_buffer(
            "phrases", phrases
        )  # the classes' names, from the checkpoint it starts from
        self._synonyms, self._scale = tuple(synonyms), scale

    def forward(self, batch: Batch) -> Losses:
        """Return the term `labels`: the cross-entropy of each labeled pixel's class.

        Raises:
            ValueError: the student was made without classes.
        """
        if self.phrases is None:
            raise ValueError(
                "a student without classes cannot be trained: name them in method.words"
            )
        assert batch.labels is not None, "the student learns from labels"
        pixels = F.normalize(self.image(batch.images).float(), dim=1)
        cosines = torch.einsum("bdhw,pd->bphw", pixels, self.phrases)
        logits = self._scale * best_of_synonyms(cosines, self._synonyms)
        loss = pixel_cross_entropy(logits, batch.labels)
        with torch.no_grad():
            small = F.interpolate(batch.labels[:, None].float(), logits.shape[2:], mode="nearest")[
                :, 0
            ]
            counts = small != IGNORE
            right = (logits.argmax(1) == small) & counts
            metrics = {
                "labeled": counts.float().mean(),
                "agreement": right.sum() / counts.sum().clamp_min(1),
            }
        return Losses({"labels": loss}, metrics)

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts as the teacher does; unit norm."""
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Make each patch a group of its own."""
        return Groups.of_pixels(self.image(images))

    @property
    def logit_scale(self) -> float:
        """The fixed inverse temperature of the cross-entropy."""
        return self._scale

    @property
    def patch_size(self) -> int:
        """Pixels a patch spans on each side."""
        return self.image.encoder.patch_size


class StudentSample(NamedTuple):
    """One photo's view with its labels."""

    key: str
    image: Tensor
    labels: Tensor
    box: Tensor
    flipped: bool


@dataclass(frozen=True)
class StudentTransform(Transform):
    """Zoom, cut, mirror and recolor a photo, and its label map alike."""

    labels: Path
    thresholds: tuple[int, ...]
    views: StudentViews

    @property
    def reads_maps(self) -> bool:
        """Labels are a file of each photo."""
        return True

    def sample(self, source: Source, seed: int) -> StudentSample:
        """Augment one photo; all randomness comes from SEED.

        Raises:
            FileNotFoundError: it has no label map.
            ValueError: the map holds a class that has no threshold.
        """
        rng = np.random.default_rng(seed)
        views = self.views
        window = _CropWindow.draw(rng, source.photo.size, views)
        labels = confident(self.labels / f"{Path(source.key).stem}.png", self.thresholds)
        image = window.cut(source.photo, Image.Resampling.BILINEAR, _GREY)
        labels = np.asarray(window.cut(Image.fromarray(labels), Image.Resampling.NEAREST, IGNORE))
        pixels = torch.from_numpy(np.array(image).transpose(2, 0, 1)).float().div_(255)
        flipped = bool(rng.random() < views.mirror)
        if flipped:
            pixels, labels = pixels.flip(-1), labels[:, ::-1]
        return StudentSample(
            key=source.key,
            image=color_jitter(pixels.contiguous(), rng, *views.jitter),
            labels=torch.from_numpy(labels.copy()),
            box=torch.tensor(window.box),
            flipped=flipped,
        )

    def collate(self, samples: Sequence[StudentSample]) -> Batch:
        """Stack samples into a batch."""
        return Batch(
            images=torch.stack([sample.image for sample in samples]),
            boxes=torch.stack([sample.box for sample in samples]),
            flipped=torch.tensor([sample.flipped for sample in samples]),
            labels=torch.stack([sample.labels for sample in samples]),
            keys=tuple(sample.key for sample in samples),
        )


def confident(path: Path, thresholds: Sequence[int]) -> UInt8[np.ndarray, "h w"]:
    """Read a map of labels with their confidence, and ignore those below their class's threshold.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no such map, or holds a class that has no threshold.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: every photo needs its label map")
    with Image.open(path) as png:
        if png.mode != "LA":
            raise ValueError(
                f"{path} has mode {png.mode}: a label map has two channels, class and confidence"
            )
        labels, sure = np.moveaxis(np.array(png), -1, 0)
    if (highest := labels.max()) >= len(thresholds):
        raise ValueError(f"{path} holds class {highest}: there are {len(thresholds)}")
    return np.where(sure >= np.array(thresholds)[labels], labels, IGNORE).astype(np.uint8)


class _CropWindow(NamedTuple):
    """The part of a photo that a crop shows, and where it lies in the crop; the rest is padding."""

    box: tuple[float, float, float, float]  # left, top, right, bottom as fractions of the photo
    place: tuple[int, int, int, int]  # left, top, right, bottom in pixels of the crop
    crop_px: int

    @classmethod
    def draw(
        cls, rng: np.random.Generator, size: tuple[int, int], views: StudentViews
    ) -> _CropWindow:
        """Draw a zoom, log-uniform, and a place."""
        zoom = np.exp(rng.uniform(*np.log(views.zoom))) * views.side_px / min(size)
        (left, right, x, to_x), (top, bottom, y, to_y) = (
            _overlap(rng, max(1, round(side * zoom)), views.crop_px) for side in size
        )
        return cls((left, top, right, bottom), (x, y, to_x, to_y), views.crop_px)

    def cut(self, picture: Image.Image, filter: Image.Resampling, padding: Any) -> Image.Image:
        """Show the window of a picture, which may be of any size, on a square of PADDING."""
        (width, height), (left, top, right, bottom) = picture.size, self.place
        bounds = (
            self.box[0] * width,
            self.box[1] * height,
            self.box[2] * width,
            self.box[3] * height,
        )
        seen = picture.resize((right - left, bottom - top), filter, box=bounds, reducing_gap=2.0)
        if seen.size == (self.crop_px, self.crop_px):
            return seen
        whole = Image.new(picture.mode, (self.crop_px, self.crop_px), padding)
        whole.paste(seen, (left, top))
        return whole


def _overlap(rng: np.random.Generator, side_px: int, crop_px: int) -> tuple[float, float, int, int]:
    """Place a crop along one side: what it shows, as fractions of the side, and where that lies in the crop."""
    start = int(rng.integers(min(0, side_px - crop_px), max(0, side_px - crop_px) + 1))
    first, last = max(0, start), min(side_px, start + crop_px)
    return first / side_px, last / side_px, first - start, last - start
