"""Small CamVid trees whose photos are painted so that `colors.Colors` tells the pixels apart, but
not their names.
"""

from pathlib import Path

import numpy as np
import torch
from colors import Colors
from PIL import Image

from maskfree.inference.config import Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.types import Tokens

HEIGHT, WIDTH = 32, 48
NUM_CLASSES, VOID = 11, 11
STEP = 20  # red value per color


def tokenize(texts):
    """No text means anything: probes know no words."""
    return Tokens(
        torch.zeros(len(texts), 1, dtype=torch.long), torch.ones(len(texts), 1, dtype=torch.bool)
    )


def color_segmenter():
    method = Colors(NUM_CLASSES + 1, STEP).eval()
    return Segmenter(
        method, tokenize, name="colors", weights_hash="0" * 64, inference=Inference(side_px=HEIGHT)
    )


def write_photo(root: Path, part: str, name: str, colors: np.ndarray, labels: np.ndarray) -> None:
    """Write a photo in COLORS whose pixels have the classes LABELS."""
    for folder in ("images", "labels"):
        (root / part / folder).mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*colors.shape, 3), np.uint8)
    pixels[..., 0] = colors * STEP
    Image.fromarray(pixels).save(root / part / "images" / f"{name}.png")
    Image.fromarray(labels.astype(np.uint8)).save(root / part / "labels" / f"{name}.png")


def halves(left: int, right: int) -> np.ndarray:
    """LEFT on the left third, RIGHT on the rest."""
    values = np.full((HEIGHT, WIDTH), right)
    values[:, : WIDTH // 3] = left
    return values


def named(colors: np.ndarray) -> np.ndarray:
    """What the tree calls COLORS: another number, so that only masks can tell."""
    return (colors * 3 + 2) % NUM_CLASSES


def write_tree(root: Path) -> Path:
    """Three photos that teach colors 1 to 4, and two that are labeled.

    A part of the second one's labels is void.
    """
    for number, colors in enumerate((halves(1, 2), halves(3, 4), halves(2, 3))):
        write_photo(root, "train", f"t{number}", colors, named(colors))
    for number, colors in enumerate((halves(2, 1), halves(4, 3))):
        labels = named(colors)
        if number:
            labels[HEIGHT // 2 :, WIDTH // 3 :] = VOID
        write_photo(root, "val", f"v{number}", colors, labels)
    return root
