"""Draw captioned photos of colored shapes as shards with a tokenizer, to try out a recipe."""

from __future__ import annotations

import io
import json
import string
import tarfile
from pathlib import Path

import numpy as np
import tokenizers
from PIL import Image, ImageDraw
from tokenizers import models, normalizers, pre_tokenizers, processors

from maskfree.data.entities.preparation import Finder, Preparation
from maskfree.files.leftovers import remove_leftovers, unfinished_folder, writing
from maskfree.progress import unwatched

COLORS = {
    "red": (214, 40, 40),
    "green": (44, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 210, 50),
    "purple": (150, 60, 190),
    "white": (240, 240, 240),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle")
INDEX = "index"
_SIZE = (144, 112)
_SHARDS = 4
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write(folder: Path, photos: int, seed: int = 0, finder: Finder | None = None) -> None:
    """Draw captioned photos into `shapes-*.tar` shards with a `tokenizer.json`.

    Args:
        folder: Folder to create; if it exists, nothing is done.
        photos: Number of photos.
        seed: Seed of the drawing.
        finder: Finder of the entity list "shapes"; if given, the subfolder `INDEX` gets the entity
            index of the shards.
    """
    if folder.exists():
        return
    rng = np.random.default_rng(seed)
    remove_leftovers(folder.parent)
    with writing(folder), unfinished_folder(folder.parent) as unfinished:
        _write(unfinished, photos, rng, finder)
        unfinished.rename(folder)


def _write(folder: Path, photos: int, rng: np.random.Generator, finder: Finder | None) -> None:
    """Write the shards, the tokenizer and the index."""
    texts: list[str] = ["a photo of a"]
    for shard in range(min(_SHARDS, photos)):
        with tarfile.open(folder / f"shapes-{shard:03d}.tar", "w") as tar:
            # Photos are dealt out to the shards in turn.
            for number in range(shard, photos, _SHARDS):
                photo, captions = draw(rng)
                texts.extend(captions)
                encoded = io.BytesIO()
                photo.save(encoded, "JPEG", quality=92)
                _add(tar, f"shape{number:05d}.jpg", encoded.getvalue())
                _add(tar, f"shape{number:05d}.json", json.dumps({"captions": captions}).encode())

    _tokenizer(texts).save(str(folder / "tokenizer.json"))
    if finder is not None:
        _index(folder, finder)


def draw(rng: np.random.Generator) -> tuple[Image.Image, list[str]]:
    """Draw one or two shapes on a plain background.

    Args:
        rng: Source of randomness.

    Returns:
        The photo and two captions that describe it.
    """
    ground, *colors = rng.permutation(list(COLORS))[: rng.integers(2, 4)].tolist()
    noise = rng.normal(0, 6, (_SIZE[1], _SIZE[0], 3))
    photo = Image.new("RGB", _SIZE, COLORS[ground])
    canvas = ImageDraw.Draw(photo)

    names = []
    for place, color in enumerate(colors):
        kind = SHAPES[rng.integers(len(SHAPES))]
        radius = rng.uniform(18, 32)
        # Shapes stand side by side, each in a column of its own.
        column = _SIZE[0] * (2 * place + 1) / (2 * len(colors)) + rng.uniform(-4, 4)
        row = rng.uniform(radius, _SIZE[1] - radius)
        bounds = (column - radius, row - radius, column + radius, row + radius)

        if kind == "circle":
            canvas.ellipse(bounds, fill=COLORS[color])
        elif kind == "square":
            canvas.rectangle(bounds, fill=COLORS[color])
        else:
            canvas.polygon(
                [(column, bounds[1]), (bounds[0], bounds[3]), (bounds[2], bounds[3])],
                fill=COLORS[color],
            )

        names.append(f"a {color} {kind}")

    grainy = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
    captions = [
        f"{' and '.join(names)} on {ground}",
        f"{' beside '.join(names)} in front of a {ground} wall",
    ]
    return Image.fromarray(grainy), captions


def _index(folder: Path, finder: Finder) -> None:
    """Build the entity index of the shards."""
    work = Preparation(tuple(sorted(folder.glob("*.tar"))), folder / INDEX, workers=1)
    work.start({}, resume=False)
    work.find(finder, unwatched)
    work.finish(finder, {})


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to a tar archive."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _tokenizer(texts: list[str]) -> tokenizers.Tokenizer:
    """Build a WordPiece tokenizer as BERT's that knows the words of some texts and all letters."""
    # Built by hand: the library's trainer breaks ties differently in each run.
    letters = list(string.ascii_lowercase)
    words = sorted(set(" ".join(texts).split()) - set(letters))
    # Single letters and their continuations spell out unknown words.
    entries = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {entry: number for number, entry in enumerate(entries)}

    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    # Else "[MASK]" in a text is split into letters.
    tokenizer.add_special_tokens(list(_SPECIAL))

    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return tokenizer
