"""The parts of an entity index, one for each shard, put together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
"""Why pairs are not in an index."""
_COUNTS = ("read", *LEFT_OUT, "captions", "captions cut")


@dataclass(frozen=True)
class Part:
    """What one shard gave beside its pairs: its size and fingerprint, and the counts of `read_pairs`."""

    name: str
    size: int
    fingerprint: str
    counts: dict[str, int]

    @staticmethod
    def path(part: Path) -> Path:
        """Return where it is kept for the pairs in PART."""
        return part.with_suffix(".json")

    @classmethod
    def read(cls, part: Path) -> Part | None:
        """Return it, or None where PART is not finished."""
        path = cls.path(part)
        return cls(**read_json(path)) if path.exists() else None


def merge(
    parts: Sequence[Path],
    folder: Path,
    entities: Sequence[str],
    lines: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the index of all PARTS, in their order, into FOLDER; return its summary.

    Of pairs with the same key the first counts: training tells pairs by their keys.

    Raises:
        ValueError: no pair has an entity.
    """
    import pyarrow as pa
    from pyarrow import parquet

    told = [Part.read(part) for part in parts]
    counts: Counter[str] = Counter(dict.fromkeys(_COUNTS, 0))
    for part in told:
        assert part is not None, "all parts are finished"
        counts.update(part.counts)
    kept = _first_of_each(
        [parquet.read_table(part, columns=["hash"])["hash"].to_numpy() for part in parts]
    )
    counts["repeated key"] = sum(int((~mask).sum()) for mask in kept)
    counts["kept"] = sum(int(mask.sum()) for mask in kept)
    if not counts["kept"]:
        left_out = ", ".join(f"{reason}: {counts[reason]}" for reason in LEFT_OUT if counts[reason])
        raise ValueError(
            f"none of the {counts['read']} pairs has one of the {len(entities)} entities"
            + (f" ({left_out})" if left_out else "")
        )

    tables = []
    with _pairs_writer(folder / PAIRS, parquet.read_schema(parts[0])) as write:
        for number, (path, mask) in enumerate(zip(parts, kept, strict=True)):
            table = parquet.read_table(path).filter(pa.array(mask))
            shard = pa.array(np.full(len(table), number, np.uint32))
            write(table.add_column(1, "shard", shard))
            tables.append(
                table.select(["key", "hash", "offset", "size", "numbers"]).append_column(
                    "shard", shard
                )
            )
    numbers = _write_rows(pa.concat_tables(tables).combine_chunks(), folder / ROWS)
    per_entity = _write_entities(numbers, entities, folder / ENTITIES)
    (folder / ENTITY_LIST).write_text(lines, encoding="utf-8")
    summary = {
        "format": FORMAT,
        "settings": dict(settings),
        "counts": dict(counts),
        "entities": per_entity,
        "shards": [
            {name: value for name, value in asdict(part).items() if name != "counts"}
            for part in told
            if part
        ],
    }
    (folder / SUMMARY).write_text(
        json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return summary


def _first_of_each(hashes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For the keys' hashes of each part, which of them occur for the first time."""
    everything = np.concatenate(hashes)
    first = np.zeros(len(everything), bool)
    first[np.unique(everything, return_index=True)[1]] = True
    return np.split(first, np.cumsum([len(part) for part in hashes])[:-1])


@contextmanager
def _pairs_writer(path: Path, part: Any) -> Iterator[Callable[[Any], None]]:
    """Write tables like those of the parts to the file for everybody: without what only the index itself needs."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = ["key", "shard", "offset", "size", "entities", "canonical", "captions"]
    schema = pa.schema(
        [
            pa.field("shard", pa.uint32()) if name == "shard" else part.field(name)
            for name in columns
        ]
    )
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        yield lambda table: writer.write_table(table.select(columns))


def _write_rows(rows: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write the table that is mapped at run time; return where the entities of each row start, and their numbers."""
    import pyarrow as pa

    hashes = rows["hash"].to_numpy()
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
    """Write the rows of each entity, in order; return how many they are."""
    import pyarrow as pa

    starts, numbers = lists
    rows = np.repeat(np.arange(len(starts) - 1, dtype=np.uint32), np.diff(starts))
    counts = np.bincount(numbers, minlength=len(entities))
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    postings = pa.LargeListArray.from_arrays(ends, rows[np.argsort(numbers, kind="stable")])
    _write_batch(path, {"entity": pa.array(list(entities), pa.string()), "rows": postings})
    return dict(zip(entities, counts.tolist(), strict=True))


def _write_batch(path: Path, columns: Mapping[str, Any]) -> None:
    """Write one uncompressed record batch, which can be mapped as it is."""
    import pyarrow as pa

    batch = pa.record_batch(dict(columns))
    with pa.ipc.new_file(path, batch.schema) as writer:
        writer.write_batch(batch)
