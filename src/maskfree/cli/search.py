"""The `maskfree search` command: text-to-segment retrieval in photos."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import BAD_INPUT, Execution, Network, complain, keep_freed_memory, note
from maskfree.inference.search_config import RetrievalConfig
from maskfree.progress import Progress

if TYPE_CHECKING:
    from maskfree.inference.search import Retrieved
    from maskfree.inference.segmenter import Segmenter

FORMAT = 1
"""Version of the format of the JSON file."""

# Longest part of a file name that comes from the word; most file systems allow 255 bytes in all.
_MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class SearchNetwork(Network, Execution):
    """Input resolution, device and runtime of the network."""


def search(
    word: Positional[str],
    photos: Positional[tuple[Path, ...]] = (),
    model: str = "pocket",
    out: Path = Path("maskfree-out"),
    templates: str = "",
    settings: Annotated[RetrievalConfig, OmitArgPrefixes] = RetrievalConfig(),  # noqa: B008 - frozen
    network: Annotated[SearchNetwork, OmitArgPrefixes] = SearchNetwork(),
    quiet: bool = False,
) -> int:
    """Retrieve the segments of photos that are most similar to a word.

    The results are a ranked list, a contact sheet (an image of all results) and a JSON file.

    Args:
        word: The query, which need not be one of the model's words; "/" separates synonyms
            (sofa/couch), and commas several queries, each with its own results.
        photos: Photos and folders of photos, any number.
        model: Name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        out: Output folder for WORD.search.png and WORD.search.json; created if it does not
            exist.
        templates: Prompt templates: plain, photo or ensemble; the model's own if empty.
        settings: Settings of the search.
        network: Input resolution, device and runtime of the network.
        quiet: Do not show progress.

    Returns:
        Exit status: 0, or 2 if a photo was skipped.
    """
    # Check the arguments before loading the model.
    if not word.strip():
        raise ValueError("the word is empty: name what to look for")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"the output {out} is a file: --out is a folder")

    chosen = network.chosen_runtime()

    keep_freed_memory()
    network.apply()
    from maskfree.hub import loading
    from maskfree.inference import search as searching
    from maskfree.inference.class_embeddings import prompt_templates
    from maskfree.inference.search_words import parse_words

    # Names of the results are planned first, so that a clash is reported before the model loads.
    words = parse_words(word)
    found = searching.photos_of(photos)
    stems = _plan_stems([synonyms[0] for synonyms in words], found, out)

    loaded = loading.load(model, network.device)
    inference = loaded.inference.changed(side_px=network.side_px)
    segmenter = loaded.with_inference(inference).with_runtime(chosen)
    if templates:
        segmenter = replace(segmenter, templates=prompt_templates(templates))

    watch = Progress(quiet, ", ".join(synonyms[0] for synonyms in words))
    results = searching.retrieve_all(segmenter, words, found, settings, watch)
    for photo in results[0].skipped:
        complain(photo.reason)

    for synonyms, stem, retrieved in zip(words, stems, results, strict=True):
        _write(retrieved, synonyms, segmenter, settings, out / stem)
    return BAD_INPUT if results[0].skipped else 0


def _plan_stems(words: Sequence[str], photos: Sequence[Path], out: Path) -> list[str]:
    """File stems of the results with which no photo and no file of others is overwritten."""
    from maskfree.files.leftovers import remove_leftovers
    from maskfree.files.outputs import Outputs

    remove_leftovers(out)

    outputs, stems = Outputs(photos), []
    for word in words:
        # Keep letters, digits, "_", "." and "-"; a cut within a character of UTF-8 drops the
        # character.
        name = re.sub(r"[^\w.-]+", "-", word).strip("-.") or "word"
        name = name.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")

        wanted = f"{name}.search"
        stem = outputs.add_stem(out, wanted, (".png", ".json"))
        if stem != wanted:
            note(
                f"the results are named {stem}.*, since {out / wanted}.* would overwrite other "
                "files"
            )
        stems.append(stem)
    return stems


def _write(
    retrieved: Retrieved,
    synonyms: tuple[str, ...],
    segmenter: Segmenter,
    config: RetrievalConfig,
    place: Path,
) -> None:
    """Print the ranked list; write it as JSON, and the contact sheet as PNG."""
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

    # Without hits there is nothing to draw.
    written = [path]
    if retrieved.hits:
        sheet = place.with_name(f"{place.name}.png")
        written.insert(0, draw_contact_sheet(retrieved.hits, sheet))

    found = f"{len(retrieved.hits)} segments of {retrieved.num_photos} photos"
    console.print(f"{found} -> {', '.join(map(str, written))}")
