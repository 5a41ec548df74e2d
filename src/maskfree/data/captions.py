"""Texts of a sample in a shard: captions, alt text and tags of its .json or .txt file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from maskfree.files.atomic import parse_json

# A larger .json or .txt file is refused as a caption.
MAX_CAPTION_BYTES = 2**22
# Between hashtags, and between the words of one.
_HASH = re.compile(r"[\s,#]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def captions_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Parse the captions of a sample.

    Args:
        fields: The sample's files by suffix. `json` holds "captions" or "caption", each a string or
            a list of strings; where it has neither, the text of `txt` is the caption. Further texts
            are its "alt" (as captions), and all "tags" and all "hashtags", each one text.

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
    others: list[str] = []
    if "json" in fields:
        record = _record(fields["json"], "txt" in fields)
        texts, others = _captions(record), _other_texts(record)
    if not texts and "txt" in fields:
        texts = [_decoded(fields["txt"], "txt")]

    # Normalize white space and drop blank captions.
    lines = []
    for text in (*texts, *others):
        if line := " ".join(text.split()):
            lines.append(line)

    if not all(map(is_text, lines)):
        raise ValueError("a caption holds half of a character")
    return tuple(lines)


def _record(content: bytes, has_text: bool) -> dict[str, Any]:
    """A sample's JSON; unrelated JSON is accepted if there is also a text file."""
    record = parse_json(_decoded(content, "json"), "the .json file", allow_nan=True)
    if isinstance(record, dict):
        return record
    if has_text:
        return {}
    raise TypeError("the .json file holds no object")


def _captions(record: Mapping[str, Any]) -> list[str]:
    """Captions in a sample's JSON."""
    for name in ("captions", "caption"):
        value = record.get(name)
        # Empty values count as missing.
        if value in (None, "", []):
            continue

        texts = _strings(value)
        if texts is None:
            raise TypeError(f"{name!r} in the .json file is neither a string nor a list of strings")
        return texts

    return []


def _other_texts(record: Mapping[str, Any]) -> list[str]:
    """Alt text and tags in a sample's JSON; fields of these names that hold no text are ignored."""
    found = list(_strings(record.get("alt")) or [])

    # The tags of a photo together are one text.
    tags = [tag.strip() for tag in _strings(record.get("tags")) or []]
    words = [_HASH.split(text) for text in _strings(record.get("hashtags")) or []]
    hashtags = [_spaced(word) for part in words for word in part]
    for names in (tags, hashtags):
        found.append(", ".join(filter(None, names)))
    return found


def _strings(value: Any) -> list[str] | None:
    """A string or a list of strings as a list; None for anything else."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    return None


def _spaced(hashtag: str) -> str:
    """Words of a hashtag, in lower case: "GoldenRetriever" and "golden_retriever" are two."""
    return _HUMP.sub(" ", hashtag.replace("_", " ")).strip().lower()


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
