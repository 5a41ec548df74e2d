"""Entity index of a corpus: which entities each pair mentions, and where its photo lies.

`maskfree.data.entities.preparation` writes it. Two files are memory-mapped in training: rows.arrow,
with one row per pair, and entities.arrow, with the rows of each entity. pairs.parquet holds the
same with the captions, for other programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from maskfree.data.entities.keys import fingerprint, key_hash, read_piece, sample_key
from maskfree.data.examples import Example
from maskfree.data.remote_files import file_name, is_remote
from maskfree.data.tar_members import BLOCK, member_of
from maskfree.files.atomic import read_json

FORMAT = "maskfree entity index 1"
# Files of an index.
PAIRS, ROWS, ENTITIES = "pairs.parquet", "rows.arrow", "entities.arrow"
ENTITY_LIST, SUMMARY = "entities.txt", "index.json"
# Shards at URLs whose pieces are read at a time.
_CONNECTIONS = 32
# The summary names all shards and entities.
_MAX_SUMMARY_BYTES = 2**28


class EntityIndex:
    """An entity index with the shards that it was made from; use `open` to create one.

    It can be pickled: a copy opens the files itself.
    """

    def __init__(self, folder: Path, shards: tuple[str, ...]):
        """Store the paths; `open` also checks them.

        Args:
            folder: Folder of the index.
            shards: Paths of the shards, in the order of the index.
        """
        self.folder, self.shards = folder, shards

    @classmethod
    def open(
        cls, folder: Path, shards: Sequence[str], *, with_fingerprints: bool = True
    ) -> EntityIndex:
        """Open an index and check that it fits some shards.

        Args:
            folder: Folder of the index.
            shards: Shards as `find_shards` returns them, in any order and any folder.
            with_fingerprints: Also compare the content of the shards, which reads pieces of each.

        Returns:
            The index.

        Raises:
            FileNotFoundError: The folder holds no index.
            ValueError: The format is another one, or a shard is missing, not indexed, or has
                changed.
        """
        _arrow()
        summary = _summary(folder)
        # Shards may have moved: they are compared by name and content.
        given = {file_name(shard): shard for shard in shards}
        recorded = {record["name"]: record for record in summary["shards"]}

        for name in given:
            if name not in recorded:
                raise ValueError(
                    f"shard {name!r} is not in the index {str(folder)!r}: prepare it again"
                )

        for name in recorded:
            if name not in given:
                raise ValueError(
                    f"shard {name!r} of the index {str(folder)!r} is not among the shards given"
                )

        if with_fingerprints:
            names = list(recorded)
            found = _fingerprints([given[name] for name in names])
            for name, now in zip(names, found, strict=True):
                if now != (recorded[name]["size"], recorded[name]["fingerprint"]):
                    raise ValueError(
                        f"shard {name!r} has changed since the index {str(folder)!r} was prepared"
                    )

        return cls(folder, tuple(str(given[name]) for name in recorded))

    def __reduce__(self) -> tuple[type[EntityIndex], tuple[Path, tuple[str, ...]]]:
        """Pickle only the paths."""
        return EntityIndex, (self.folder, self.shards)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._rows["offset"])

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """Names of the entities, in the order of the list.

        Returns:
            One name per entity.
        """
        return tuple(_map(self.folder / ENTITIES).column("entity").to_pylist())

    def find(self, key: str) -> int | None:
        """Find the row of a pair.

        Args:
            key: Key of the pair.

        Returns:
            The row; None if the pair mentions no entity or is not in the shards.
        """
        hashes = self._rows["sorted_hash"]
        place = int(np.searchsorted(hashes, np.uint64(key_hash(key))))

        if place == len(hashes) or int(hashes[place]) != key_hash(key):
            return None

        # Other keys may have the same hash.
        row = int(self._rows["sorted_row"][place])
        if self._key(row) != key:
            return None
        return row

    def entities_of(self, row: int) -> tuple[str, ...]:
        """Get the entities that a pair's captions mention.

        Args:
            row: Row of the pair.

        Returns:
            Their names, each once.
        """
        return tuple(self.entities[number] for number in self._numbers(row))

    def partner(self, row: int, rng: np.random.Generator) -> tuple[str, Example] | None:
        """Draw another pair that shares an entity with a pair.

        Only the partner's photo is read. If its shard has changed since the index was opened, the
        example has a problem.

        Args:
            row: Row of the pair.
            rng: Source of randomness.

        Returns:
            The shared entity and the partner without its captions; None if no other pair shares an
            entity.
        """
        for number in rng.permutation(self._numbers(row)):
            rows = self._postings[int(number)]
            if len(rows) > 1:
                # Draw among the other rows: skip the pair's own place.
                own = int(np.searchsorted(rows, row))
                drawn = int(rng.integers(len(rows) - 1))
                if drawn >= own:
                    drawn += 1
                return self.entities[int(number)], self._example(int(rows[drawn]))
        return None

    def _example(self, row: int) -> Example:
        """Read the photo of a pair from its shard."""
        key, shard = self._key(row), self.shards[int(self._rows["shard"][row])]
        offset, size = int(self._rows["offset"][row]), int(self._rows["size"][row])

        try:
            # The header of the photo, and the photo.
            content = read_piece(shard, max(offset - BLOCK, 0), BLOCK + size)
            name, found = member_of(content[:BLOCK])
            # A header may hold only the first 100 characters of a name.
            is_start = len(name) >= 100 and key.startswith(name)
            if found != size or not (sample_key(name) == key or is_start):
                raise ValueError(f"the photo is not where the index {str(self.folder)!r} says")
            return Example(key, shard, content[BLOCK:])
        except (OSError, ValueError) as error:
            return Example(key, shard, problem=" ".join(str(error).split()))

    def _key(self, row: int) -> str:
        """Key of a row."""
        return self._table.column("key")[row].as_py()

    def _numbers(self, row: int) -> np.ndarray:
        """Numbers of the entities of a row."""
        starts, numbers = self._rows["entities"]
        return numbers[int(starts[row]) : int(starts[row + 1])]

    @cached_property
    def _table(self) -> Any:
        """The memory-mapped table of rows."""
        return _map(self.folder / ROWS)

    @cached_property
    def _rows(self) -> dict[str, Any]:
        """Memory-mapped columns as arrays; of "entities" each row's start, and the numbers."""
        names = ("shard", "offset", "size", "sorted_hash", "sorted_row")
        columns: dict[str, Any] = {name: self._table.column(name).to_numpy() for name in names}
        lists = self._table.column("entities")
        return columns | {"entities": (lists.offsets.to_numpy(), lists.values.to_numpy())}

    @cached_property
    def _postings(self) -> list[np.ndarray]:
        """Rows of each entity, in order."""
        # An Arrow list column is one flat array and the offsets of its lists.
        lists = _map(self.folder / ENTITIES).column("rows")
        starts, rows = lists.offsets.to_numpy(), lists.values.to_numpy()
        return [rows[start:end] for start, end in pairwise(starts)]


def _fingerprints(shards: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Sizes and hashes of shards; of those at URLs, several at a time."""
    if not any(map(is_remote, shards)):
        yield from map(fingerprint, shards)
        return

    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        yield from threads.map(fingerprint, shards)


def count_pairs(folder: Path) -> int:
    """Count the pairs of an index.

    Args:
        folder: Folder of the index.

    Returns:
        Number of pairs that mention an entity.

    Raises:
        FileNotFoundError: The folder holds no index.
        ValueError: The format is another one.
    """
    try:
        return int(_summary(folder)["counts"]["kept"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / SUMMARY} is not the summary of an entity index: it counts no pairs"
        ) from error


def _summary(folder: Path) -> dict[str, Any]:
    """Read and check the summary of an index."""
    path = folder / SUMMARY
    if not path.is_file():
        raise FileNotFoundError(
            f"no entity index in {str(folder)!r}: `maskfree prepare entities` makes one"
        )

    try:
        summary = read_json(path, _MAX_SUMMARY_BYTES)
        if summary["format"] == FORMAT:
            return summary
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the summary of an entity index") from error

    raise ValueError(
        f"{path} is of the format {summary['format']!r}, not {FORMAT!r}: prepare the index again"
    )


def _map(path: Path) -> Any:
    """The only record batch of an Arrow file, memory-mapped."""
    arrow = _arrow()
    return arrow.ipc.open_file(arrow.memory_map(str(path))).get_batch(0)


def _arrow() -> Any:
    """Import pyarrow, which is an optional dependency."""
    try:
        import pyarrow
    except ImportError as error:
        raise ValueError(
            "the entity index needs the package pyarrow: pip install maskfree[entities]"
        ) from error
    return pyarrow
