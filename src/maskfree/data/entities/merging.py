"""Merge the parts of an entity index, one per shard."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskfree.data.entities.index import ENTITIES, ENTITY_LIST, FORMAT, PAIRS, ROWS, SUMMARY
from maskfree.files.atomic import read_json

LEFT_OUT = (
    "no photo",
    "dotted name",
    "unreadable name",
    "empty photo",
    "no caption",
    "unreadable captions",
    "no entity",
    "broken shard",
)
"""Reasons why pairs are left out of an index."""
_COUNTS = ("read", *LEFT_OUT, "captions", "captions cut")


@dataclass(frozen=True)
class Part:
    """Record of one finished shard, beside the file of its pairs."""

    name: str
    """File name of the shard."""
    size: int
    """Size of the shard in bytes."""
    fingerprint: str
    """Hash of the shard, as `fingerprint` computes it."""
    counts: dict[str, int]
    """Counts of `read_pairs`, and the pairs without an entity."""

    @staticmethod
    def path(part: Path) -> Path:
        """Get the file of a part's record.

        Args:
            part: File of the part's pairs.

        Returns:
            The path, whether or not the file exists.
        """
        return part.with_suffix(".json")

    @classmethod
    def read(cls, part: Path) -> Part | None:
        """Read a part's record.

        Args:
            part: File of the part's pairs.

        Returns:
            The record; None if the part is not finished.
        """
        path = cls.path(part)
        if not path.exists():
            return None
        return cls(**read_json(path))


def merge(
    parts: Sequence[Path],
    folder: Path,
    entities: Sequence[str],
    lines: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the index of all parts.

    Of pairs with the same key the first is kept, because training identifies pairs by key.

    Args:
        parts: Files of the parts' pairs, in the order of the index.
        folder: Folder to write to.
        entities: Names of the entities.
        lines: Text of the entity list.
        settings: Settings to record in the summary.

    Returns:
        The summary of the index.

    Raises:
        ValueError: No pair mentions an entity.
    """
    import pyarrow as pa
    from pyarrow import parquet

    records = []
    counts: Counter[str] = Counter(dict.fromkeys(_COUNTS, 0))
    for path in parts:
        part = Part.read(path)
        assert part is not None, "all parts are finished"
        counts.update(part.counts)
        records.append({"name": part.name, "size": part.size, "fingerprint": part.fingerprint})

    # Later pairs with the key of an earlier one are dropped.
    hashes = [parquet.read_table(path, columns=["hash"])["hash"].to_numpy() for path in parts]
    kept = _first_of_each(hashes)

    counts["repeated key"] = sum(int((~mask).sum()) for mask in kept)
    counts["kept"] = sum(int(mask.sum()) for mask in kept)

    if not counts["kept"]:
        message = f"none of the {counts['read']} pairs has one of the {len(entities)} entities"
        left_out = [reason for reason in LEFT_OUT if counts[reason]]
        if left_out:
            numbers = [f"{reason}: {counts[reason]}" for reason in left_out]
            message += f" ({', '.join(numbers)})"
        raise ValueError(message)

    tables = []
    with _pairs_writer(folder / PAIRS, parquet.read_schema(parts[0])) as write:
        for number, (path, mask) in enumerate(zip(parts, kept, strict=True)):
            table = parquet.read_table(path).filter(pa.array(mask))
            shard = pa.array(np.full(len(table), number, np.uint32))
            write(table.add_column(1, "shard", shard))
            columns = table.select(["key", "hash", "offset", "size", "numbers"])
            tables.append(columns.append_column("shard", shard))

    # The files that are memory-mapped in training.
    numbers = _write_rows(pa.concat_tables(tables).combine_chunks(), folder / ROWS)
    per_entity = _write_entities(numbers, entities, folder / ENTITIES)
    (folder / ENTITY_LIST).write_text(lines, encoding="utf-8")

    summary = {
        "format": FORMAT,
        "settings": dict(settings),
        "counts": dict(counts),
        "entities": per_entity,
        "shards": records,
    }

    (folder / SUMMARY).write_text(
        json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return summary


def _first_of_each(hashes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Mask, for each part, of the hashes that occur for the first time."""
    everything = np.concatenate(hashes)
    # np.unique gives the first position of each value.
    first = np.zeros(len(everything), bool)
    first[np.unique(everything, return_index=True)[1]] = True
    return np.split(first, np.cumsum([len(part) for part in hashes])[:-1])


@contextmanager
def _pairs_writer(path: Path, part: Any) -> Iterator[Callable[[Any], None]]:
    """Write tables to the public file, without the columns that only the index needs."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = ["key", "shard", "offset", "size", "entities", "canonical", "captions"]
    fields = []
    for name in columns:
        if name == "shard":
            fields.append(pa.field("shard", pa.uint32()))
        else:
            fields.append(part.field(name))
    schema = pa.schema(fields)

    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        yield lambda table: writer.write_table(table.select(columns))


def _write_rows(rows: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write the table of rows; return where the entities of each row start, and their numbers."""
    import pyarrow as pa

    hashes = rows["hash"].to_numpy()
    # Sorted hashes allow a binary search by key.
    order = np.argsort(hashes, kind="stable").astype(np.uint32)
    lists = rows["numbers"].chunk(0)
    starts, numbers = lists.offsets.to_numpy(), lists.values.to_numpy()
    _write_batch(
        path,
        {
            "key": rows["key"].chunk(0).cast(pa.large_string()),
            "shard": pa.array(rows["shard"].to_numpy()),
            "offset": pa.array(rows["offset"].to_numpy()),
            "size": pa.array(rows["size"].to_numpy()),
            "entities": pa.LargeListArray.from_arrays(starts.astype(np.int64), numbers),
            "sorted_hash": pa.array(hashes[order]),
            "sorted_row": pa.array(order),
        },
    )

    return starts, numbers


def _write_entities(
    lists: tuple[np.ndarray, np.ndarray], entities: Sequence[str], path: Path
) -> dict[str, int]:
    """Write the rows of each entity, in order; return how many there are of each."""
    import pyarrow as pa

    starts, numbers = lists
    # The row of each mention, in the order of the rows.
    rows = np.repeat(np.arange(len(starts) - 1, dtype=np.uint32), np.diff(starts))
    counts = np.bincount(numbers, minlength=len(entities))
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    # A stable sort keeps the rows of each entity in order.
    postings = pa.LargeListArray.from_arrays(ends, rows[np.argsort(numbers, kind="stable")])
    _write_batch(path, {"entity": pa.array(list(entities), pa.string()), "rows": postings})
    return dict(zip(entities, counts.tolist(), strict=True))


def _write_batch(path: Path, columns: Mapping[str, Any]) -> None:
    """Write one uncompressed record batch, which can be memory-mapped."""
    import pyarrow as pa

    batch = pa.record_batch(dict(columns))
    with pa.ipc.new_file(path, batch.schema) as writer:
        writer.write_batch(batch)
