"""The data loader on one core, with all that ViL-Seg makes of a photo, against decoding the same
photos.
"""

from __future__ import annotations

import io
import itertools
import tempfile
import time
from pathlib import Path

import torch
import tyro
from PIL import Image

from harness import RESULTS, Ratio, median_seconds, report
from maskfree.cli.common import keep_freed_memory
from maskfree.data import shapes
from maskfree.data.config import DataConfig
from maskfree.data.loader import Stream, build_loader
from maskfree.data.order import Share
from maskfree.data.shards import find_shards, read_shards
from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Batch


def main(
    shards: tuple[str, ...] = ("../shared/data/flickr8k/train-000.tar",),
    batch_size: int = 50,
    repeats: int = 15,
    results: Path = RESULTS,
) -> None:
    """Take the CPU seconds of one pass over the photos: read, decode, augment and collate, against
    Pillow's decoding alone.

    What the device does afterwards, floats and colors, is measured on this CPU and listed apart.

    Args:
        shards: What to read, as for `maskfree train --data.shards`.
        batch_size: Photos in a batch; their number divides by it best.
        repeats: Passes of each.
        results: Folder for the results file.
    """
    torch.set_num_threads(1)
    keep_freed_memory()  # as `maskfree train` does
    photos = [
        example.photo
        for example in read_shards(find_shards(shards))
        if isinstance(example.photo, bytes)
    ]
    num_batches = len(photos) // batch_size
    with tempfile.TemporaryDirectory() as folder:
        shapes.write(Path(folder) / "shapes", 1)  # for its tokenizer: the paper's needs the network
        tokenizer = Tokenizer.from_source(str(Path(folder) / "shapes"))
    transform = ViLSegConfig().build_transform(tokenizer)
    data = DataConfig(shards=shards, workers=0)

    batches: list[Batch] = []
    unpacked: list[Batch] = []

    def load() -> None:
        stream = Stream(data, transform, batch_size, 0, Share(0, 1))
        for loaded in itertools.islice(build_loader(stream, workers=0), num_batches):
            batches[:] = [loaded.batch]

    def unpack() -> None:
        for _ in range(num_batches):
            unpacked[:] = [batches[0].to(torch.device("cpu"))]

    def decode() -> None:
        for photo in photos[: num_batches * batch_size]:
            Image.open(io.BytesIO(photo)).load()

    clock = time.process_time
    candidates = {"loader": load, "plain decoding": decode}
    seconds = median_seconds(candidates, repeats, warm_up=1, clock=clock)
    # Apart, as a data worker does not do it.
    seconds |= median_seconds({"floats and colors": unpack}, repeats, warm_up=1, clock=clock)
    number = num_batches * batch_size
    speeds = [
        {"candidate": name, "photos_per_second": round(number / taken, 1)}
        for name, taken in seconds.items()
    ]
    ratio = Ratio(
        "loader's photos a second over plain decoding's",
        seconds["plain decoding"] / seconds["loader"],
        "at least 0.15",
    )
    per_photo = {f"{name}, a photo": taken / number for name, taken in seconds.items()}
    settings = {
        "shards": shards,
        "photos": number,
        "batch_size": batch_size,
        "side_px": 224,
        "local_views": 6,
    }
    report("loader", per_photo, [ratio], settings, results, speeds)


if __name__ == "__main__":
    tyro.cli(main)
