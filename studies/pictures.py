"""Pictures of what a model groups: each group in a color of its own, and the group that fits an
entity best.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch.nn import functional as F

from maskfree.data.photo import PhotoLike, read_photo
from maskfree.inference.segmenter import Segmenter
from maskfree.results.segmentation import BACKGROUND, Segmentation
from maskfree.types import Groups


def groups_of(segmenter: Segmenter, photo: PhotoLike) -> Segmentation:
    """Return the group of each pixel, as labels with the groups' numbers for words; draw them with
    `overlay`.

    Raises:
        ValueError: the model has no groups but pixels, or the photo is damaged.
        OSError: the photo cannot be read.
    """
    image = read_photo(photo)
    groups, labels = _grouped(segmenter, image)
    return _labeled(
        labels, tuple(f"group {i + 1}" for i in range(groups.embeddings.shape[1])), image, None
    )


def entity_in(segmenter: Segmenter, photo: PhotoLike, entity: str) -> Segmentation:
    """Return the pixels of the group whose embedding is closest to ENTITY's; the rest is
    background.

    Raises:
        ValueError, OSError: as for `groups_of`.
    """
    image = read_photo(photo)
    groups, labels = _grouped(segmenter, image)
    embeddings = segmenter.with_words([entity], "none").embeddings
    assert embeddings is not None
    occurring = torch.from_numpy(
        np.unique(labels)
    ).long()  # a group without pixels has any embedding
    best = occurring[
        (groups.embeddings[0, occurring] @ embeddings[0].to(groups.embeddings)).argmax()
    ].item()
    return _labeled(
        (labels != best).astype(np.uint8),
        (entity,),
        image,
        f"pixels of other groups than {entity}'s",
    )


@torch.inference_mode()
def _grouped(segmenter: Segmenter, image: Image.Image) -> tuple[Groups, UInt8[np.ndarray, "h w"]]:
    """The groups of a photo that is seen whole, and each pixel's."""
    unit, device = segmenter.method.patch_size, segmenter.device
    height, width = (
        max(1, round(side / unit)) * unit for side in segmenter.inference.resized(*image.size[::-1])
    )
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0))
    groups = segmenter.grouped_method.group(
        torch.tensor(small, device=device).movedim(-1, 0)[None] / 255
    )
    if groups.assignment is None:
        raise ValueError(f"the model {segmenter.name!r} groups no pixels: each stands for itself")
    large = F.interpolate(
        groups.assignment.float(), image.size[::-1], mode="bilinear", align_corners=False
    )
    return groups, large[0].argmax(0).cpu().numpy().astype(np.uint8)


def _labeled(
    labels: UInt8[np.ndarray, "h w"],
    words: tuple[str, ...],
    image: Image.Image,
    background: str | None,
) -> Segmentation:
    assert BACKGROUND not in words
    record = {"words": [[word] for word in words], "background": background}
    return Segmentation(labels, words, np.ones(labels.shape, np.float16), np.asarray(image), record)
