"""Self-training: a DeepLab student learns from confident pseudo labels of a zero-shot teacher.

The student predicts in the teacher's text space: its classifier is the teacher's fixed embeddings
of the class names. This is the self-training of "ViL-Seg + ST".

Source: MaskCLIP+, section 3.3 (arXiv:2112.01071).
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
from maskfree.losses.pseudo_labels import pixel_cross_entropy
from maskfree.method import Method
from maskfree.methods.student.config import StudentViews
from maskfree.nn.dual_encoder import ImageProjector, TextProjector
from maskfree.ops.ignore import IGNORE
from maskfree.ops.label_map import best_of_synonyms
from maskfree.types import Batch, Groups, Losses, Tokens

# Fill color of padding.
_GRAY = (128, 128, 128)


class Student(Method):
    """Image encoder with a DeepLab head, and the teacher's frozen text encoder."""

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
        # Text embeddings of the class names; random until the initial checkpoint is loaded.
        self.register_buffer("phrases", phrases)
        self._synonyms, self._scale = tuple(synonyms), scale

    def forward(self, batch: Batch) -> Losses:
        """Compute the cross-entropy of the labeled pixels.

        Args:
            batch: Images with label maps.

        Returns:
            The term `labels`, with the labeled share and the agreement with the labels as metrics.

        Raises:
            ValueError: The student was built without classes.
        """
        if self.phrases is None:
            raise ValueError(
                "a student without classes cannot be trained: name them in method.words"
            )

        assert batch.labels is not None, "the student learns from labels"

        # A class scores as its best synonym.
        pixels = F.normalize(self.image(batch.images).float(), dim=1)
        cosines = torch.einsum("bdhw,pd->bphw", pixels, self.phrases)
        logits = self._scale * best_of_synonyms(cosines, self._synonyms)
        loss = pixel_cross_entropy(logits, batch.labels)

        # Metrics on the patch grid, which is cheaper than on pixels.
        with torch.no_grad():
            # Labels are ids, so the nearest one is taken.
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
        """Embed texts in the space of the image embeddings.

        Args:
            tokens: Tokenized texts with their padding mask.

        Returns:
            One unit-norm embedding per text.
        """
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Make each patch a group of its own.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.

        Returns:
            Groups with unit-norm embeddings, one per patch.
        """
        return Groups.of_pixels(self.image(images))

    @property
    def logit_scale(self) -> float:
        """Fixed inverse temperature of the cross-entropy.

        Returns:
            The factor that multiplies cosines before a softmax.
        """
        return self._scale

    @property
    def patch_size(self) -> int:
        """Side of one patch of the label map.

        Returns:
            Side in pixels.
        """
        return self.image.encoder.patch_size


class StudentSample(NamedTuple):
    """Training crop of one photo with its labels."""

    key: str
    image: Tensor
    labels: Tensor
    box: Tensor
    flipped: bool


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
        # Bytes (h w 3) to RGB in [0, 1] (3 h w).
        pixels = torch.from_numpy(np.array(image).transpose(2, 0, 1)).float().div_(255)

        flipped = bool(rng.random() < views.mirror)
        if flipped:
            pixels, labels = pixels.flip(-1), labels[:, ::-1]

        return StudentSample(
            key=source.key,
            image=color_jitter(pixels.contiguous(), rng, *views.jitter),
            # A mirrored array has negative strides, which torch does not accept.
            labels=torch.from_numpy(labels.copy()),
            box=torch.tensor(window.box),
            flipped=flipped,
        )

    def collate(self, samples: Sequence[StudentSample]) -> Batch:
        """Stack samples into a batch.

        Args:
            samples: Samples of this process's photos.

        Returns:
            The batch.
        """
        return Batch(
            images=torch.stack([sample.image for sample in samples]),
            boxes=torch.stack([sample.box for sample in samples]),
            flipped=torch.tensor([sample.flipped for sample in samples]),
            labels=torch.stack([sample.labels for sample in samples]),
            keys=tuple(sample.key for sample in samples),
        )


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
        seen = picture.resize((right - left, bottom - top), filter, box=bounds, reducing_gap=2.0)
        if seen.size == (self.crop_px, self.crop_px):
            return seen

        # A photo smaller than the crop is padded.
        whole = Image.new(picture.mode, (self.crop_px, self.crop_px), padding)
        whole.paste(seen, (left, top))

        return whole


def _overlap(rng: np.random.Generator, side_px: int, crop_px: int) -> tuple[float, float, int, int]:
    """Visible range of one side as fractions of the photo, and its place in the crop in pixels."""
    # A negative start places a photo that is smaller than the crop.
    start = int(rng.integers(min(0, side_px - crop_px), max(0, side_px - crop_px) + 1))
    first, last = max(0, start), min(side_px, start + crop_px)
    return first / side_px, last / side_px, first - start, last - start
