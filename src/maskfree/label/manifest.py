"""The manifest of a labeled data set: an SQLite table with one row for each photo."""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maskfree.files.atomic import escape
from maskfree.label.photo_row import DONE, FAILED, WAITING, PhotoRow
from maskfree.label.work_list import FoundPhoto

MANIFEST = "manifest.sqlite"
"""File of the manifest, in the folder of the data set."""

# "mfLB": tells the manifest from databases of others.
_APPLICATION = 0x6D664C42
_VERSION = 1
# Another process of the run may be writing for so long, in seconds.
_PATIENCE_S = 120
# Rows that are read at a time.
_ROWS_AT_ONCE = 256

_TABLE = """
CREATE TABLE IF NOT EXISTS photos (
    id INTEGER PRIMARY KEY,
    source TEXT UNIQUE NOT NULL,  -- absolute path; SHARD::MEMBER within a shard
    name TEXT NOT NULL,           -- labels/NAME.png
    name_key TEXT UNIQUE NOT NULL,
    member TEXT NOT NULL,         -- of a shard; empty for a file
    offset INTEGER NOT NULL,      -- of the member in the shard, in bytes
    bytes INTEGER,
    modified_ns INTEGER,
    sha256 TEXT,
    width INTEGER,
    height INTEGER,
    confidence REAL,              -- mean over the pixels that have a label
    unlabeled REAL,               -- fraction of the photo
    words TEXT,                   -- JSON: {name: {"area": fraction, "confidence": mean}}
    regions BLOB,                 -- JSON, compressed by zlib
    seconds REAL,
    error TEXT,
    settings TEXT,                -- hash of the settings it was labeled with
    state TEXT NOT NULL,          -- waiting, done or failed
    run INTEGER NOT NULL          -- last run that found the photo
);
CREATE INDEX IF NOT EXISTS by_state ON photos (run, state, id);
"""

# Errors of the disk; others mean that the file is damaged or is none of ours.
_DISK_ERRORS = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
)


_COLUMNS = ", ".join(PhotoRow.__dataclass_fields__)
# A value given as bytes, which may be no UTF-8, becomes a text.
_TEXT = "CAST(? AS TEXT)"


class Manifest:
    """The manifest of a data set. Each change is on the disk when the method returns.

    Only one thread at a time may use it; others open their own.
    """

    def __init__(self, folder: Path):
        """Open the manifest of a folder, or make it.

        Args:
            folder: Folder of the data set.

        Raises:
            ValueError: The file is damaged, or is no manifest.
            OSError: It cannot be written.
        """
        self._path = folder / MANIFEST
        # Last number that was given to a name; only of names that several photos want.
        self._numbers: dict[str, int] = {}
        with self._errors():
            self._connection = sqlite3.connect(
                self._path,
                timeout=_PATIENCE_S,
                isolation_level=None,
                check_same_thread=False,
            )
            # Names of files may have bytes that are not UTF-8.
            self._connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
            self._prepare()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Manifest:
        """Return the manifest, which is closed at the end."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()

    def next_run(self) -> int:
        """Number of a new run.

        Returns:
            A number above those of all runs before.
        """
        [(last,)] = self._read("SELECT coalesce(max(run), 0) FROM photos")
        return last + 1

    def row_of(self, source: str) -> PhotoRow | None:
        """Find a photo.

        Args:
            source: What identifies it.

        Returns:
            Its row; None if it is new.
        """
        rows = self._read(f"SELECT {_COLUMNS} FROM photos WHERE source = {_TEXT}", _encoded(source))
        return PhotoRow(*rows[0]) if rows else None

    def add(self, found: FoundPhoto, run: int) -> PhotoRow:
        """Add a new photo, which waits to be labeled.

        Args:
            found: The photo; its name is numbered if another one has it.
            run: Number of the run.

        Returns:
            Its row.
        """
        name, number = found.name, self._numbers.get(_key(found.name), 1)
        while self._read("SELECT 1 FROM photos WHERE name_key = ?", _key(name)):
            number += 1
            name = f"{found.name}-{number}"
        if number > 1:
            self._numbers[_key(found.name)] = number

        self._write(
            "INSERT INTO photos (source, name, name_key, member, offset, state, run) "
            f"VALUES ({_TEXT}, ?, ?, {_TEXT}, ?, ?, ?)",
            *(_encoded(found.source), name, _key(name)),
            *(_encoded(found.member), found.offset, WAITING, run),
        )
        row = self.row_of(found.source)
        assert row is not None
        return row

    def change(self, number: int, **values: Any) -> None:
        """Change the row of a photo.

        Args:
            number: Number of the row.
            **values: New values by the names of the columns.
        """
        columns = ", ".join(f"{name} = ?" for name in values)
        if values.get("error"):
            values["error"] = escape(values["error"])
        self._write(f"UPDATE photos SET {columns} WHERE id = ?", *values.values(), number)

    def count(self, run: int | None = None) -> dict[str, int]:
        """Count the photos by their state.

        Args:
            run: Only those that this run found; None: all.

        Returns:
            Number of photos by state, also where it is 0.
        """
        where, values = ("WHERE run = ?", [run]) if run is not None else ("", [])
        found = dict(
            self._read(f"SELECT state, count(*) FROM photos {where} GROUP BY state", *values)
        )
        return {state: found.get(state, 0) for state in (WAITING, DONE, FAILED)}

    def reasons(self, run: int, number: int) -> Iterator[str]:
        """Why photos could not be labeled.

        Args:
            run: Number of the run that found them.
            number: Most photos.

        Yields:
            One line for each, which names the photo.
        """
        for source, error in self._read(
            "SELECT source, error FROM photos WHERE run = ? AND state = ? ORDER BY id LIMIT ?",
            *(run, FAILED, number),
        ):
            yield error if source in error else f"{source}: {error}"

    def waiting(self, run: int, rank: int = 0, world: int = 1) -> Iterator[PhotoRow]:
        """Photos that wait to be labeled, in the order in which they were found.

        Args:
            run: Number of the run that found them.
            rank: Rank of this process; each has its own part of the photos.
            world: Number of processes.

        Yields:
            Rows; photos of a shard lie beside each other.
        """
        last = 0
        # In parts, so that no read is open while other connections write.
        while rows := self._read(
            f"SELECT {_COLUMNS} FROM photos WHERE run = ? AND state = ? AND id > ? "
            "AND id % ? = ? ORDER BY id LIMIT ?",
            *(run, WAITING, last, world, rank, _ROWS_AT_ONCE),
        ):
            yield from (PhotoRow(*row) for row in rows)
            last = rows[-1][0]

    def done(self) -> Iterator[tuple[PhotoRow, bytes]]:
        """Labeled photos, in the order of their names.

        Yields:
            Rows, each with its compressed regions.
        """
        last = ""
        while rows := self._read(
            f"SELECT {_COLUMNS}, regions, name_key FROM photos WHERE state = ? AND name_key > ? "
            "ORDER BY name_key LIMIT ?",
            *(DONE, last, _ROWS_AT_ONCE),
        ):
            for *row, regions, _ in rows:
                yield PhotoRow(*row), regions
            last = rows[-1][-1]

    def least_certain(self, number: int) -> Iterator[PhotoRow]:
        """Labeled photos of the lowest confidence.

        Args:
            number: Most photos.

        Yields:
            Rows, the least certain one first.
        """
        rows = self._read(
            f"SELECT {_COLUMNS} FROM photos WHERE state = ? ORDER BY confidence, name_key LIMIT ?",
            *(DONE, number),
        )
        yield from (PhotoRow(*row) for row in rows)

    def most_certain(self, number: int) -> Iterator[PhotoRow]:
        """Labeled photos of the highest confidence.

        Args:
            number: Most photos.

        Yields:
            Rows, the most certain one first.
        """
        rows = self._read(
            f"SELECT {_COLUMNS} FROM photos WHERE state = ? AND confidence IS NOT NULL "
            "ORDER BY confidence DESC, name_key LIMIT ?",
            *(DONE, number),
        )
        yield from (PhotoRow(*row) for row in rows)

    def failed(self, number: int) -> Iterator[PhotoRow]:
        """Photos that could not be labeled, in the order of their names.

        Args:
            number: Most photos.

        Yields:
            Their rows.
        """
        rows = self._read(
            f"SELECT {_COLUMNS} FROM photos WHERE state = ? ORDER BY name_key LIMIT ?",
            *(FAILED, number),
        )
        yield from (PhotoRow(*row) for row in rows)

    def figures(self) -> Iterator[tuple[float | None, float, dict[str, Any]]]:
        """Figures of the labeled photos.

        Yields:
            Mean confidence, unlabeled fraction, and area and confidence of each word.
        """
        last = -1
        while rows := self._read(
            "SELECT confidence, unlabeled, words, id FROM photos WHERE state = ? AND id > ? "
            "ORDER BY id LIMIT ?",
            *(DONE, last, _ROWS_AT_ONCE),
        ):
            for confidence, unlabeled, words, _ in rows:
                yield confidence, unlabeled, json.loads(words)
            last = rows[-1][-1]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make several changes at once: all or none, and in one access to the disk.

        Yields:
            Nothing.
        """
        self._write("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._write("ROLLBACK")
            raise
        self._write("COMMIT")

    def _prepare(self) -> None:
        """Check that the file is a manifest, or make it one."""
        connection = self._connection
        # Readers do not wait for the writer, and a kill loses nothing.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

        [[application]] = connection.execute("PRAGMA application_id")
        [[version]] = connection.execute("PRAGMA user_version")
        [[tables]] = connection.execute("SELECT count(*) FROM sqlite_master")
        if (application, version) != (_APPLICATION, _VERSION):
            if tables:
                raise ValueError(
                    f"{self._path} is no manifest of this version of maskfree: give another folder"
                )
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.executescript(_TABLE)

    def _read(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._errors():
            return self._connection.execute(query, values).fetchall()

    def _write(self, query: str, *values: Any) -> None:
        """Run a statement that changes something."""
        with self._errors():
            self._connection.execute(query, values)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of SQLite into one line that names the file."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            # The lower byte is the kind of the error.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code in _DISK_ERRORS:
                raise OSError(f"cannot write {self._path}: {error}") from error
            raise ValueError(
                f"{self._path} is damaged or no manifest ({error}): remove {self._path.parent} "
                "to label anew, or give another folder"
            ) from error


def _encoded(text: str) -> bytes:
    """Bytes of a text that may be the name of a file."""
    return text.encode("utf-8", "surrogateescape")


def _key(name: str) -> str:
    """What two names share that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()
