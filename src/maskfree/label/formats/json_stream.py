"""JSON files of any length: items are written one by one and never held together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


def compact(value: Any) -> str:
    """JSON text in one line, with letters as they are.

    Args:
        value: Plain values; no NaN.

    Returns:
        The text.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class JsonArray:
    """An array that is being written to an open text file, an item a line."""

    def __init__(self, file: TextIO):
        """Start an array without items.

        Args:
            file: File in which what stands before the array has been written.
        """
        self._file = file
        self._separator = "\n"
        file.write("[")

    def add(self, item: Any) -> None:
        """Write an item.

        Args:
            item: Plain values; no NaN.
        """
        self._file.write(self._separator + compact(item))
        self._separator = ",\n"

    def close(self) -> None:
        """Write the end of the array."""
        self._file.write("\n]")


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file for writing.

    Args:
        path: File in an unfinished folder; its own folder is created.

    Yields:
        The open file.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def known_score(confidence: float) -> dict[str, float]:
    """A confidence as a JSON field.

    Args:
        confidence: Probability in [0, 1], or NaN.

    Returns:
        A field "score" with four digits; no field for NaN.
    """
    if confidence != confidence:
        return {}
    return {"score": round(confidence, 4)}
