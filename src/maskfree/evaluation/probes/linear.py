"""Linear probe: a linear classifier of frozen pixel embeddings, trained on masks.

Source: MaskContrast (arXiv:2102.06191), section 4.3; CLIP-S4 (CVPR 2023), Table 4.

Differs: Photos are embedded whole, and mirrored but not rotated or scaled; the classifier of the
last epoch is evaluated, not the best one on the test photos.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.data.benchmarks.catalog import AnnotatedPhoto
from maskfree.evaluation.probes.common import ProbeRow, count, opened, spread
from maskfree.evaluation.probes.config import (
    DECAY_AFTER,
    MOMENTUM,
    PIXELS_PER_PATCH,
    RATE_DECAY,
    WEIGHT_DECAY,
    LinearConfig,
)
from maskfree.files.leftovers import unfinished_folder, writing
from maskfree.inference.features import embed
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.ignore import IGNORE
from maskfree.progress import Watch, unwatched

# Floor of a channel's variance, as a share of the mean over channels:
# below it, rounding errors of the float16 cache dominate.
_LEAST_VARIANCE = 1e-4
# Avoids a division by zero if all embeddings are equal.
_TINY = 1e-12


def linear_probe(
    segmenter: Segmenter,
    train: Sequence[AnnotatedPhoto],
    test: Sequence[AnnotatedPhoto],
    classes: Sequence[str],
    config: LinearConfig,
    watch: Watch = unwatched,
) -> ProbeRow:
    """Train a linear classifier on masks, label test photos with it, and count pixels.

    Each training photo and its mirror image is embedded once; the embeddings are cached in a
    temporary folder.

    Args:
        segmenter: Segmenter whose embeddings are probed.
        train: Photos whose masks train the classifier.
        test: Photos to label.
        classes: Class names, in the order of the ids of the truth maps.
        config: Settings of the probe.
        watch: Wraps the photos to show progress.

    Returns:
        Counts over the test photos.

    Raises:
        ValueError: A setting is invalid, a photo cannot be read, or no training pixel is labeled.
        OSError: A photo or its truth map cannot be read.
    """
    config.check()

    with unfinished_folder(Path(tempfile.gettempdir())) as folder:
        # Features tell what photos look like: other users of the machine must not read them.
        folder.chmod(0o700)

        cache = _Cache(folder)
        for photo, truth in opened(train, watch):
            cache.add(segmenter, photo, truth)
        classifier = fit(cache, len(classes), config, segmenter.device)

    matrix, seconds = np.zeros((len(classes), len(classes)), np.int64), 0.0

    for photo, truth in opened(test, watch):
        start = time.perf_counter()
        predicted = label(classifier, _whole(segmenter, photo), photo.height, photo.width)
        seconds += time.perf_counter() - start
        matrix += count(truth, predicted, len(classes))

    return ProbeRow(tuple(classes), matrix, len(train), len(test), seconds)


class _View(NamedTuple):
    """Cached embeddings and truth of a photo or of its mirror image."""

    embeddings: Float16[np.ndarray, "d hp wp"]
    truth: UInt8[np.ndarray, "h w"]


class _Cache:
    """Embeddings of the training photos in a folder, with mean and variance of each channel."""

    def __init__(self, folder: Path):
        """Start an empty cache in a folder."""
        self._folder = folder
        self.num_photos = 0
        self.num_labeled = 0

        # Per channel: number of pixels, sum and sum of squares.
        self._moments: Float[Tensor, "3 d"] | None = None

    def add(
        self, segmenter: Segmenter, photo: Image.Image, truth: UInt8[np.ndarray, "h w"]
    ) -> None:
        """Embed a photo and its mirror image.

        Args:
            segmenter: Segmenter whose embeddings are probed.
            photo: RGB photo.
            truth: True class of each pixel, or IGNORE.
        """
        for mirrored, (view, labels) in enumerate(
            ((photo, truth), (ImageOps.mirror(photo), truth[:, ::-1].copy()))
        ):
            embeddings = _whole(segmenter, view)
            self._count(embeddings)

            # Reduce the truth to the size at which the loss is computed.
            _, rows, columns = embeddings.shape
            small = spread(
                torch.from_numpy(labels), rows * PIXELS_PER_PATCH, columns * PIXELS_PER_PATCH
            ).numpy()

            self.num_labeled += np.count_nonzero(small != IGNORE)

            arrays = _View(embeddings.cpu().numpy().astype(np.float16), small)
            path = self._path(self.num_photos, bool(mirrored))
            with writing(path):
                np.savez(path, **arrays._asdict())

        self.num_photos += 1

    def view(self, number: int, mirrored: bool) -> _View:
        """Read a cached photo.

        Args:
            number: Number of the photo, in the order of `add`.
            mirrored: Whether to read its mirror image.

        Returns:
            Embeddings and truth.
        """
        with np.load(self._path(number, mirrored)) as arrays:
            return _View(arrays["embeddings"], arrays["truth"])

    def statistics(self) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """Return mean and standard deviation of each channel over all pixels.

        Returns:
            Means and standard deviations; channels that hardly vary get a minimum deviation.
        """
        assert self._moments is not None, "no photo was added"
        pixels, sums, squares = self._moments
        mean = sums / pixels

        # Rounding may make the variance of a constant channel negative.
        variance = (squares / pixels - mean**2).clamp(min=0)

        return mean.float(), variance.clamp(min=_LEAST_VARIANCE * variance.mean()).add(
            _TINY
        ).sqrt().float()

    def _count(self, embeddings: Float[Tensor, "d hp wp"]) -> None:
        """Add the pixels of a photo to the moments of the channels."""
        # Double precision, since the sums run over millions of pixels.
        values = embeddings.double().flatten(1)
        found = torch.stack(
            [torch.full_like(values[:, 0], values.shape[1]), values.sum(1), values.square().sum(1)]
        )

        self._moments = found if self._moments is None else self._moments + found

    def _path(self, number: int, mirrored: bool) -> Path:
        """Path of a cached photo."""
        return self._folder / f"{number}{'-mirrored' if mirrored else ''}.npz"


def fit(cache: _Cache, num_classes: int, config: LinearConfig, device: torch.device) -> nn.Conv2d:
    """Train a linear pixel classifier by SGD.

    During training, channels are standardized over the training pixels; afterwards this is folded
    into the weights. Embeddings of one model share a large common part, which would slow down plain
    SGD.

    Args:
        cache: Embeddings and truth of the training photos.
        num_classes: Number of classes.
        config: Settings of the probe.
        device: Device to train on.

    Returns:
        The classifier, as a frozen 1x1 convolution of the embeddings.

    Raises:
        ValueError: No training pixel is labeled.
    """
    if not cache.num_labeled:
        raise ValueError(f"none of the {cache.num_photos} training photos has a labeled pixel")
    mean, deviation = (each.to(device) for each in cache.statistics())

    # Drawn on the CPU, so that the order is the same on every device.
    draw = torch.Generator().manual_seed(config.seed)

    # A convex problem: zeros are as good a start as any.
    classifier = nn.Conv2d(len(mean), num_classes, 1, device=device)
    nn.init.zeros_(classifier.weight)
    assert classifier.bias is not None
    nn.init.zeros_(classifier.bias)

    optimizer = torch.optim.SGD(
        classifier.parameters(),
        config.learning_rate,
        MOMENTUM,
        weight_decay=WEIGHT_DECAY,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, [max(1, round(DECAY_AFTER * config.epochs))], RATE_DECAY
    )

    for _ in range(config.epochs):
        order = torch.randperm(cache.num_photos, generator=draw)
        mirrored = torch.rand(cache.num_photos, generator=draw) < 0.5
        for numbers in order.split(config.photos_per_step):
            views = [cache.view(number, bool(mirrored[number])) for number in numbers.tolist()]

            # The loss is a mean over the labeled pixels of the whole batch.
            pixels = sum(int(np.count_nonzero(view.truth != IGNORE)) for view in views)

            # A batch without labels has no loss.
            if not pixels:
                continue
            optimizer.zero_grad()

            # One photo at a time, since photos differ in size; gradients add up.
            for view in views:
                values = torch.from_numpy(view.embeddings).to(device).float()
                values = (values - mean[:, None, None]) / deviation[:, None, None]
                (
                    _loss(classifier, values, torch.from_numpy(view.truth).to(device)) / pixels
                ).backward()

            optimizer.step()

        schedule.step()
    return _folded(classifier, mean, deviation)


@torch.inference_mode()
def label(
    classifier: nn.Conv2d, embeddings: Float[Tensor, "d hp wp"], height: int, width: int
) -> Tensor:
    """Label pixels by the highest score, with bilinearly resized scores.

    Args:
        classifier: Trained classifier.
        embeddings: Embeddings of the photo's patches.
        height: Height of the photo, in pixels.
        width: Width of the photo, in pixels.

    Returns:
        Class of each pixel (h w).
    """
    scores = F.interpolate(
        classifier(embeddings[None]), (height, width), mode="bilinear", align_corners=False
    )
    return scores[0].argmax(dim=0)


def _loss(
    classifier: nn.Conv2d, values: Float[Tensor, "d hp wp"], truth: Tensor
) -> Float[Tensor, ""]:
    """Cross-entropy summed over the labeled pixels."""
    scores = F.interpolate(
        classifier(values[None]), truth.shape, mode="bilinear", align_corners=False
    )
    return F.cross_entropy(scores, truth[None].long(), ignore_index=IGNORE, reduction="sum")


@torch.no_grad()
def _folded(
    classifier: nn.Conv2d, mean: Float[Tensor, " d"], deviation: Float[Tensor, " d"]
) -> nn.Conv2d:
    """Fold the standardization of channels into the weights and freeze them."""
    assert classifier.bias is not None

    # w @ (x - mean) / deviation + b equals (w / deviation) @ x + b'.
    classifier.weight /= deviation[:, None, None]
    classifier.bias -= classifier.weight[:, :, 0, 0] @ mean
    return classifier.requires_grad_(False)


def _whole(segmenter: Segmenter, photo: Image.Image) -> Float[Tensor, "d hp wp"]:
    """Embed a photo's patches, without the padding."""
    seen = embed(segmenter, photo)
    height, width = (max(1, round(length)) for length in seen.extent)
    return seen.at(height, width)
