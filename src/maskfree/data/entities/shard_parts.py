"""The part of an entity index that comes from one shard."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from maskfree.data.entities.caption_pairs import read_pairs
from maskfree.data.entities.keys import fingerprint, key_hash
from maskfree.data.entities.merging import Part
from maskfree.files.atomic import replace_text
from maskfree.files.leftovers import replacing

NounsOf = Callable[[str], Mapping[str, bool]]
"""Nouns of a caption, each with whether it is used as a noun in the sentence."""


class Finder(Protocol):
    """Finds the entities of a list in captions, as `maskfree.text.entities.EntitySet` does."""

    @property
    def entities(self) -> tuple[str, ...]:
        """Names of all entities.

        Returns:
            One name per entity, in the order of the list.
        """
        ...

    @property
    def lines(self) -> str:
        """The entity list as text.

        Returns:
            The content of its file.
        """
        ...

    def mentions(self, caption: str) -> Sequence[tuple[int, int, str]]:
        """Find the entities in a caption.

        Args:
            caption: Caption to search.

        Returns:
            First character, end (exclusive) and entity of each mention.
        """
        ...


def count_nouns(job: tuple[Path, Path], nouns_of: NounsOf) -> None:
    """Count the nouns of a shard into a file, unless the file exists.

    Args:
        job: The shard, and the file to write.
        nouns_of: Finds the nouns of a caption.
    """
    shard, out = job
    if out.exists():
        return

    pairs: Counter[str] = Counter()
    as_nouns: Counter[str] = Counter()

    # Each pair counts once, however many of its captions have the noun.
    for pair in read_pairs(shard, Counter()):
        found: dict[str, bool] = {}
        for caption in pair.captions:
            for noun, firm in nouns_of(caption).items():
                found[noun] = found.get(noun, False) or firm
        pairs.update(found.keys())
        as_nouns.update(noun for noun, firm in found.items() if firm)

    counts = {noun: (number, as_nouns[noun]) for noun, number in pairs.items()}
    replace_text(out, json.dumps(counts))


def write_part(job: tuple[Path, Path], finder: Finder) -> None:
    """Write the pairs and entities of a shard and its record, unless they are up to date.

    Args:
        job: The shard, and the file to write.
        finder: Finds the entities in captions.
    """
    shard, out = job
    size_and_hash = fingerprint(shard)

    # A part is made again if its shard has changed.
    if (part := Part.read(out)) and (part.size, part.fingerprint) == size_and_hash:
        return

    counts: Counter[str] = Counter()
    rows = list(_rows(shard, finder, counts))
    _write_rows(rows, out)

    # The record comes last: it marks the part as finished.
    part = Part(shard.name, *size_and_hash, dict(counts))
    replace_text(Part.path(out), json.dumps(asdict(part)))


def _rows(shard: Path, finder: Finder, counts: Counter[str]) -> Iterator[tuple[Any, ...]]:
    """A row of the table for each pair that mentions an entity."""
    numbers = {entity: number for number, entity in enumerate(finder.entities)}

    for pair in read_pairs(shard, counts):
        # Words and entities are kept once, in the order of their first mention.
        words: dict[str, None] = {}
        entities: dict[str, None] = {}
        for caption in pair.captions:
            for start, end, entity in finder.mentions(caption):
                words[caption[start:end]] = None
                entities[entity] = None

        if not entities:
            counts["no entity"] += 1
            continue

        ids = [numbers[entity] for entity in entities]
        position = (pair.key, key_hash(pair.key), pair.offset, pair.size)
        yield (*position, list(words), list(entities), ids, list(pair.captions))


def _write_rows(rows: Sequence[tuple[Any, ...]], out: Path) -> None:
    """Write rows to a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    names = pa.list_(pa.string())
    schema = pa.schema(
        {
            "key": pa.string(),
            "hash": pa.uint64(),
            "offset": pa.uint64(),
            "size": pa.uint32(),
            "entities": names,
            "canonical": names,
            "numbers": pa.list_(pa.uint16()),
            "captions": names,
        }
    )

    columns = []
    for place, field in enumerate(schema):
        columns.append(pa.array([row[place] for row in rows], field.type))
    table = pa.Table.from_arrays(columns, schema=schema)

    with replacing(out) as unfinished:
        parquet.write_table(table, unfinished, compression="zstd")
