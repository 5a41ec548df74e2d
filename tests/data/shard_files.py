"""Small shards and photos for the tests of the data sources."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from maskfree.data.entities.preparation import Preparation
from maskfree.data.shards import find_shards
from maskfree.text.entities import EntitySet


def jpeg(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).save(encoded, "JPEG")
    return encoded.getvalue()


def write_tar(path: Path, entries: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def captioned(
    keys: Iterable[str], photos: Iterable[Image.Image], texts: Iterable[str]
) -> list[tuple[str, bytes]]:
    """Entries of photos that have a caption each."""
    entries = []
    for key, photo, text in zip(keys, photos, texts, strict=True):
        encoded = io.BytesIO()
        photo.save(encoded, "JPEG", quality=95)
        entries += [(f"{key}.jpg", encoded.getvalue()), (f"{key}.txt", text.encode())]
    return entries


def write_index(folder: Path, out: Path) -> None:
    """Index the shards in FOLDER by dogs, cats and buses."""
    finder = EntitySet((("dog", "dog"), ("cat", "cat"), ("bus", "bus")))
    work = Preparation(tuple(map(Path, find_shards([str(folder)]))), out, workers=1)
    work.start({}, resume=False)
    work.find(finder, lambda steps, name, number: steps)
    work.finish(finder, {})


def pairs(keys: Iterable[str]) -> list[tuple[str, bytes]]:
    """A photo and a caption that repeats the key, for each of KEYS."""
    return [
        entry
        for number, key in enumerate(keys)
        for entry in (
            (f"{key}.jpg", jpeg(number)),
            (f"{key}.json", json.dumps({"captions": [key, key * 2]}).encode()),
        )
    ]
