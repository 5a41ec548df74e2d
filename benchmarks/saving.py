"""Saving the result of a photo of 12 megapixels, against painting and packing all of its pixels."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import UInt8
from PIL import Image

import maskfree
from harness import RESULTS, Ratio, median_seconds, report
from maskfree.results.drawing import count_ids, draw_overlay
from maskfree.results.segmentation import Segmentation

WIDTH, HEIGHT = 4000, 3000
WORDS: tuple[str, ...] = ("building", "sky", "tree", "grass", "person", "water", "road")
ALPHA = 0.5


def main(
    model: str = "pocket",
    photo: Path = Path("examples/pagoda.jpg"),
    repeats: int = 7,
    results: Path = RESULTS,
) -> None:
    """Save a result, beside the way of 1.0: bincount, and an overlay of all pixels.

    Args:
        model: Name of a model or folder of a checkpoint.
        photo: Photo, enlarged to 4000x3000.
        repeats: Rounds of which the median counts.
        results: Folder for the results file.
    """
    torch.set_num_threads(1)
    large = Image.open(photo).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    result = maskfree.load(model).with_words(WORDS)(large)
    check_exact(result)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        seconds = median_seconds(
            {
                "save": lambda: result.save(out, "photo"),
                "save all pixels": lambda: save_plainly(result, out),
                "count ids": lambda: count_ids(result.labels, len(WORDS)),
                "count ids by bincount": lambda: counted_plainly(result.labels),
                "paint all pixels": result.overlay,
                "paint all pixels by indices": lambda: painted_plainly(result),
            },
            repeats,
            warm_up=1,
            clock=time.process_time,
        )

    ratios = [
        Ratio("save", seconds["save"], "at most 0.25", "s"),
        Ratio("save all pixels over save", seconds["save all pixels"] / seconds["save"]),
    ]
    settings = {
        "photo": f"{photo.name} at {WIDTH}x{HEIGHT}",
        "words": len(WORDS),
        "clock": "CPU seconds",
        "repeats": repeats,
        "equal": "counts and painted pixels",
    }
    report("saving", seconds, ratios, settings, results)


def check_exact(result: Segmentation) -> None:
    """Check that counts and painted pixels are those of the plain way."""
    assert np.array_equal(count_ids(result.labels, len(WORDS)), counted_plainly(result.labels))
    painted = np.asarray(result.overlay(ALPHA))[:HEIGHT, :WIDTH]
    assert np.array_equal(painted, painted_plainly(result))


def counted_plainly(labels: UInt8[np.ndarray, "h w"]) -> np.ndarray:
    """Count the pixels of each id by numpy."""
    return np.bincount(labels.ravel(), minlength=len(WORDS))


def painted_plainly(result: Segmentation) -> UInt8[np.ndarray, "h w 3"]:
    """Mix each pixel with its color at once, and draw the lines between classes."""
    strength = np.uint16(round(ALPHA * 256))
    tint = result.palette * strength
    painted = ((result.image * (256 - strength) + tint[result.labels]) >> 8).astype(np.uint8)

    labels, lines = result.labels, np.zeros(result.labels.shape, bool)
    lines[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    lines[:-1] |= labels[:-1] != labels[1:]
    painted[lines] = 255
    return painted


def save_plainly(result: Segmentation, out: Path) -> None:
    """Write the three files with an overlay of all pixels, packed as Pillow does by default."""
    index = Image.fromarray(result.labels)
    index.putpalette(result.palette.tobytes())
    index.save(out / "plain.png")

    fractions = counted_plainly(result.labels) / result.labels.size
    areas = dict(zip(WORDS, fractions.tolist(), strict=True))
    overlay = draw_overlay(
        result.image,
        result.labels,
        palette=result.palette,
        areas=areas,
        num_colored=len(WORDS),
        alpha=ALPHA,
    )
    overlay.save(out / "plain.overlay.png", compress_level=1)
    (out / "plain.json").write_text(json.dumps(result.record | {"areas": areas}))


if __name__ == "__main__":
    tyro.cli(main)
