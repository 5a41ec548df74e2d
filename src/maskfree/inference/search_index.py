"""The segments of photos on disk, so that a second search of the same photos runs no network.

One SQLite file for each model and its settings, in the user's cache folder. Photos are recognized
by the hash of their content, which is computed again where size or time of the file changed.
Deleting the folder is safe.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from pathlib import Path

import numpy as np

from maskfree.files.user_cache import cache_folder, is_off
from maskfree.inference.features import CELLS_PER_PATCH
from maskfree.inference.photo_segments import PhotoSegments
from maskfree.inference.search_config import KMEANS, RetrievalConfig
from maskfree.inference.segmenter import Segmenter

log = logging.getLogger(__name__)

# Version of the tables; another one is another file.
_FORMAT = 1
# Largest size of all indexes together: of the bundled model, the segments of 60,000 photos.
_MAX_BYTES = 2**31
# Rows that are written together: what a killed run loses.
_WRITE_EVERY = 128
# How long to wait for another process to write, in seconds.
_TIMEOUT_S = 30.0
# Share of the photos that leave a full index, the oldest first.
_LEAVING = 0.1

_TABLES = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, bytes INTEGER, time INTEGER, hash BLOB);
CREATE TABLE IF NOT EXISTS photos (
    hash BLOB PRIMARY KEY, height INTEGER, width INTEGER, rows INTEGER,
    embeddings BLOB, sizes BLOB, ids BLOB
);
"""


class SearchIndex:
    """Segments by photo. What goes wrong on disk is logged once, and the index is then empty.

    Args:
        segmenter: Model and inference settings, which determine the file.
        config: How photos are segmented, and whether there is to be an index. There is none either
            of a model without a hash of its weights, or of segments from region maps.
    """

    def __init__(self, segmenter: Segmenter, config: RetrievalConfig):
        self._tables: sqlite3.Connection | None = None
        self._hashes: dict[Path, bytes] = {}
        self._new: list[tuple[str, tuple[object, ...]]] = []
        if is_off() or not config.index:
            return
        if not segmenter.weights_hash or config.segments != KMEANS:
            return

        file = cache_folder() / "search" / f"{_name(segmenter, config)}.sqlite"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _make_room(file)
            self._tables = _opened(file)
        except (OSError, sqlite3.Error) as error:
            log.warning("the search index %s cannot be used: %s", file, error)

    def __enter__(self) -> SearchIndex:
        """Return the index itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Keep what was added, and close the file."""
        self._write()
        if self._tables is not None:
            self._tables.close()
        self._tables = None

    def find(self, path: Path) -> PhotoSegments | None:
        """Look a photo up.

        Args:
            path: File of the photo.

        Returns:
            Its segments; None if they are not known.

        Raises:
            OSError: The file cannot be read.
        """
        if self._tables is None:
            return None

        content = self._hash(path)
        rows = self._run(
            "SELECT height, width, rows, embeddings, sizes, ids FROM photos WHERE hash = ?", content
        )
        if not rows:
            return None

        height, width, num_rows, embeddings, sizes, ids = rows[0]
        areas = np.frombuffer(sizes, np.float32)
        return PhotoSegments(
            np.frombuffer(embeddings, np.float16).reshape(len(areas), -1),
            areas,
            np.frombuffer(ids, np.int16).reshape(num_rows, -1),
            (height, width),
        )

    def add(self, path: Path, segments: PhotoSegments) -> None:
        """Keep the segments of a photo that `find` did not know.

        Args:
            path: File of the photo.
            segments: Its segments.
        """
        if self._tables is None or path not in self._hashes:
            return

        self._put(
            "photos",
            self._hashes.pop(path),
            *segments.photo_size,
            len(segments.ids),
            segments.embeddings.tobytes(),
            segments.sizes.tobytes(),
            segments.ids.tobytes(),
        )

    def _hash(self, path: Path) -> bytes:
        """Hash of a photo's content, read only where the file seems to have changed."""
        key, status = os.fsencode(os.path.realpath(path)), path.stat()
        seen = status.st_size, status.st_mtime_ns
        rows = self._run("SELECT bytes, time, hash FROM files WHERE path = ?", key)

        if rows and rows[0][:2] == seen:
            content = rows[0][2]
        else:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            self._put("files", key, *seen, content)

        self._hashes[path] = content
        return content

    def _put(self, table: str, *values: object) -> None:
        """Write a row soon, together with others."""
        places = ", ".join("?" * len(values))
        self._new.append((f"INSERT OR REPLACE INTO {table} VALUES ({places})", values))
        if len(self._new) >= _WRITE_EVERY:
            self._write()

    def _write(self) -> None:
        """Write the rows that wait."""
        if not self._new:
            return

        self._run("BEGIN IMMEDIATE")
        for command, values in self._new:
            self._run(command, *values)
        self._leave_oldest()
        self._run("COMMIT")
        self._new.clear()

    def _leave_oldest(self) -> None:
        """Drop the photos that were added first if the index is full; their pages are reused."""
        sizes = [
            self._run(f"PRAGMA {name}") for name in ("page_count", "freelist_count", "page_size")
        ]
        if not all(sizes):
            return

        pages, free, page_bytes = (rows[0][0] for rows in sizes)
        if (pages - free) * page_bytes > _MAX_BYTES:
            [[count]] = self._run("SELECT count(*) FROM photos") or [[0]]
            oldest = "SELECT rowid FROM photos ORDER BY rowid LIMIT ?"
            self._run(f"DELETE FROM photos WHERE rowid IN ({oldest})", 1 + int(_LEAVING * count))
            self._run("DELETE FROM files WHERE hash NOT IN (SELECT hash FROM photos)")

    def _run(self, command: str, *values: object) -> list[tuple]:
        """Run a command; after an error the index is empty."""
        if self._tables is None:
            return []
        try:
            return self._tables.execute(command, values).fetchall()
        except sqlite3.Error as error:
            log.warning("the search index is not used any more: %s", error)
            self._tables.close()
            self._tables = None
            return []


def _name(segmenter: Segmenter, config: RetrievalConfig) -> str:
    """Hash of all that segments and their embeddings depend on."""
    inference = segmenter.inference
    key = [
        *(_FORMAT, CELLS_PER_PATCH, segmenter.weights_hash, config.num_segments),
        *(inference.side_px, inference.precision, inference.grouping, segmenter.runtime),
    ]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def _opened(file: Path) -> sqlite3.Connection:
    """Open an index, replacing a file that is none."""
    try:
        return _with_tables(file)
    except sqlite3.DatabaseError as error:
        # Another process may be writing for long: its file stays.
        if isinstance(error, sqlite3.OperationalError):
            raise
        file.unlink()
        return _with_tables(file)


def _with_tables(file: Path) -> sqlite3.Connection:
    """Open a file and create its tables where they are missing."""
    # Without a level, transactions are ours.
    tables = sqlite3.connect(file, timeout=_TIMEOUT_S, isolation_level=None)
    try:
        tables.execute(f"PRAGMA mmap_size = {_MAX_BYTES}")
        tables.executescript(_TABLES)
    except sqlite3.Error:
        tables.close()
        raise
    return tables


def _make_room(own: Path) -> None:
    """Remove indexes of other models, the oldest first, until all are within the bound."""
    files = [(path.stat(), path) for path in own.parent.glob("*.sqlite")]
    total = sum(status.st_size for status, _ in files)

    for status, path in sorted(files, key=lambda each: each[0].st_mtime_ns):
        if total > _MAX_BYTES and path != own:
            path.unlink(missing_ok=True)
            total -= status.st_size
