"""Files on disk: text and JSON are read within bounds, and a file is replaced in one step."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskfree.files.leftovers import replacing

MAX_TEXT_BYTES = 2**24  # of a file of text; those that may be larger have a bound of their own
MAX_DEPTH = 100  # of JSON: objects and lists within each other


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    r"""Read a file of UTF-8 text, with or without a byte order mark; lines end with "\n".

    Args:
        path: The file.
        max_bytes: The largest size that is read.

    Returns:
        The text without the byte order mark.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It is a folder, or cannot be read.
        ValueError: It is larger than `max_bytes`, or is not UTF-8 text.
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
    """Read a JSON file, as `parse_json` reads text.

    Args:
        path: The file.
        max_bytes: The largest size that is read.
        allow_nan: NaN and Infinity, which are not JSON but which Python writes, are numbers.

    Returns:
        The content: dicts, lists, strings, numbers, booleans and None.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It is a folder, or cannot be read.
        ValueError: It is larger than `max_bytes`, or is not JSON; the message begins with the path.
    """
    return parse_json(read_text(path, max_bytes), str(path), allow_nan)


def parse_json(text: str, name: str, allow_nan: bool = False) -> Any:
    """Parse JSON in which every key of an object occurs once, to a bounded depth.

    Args:
        text: The JSON.
        name: What the text is, for messages.
        allow_nan: NaN and Infinity are numbers.

    Returns:
        The content: dicts, lists, strings, numbers, booleans and None.

    Raises:
        ValueError: It is not JSON, repeats a key, or is deeper than `MAX_DEPTH`.
    """
    refuse: Callable[[str], Any] | None = None if allow_nan else _refuse_constant
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=refuse)
        _check_depth(content)
    except RecursionError as error:
        raise ValueError(f"{name} is no JSON that is read: it is over {MAX_DEPTH} deep") from error
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    return content


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: who reads it finds the old content or the new.

    Args:
        path: The file; its folder is made if need be.
        content: All of it.

    Raises:
        OSError: It cannot be written; the message names it, and the old content is still there.
    """
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def replace_text(path: Path, text: str) -> None:
    r"""Write a file of UTF-8 text in one step, as `replace_bytes` does.

    Args:
        path: The file; its folder is made if need be.
        text: All of it. Bytes of file names that are no UTF-8 are escaped: \udce9, which JSON reads back.

    Raises:
        OSError: It cannot be written; the message names it, and the old content is still there.
    """
    replace_bytes(path, text.encode("utf-8", "backslashreplace"))


def escape(name: str) -> str:
    r"""Spell the bytes of a file's name that are no UTF-8 out, as many libraries and files of text need it.

    >>> print(escape("caf\udce9.jpg"))
    caf\udce9.jpg
    """
    return name.encode("utf-8", "backslashreplace").decode()


def _read_bounded(path: Path, max_bytes: int) -> bytes:
    """All bytes of a file; a path that gives more than MAX_BYTES is refused before they are in memory."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: a file is expected")
    try:
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
    """An object of JSON as a dict."""
    content = dict(pairs)
    if len(content) < len(pairs):
        numbers = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {numbers.most_common(1)[0][0][:100]!r} is repeated")
    return content


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _check_depth(content: Any) -> None:
    """Look at CONTENT level by level; whoever walks it later may do so by recursion."""
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in _children(parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise ValueError(f"it is over {MAX_DEPTH} deep")


def _children(parent: Any) -> Any:
    if isinstance(parent, dict):
        return parent.values()
    return parent if isinstance(parent, list) else ()
