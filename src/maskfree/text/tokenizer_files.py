"""Files of tokenizers: read within bounds, and checked before a library opens them."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers

from maskfree.files.atomic import read_json, read_text

MAX_BYTES = 2**26
"""Largest tokenizer.json that is read, in bytes; that of MetaCLIP 2 has 61 MB."""
_MAX_GROWTH = 64  # factor by which all replacements of a normalizer may lengthen a text
_COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
_CLASSES = (
    "CLIPTokenizer",
    "BertTokenizer",
    "GemmaTokenizer",
    "PreTrainedTokenizer",
    "Siglip2Tokenizer",
    "T5Tokenizer",
    "Tipsv2Tokenizer",
    "XLMRobertaTokenizer",
)
_PADDING_NAMES = ("[PAD]", "<pad>", "<|endoftext|>")


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Read a tokenizer file.

    Args:
        path: The JSON file.

    Returns:
        The tokenizer of the library `tokenizers`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a tokenizer.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer file {path}")

    text = read_text(path, MAX_BYTES)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
        _check_growth(tokenizer)
        tokenizer.encode("")  # fails now if it cannot encode
    except (KeyboardInterrupt, SystemExit):
        raise
    # The library raises bare Exception, and Rust panics are BaseException only.
    except BaseException as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is not a tokenizer file: {reason}") from error

    return tokenizer


def _check_growth(tokenizer: tokenizers.Tokenizer) -> None:
    """Raise ValueError if replacements lengthen texts so much that they fill the memory."""
    if tokenizer.normalizer is None:
        return

    growth = 1

    # Normalizers may be nested; their growths multiply.
    waiting = [json.loads(tokenizer.normalizer.__getstate__())]
    while waiting:
        part = waiting.pop()
        waiting += part.get("normalizers", [])
        growth *= max(1, len(part.get("content") or ""))
        if growth > _MAX_GROWTH:
            raise ValueError(f"its normalizer makes texts over {_MAX_GROWTH} times as long")


def check_companions(folder: Path) -> None:
    """Check the files that describe a tokenizer beside its words.

    Args:
        folder: Folder of the tokenizer.

    Raises:
        ValueError: A file is damaged, or names a program.
    """
    for name in _COMPANIONS:
        if (folder / name).is_file():
            content = read_json(folder / name, MAX_BYTES)
            if not isinstance(content, dict) or "auto_map" in content:
                raise ValueError(f"{folder / name} is no description of a tokenizer")

            kind = content.get("tokenizer_class")
            if kind is not None and str(kind).removesuffix("Fast") not in _CLASSES:
                raise ValueError(
                    f"{folder / name} names the tokenizer {kind!r}: {', '.join(_CLASSES)} are read"
                )


def padding_id(tokenizer: tokenizers.Tokenizer) -> int:
    """Find the id of the padding token.

    Args:
        tokenizer: Tokenizer of the library `tokenizers`.

    Returns:
        The id; 0 if there is no such token.
    """
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])

    for name in _PADDING_NAMES:
        number = tokenizer.token_to_id(name)
        if number is not None:
            return number
    return 0
