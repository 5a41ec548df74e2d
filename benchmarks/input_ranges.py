"""Write the ranges of the inputs of a model's layers into its run.json, for computing in 8 bits.

The photos are those of image-text pairs; neither their captions nor masks are used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
import tyro
from torch import Tensor

from harness import command_line
from maskfree.data.examples import decode
from maskfree.data.shards import find_shards, read_shards
from maskfree.files.atomic import replace_text
from maskfree.hub import loading
from maskfree.inference.photos import prepare_photo, to_images
from maskfree.inference.runtimes.eight_bits import input_ranges

# Of the ranges that are written; 8 bits tell apart three.
DIGITS = 5


def main(
    model: Path = Path("src/maskfree/pocket"),
    shards: tuple[str, ...] = ("../shared/data/flickr8k/train-{000..005}.tar",),
    photos: int = 200,
    side_px: int = 448,
) -> None:
    """Measure the ranges on photos.

    Args:
        model: Folder of the model.
        shards: Shards of image-text pairs.
        photos: Number of photos, as many of each shard.
        side_px: Shorter side to which photos are resized.
    """
    segmenter = loading.load(model, "cpu")
    inference = replace(segmenter.inference, side_px=side_px)
    found = find_shards(shards)

    def batches() -> Iterator[Tensor]:
        for shard in found:
            for example in islice(read_shards([shard]), -(-photos // len(found))):
                picture = decode(example, side_px)
                prepared = prepare_photo(picture, "", inference, segmenter.method.patch_size)
                yield to_images([prepared.padded], torch.device("cpu"))

    ranges = input_ranges(segmenter.method, islice(batches(), photos))
    place = model / "run.json"
    run = json.loads(place.read_text(encoding="utf-8"))
    run["input_ranges"] = {
        name: [float(f"{value:.{DIGITS}g}") for value in pair] for name, pair in ranges.items()
    }
    run["input_ranges_command"] = command_line()
    replace_text(place, json.dumps(run, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
