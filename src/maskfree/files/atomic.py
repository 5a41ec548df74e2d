"""Bounded reads of text and JSON files, and atomic replacement of files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskfree.files.leftovers import replacing

# Largest text file that is read by default; callers that expect larger files pass their own bound.
MAX_TEXT_BYTES = 2**24
# Deepest nesting of JSON objects and lists; code that walks the content later may recurse.
MAX_DEPTH = 100


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    r"""Read a file of UTF-8 text, with or without a byte order mark; lines end with "\n".

    Args:
        path: File to read.
        max_bytes: Largest accepted file size, in bytes.

    Returns:
        The text without the byte order mark.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The path is a folder, or cannot be read.
        ValueError: The file is larger than `max_bytes`, or is not UTF-8 text.
    """
    content = _read_bounded(path, max_bytes)

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from error

    # UTF-16 of plain letters decodes as UTF-8 with zeros between them.
    if "\0" in text:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8")

    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, max_bytes: int = MAX_TEXT_BYTES, allow_nan: bool = False) -> Any:
    """Read a JSON file with the checks of `parse_json`.

    Args:
        path: File to read.
        max_bytes: Largest accepted file size, in bytes.
        allow_nan: Accept NaN and Infinity, which are not JSON but which Python writes.

    Returns:
        Parsed content: dicts, lists, strings, numbers, booleans and None.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The path is a folder, or cannot be read.
        ValueError: The file is larger than `max_bytes`, or is not JSON; the message begins with
            the path.
    """
    return parse_json(read_text(path, max_bytes), str(path), allow_nan)


def parse_json(text: str, name: str, allow_nan: bool = False) -> Any:
    """Parse JSON of bounded depth without repeated keys.

    Args:
        text: JSON text.
        name: Name of the text in error messages.
        allow_nan: Accept NaN and Infinity as numbers.

    Returns:
        Parsed content: dicts, lists, strings, numbers, booleans and None.

    Raises:
        ValueError: The text is not JSON, repeats a key, or is deeper than `MAX_DEPTH`.
    """
    refuse: Callable[[str], Any] | None = _refuse_constant
    if allow_nan:
        refuse = None

    try:
        content = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=refuse)
        _check_depth(content)
    except RecursionError as error:
        raise ValueError(f"{name} is no JSON that is read: it is over {MAX_DEPTH} deep") from error
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error}") from error

    return content


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader finds either the old or the new content.

    Args:
        path: File to write; its folder is created if it does not exist.
        content: Complete new content.

    Raises:
        OSError: The file cannot be written; the message names it, and the old content is kept.
    """
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def replace_text(path: Path, text: str) -> None:
    r"""Write a UTF-8 text file atomically, as `replace_bytes` does.

    Args:
        path: File to write; its folder is created if it does not exist.
        text: Complete new text. Bytes of file names that are not UTF-8 are escaped (\udce9),
            which JSON reads back.

    Raises:
        OSError: The file cannot be written; the message names it, and the old content is kept.
    """
    replace_bytes(path, text.encode("utf-8", "backslashreplace"))


def escape(name: str) -> str:
    r"""Escape the bytes of a file name that are not UTF-8, as libraries and text files need it.

    Args:
        name: File name as Python decodes it, with surrogates for undecodable bytes.

    Returns:
        The name with each such byte written out as a backslash escape.

    Example:
        >>> print(escape("caf\udce9.jpg"))
        caf\udce9.jpg
    """
    return name.encode("utf-8", "backslashreplace").decode()


def _read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read at most `max_bytes` of a file; a larger one is refused without loading all of it."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: a file is expected")

    try:
        # One byte more than allowed shows that the file is too large. The size that the file system
        # reports is not enough: devices and pipes report 0.
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror or error}") from error

    if len(content) > max_bytes:
        raise ValueError(
            f"{path} is larger than {max_bytes:,} bytes, the most that is read of such a file"
        )
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of the pairs of a JSON object; a repeated key raises ValueError."""
    content = dict(pairs)
    if len(content) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key[:100]!r} is repeated")
    return content


def _refuse_constant(constant: str) -> None:
    """Reject NaN and Infinity, which `json` would accept."""
    raise ValueError(f"{constant} is no number of JSON")


def _check_depth(content: Any) -> None:
    """Raise ValueError where content is nested deeper than `MAX_DEPTH`."""
    # Breadth-first instead of recursive, so that deep content cannot overflow the stack here.
    level = [content]
    for _ in range(MAX_DEPTH):
        children = []
        for parent in level:
            for child in _children(parent):
                if isinstance(child, (dict, list)):
                    children.append(child)

        level = children
        if not level:
            return

    raise ValueError(f"it is over {MAX_DEPTH} deep")


def _children(parent: Any) -> Any:
    """Values of a dict or items of a list; nothing for other types."""
    if isinstance(parent, dict):
        return parent.values()
    if isinstance(parent, list):
        return parent
    return ()
