"""Retrieval of captions by photos and of photos by captions: recall at 1, 5 and 10.

Source: Hodosh et al. 2013 (doi:10.1613/jair.3994), the ranking task of Flickr8k; Karpathy and
Fei-Fei 2015 (arXiv:1412.2306), section 4.1, with several captions for each photo.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskfree.data.examples import Example, decode
from maskfree.data.shards import read_shards
from maskfree.evaluation.reporting.results import machine, versions, write_json
from maskfree.inference.class_embeddings import embed_phrases
from maskfree.inference.config import MAX_LONG_PX
from maskfree.inference.features import embed_photos
from maskfree.inference.segmenter import Segmenter
from maskfree.progress import Watch, unwatched

# Version of the file format of `write_retrieval`.
FORMAT = 1
# Captions are sentences, so that no prompt is put around them.
_TEMPLATE = "{}"
# Queries compared at once: bounds the memory, 100 MB for 25,000 candidates.
_CHUNK = 1024


@dataclass(frozen=True)
class RetrievalRow:
    """Recalls in [0, 1] of one direction of the retrieval."""

    query: str
    """What is given: "photo" or "caption"."""
    num_queries: int
    """Number of queries."""
    recall_1: float
    """Share of the queries whose best candidate is right."""
    recall_5: float
    """Share of the queries with a right one among the 5 best candidates."""
    recall_10: float
    """Share of the queries with a right one among the 10 best candidates."""


def read_pairs(shards: Sequence[str]) -> list[Example]:
    """Read photos with their captions, all into memory, still encoded.

    Args:
        shards: Paths and URLs, as `find_shards` returns them.

    Returns:
        Photos, each with at least one caption.

    Raises:
        ValueError: There is no photo, or one cannot be used: recall depends on the number of
            candidates, so that none is left out.
    """
    pairs = list(read_shards(shards))
    if not pairs:
        raise ValueError(f"{', '.join(shards)}: no photos with captions")

    # A broken shard has no key. It is named first, since its photos may be broken for it.
    unusable = sorted((pair for pair in pairs if pair.problem), key=lambda pair: bool(pair.key))
    if unusable:
        first = unusable[0]
        whose = f"{first.key} of {first.source}" if first.key else first.source
        raise ValueError(f"{whose}: {first.problem}")
    return pairs


def best_ranks_of_photos(
    photos: Float[Tensor, "b d"], captions: Float[Tensor, "k d"], owners: Int[Tensor, " k"]
) -> Int[Tensor, " b"]:
    """Count the captions of other photos that come before each photo's best own caption.

    Args:
        photos: Unit-norm embeddings of photos.
        captions: Unit-norm embeddings of captions.
        owners: Number of the photo that each caption describes; every photo has one.

    Returns:
        Rank from 0 of each photo's best own caption; a tie counts against it.
    """
    ranks = []
    for start in range(0, len(photos), _CHUNK):
        scores = photos[start : start + _CHUNK] @ captions.T
        numbers = torch.arange(start, start + len(scores), device=owners.device)
        own = owners == numbers[:, None]

        best = scores.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
        ranks.append(((scores >= best) & ~own).sum(1))
    return torch.cat(ranks)


def ranks_of_captions(
    photos: Float[Tensor, "b d"], captions: Float[Tensor, "k d"], owners: Int[Tensor, " k"]
) -> Int[Tensor, " k"]:
    """Count the photos that come before the one that each caption describes.

    Args:
        photos: Unit-norm embeddings of photos.
        captions: Unit-norm embeddings of captions.
        owners: Number of the photo that each caption describes.

    Returns:
        Rank from 0 of the right photo for each caption; a tie counts against it.
    """
    ranks = []
    for start in range(0, len(captions), _CHUNK):
        scores = captions[start : start + _CHUNK] @ photos.T
        right = scores.gather(1, owners[start : start + _CHUNK, None])

        # The right photo itself is one of those counted.
        ranks.append((scores >= right).sum(1) - 1)
    return torch.cat(ranks)


def retrieve_captions(
    segmenter: Segmenter, pairs: Sequence[Example], watch: Watch = unwatched
) -> list[RetrievalRow]:
    """Rank captions for each photo and photos for each caption, by the cosine of embeddings.

    A photo's embedding is that of `Method.embed_images`: in ViL-Seg the mean of its patches, in
    CLIPs what they were trained to compare. A photo finds its captions if one of them is among the
    best; every caption is a query of its own.

    Scores beside the cosines, as ViL-Seg's tag scores, take no part. They spread a tag's
    probability over the closest words, which suits words and not sentences: with the mean of
    `Method.segment` over the patches, the bundled model's photos found half as many captions.

    Args:
        segmenter: Model and input resolution; it needs no words.
        pairs: Photos with their captions, as `read_pairs` returns them.
        watch: Wraps the photos to show progress.

    Returns:
        Recalls of the photos, then those of the captions.

    Raises:
        ValueError: A photo cannot be read, or the model gives embeddings that are not finite.
    """
    texts, owners = [], []
    for number, pair in enumerate(pairs):
        texts += pair.captions
        owners += [number] * len(pair.captions)

    photos = embed_photos(segmenter, (_photo(pair) for pair in watch(pairs)))
    captions, _ = embed_phrases(segmenter.method, segmenter.tokenizer, (_TEMPLATE,), texts)
    captions = captions.float()

    if not (photos.isfinite().all() and captions.isfinite().all()):
        raise ValueError(
            f"the model {segmenter.name} gave embeddings that are not numbers: "
            "its weights are unusable"
        )

    owner_ids = torch.tensor(owners, device=photos.device)
    return [
        _row("photo", best_ranks_of_photos(photos, captions, owner_ids)),
        _row("caption", ranks_of_captions(photos, captions, owner_ids)),
    ]


def write_retrieval(
    rows: Sequence[RetrievalRow],
    segmenter: Segmenter,
    pairs: Sequence[Example],
    command: str,
    folder: Path,
) -> Path:
    """Write recalls and what they depend on to retrieval-MODEL.json, replacing an older file.

    Args:
        rows: Recalls of both directions.
        segmenter: Segmenter that was measured.
        pairs: Photos with their captions.
        command: Command that started the run.
        folder: Folder to write to.

    Returns:
        Path of the file.
    """
    lines = json.dumps([[pair.key, pair.captions] for pair in pairs])
    content: dict[str, Any] = {
        "format": FORMAT,
        "kind": "retrieval",
        "model": segmenter.name,
        "weights_sha256": segmenter.weights_hash,
        "num_photos": len(pairs),
        "num_captions": sum(len(pair.captions) for pair in pairs),
        "captions_sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "protocol": {
            "templates": [_TEMPLATE],
            "side_px": segmenter.inference.side_px,
            "max_long_px": MAX_LONG_PX,
            "precision": segmenter.inference.precision,
        },
        "rows": [asdict(row) for row in rows],
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(torch.get_num_threads(), str(segmenter.device)),
    }

    # The model's name may hold characters that a file name should not.
    name = re.sub(r"[^a-zA-Z0-9.]+", "-", segmenter.name).strip("-")
    return write_json(content, folder / f"retrieval-{name}.json")


def _photo(pair: Example) -> Any:
    """Decode a photo at full size; an error names it."""
    try:
        return decode(pair, 0)
    except ValueError as error:
        raise ValueError(f"{pair.key} of {pair.source}: {error}") from error


def _row(query: str, ranks: Int[Tensor, " n"]) -> RetrievalRow:
    """Recalls at 1, 5 and 10 of ranks from 0."""
    recalls = [(ranks < most).double().mean().item() for most in (1, 5, 10)]
    return RetrievalRow(query, len(ranks), *recalls)
