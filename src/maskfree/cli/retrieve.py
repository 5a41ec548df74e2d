"""`maskfree retrieve`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import BAD_INPUT, complain, keep_freed_memory, note
from maskfree.progress import Progress

if TYPE_CHECKING:
    from maskfree.inference.search import RetrievalConfig, Retrieved
    from maskfree.inference.segmenter import Segmenter

FORMAT = 1
_MOST_NAME_BYTES = 200  # of the word in a file's name, which has 255 at most


@dataclass(frozen=True)
class Search:
    """Which segments are looked at, and how many are kept."""

    top: int = 16
    """Segments that are shown, the closest ones."""
    per_photo: int = 1
    """Segments of one photo that are shown at most; 0: any number."""
    segments: str = "kmeans"
    """kmeans: pixels grouped by embedding and place; or a folder of region PNGs, as `maskfree prepare segments` makes
    them."""
    num_segments: int = 36
    """For kmeans: segments of a photo."""
    least_area: float = 0.005
    """Share of the photo that a segment covers at least."""


@dataclass(frozen=True)
class Sight:
    """How the network sees photos."""

    side_px: int | None = None
    """Shorter side of the photo; None: the model's own."""
    templates: str = ""
    """Prompt set: plain, photo or ensemble; the model's own if empty."""
    device: str = "auto"
    """auto (cuda, mps or cpu, the first that is there), cpu, mps, cuda or cuda:N."""


def retrieve(
    word: Positional[str],
    photos: Positional[tuple[Path, ...]] = (),
    model: str = "pocket",
    out: Path = Path("maskfree-out"),
    search: Annotated[Search, OmitArgPrefixes] = Search(),
    sight: Annotated[Sight, OmitArgPrefixes] = Sight(),
    quiet: bool = False,
) -> int:
    """Find the segments of PHOTOS that look most like WORD: a ranked list, a contact sheet and a JSON file.

    Args:
        word: What to look for, which the model need not know; "/" separates synonyms (sofa/couch).
        photos: Photos and folders of photos, however many.
        model: Name of a model (see `maskfree models`) or folder of a checkpoint.
        out: Folder for WORD.retrieved.png and WORD.retrieved.json; made if need be.
        search: Which segments are looked at, and how many are kept.
        sight: How the network sees the photos.
        quiet: Do not show how far it has come.
    """
    # What is wrong in the arguments is said before a model is loaded.
    if not word.strip():
        raise ValueError("the word is empty: name what to look for")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"the output {out} is a file: --out is a folder")

    keep_freed_memory()
    from maskfree.hub import loading
    from maskfree.inference import search as searching

    synonyms = searching.parse_word(word)
    config = searching.RetrievalConfig(**asdict(search))
    found = searching.photos_of(photos)
    stem = _plan_stem(synonyms[0], found, out)
    loaded = loading.load(model, sight.device)
    segmenter = loaded.with_inference(loaded.inference.changed(side_px=sight.side_px))
    if sight.templates:
        segmenter = segmenter.with_words([word], "none", sight.templates)
    watch = Progress(quiet, synonyms[0])
    retrieved = searching.retrieve(segmenter, word, found, config, watch)
    for photo in retrieved.skipped:
        complain(photo.reason)
    _write(retrieved, synonyms, segmenter, config, out / stem)
    return BAD_INPUT if retrieved.skipped else 0


def _plan_stem(word: str, photos: Sequence[Path], out: Path) -> str:
    """A name for the results that is neither a photo's nor that of a file that no run of maskfree wrote."""
    from maskfree.files.leftovers import remove_leftovers
    from maskfree.files.outputs import Outputs

    remove_leftovers(out)
    name = re.sub(r"[^\w.-]+", "-", word).strip("-.") or "word"
    name = name.encode()[:_MOST_NAME_BYTES].decode(errors="ignore")
    wanted = f"{name}.retrieved"
    stem = Outputs(photos).add_stem(out, wanted, (".png", ".json"))
    if stem != wanted:
        note(f"the results are named {stem}.*, since {out / wanted}.* would overwrite other files")
    return stem


def _write(
    retrieved: Retrieved,
    synonyms: tuple[str, ...],
    segmenter: Segmenter,
    config: RetrievalConfig,
    place: Path,
) -> None:
    """Print the list, and write it beside the contact sheet: PLACE.png and PLACE.json."""
    from maskfree.files.atomic import replace_text
    from maskfree.inference.contact_sheet import draw_contact_sheet

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for rank, hit in enumerate(retrieved.hits, 1):
        box = " ".join(map(str, hit.box))
        console.print(f"{rank:3}  {hit.score:.3f}  {hit.area:6.1%}  {hit.photo}  box {box}")
    record: dict[str, Any] = {
        "format": FORMAT,
        "word": list(synonyms),
        "model": {"name": segmenter.name, "weights_sha256": segmenter.weights_hash},
        "templates": list(segmenter.templates),
        "side_px": segmenter.inference.side_px,
        "search": asdict(config),
        "photos": retrieved.num_photos,
        "skipped": [asdict(photo) for photo in retrieved.skipped],
        "hits": [hit.record() for hit in retrieved.hits],
    }
    path = place.with_name(f"{place.name}.json")
    replace_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    sheet = place.with_name(f"{place.name}.png")
    pictures = [draw_contact_sheet(retrieved.hits, sheet)] if retrieved.hits else []
    console.print(
        f"{len(retrieved.hits)} segments of {retrieved.num_photos} photos -> {', '.join(map(str, [*pictures, path]))}"
    )
