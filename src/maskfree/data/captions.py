"""Captions of a sample in a shard: parsed from its .json or .txt file, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskfree.files.atomic import parse_json

# A larger .json or .txt file is refused as a caption.
MAX_CAPTION_BYTES = 2**22


def captions_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Parse the captions of a sample.

    Args:
        fields: The sample's files by suffix. `json` holds "captions" or "caption", each a string or
            a list of strings; where it has neither, the text of `txt` is the caption.

    Returns:
        The captions, with single spaces; blank ones are left out.

    Raises:
        ValueError: They are too large, not JSON or not UTF-8.
        TypeError: They are JSON of another structure.
    """
    for suffix in ("json", "txt"):
        content = fields.get(suffix, b"")
        if content is None or len(content) > MAX_CAPTION_BYTES:
            raise ValueError(f"the .{suffix} file is over {MAX_CAPTION_BYTES:,} bytes")

    # Captions in JSON take precedence over the text file.
    texts: list[str] = []
    if "json" in fields:
        texts = _texts_of_json(fields["json"], "txt" in fields)
    if not texts and "txt" in fields:
        texts = [_decoded(fields["txt"], "txt")]

    # Normalize white space and drop blank captions.
    lines = []
    for text in texts:
        if line := " ".join(text.split()):
            lines.append(line)

    if not all(map(is_text, lines)):
        raise ValueError("a caption holds half of a character")
    return tuple(lines)


def _texts_of_json(content: bytes, has_text: bool) -> list[str]:
    """Captions in a sample's JSON; unrelated JSON is accepted if there is also a text file."""
    record = parse_json(_decoded(content, "json"), "the .json file", allow_nan=True)
    if not isinstance(record, dict):
        if has_text:
            return []
        raise TypeError("the .json file holds no object")

    for name in ("captions", "caption"):
        value = record.get(name)
        # Empty values count as missing.
        if value in (None, "", []):
            continue

        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return value

        raise TypeError(f"{name!r} in the .json file is neither a string nor a list of strings")

    return []


def _decoded(content: bytes, suffix: str) -> str:
    """Decode UTF-8, with or without a byte order mark."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the .{suffix} file is not UTF-8") from error


def is_text(text: str) -> bool:
    """Tell whether a string can be encoded as UTF-8.

    Names in other encodings and JSON can hold unpaired surrogates.

    Args:
        text: String to test.

    Returns:
        False if it holds an unpaired surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
